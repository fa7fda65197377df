//! The callers: so many lanes, each with one client after the other of the same kind, so that the load is the same all the time.
//!
//! Owns: who calls, how long, and the judgement of each call. Must never: begin one that could not end in time.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::rude::{self, Manners};
use super::tally::Tally;
use super::thin::{Dialect, Ports};
use super::trouble::Troubles;
use crate::callers::{Manner, call};
use crate::run::Bench;
use crate::scenario::Load;
use crate::score::difference;
use crate::script::Script;
use crate::verdict::{Shape, judge, text};

/// A cut-off caller's node may have been harmed so much earlier, as that is noticed by and by: the gateways' timeouts are 60 s.
const FELT_FOR_S: f64 = 65.0;

/// Speech by the length of a call, in seconds.
const LENGTHS: [f64; 4] = [4.0, 15.0, 60.0, 240.0];

#[derive(Debug, Clone, Copy)]
enum Lane {
    /// On the SDK: a length, over QUIC or not, and whether it is silent for a while in the middle.
    Sdk {
        name: &'static str,
        length: usize,
        quic: bool,
        hold_s: f64,
    },
    Other(Client, usize),
    Rude(Manners),
}

const fn sdk(name: &'static str, length: usize, quic: bool, hold_s: f64) -> Lane {
    Lane::Sdk { name, length, quic, hold_s }
}

const fn thin(dialect: Dialect, length: usize) -> Lane {
    Lane::Other(Client::Thin(dialect), length)
}

/// Of more lanes the first come again.
const LANES: [Lane; 23] = [
    sdk("ws short", 0, false, 0.0),
    sdk("quic middle", 1, true, 0.0),
    thin(Dialect::Vosk, 1),
    thin(Dialect::Gstreamer, 1),
    thin(Dialect::Deepgram, 1),
    Lane::Other(Client::AudioSocket, 1),
    Lane::Other(Client::Wyoming, 1),
    Lane::Other(Client::Realtime, 1),
    Lane::Other(Client::Recording, 2),
    Lane::Other(Client::Form, 2),
    Lane::Rude(Manners::Vanishes),
    Lane::Rude(Manners::NeverReads),
    Lane::Rude(Manners::Garbage),
    sdk("ws idle", 1, false, 40.0),
    sdk("ws long", 3, false, 0.0),
    sdk("quic long", 3, true, 0.0),
    sdk("quic short", 0, true, 0.0),
    sdk("ws middle", 2, false, 0.0),
    Lane::Rude(Manners::Silent),
    Lane::Rude(Manners::HalfOpen),
    sdk("quic idle", 1, true, 40.0),
    thin(Dialect::Vosk, 2),
    thin(Dialect::Deepgram, 2),
];

/// What the lanes have in common.
pub(crate) struct Floor {
    pub(crate) bench: Arc<Bench>,
    pub(crate) ports: Vec<Ports>,
    pub(crate) ca_file: PathBuf,
    pub(crate) origin: Instant,
    pub(crate) until: Instant,
    pub(crate) seed: u64,
    pub(crate) tally: Tally,
    pub(crate) troubles: Troubles,
    /// By length: what an undisturbed caller was told.
    pub(crate) calm: Vec<(String, Shape)>,
    pub(crate) number: AtomicUsize,
}

impl Floor {
    fn now_s(&self) -> f64 {
        (Instant::now() - self.origin).as_secs_f64()
    }

    fn script(&self, length: usize) -> Result<Script> {
        // So that nobody is told what another says, while words stay short.
        let number = self.number.fetch_add(1, Ordering::Relaxed) % 10_000;
        self.bench.script(number, &speech(length))
    }

    fn manner(&self, turn: usize, quic: bool, chunk: Option<Duration>, hold: Duration) -> Manner {
        let turned = self.ports.iter().cycle().skip(turn % self.ports.len()).take(self.ports.len());
        let address =
            |ports: &Ports| if quic { format!("quic://{}", ports.quic) } else { ports.http.clone() };
        Manner {
            servers: turned.map(address).collect(),
            ca_file: quic.then(|| self.ca_file.clone()),
            api_key: None,
            model: Some(self.bench.model().to_owned()),
            chunk,
            hold,
            liveness: None,
            partial_interval_ms: 500,
            origin: self.origin,
            start: Instant::now(),
        }
    }

    /// What callers of each length are told when nothing happens.
    pub(crate) async fn listen_undisturbed(&mut self) -> Result<()> {
        for length in 0..LENGTHS.len() {
            let script = self.script(length)?;
            // Over both transports, and through each node: what they keep open for each other is there from now on.
            let mut told = call(&self.manner(length, length % 2 == 1, None, Duration::ZERO), &script).await;
            for turn in 1..self.ports.len() {
                told = call(&self.manner(length + turn, turn % 2 == 1, None, Duration::ZERO), &script).await;
            }
            let calm = (text(&told.finals), Shape::of(&told.finals));
            let wrong = judge(&told, &script, (&calm.0, &calm.1)).faults;
            ensure!(
                wrong.is_empty() && !calm.0.is_empty(),
                "undisturbed, a caller got {:?}: {wrong:?}",
                calm.0
            );
            self.calm.push(calm);
        }
        Ok(())
    }
}

