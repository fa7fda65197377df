//! Sessions that are open and say nothing: what memory each takes in the node, and how many more a second can be opened and
//! closed beside them.
//!
//! They are opened in growing numbers and memory is read in between; then they are ended in falling numbers and sessions are
//! opened and closed in between, so that what those leave behind in the allocator is in nobody's figure.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use super::call::{Call, Transport};
use super::caller::OPENING;
use super::dial::{Dial, PATIENCE};
use super::script::samples;
use super::{CASE, Place};
use crate::audio::bytes;
use crate::cases::Bench;
use crate::live::percentile;
use crate::node::Node;
use crate::process;
use crate::report::Report;

/// Sessions that are there before memory is read first: whatever the first ones cost once is not an idle session's.
const FIRST: usize = 16;

/// Callers that open and close sessions, one after the other.
const WORKERS: usize = 16;

/// What was only needed to open sessions is given back within this.
const SETTLE: Duration = Duration::from_secs(1);

/// Deepgram's clients are closed after 10 s of silence.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

pub(super) async fn run(
    bench: &Bench,
    place: &Place,
    transport: Transport,
    crowd: &[usize],
    report: &mut Report,
) -> Result<()> {
    let name = transport.name();
    let most = crowd.last().copied().unwrap_or(0);
    let (node, dial) = place.node(most + FIRST + WORKERS, 0).await?;
    let mut held = Held::default();
    held.grow_to(FIRST, &dial, transport).await?;
    held.are_open(&node).await?;
    let before = process::own_bytes(node.pid())?;
    for idle in crowd {
        let start = Instant::now();
        held.grow_to(FIRST + idle, &dial, transport).await?;
        held.are_open(&node).await?;
        let took = start.elapsed();
        let bytes = process::own_bytes(node.pid())?.saturating_sub(before);
        let kib = bytes as f64 / *idle as f64 / 1_024.0;
        // A few take no more than the allocator has lying about.
        let goal = (*idle >= 1_000).then_some("< 64");
        report.figure(CASE, format!("{name}, {idle} idle, node's memory for each"), "KiB", kib, goal);
        if *idle == most {
            let what = format!("{name}, {idle} idle, time to open the last of them");
            report.figure(CASE, what, "s", took.as_secs_f64(), None);
        }
    }
    let length = Duration::from_secs(if bench.quick { 1 } else { 3 });
    for idle in crowd.iter().rev() {
        held.shrink_to(*idle, &node).await?;
        let rounds = open_and_close(&dial, transport, length).await?;
        let rate = rounds.len() as f64 / length.as_secs_f64();
        report.figure(CASE, format!("{name}, {idle} idle, opened and closed beside"), "1/s", rate, None);
        let p99 = percentile(&rounds, 0.99);
        report.figure(
            CASE,
            format!("{name}, {idle} idle, open to closed p99, {WORKERS} at once"),
            "ms",
            p99,
            None,
        );
    }
    held.shrink_to(0, &node).await
}

/// Idle sessions; each has a task that answers pings.
#[derive(Default)]
struct Held {
    tasks: JoinSet<Result<()>>,
    /// How many are to stay.
    stay: watch::Sender<usize>,
    leaving: Option<Arc<Semaphore>>,
}

impl Held {
    async fn grow_to(&mut self, count: usize, dial: &Dial, transport: Transport) -> Result<()> {
        self.stay.send_replace(count);
        let ends = Arc::clone(self.leaving.get_or_insert_with(|| Arc::new(Semaphore::new(OPENING))));
        let opening = stream::iter(
            (self.tasks.len()..count)
                .map(|number| async move { Ok::<_, anyhow::Error>((number, open(dial, transport).await?)) }),
        );
        let mut opened = opening.buffer_unordered(OPENING);
        while let Some((number, call)) = opened.try_next().await.context("opening")? {
            self.tasks.spawn(stay(call, number, self.stay.subscribe(), Arc::clone(&ends)));
        }
        Ok(())
    }

    /// Waits until the node has them, and has given back what it needed meanwhile.
    async fn are_open(&mut self, node: &Node) -> Result<()> {
        self.counted(node).await?;
        sleep(SETTLE).await;
        self.fail_if_lost()
    }

    async fn shrink_to(&mut self, count: usize, node: &Node) -> Result<()> {
        self.stay.send_replace(count);
        let ended = async {
            while self.tasks.len() > count {
                self.tasks.join_next().await.context("none is left")?.context("a caller panicked")??;
            }
            anyhow::Ok(())
        };
        timeout(2 * PATIENCE, ended).await.context("they did not end in time")?.context("ending")?;
        self.counted(node).await
    }

    async fn counted(&self, node: &Node) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let there = tokio::task::block_in_place(|| node.metric("starling_sessions"))?;
            if there == self.tasks.len() as f64 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the node has {there} sessions, not {}", self.tasks.len());
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn fail_if_lost(&mut self) -> Result<()> {
        match self.tasks.try_join_next() {
            Some(ended) => ended.context("a caller panicked")?.context("an idle session has ended"),
            None => Ok(()),
        }
    }
}

/// A connection that has a session.
async fn open(dial: &Dial, transport: Transport) -> Result<Call> {
    let mut call = Call::open(dial, transport).await?;
    if transport.opens_with_audio() {
        call.audio(&step()).await?;
    }
    Ok(call)
}

fn step() -> Bytes {
    Bytes::from(bytes(&samples(0)))
}

async fn stay(
    mut call: Call,
    number: usize,
    mut stay: watch::Receiver<usize>,
    leaving: Arc<Semaphore>,
) -> Result<()> {
    let mut alive = interval(KEEP_ALIVE);
    loop {
        tokio::select! {
            heard = call.heard() => {
                heard?.context("the server closed an idle session")?;
            }
            told = async { stay.wait_for(|stay| *stay <= number).await.map(drop) } => {
                told.context("nobody waits any more")?;
                break;
            }
            _ = alive.tick() => call.keep_alive().await?,
        }
    }
    let _turn = leaving.acquire().await?;
    call.end().await?;
    call.finish().await.map(drop)
}

/// Opens sessions, says one word in each, hears it, ends them and waits to be closed, for so long; what each took, in
/// milliseconds.
async fn open_and_close(dial: &Dial, transport: Transport, length: Duration) -> Result<Vec<f64>> {
    let until = Instant::now() + length;
    let word = step();
    let workers = (0..WORKERS).map(|_| async {
        let mut rounds = Vec::new();
        while Instant::now() < until {
            let start = Instant::now();
            let mut call = Call::open(dial, transport).await?;
            call.audio(&word).await?;
            if transport.in_turn() {
                call.heard().await?.context("the server closed without a reply")?;
            }
            call.end().await?;
            let heard = call.finish().await?;
            ensure!(heard == Some(0), "the word that was said is 0, and what was heard is {heard:?}");
            if Instant::now() < until {
                rounds.push(start.elapsed().as_secs_f64() * 1_000.0);
            }
        }
        anyhow::Ok(rounds)
    });
    let rounds = futures_util::future::try_join_all(workers).await.context("opening and closing")?;
    Ok(rounds.concat())
}
