//! How long things take: opening a session, a host's death to its replacement, the replay of five seconds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use starling_client::SessionOptions;
use starling_protocol::native::ServerMessage;
use tokio::time::Instant;

use super::Bench;
use crate::audio::{RATE, STEP};
use crate::live::median;
use crate::native::Raw;
use crate::node::{Model, Node};
use crate::process;
use crate::report::Report;

/// A slot that was just given back takes this long at most to be warm again.
const SETTLE: Duration = Duration::from_millis(50);

const MODELS: [(&str, u16); 2] = [("vosk-ko-small", 4), ("moonshine-tiny-en", 4)];

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    for (name, slots) in MODELS {
        let two = Model { name, hosts: 2, slots, threads: 1, prewarm: 2 };
        let node = bench.node(std::slice::from_ref(&two)).await?;
        opening(bench, &node, name, report).await?;
        replay(bench, node, &two, report).await?;
        let one = Model { name, hosts: 1, slots, threads: 2, prewarm: 2 };
        respawn(bench, &one, report).await?;
    }
    Ok(())
}

async fn opening(bench: &Bench, node: &Node, name: &str, report: &mut Report) -> Result<()> {
    let mut milliseconds = Vec::new();
    for _ in 0..if bench.quick { 10 } else { 50 } {
        let start = Instant::now();
        let mut raw = Raw::open(node.http, name, SessionOptions::default()).await?;
        raw.audio(&bench.audio.english[..STEP]).await?;
        raw.until(|message| matches!(message, ServerMessage::Ack { .. })).await?;
        milliseconds.push(start.elapsed().as_secs_f64() * 1_000.0);
        raw.end().await?;
        tokio::time::sleep(SETTLE).await;
    }
    let what = format!("{name}, connecting to first audio accepted, median");
    report.figure("latency", what, "ms", median(&milliseconds), Some("< 20"));
    Ok(())
}

async fn respawn(bench: &Bench, model: &Model, report: &mut Report) -> Result<()> {
    let mut node = bench.node(std::slice::from_ref(model)).await?;
    let mut seconds = Vec::new();
    for _ in 0..bench.repeats(3) {
        let before = node.hosts();
        let victim = *before.first().context("the node has no host")?;
        let start = Instant::now();
        process::kill(victim)?;
        let deadline = start + Duration::from_secs(60);
        while node.metric("starling_hosts_ready")? > 0.0 && node.hosts().contains(&victim) {
            ensure!(Instant::now() < deadline, "the node did not notice the death of its host");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while !node.hosts().iter().any(|pid| !before.contains(pid)) {
            ensure!(Instant::now() < deadline, "no host was started again");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        node.wait_until_ready(std::slice::from_ref(model)).await?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let what = format!("{}, SIGKILL to respawned and warm", model.name);
    report.figure("latency", what, "s", median(&seconds), Some("< 4"));
    Ok(())
}

/// Speaks for five seconds without a pause, kills the host that listens, speaks on, and waits until the text has come past
/// the place where it died.
async fn replay(bench: &Bench, mut node: Node, model: &Model, report: &mut Report) -> Result<()> {
    let recording = if model.name.contains("ko") { &bench.audio.korean_long } else { &bench.audio.english };
    let mut milliseconds = Vec::new();
    let mut replayed = Vec::new();
    for _ in 0..bench.repeats(5) {
        node.wait_until_ready(std::slice::from_ref(model)).await?;
        let before: Vec<(u32, f64)> = cpu_of_hosts(&node)?;
        let options = SessionOptions { partial_interval_ms: 100, ..SessionOptions::default() };
        let mut raw = Raw::open(node.http, model.name, options).await?;
        let start = Instant::now();
        let steps = 5 * RATE as usize / STEP;
        for (index, step) in recording.chunks(STEP).take(steps).enumerate() {
            tokio::time::sleep_until(start + Duration::from_millis(100) * u32::try_from(index)?).await;
            raw.audio(step).await?;
        }
        let after = cpu_of_hosts(&node)?;
        let worked = |pid: u32| before.iter().find(|(other, _)| *other == pid).map_or(0.0, |(_, cpu)| *cpu);
        let busiest =
            after.iter().max_by(|one, other| (one.1 - worked(one.0)).total_cmp(&(other.1 - worked(other.0))));
        let (victim, _) = *busiest.context("the node has no host")?;
        let killed = Instant::now();
        process::kill(victim)?;
        let place = (steps * STEP) as u64;
        let mut audio = recording.chunks(STEP).skip(steps);
        let mut since = 0;
        loop {
            // Speech goes on meanwhile, at its own pace.
            let due = start + Duration::from_millis(100) * u32::try_from(steps + since)?;
            let message = tokio::select! {
                message = raw.next() => message?,
                () = tokio::time::sleep_until(due) => {
                    raw.audio(audio.next().context("the recording is over")?).await?;
                    since += 1;
                    continue;
                }
            };
            match message {
                ServerMessage::Partial { from, until, .. } if until.0 > place => {
                    replayed.push((place.saturating_sub(from.0)) as f64 / f64::from(RATE));
                    break;
                }
                ServerMessage::Final(last) if last.to.0 > place => {
                    replayed.push((place - last.from.0) as f64 / f64::from(RATE));
                    break;
                }
                _ => {}
            }
        }
        milliseconds.push(killed.elapsed().as_secs_f64() * 1_000.0);
        raw.end().await?;
    }
    let what = format!("{}, SIGKILL to text past the place", model.name);
    report.figure("latency", what, "ms", median(&milliseconds), None);
    report.figure("latency", format!("{}, audio replayed then", model.name), "s", median(&replayed), None);
    Ok(())
}

fn cpu_of_hosts(node: &Node) -> Result<Vec<(u32, f64)>> {
    node.hosts().into_iter().map(|pid| Ok((pid, process::cpu_seconds(pid)?))).collect()
}
