//! English Moonshine over the native protocol: how many people can speak at once and see what they say.

use anyhow::{Context, Result};
use starling_client::SessionOptions;

use super::Bench;
use super::korean::{FAILURES, heard};
use crate::audio::RATE;
use crate::live::{Outcome, Pace, STAGGER, percentile};
use crate::native::transcribe;
use crate::node::{Model, Node};
use crate::report::Report;

const MODEL: Model = Model { name: "moonshine-tiny-en", hosts: 1, slots: 24, threads: 2, prewarm: 24 };

const HELD_MS: f64 = 300.0;

pub(crate) async fn streams(bench: &Bench, report: &mut Report) -> Result<()> {
    let node = bench.node(&[MODEL]).await?;
    let (mut held, mut lost) = (0, 0);
    for clients in [1, 2, 4, 6, 8, 12, 16, 20, 24] {
        let outcome = speak(bench, &node, clients).await?;
        let p95 = outcome.p95_ms();
        let partials = percentile(&outcome.partials_per_s, 0.0);
        report.figure("english", format!("{clients} live, end to final p95"), "ms", p95, None);
        let goal = (clients == 6).then_some(">= 1");
        report.figure(
            "english",
            format!("{clients} live, partials of the worst stream"),
            "1/s",
            partials,
            goal,
        );
        (lost, held) = if p95 < HELD_MS { (0, clients) } else { (lost + 1, held) };
        if lost >= FAILURES {
            break;
        }
    }
    report.figure("english", "held with p95 < 300 ms", "streams", held as f64, Some(">= 12"));
    Ok(())
}

/// Each client speaks a different part of the recording, so that segments don't end in step.
async fn speak(bench: &Bench, node: &Node, clients: usize) -> Result<Outcome> {
    let length = (if bench.quick { 8 } else { 16 }) * RATE as usize;
    let mut all = Outcome::default();
    // Few streams end few times: they take turns until there are enough ends for a percentile.
    let repeats = if bench.quick { 1 } else { 12_usize.div_ceil(clients).clamp(2, 4) };
    for repeat in 0..repeats {
        let mut tasks = Vec::new();
        for client in 0..clients {
            let room = bench.audio.english.len() - length;
            let from = ((client + repeat * clients) * 7 * RATE as usize) % room;
            let part = bench.audio.english[from..from + length].to_vec();
            let address = node.http;
            tasks.push(tokio::spawn(async move {
                tokio::time::sleep(STAGGER * u32::try_from(client)?).await;
                transcribe(address, MODEL.name, &part, SessionOptions::default(), Pace::Live).await
            }));
        }
        for task in tasks {
            all = all.and(task.await.context("a client panicked")??);
        }
    }
    heard(all)
}
