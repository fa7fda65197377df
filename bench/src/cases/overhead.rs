//! What sessions, actors and the host protocol cost in CPU, over the same engine in a warm loop.

mod three_nodes;

use anyhow::Result;
use starling_client::SessionOptions;

use super::Bench;
use super::korean::heard;
use crate::bare::clips::Work;
use crate::live::{Pace, median};
use crate::native::transcribe;
use crate::node::Model;
use crate::report::Report;

/// One thread and one recognizer, as the loop has.
const fn model(name: &'static str) -> Model {
    Model { name, hosts: 1, slots: 1, threads: 1, prewarm: 1 }
}

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    one(bench, report, "vosk-ko-small", &bench.audio.korean_long, Work::KoreanWarm).await?;
    one(bench, report, "moonshine-tiny-en", &bench.audio.english, Work::EnglishWarm).await?;
    three_nodes::run(bench, report).await
}

async fn one(
    bench: &Bench,
    report: &mut Report,
    name: &'static str,
    recording: &[i16],
    work: Work,
) -> Result<()> {
    let node = bench.node(&[model(name)]).await?;
    let options = SessionOptions { partials: false, batch: true, ..SessionOptions::default() };
    // The loop leaves its first round out, too.
    heard(transcribe(node.http, name, recording, options.clone(), Pace::Free).await?)?;
    let (mut ours, mut of_node, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.repeats(9) {
        let before = node.cpu()?;
        let outcome = heard(transcribe(node.http, name, recording, options.clone(), Pace::Free).await?)?;
        let after = node.cpu()?;
        of_node.push((after.0 - before.0) / outcome.audio_s * 1_000.0);
        ours.push((after.0 - before.0 + after.1 - before.1) / outcome.audio_s * 1_000.0);
        let outcome = heard(bench.bare(work, Pace::Free, 1, 1).await?)?;
        bare.push(outcome.cpu_s / outcome.audio_s * 1_000.0);
    }
    let pair = (median(&ours), median(&bare));
    report.ratio("overhead", format!("{name}, CPU of a second of audio"), "ms", pair, Some("ratio <= 1.05"));
    report.figure("overhead", format!("{name}, the node's own part"), "ms", median(&of_node), None);
    Ok(())
}
