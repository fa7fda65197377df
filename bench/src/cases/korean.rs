//! The Korean Vosk model through vosk-server's protocol, against a recognizer per clip.
//!
//! The loop is what vosk-server does with the model as it is published. A second loop has the model as Starling prepares it:
//! the rest of the difference is what a node does.

use anyhow::{Result, ensure};

use super::Bench;
use crate::bare::clips::Work;
use crate::live::{Outcome, Pace, median};
use crate::node::{Model, Node};
use crate::report::Report;
use crate::vosk;

/// One host with a decode thread for each of two cores; slots beyond what they can serve, so that the cores decide.
const MODEL: Model = Model { name: "vosk-ko-small", hosts: 1, slots: 48, threads: 2, prewarm: 16 };

/// The longest a caller is to wait for the last words.
const HELD_MS: f64 = 300.0;

/// Streams that fail in a row before the search ends: one may be the machine's doing.
pub(super) const FAILURES: usize = 2;

async fn warm_node(bench: &Bench) -> Result<Node> {
    let node = bench.node(&[MODEL]).await?;
    let length = bench.audio.korean_other.len() / usize::from(MODEL.prewarm);
    let pieces: Vec<Vec<i16>> = bench.audio.korean_other.chunks(length).map(<[i16]>::to_vec).collect();
    vosk::run(node.vosk, &pieces, usize::from(MODEL.prewarm), 1, Pace::Free).await?;
    Ok(node)
}

pub(crate) async fn throughput(bench: &Bench, report: &mut Report) -> Result<()> {
    let node = warm_node(bench).await?;
    let rounds = if bench.quick { 3 } else { 4 };
    for clients in [1, 2, 4, 8] {
        let (mut ours, mut published, mut prepared) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..bench.repeats(3) {
            let outcome = vosk::run(node.vosk, &bench.audio.korean, clients, rounds, Pace::Free).await?;
            ours.push(heard(outcome)?.throughput());
            for (work, figures) in
                [(Work::KoreanPublished, &mut published), (Work::KoreanPrepared, &mut prepared)]
            {
                let outcome = bench.bare(work, Pace::Free, clients, rounds).await?;
                figures.push(heard(outcome)?.throughput());
            }
        }
        let goal = (clients == 4).then_some("ratio >= 2.3");
        let what = format!("Korean, {clients} clients");
        report.ratio("throughput", what, "audio s / s", (median(&ours), median(&published)), goal);
        let what = format!("Korean, {clients} clients, loop with the composed graph");
        report.ratio("throughput", what, "audio s / s", (median(&ours), median(&prepared)), None);
    }
    Ok(())
}

pub(crate) async fn streams(bench: &Bench, report: &mut Report) -> Result<()> {
    let node = warm_node(bench).await?;
    let (mut ours_held, mut bare_held) = (0, 0);
    let (mut ours_lost, mut bare_lost) = (0, 0);
    for clients in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40] {
        if ours_lost >= FAILURES && bare_lost >= FAILURES {
            break;
        }
        // About as many sentences at each number of clients, and never one alone.
        let rounds = if bench.quick { 2 } else { (12 / clients).clamp(2, 6) };
        let mut pair = (f64::NAN, f64::NAN);
        if ours_lost < FAILURES {
            pair.0 = ours(bench, &node, clients, rounds).await?;
            (ours_lost, ours_held) = if pair.0 < HELD_MS { (0, clients) } else { (ours_lost + 1, ours_held) };
        }
        if bare_lost < FAILURES {
            pair.1 = bare(bench, clients, rounds).await?;
            (bare_lost, bare_held) = if pair.1 < HELD_MS { (0, clients) } else { (bare_lost + 1, bare_held) };
        }
        let what = format!("Korean, {clients} live, end to final p95");
        report.ratio("streams", what, "ms", pair, None);
    }
    let pair = (ours_held as f64, bare_held as f64);
    report.ratio("streams", "Korean, held with p95 < 300 ms", "streams", pair, Some(">= 6"));
    Ok(())
}

async fn ours(bench: &Bench, node: &Node, clients: usize, rounds: usize) -> Result<f64> {
    let mut p95 = Vec::new();
    for _ in 0..bench.repeats(3) {
        p95.push(
            heard(vosk::run(node.vosk, &bench.audio.korean, clients, rounds, Pace::Live).await?)?.p95_ms(),
        );
    }
    Ok(median(&p95))
}

async fn bare(bench: &Bench, clients: usize, rounds: usize) -> Result<f64> {
    let mut p95 = Vec::new();
    for _ in 0..bench.repeats(3) {
        p95.push(heard(bench.bare(Work::KoreanPublished, Pace::Live, clients, rounds).await?)?.p95_ms());
    }
    Ok(median(&p95))
}

/// A sentence has more than two letters a second; less means that something other than recognition was measured.
pub(super) fn heard(outcome: Outcome) -> Result<Outcome> {
    let (letters, audio_s) = (outcome.letters, outcome.audio_s);
    ensure!(letters as f64 > 2.0 * audio_s, "only {letters} letters came of {audio_s:.0} s of speech");
    Ok(outcome)
}
