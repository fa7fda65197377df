//! One fault, and what callers and logs say of it.
//!
//! Owns: the order of a round: whole cluster, callers at their places, the fault, the callers' ends, repair. Must never: cause
//! a second fault before the first is repaired.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::caller::{Cues, Script, Told, call};
use crate::clock;
use crate::cluster::Cluster;
use crate::log::{Line, milliseconds};
use crate::process;

/// Sessions are opened at the first that answers; both take callers.
pub(super) const OWNERS: [&str; 2] = ["owner-1", "owner-2"];

/// The emptier of the decoders, where sessions begin, and the one that is left to them.
pub(super) const DECODER: &str = "decoder-1";
pub(super) const SPARE: &str = "decoder-2";

/// From the first live step to the place: [`LEAD`](super::caller::LEAD) at the pace of speech.
const LEAD_TIME: Duration = Duration::from_secs(1);

/// Opening, and what is said at once, take a second or two.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is looked whether callers are where they have to be.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What happens to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing: what the others are compared with.
    None,
    /// SIGKILL to the process that decodes.
    HostKilled,
    /// SIGKILL to the node that decodes.
    DecoderKilled,
    /// SIGSTOP to the node that decodes: its sockets stay open.
    DecoderStopped,
    /// SIGKILL to the node that callers are connected to.
    OwnerKilled,
}

impl Fault {
    pub(super) const ALL: [Self; 4] =
        [Self::HostKilled, Self::DecoderKilled, Self::DecoderStopped, Self::OwnerKilled];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::HostKilled => "decoder host SIGKILL",
            Self::DecoderKilled => "decoder node SIGKILL",
            Self::DecoderStopped => "decoder node SIGSTOP",
            Self::OwnerKilled => "owner SIGKILL",
        }
    }

    /// In milliseconds. A dead process closes its sockets; one that stands still is only silent.
    pub(super) const fn noticed_goal(self) -> &'static str {
        match self {
            Self::DecoderStopped => "< 800",
            _ => "< 10",
        }
    }
}

/// What one caller met.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    pub(super) told: Told,
    /// From the fault to text that reaches beyond the place, in milliseconds.
    pub(super) past_ms: Option<f64>,
    /// From the fault to the connection that took the lost one's place, in milliseconds.
    pub(super) reconnected_ms: Option<f64>,
    /// From the fault to the next decoder of this session.
    pub(super) placed_ms: Option<f64>,
    /// How long the session says that catching up took, and how much audio was heard again.
    pub(super) caught_up: Option<(Duration, Duration)>,
}

/// What one fault led to.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Of the callers that it befell, each with its script's place in the list; why one was lost.
    pub(super) samples: Vec<(usize, Result<Sample>)>,
    /// From the fault to its being noticed, in milliseconds.
    pub(super) noticed_ms: Option<f64>,
}

/// Runs one round; `number` varies the moment within a step, and the owner.
pub(super) async fn run(
    cluster: &mut Cluster,
    model: &'static str,
    fault: Fault,
    scripts: &[Script],
    number: usize,
) -> Result<Round> {
    cluster.whole().await?;
    let owner = OWNERS[number % OWNERS.len()];
    let other = OWNERS[(number + 1) % OWNERS.len()];
    let (ready, mut readies) = mpsc::channel(scripts.len());
    let (go, start) = watch::channel(None);
    let mut calling = Vec::new();
    for script in scripts {
        let servers = vec![cluster.url(owner)?, cluster.url(other)?];
        let cues = Cues { ready: ready.clone(), start: start.clone() };
        calling.push(tokio::spawn(call(servers, model, script.clone(), cues)));
    }
    drop(ready);
    let mut sessions = Vec::new();
    while sessions.len() < scripts.len() {
        let session = timeout(READY_TIMEOUT, readies.recv()).await.context("callers did not get ready")?;
        sessions.push(session.context("a caller ended before the fault")?);
    }
    let deadline = Instant::now() + READY_TIMEOUT;
    while let Some(missing) = unfit(&cluster.log(owner)?, &sessions) {
        ensure!(Instant::now() < deadline, "{missing}");
        sleep(LOOK_EVERY).await;
    }
    let began = Instant::now();
    go.send_replace(Some(began));
    // A prime number of milliseconds, so that faults fall anywhere within a step and a heartbeat.
    let jitter = Duration::from_millis(number as u64 * 37 % 100);
    sleep_until(began + LEAD_TIME + jitter).await;
    let (at, time_of_day) = (Instant::now(), clock::time_of_day());
    inflict(cluster, fault, owner)?;
    let mut round = Round::default();
    for (index, caller) in calling.into_iter().enumerate() {
        let told = caller.await.context("a caller panicked")?;
        round.samples.push((index, told.map(|told| Sample::new(told, at))));
    }
    read_logs(cluster, fault, (owner, other), time_of_day, &mut round)?;
    repair(cluster, fault, owner)?;
    Ok(round)
}

