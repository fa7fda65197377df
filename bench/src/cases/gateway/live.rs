//! Sessions in real time: how long an answer takes, by how many there are.
//!
//! **Added latency** is the time from just before a piece of audio is written, the one that completes a step of 100 ms, to when the
//! text that ends with that step's word has been read, less what the engine itself takes for a step. A final is counted from the
//! silence that ends its segment. Where each message is answered by one (vosk), it is the time to that answer. The caller's own
//! waking is in it.

use std::sync::Arc;

use anyhow::{Result, ensure};
use starling_engine::scripted::Scripted;
use starling_engine::{Engine, Step};
use starling_protocol::lease::DecodeOptions;

use super::call::Transport;
use super::caller::{STEP_TIME, Tally, WARM_SEGMENTS, speak};
use super::script::{SEGMENT, Script, samples};
use super::{CASE, Place};
use crate::audio::STEP;
use crate::cases::Bench;
use crate::live::percentile;
use crate::process::{self, thread_cpu_seconds};
use crate::report::Report;

/// What is to be held.
const GOAL_MS: f64 = 20.0;

/// Where it is not, more sessions are tried as long as it is no worse than this: it shows how it grows.
const HOPELESS_MS: f64 = 500.0;

const LEVELS: [usize; 4] = [10, 100, 300, 1_000];
const LEVELS_QUICK: [usize; 2] = [10, 100];

/// Times that the middle between what was held and what was not is tried.
const HALVINGS: usize = 2;

/// A way to speak.
struct Manner {
    transport: Transport,
    pieces_of_step: usize,
}

const MANNERS: [Manner; 7] = [
    Manner { transport: Transport::WebSocket, pieces_of_step: 1 },
    Manner { transport: Transport::WebSocket, pieces_of_step: 5 },
    Manner { transport: Transport::Quic, pieces_of_step: 1 },
    Manner { transport: Transport::Vosk, pieces_of_step: 1 },
    Manner { transport: Transport::Gstreamer, pieces_of_step: 1 },
    Manner { transport: Transport::Deepgram, pieces_of_step: 1 },
    Manner { transport: Transport::Realtime, pieces_of_step: 1 },
];

impl Manner {
    fn name(&self) -> String {
        format!("{}, {} ms at a time", self.transport.name(), 100 / self.pieces_of_step)
    }
}

pub(super) async fn run(bench: &Bench, place: &Place, engine_ms: f64, report: &mut Report) -> Result<()> {
    report.note(
        "added latency: from before the audio is written that completes a step of 100 ms to when the text that ends with its word \
         has been read (a final: from the silence that ends it; vosk: the reply to the message), less the engine's own time; the \
         caller's waking is in it",
    );
    report.note("held: p99 of texts and of the callers' own lateness under 20 ms, every final of every session as it was said");
    let segments = if bench.quick { 3 } else { 4 };
    let levels: &[usize] = if bench.quick { &LEVELS_QUICK } else { &LEVELS };
    for manner in &MANNERS {
        let name = manner.name();
        let script = Arc::new(Script::new(WARM_SEGMENTS + segments, manner.pieces_of_step));
        let (mut held, mut failed) = (0, None);
        for sessions in levels {
            let level = level(place, manner.transport, &script, *sessions, engine_ms).await?;
            level.tell(&name, *sessions, report);
            ensure!(level.lost < *sessions || held > 0, "{name}: not even {sessions} sessions are served");
            if level.is_held() {
                held = *sessions;
            } else {
                failed = failed.or(Some(*sessions));
                if level.p99_ms() > HOPELESS_MS || level.lost > 0 {
                    break;
                }
            }
        }
        for _ in 0..if bench.quick { 0 } else { HALVINGS } {
            let Some(bound) = failed.filter(|bound| held > 0 && *bound > held) else { break };
            let sessions = usize::midpoint(held, bound);
            let level = level(place, manner.transport, &script, sessions, engine_ms).await?;
            level.tell(&name, sessions, report);
            if level.is_held() { held = sessions } else { failed = Some(sessions) }
        }
        let what = match failed {
            Some(_) => format!("{name}, held live with p99 < 20 ms"),
            None => format!("{name}, held live with p99 < 20 ms, and more were not tried"),
        };
        report.figure(CASE, what, "sessions", held as f64, None);
    }
    Ok(())
}