fn speech(length: usize) -> Load {
    Load { phrase_s: 3.0, chunk_ms: 200, partial_interval_ms: 500, ..Load::plain(1, LENGTHS[length]) }
}

/// All lanes, to their end.
pub(crate) async fn call_in_turn(floor: Arc<Floor>, count: usize) {
    let mut lanes = JoinSet::new();
    for number in 0..count {
        let floor = Arc::clone(&floor);
        lanes.spawn(async move { lane(&floor, number).await });
    }
    while let Some(ended) = lanes.join_next().await {
        if let Err(error) = ended {
            floor.tally.change(|counts| counts.fail(format!("a caller's task panicked: {error}")));
        }
    }
}

async fn lane(floor: &Floor, number: usize) {
    let lane = LANES[number % LANES.len()];
    let mut random = StdRng::seed_from_u64(floor.seed ^ ((number as u64 + 1) << 32));
    sleep(Duration::from_secs_f64(random.random_range(0.0..5.0))).await;
    for turn in number.. {
        let left_s = (floor.until - Instant::now()).as_secs_f64();
        let begun = match lane {
            Lane::Sdk { name, length, quic, hold_s } => {
                let Some(length) = fitting(length, left_s - hold_s) else { return };
                on_sdk(floor, turn, name, length, quic, hold_s).await
            }
            Lane::Other(client, length) => {
                let Some(length) = fitting(length, left_s) else { return };
                on_other(floor, turn, client, length).await
            }
            Lane::Rude(manners) => {
                // As long as the longest of them.
                if left_s < 10.0 {
                    return;
                }
                misbehave(floor, turn, manners, &mut random).await
            }
        };
        if let Err(error) = begun {
            floor.tally.change(|counts| counts.fail(format!("{lane:?}: {error:#}")));
            return;
        }
        sleep(Duration::from_secs_f64(random.random_range(0.2..2.0))).await;
    }
}

/// The longest speech, up to `length`, that ends in time.
fn fitting(length: usize, left_s: f64) -> Option<usize> {
    // Pauses between phrases add a fifth.
    (0..=length).rev().find(|length| LENGTHS[*length] * 1.3 + 2.0 < left_s)
}

async fn on_sdk(
    floor: &Floor,
    turn: usize,
    name: &'static str,
    length: usize,
    quic: bool,
    hold_s: f64,
) -> Result<()> {
    let script = floor.script(length)?;
    let manner = floor.manner(turn, quic, Some(Duration::from_millis(200)), Duration::from_secs_f64(hold_s));
    let told = call(&manner, &script).await;
    let calm = &floor.calm[length];
    let judged = judge(&told, &script, (&calm.0, &calm.1));
    let words = script.words.as_ref().map_or(0, Vec::len);
    floor.tally.add(name, floor.now_s(), words, &told, &judged);
    Ok(())
}

async fn on_other(floor: &Floor, turn: usize, client: Client, length: usize) -> Result<()> {
    let script = floor.script(length)?;
    let from_s = floor.now_s();
    let mut heard = Vec::new();
    let ports = &floor.ports[turn % floor.ports.len()];
    let ended = client.call(ports, &script.audio, &mut heard).await;
    let to_s = floor.now_s();
    let heard: Vec<String> = heard.join(" ").split_whitespace().map(str::to_owned).collect();
    let calm = || floor.calm[length].0.split_whitespace().map(str::to_owned).collect();
    let expected: Vec<String> = script.words.clone().unwrap_or_else(calm);
    let excused = floor.troubles.befell_a_node(from_s - FELT_FOR_S, to_s);
    floor.tally.change(|counts| {
        let kind = counts.kinds.entry(client.name()).or_default();
        kind.calls += 1;
        kind.words += expected.len() as u64;
        let wrong = match ended {
            Ok(()) if heard == expected => {
                kind.whole += 1;
                return;
            }
            Ok(()) => {
                let difference = difference(&expected.join(" "), &heard.join(" "));
                (kind.lost, kind.twice) = (kind.lost + difference.lost, kind.twice + difference.added);
                format!("{} words lost, {} twice or wrong", difference.lost, difference.added)
            }
            // Whoever is cut off was told the beginning.
            Err(error) if !expected.starts_with(&heard) => {
                format!("{error:#}, and before that it was told wrong")
            }
            Err(_) if excused => {
                kind.cut_off += 1;
                return;
            }
            Err(error) => format!("cut off though no node was harmed: {error:#}"),
        };
        kind.wrong += 1;
        counts.fail(format!("{to_s:.0} s, {}: {wrong}", client.name()));
    });
    if excused {
        // Its node may be away.
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn misbehave(floor: &Floor, turn: usize, manners: Manners, random: &mut StdRng) -> Result<()> {
    let script = floor.script(2)?;
    rude::misbehave(manners, &floor.ports[turn % floor.ports.len()], &script.audio, random).await;
    floor.tally.change(|counts| {
        let kind = counts.kinds.entry(manners.name()).or_default();
        kind.calls += 1;
        kind.rude += 1;
    });
    Ok(())
}