impl Sample {
    fn new(told: Told, fault: Instant) -> Self {
        let since = |at: Instant| at.saturating_duration_since(fault).as_secs_f64() * 1_000.0;
        let past_ms = told.past.map(since);
        let reconnected_ms = told.reconnected.map(|(at, _)| since(at));
        Self { told, past_ms, reconnected_ms, ..Self::default() }
    }
}

fn inflict(cluster: &mut Cluster, fault: Fault, owner: &str) -> Result<()> {
    match fault {
        Fault::None => Ok(()),
        Fault::HostKilled => {
            let hosts = cluster.node(DECODER)?.hosts();
            process::kill(*hosts.first().context("there is no host")?)
        }
        Fault::DecoderKilled => cluster.kill(DECODER),
        Fault::DecoderStopped => cluster.signal(DECODER, Signal::STOP),
        Fault::OwnerKilled => cluster.kill(owner),
    }
}

fn repair(cluster: &mut Cluster, fault: Fault, owner: &str) -> Result<()> {
    match fault {
        // A host is started again by its node.
        Fault::None | Fault::HostKilled => Ok(()),
        Fault::DecoderKilled => cluster.launch(DECODER),
        Fault::DecoderStopped => cluster.signal(DECODER, Signal::CONT),
        Fault::OwnerKilled => cluster.launch(owner),
    }
}

/// Whom a fault befalls is decided by where sessions were put, and what it costs by whether they have a copy.
fn unfit(log: &[Line], sessions: &[String]) -> Option<String> {
    sessions.iter().find_map(|session| {
        let place = placed(log, session).last().map_or("", |line| line.text("node"));
        let of_copies = |line: &&Line| line.says("the session's copies have changed") && line.is_of(session);
        let durable = log.iter().rev().find(of_copies).is_some_and(|line| line.is("durable"));
        if place == DECODER && durable {
            return None;
        }
        Some(format!("session {session} is decoded at {place:?}, durable: {durable}"))
    })
}

fn placed<'a>(log: &'a [Line], session: &'a str) -> impl Iterator<Item = &'a Line> {
    log.iter().filter(move |line| line.says("decoding goes on at a peer") && line.is_of(session))
}

/// Adds what the nodes noted. `owners`: the one that callers began at, and the other.
fn read_logs(
    cluster: &Cluster,
    fault: Fault,
    owners: (&str, &str),
    since: Duration,
    round: &mut Round,
) -> Result<()> {
    // Who tells of the loss, in which words, and of whom.
    let (witness, message, whom) = match fault {
        Fault::None => return Ok(()),
        Fault::HostKilled => (DECODER, "decoder host is gone", String::new()),
        Fault::DecoderKilled | Fault::DecoderStopped => (owners.0, "a peer is lost", format!("{DECODER}#")),
        Fault::OwnerKilled => (DECODER, "a peer is lost", format!("{}#", owners.0)),
    };
    let after = |line: &&Line| milliseconds(since, line.at) >= 0.0;
    let log = cluster.log(witness)?;
    let told =
        log.iter().filter(after).find(|line| line.says(message) && line.text("peer").starts_with(&whom));
    round.noticed_ms = told.map(|line| milliseconds(since, line.at));
    let keeper = if fault == Fault::OwnerKilled { owners.1 } else { owners.0 };
    let log = cluster.log(keeper)?;
    for sample in round.samples.iter_mut().filter_map(|(_, sample)| sample.as_mut().ok()) {
        let session = &sample.told.session;
        sample.placed_ms = placed(&log, session).find(after).map(|line| milliseconds(since, line.at));
        let caught_up = log
            .iter()
            .filter(after)
            .find(|line| line.says("a replacement decoder has caught up") && line.is_of(session));
        sample.caught_up = caught_up.and_then(|line| Some((line.duration("took")?, line.duration("audio")?)));
    }
    Ok(())
}
