//! The same for sessions that live on one node of three, are decoded on another and have their copies on the rest, at the most
//! streams that are held in real time: against the engine alone at the same pace, making the same partials.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use starling_client::SessionOptions;

use super::super::Bench;
use super::super::korean::{FAILURES, heard};
use crate::audio::{RATE, seconds};
use crate::bare::Question;
use crate::bare::chorus::{Arguments, Stream, Voice};
use crate::cluster::{Cluster, Common, Part};
use crate::live::{Outcome, Pace, STAGGER, median};
use crate::native::transcribe;
use crate::node::Model;
use crate::process;
use crate::report::Report;

const CASE: &str = "overhead";

/// The longest that the last words may take.
const HELD_MS: f64 = 300.0;

/// Decode threads of the node that decodes, and of the loop.
const THREADS: u16 = 2;

struct Load {
    model: Model,
    voice: Voice,
    streams: [usize; 7],
}

const LOADS: [Load; 2] = [
    Load {
        model: Model { name: "moonshine-tiny-en", hosts: 1, slots: 48, threads: THREADS, prewarm: 32 },
        voice: Voice::English,
        streams: [2, 4, 8, 12, 16, 20, 24],
    },
    Load {
        model: Model { name: "vosk-ko-small", hosts: 1, slots: 48, threads: THREADS, prewarm: 32 },
        voice: Voice::Korean,
        streams: [2, 8, 16, 24, 32, 40, 48],
    },
];

/// Who takes callers, who decodes, and who is there for copies alone.
const OWNER: &str = "owner";
const KEEPER: &str = "keeper";
const PARTS: [(&str, &str, &str); 3] =
    [(OWNER, "gateway", ""), ("decoder", "decoder", "copy_memory = \"0B\"\n"), (KEEPER, "gateway", "")];

pub(super) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    for load in &LOADS {
        let parts =
            PARTS.map(|(name, roles, cluster)| Part { name, roles, cluster, model: load.model.clone() });
        let mut cluster = bench.cluster(&parts, Common::default()).await?;
        let what = |what: &str| format!("three nodes, {}, {what}", load.model.name);
        memory(&cluster, "idle", load, report)?;
        let idle = idle(bench, &cluster).await?;
        report.figure(
            CASE,
            what("CPU of the nodes and hosts without a session"),
            "ms/s",
            idle * 1_000.0,
            None,
        );
        let held = most_held(bench, &mut cluster, load, report).await?;
        report.figure(CASE, what("held with p95 < 300 ms"), "streams", held as f64, None);
        // On a machine with other work not even the fewest may be held; they are compared all the same.
        compare(bench, &mut cluster, load, held.max(load.streams[0]), idle, report).await?;
        memory(&cluster, "after the load", load, report)?;
    }
    Ok(())
}

/// CPU seconds of a second in which nobody speaks.
async fn idle(bench: &Bench, cluster: &Cluster) -> Result<f64> {
    let watched = Duration::from_secs(if bench.quick { 5 } else { 30 });
    let before = cluster.cpu()?;
    tokio::time::sleep(watched).await;
    let after = cluster.cpu()?;
    Ok((after.0 + after.1 - before.0 - before.1) / watched.as_secs_f64())
}

/// The most streams with their last words in time. Stops when more and still more were too many: one may be the machine's
/// doing.
async fn most_held(bench: &Bench, cluster: &mut Cluster, load: &Load, report: &mut Report) -> Result<usize> {
    // The first words of a recognizer cost more than all others.
    speak(bench, cluster, load, load.streams[1]).await?;
    let (mut held, mut lost) = (0, 0);
    for streams in load.streams {
        let p95 = speak(bench, cluster, load, streams).await?.outcome.p95_ms();
        let what = format!("three nodes, {}, {streams} live, end to final p95", load.model.name);
        report.figure(CASE, what, "ms", p95, None);
        (lost, held) = if p95 < HELD_MS { (0, streams) } else { (lost + 1, held) };
        if lost >= FAILURES {
            break;
        }
    }
    Ok(held)
}