/// What the engine takes for a step, on average, in a warm loop.
pub(super) fn engine_ms() -> Result<f64> {
    const STEPS: usize = 100 * SEGMENT;
    let mut recognizer = Scripted::new().open(&DecodeOptions::default())?;
    let audio: Vec<Vec<i16>> = (0..STEPS).map(samples).collect();
    let before = thread_cpu_seconds();
    for step in &audio {
        let ended = recognizer.accept(step)? != Step::Speech;
        let text = if ended { recognizer.finish()?.text } else { recognizer.partial()? };
        ensure!(text.len() < STEP, "a text that can't be");
    }
    Ok((thread_cpu_seconds() - before) * 1_000.0 / STEPS as f64)
}

struct Level {
    tally: Tally,
    lost: usize,
    /// Audio of all sessions in which texts were counted, in seconds.
    counted_s: f64,
    /// CPU of the node, of its hosts and of the callers for a second of each session, in milliseconds.
    cpu_ms: [f64; 3],
}

impl Level {
    /// Realtime's clients see finals alone.
    fn answers(&self) -> &[f64] {
        if self.tally.texts.is_empty() { &self.tally.finals } else { &self.tally.texts }
    }

    fn p99_ms(&self) -> f64 {
        percentile(self.answers(), 0.99)
    }

    fn is_held(&self) -> bool {
        self.lost == 0 && self.p99_ms() < GOAL_MS && percentile(&self.tally.late, 0.99) < GOAL_MS
    }

    fn tell(&self, name: &str, sessions: usize, report: &mut Report) {
        let before = format!("{name}, {sessions} live");
        for (what, values) in [
            ("texts", &self.tally.texts),
            ("finals", &self.tally.finals),
            ("acknowledgements", &self.tally.acks),
        ] {
            if values.is_empty() {
                continue;
            }
            let goal = |part: &str| (part == "p99" && what != "acknowledgements").then_some("< 20");
            for (part, share) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
                let line = format!("{before}, added to {what} {part}");
                report.figure(CASE, line, "ms", percentile(values, share), goal(part));
            }
        }
        if !self.tally.texts.is_empty() {
            let each = self.tally.texts.len() as f64 / self.counted_s;
            report.figure(CASE, format!("{before}, texts for a second of one"), "", each, None);
        }
        let late = percentile(&self.tally.late, 0.99);
        report.figure(CASE, format!("{before}, callers late p99"), "ms", late, None);
        if !self.tally.fresh.is_empty() {
            let fresh = self.tally.fresh.iter().filter(|fresh| **fresh).count() as f64;
            let percent = fresh / self.tally.fresh.len() as f64 * 100.0;
            report.figure(CASE, format!("{before}, replies with the word just sent"), "%", percent, None);
        }
        for (who, cpu) in ["the node", "its hosts", "the callers"].iter().zip(self.cpu_ms) {
            let line = format!("{before}, CPU of {who} for a second of one");
            report.figure(CASE, line, "ms", cpu, None);
        }
        if self.lost > 0 {
            let lost = self.lost as f64;
            report.figure(CASE, format!("{before}, sessions that failed"), "", lost, Some("0"));
        }
    }
}

async fn level(
    place: &Place,
    transport: Transport,
    script: &Arc<Script>,
    sessions: usize,
    engine_ms: f64,
) -> Result<Level> {
    let (node, dial) = place.node(sessions, 0).await?;
    let before = (node.cpu()?, process::cpu_seconds(std::process::id())?);
    let (tally, lost) = speak(&dial, transport, script, sessions, engine_ms).await?;
    let after = (node.cpu()?, process::cpu_seconds(std::process::id())?);
    let audio_s = |steps: usize| (sessions * steps) as f64 * STEP_TIME.as_secs_f64();
    let (all_s, counted_s) = (audio_s(script.steps()), audio_s(script.steps() - WARM_SEGMENTS * SEGMENT));
    let took = [after.0.0 - before.0.0, after.0.1 - before.0.1, after.1 - before.1];
    Ok(Level { tally, lost, counted_s, cpu_ms: took.map(|seconds| seconds * 1_000.0 / all_s) })
}