async fn compare(
    bench: &Bench,
    cluster: &mut Cluster,
    load: &Load,
    streams: usize,
    idle: f64,
    report: &mut Report,
) -> Result<()> {
    let (mut all, mut without_idle, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ours_p95, mut bare_p95, mut partials_per_s) = (Vec::new(), Vec::new(), Vec::new());
    let mut of_nodes = PARTS.map(|_| Vec::new());
    let (mut ours_partials, mut bare_partials) = (0, 0);
    for _ in 0..bench.repeats(7) {
        let spoken = speak(bench, cluster, load, streams).await?;
        let Spoken { outcome, parts, nodes_cpu_s } = spoken;
        let hours = outcome.audio_s / 3_600.0;
        all.push(outcome.cpu_s / hours);
        without_idle.push((outcome.cpu_s - idle * outcome.wall_s) / hours);
        for (of_node, cpu_s) in of_nodes.iter_mut().zip(nodes_cpu_s) {
            of_node.push(cpu_s / hours);
        }
        partials_per_s.extend(outcome.partials_per_s.iter().copied());
        ours_p95.push(outcome.p95_ms());
        let shown = outcome.shown.iter();
        let streams = parts.into_iter().zip(shown).map(|((from, samples), partials)| Stream {
            from,
            samples,
            partials: partials.clone(),
        });
        let arguments = Arguments {
            home: bench.home.clone(),
            voice: load.voice,
            threads: THREADS.into(),
            streams: streams.collect(),
        };
        let alone: Outcome = heard(bench.ask(Question::Chorus(arguments)).await?)?;
        bare.push(alone.cpu_s / (alone.audio_s / 3_600.0));
        bare_p95.push(alone.p95_ms());
        ours_partials += outcome.shown.iter().map(Vec::len).sum::<usize>();
        bare_partials += alone.shown.iter().map(Vec::len).sum::<usize>();
    }
    ensure!(ours_partials == bare_partials, "{ours_partials} partials are compared with {bare_partials}");
    let name = load.model.name;
    let what = |what: &str| format!("three nodes, {name}, {streams} live, {what}");
    let goal = Some("ratio <= 1.05");
    let pair = (median(&without_idle), median(&bare));
    report.ratio(CASE, what("CPU of an hour of audio, idle cost apart"), "s", pair, goal);
    let pair = (median(&all), median(&bare));
    report.ratio(CASE, what("CPU of an hour of audio, all"), "s", pair, None);
    for ((name, ..), of_node) in PARTS.iter().zip(&of_nodes) {
        report.figure(CASE, what(&format!("the {name}'s own part of it")), "s", median(of_node), None);
    }
    report.figure(CASE, what("partials of a stream, on both sides"), "1/s", median(&partials_per_s), None);
    let pair = (median(&ours_p95), median(&bare_p95));
    report.ratio(CASE, what("end to final p95"), "ms", pair, None);
    Ok(())
}

/// A run of live streams.
struct Spoken {
    /// `cpu_s` is that of all nodes and hosts.
    outcome: Outcome,
    /// What each said: first sample, and how many.
    parts: Vec<(usize, usize)>,
    /// Of each node without its hosts.
    nodes_cpu_s: [f64; PARTS.len()],
}

/// Each stream says a different part of the recording, so that segments don't end in step.
async fn speak(bench: &Bench, cluster: &mut Cluster, load: &Load, streams: usize) -> Result<Spoken> {
    cluster.whole().await?;
    let recording = load.voice.recording(&bench.audio);
    let samples = (if bench.quick { 8 } else { 24 }) * RATE as usize;
    let room = recording.len() - samples;
    let parts: Vec<(usize, usize)> =
        (0..streams).map(|stream| (stream * 7 * RATE as usize % room, samples)).collect();
    let address = cluster.node(OWNER)?.http;
    let name = load.model.name;
    let (before, nodes_before) = (cluster.cpu()?, nodes_cpu(cluster)?);
    let start = tokio::time::Instant::now();
    let speaking: Vec<_> = parts
        .iter()
        .enumerate()
        .map(|(stream, (from, samples))| {
            let part = recording[*from..from + samples].to_vec();
            tokio::spawn(async move {
                tokio::time::sleep(STAGGER * u32::try_from(stream)?).await;
                transcribe(address, name, &part, SessionOptions::default(), Pace::Live).await
            })
        })
        .collect();
    // All of them speak from when the last has begun until the first has ended: in the middle of that.
    let (begun, ended) = (STAGGER * u32::try_from(streams)?, Duration::from_secs_f64(seconds(samples)));
    tokio::time::sleep((begun + ended) / 2).await;
    let copies = cluster.node(KEEPER)?.metric("starling_copies")?;
    ensure!(copies == streams as f64, "{KEEPER} has {copies} copies of {streams} sessions");
    let mut all = Outcome::default();
    for stream in speaking {
        all = all.and(stream.await.context("a client panicked")??);
    }
    let (after, nodes_after) = (cluster.cpu()?, nodes_cpu(cluster)?);
    all.wall_s = start.elapsed().as_secs_f64();
    all.cpu_s = after.0 + after.1 - before.0 - before.1;
    let nodes_cpu_s = std::array::from_fn(|index| nodes_after[index] - nodes_before[index]);
    Ok(Spoken { outcome: heard(all)?, parts, nodes_cpu_s })
}

fn nodes_cpu(cluster: &Cluster) -> Result<[f64; PARTS.len()]> {
    let mut cpu = [0.0; PARTS.len()];
    for (cpu, (name, ..)) in cpu.iter_mut().zip(PARTS) {
        *cpu = cluster.node(name)?.cpu()?.0;
    }
    Ok(cpu)
}

fn memory(cluster: &Cluster, when: &str, load: &Load, report: &mut Report) -> Result<()> {
    let mib = |pid| Ok::<_, anyhow::Error>(process::resident_bytes(pid)? as f64 / f64::from(1 << 20));
    for (name, ..) in PARTS {
        let node = cluster.node(name)?;
        let what = |of: &str| format!("three nodes, {}, {of}, {when}", load.model.name);
        report.figure(CASE, what(&format!("memory of the node {name}")), "MiB", mib(node.pid())?, None);
        for host in node.hosts() {
            report.figure(CASE, what("memory of the host"), "MiB", mib(host)?, None);
        }
    }
    Ok(())
}
