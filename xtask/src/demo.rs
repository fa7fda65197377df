//! The demonstration: decoders killed in mid-sentence, by process and by node, then the node that the caller speaks to, and the
//! transcript going on.
//!
//! Runs the release programs from outside, as an operator would: a few nodes on loopback, one client that speaks a recording
//! at the pace of speech, and SIGKILL for whatever is at work. What the client got is compared with what the same nodes give
//! when nobody is killed. What the nodes logged of each fault is told beside it.

mod log;
mod node;
#[path = "../../bench/src/port.rs"]
mod port;

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

use crate::command::{self, cargo};
use crate::setup;
use log::Told;
use node::{Cluster, Role};

/// The recording: the opening of "A Tale of Two Cities", 44 s.
const RECORDING: &str = "two_cities.wav";

/// The model that hears it.
const MODEL: &str = "moonshine-tiny-en";

/// Fewest nodes that leave one when two were killed.
const LEAST_NODES: usize = 3;

/// How the demonstration is run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many nodes
    #[arg(long, default_value_t = LEAST_NODES)]
    nodes: usize,
    /// Leave the nodes that live running, and say where they are
    #[arg(long)]
    keep: bool,
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The process that decodes.
    Decoder,
    /// The node that the process belongs to.
    DecodingNode,
    /// The node that the session lives on.
    Owner,
}

/// Seconds into the recording, each in the middle of a sentence, and what is killed then.
const KILLS: [(u64, Victim); 4] =
    [(5, Victim::Decoder), (16, Victim::DecodingNode), (26, Victim::Owner), (36, Victim::Decoder)];

/// Something that was killed.
struct Fault {
    /// Seconds into the recording.
    at: f64,
    what: String,
    when: SystemTime,
    /// Whether the caller's own connection went with it.
    owner: bool,
}

#[expect(clippy::disallowed_methods, reason = "a tool run by hand has no other clock")]
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.nodes < LEAST_NODES {
        bail!("--nodes is {}; it must be at least {LEAST_NODES}, as two are killed", options.nodes);
    }
    setup::speech()?;
    let packages = ["--package", "starling-engine", "--package", "starling"];
    command::run(cargo().args(["build", "--release"]).args(packages))?;
    let home = setup::home()?;
    let recording = home.audio_dir().join(RECORDING);
    let program = command::target().join("release").join("starling");

    eprintln!("\nStarting {} nodes with {MODEL} on loopback.", options.nodes);
    let mut cluster = Cluster::start(&program, home.root(), MODEL, options.nodes)?;

    eprintln!("Transcribing {RECORDING} undisturbed, as fast as the engine can:\n");
    let calm = transcribe(&program, &cluster.urls(), &recording, false)?.wait_with_output()?;
    let calm = text_of(calm)?;
    eprint!("{calm}");

    eprintln!("\nOnce more at the pace of speech, and whatever is at work is killed in mid-sentence:\n");
    let began = Instant::now();
    let client = transcribe(&program, &cluster.urls(), &recording, true)?;
    let mut faults = Vec::new();
    for (at, victim) in KILLS {
        sleep(Duration::from_secs(at).saturating_sub(began.elapsed()));
        let fault = strike(&mut cluster, victim, began)?;
        eprintln!("  {:>4.1} s: SIGKILL to {}", fault.at, fault.what);
        faults.push(fault);
    }
    let disturbed = text_of(client.wait_with_output()?)?;
    eprint!("\n{disturbed}\n");
    for line in report(&faults, &cluster.told()?) {
        eprintln!("{line}");
    }
    if options.keep {
        cluster.keep();
    } else {
        cluster.stop()?;
    }
    if disturbed != calm {
        bail!("the transcripts differ: this must not happen");
    }
    eprintln!(
        "\nTwo processes and two nodes killed; the transcript equals the undisturbed one, byte for byte."
    );
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "nodes log wall-clock time, and a tool run by hand has no other"
)]
fn strike(cluster: &mut Cluster, victim: Victim, began: Instant) -> Result<Fault> {
    let session = cluster.session()?;
    let (what, when) = match victim {
        Victim::Decoder => {
            let pid = cluster.decoder_process(&session.decoder)?;
            let when = SystemTime::now();
            kill(pid)?;
            (format!("process {pid}, which decodes on {}", session.decoder), when)
        }
        Victim::DecodingNode => {
            let when = SystemTime::now();
            let pid = cluster.kill(&session.decoder)?;
            (format!("{} (process {pid}), which decodes", session.decoder), when)
        }
        Victim::Owner => {
            let when = SystemTime::now();
            let pid = cluster.kill(&session.owner)?;
            (format!("{} (process {pid}), which the caller speaks to", session.owner), when)
        }
    };
    let at = when.duration_since(SystemTime::now() - began.elapsed()).unwrap_or_default();
    Ok(Fault { at: at.as_secs_f64(), what, when, owner: victim == Victim::Owner })
}

/// What the nodes that live logged of each fault.
fn report(faults: &[Fault], told: &[Told]) -> Vec<String> {
    let ends = faults.iter().skip(1).map(|fault| Some(fault.when)).chain([None]);
    let line = |(fault, end): (&Fault, Option<SystemTime>)| {
        let within = |told: &&Told| told.when >= fault.when && end.is_none_or(|end| told.when < end);
        let find = |message: &str| told.iter().filter(within).find(|told| told.message == message);
        let after = |told: &Told| {
            let after = told.when.duration_since(fault.when).unwrap_or_default();
            format!("{:.0} ms", after.as_secs_f64() * 1_000.0)
        };
        let noticed = if fault.owner {
            find("a session goes on here")
                .map(|told| format!("goes on at {} after {}", told.node, after(told)))
        } else {
            find("a session lost its decoder").map(|told| format!("noticed after {}", after(told)))
        };
        let caught_up = find("a replacement decoder has caught up")
            .map(|told| format!("{} heard again in {}", told.audio, told.took));
        let parts: Vec<String> = [noticed, caught_up].into_iter().flatten().collect();
        format!(
            "  {:>4.1} s: {}",
            fault.at,
            if parts.is_empty() { "nothing was lost".into() } else { parts.join(", ") }
        )
    };
    faults.iter().zip(ends).map(line).collect()
}

fn transcribe(
    program: &Path,
    servers: &[String],
    recording: &Path,
    realtime: bool,
) -> Result<std::process::Child> {
    let mut command = Command::new(program);
    command.arg("transcribe").arg(recording);
    command.args(servers.iter().flat_map(|server| ["--server", server]));
    if realtime {
        command.arg("--realtime");
    } else {
        command.arg("--quiet");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

fn text_of(output: std::process::Output) -> Result<String> {
    if !output.status.success() {
        bail!("the client failed ({})", output.status);
    }
    String::from_utf8(output.stdout).context("the transcript is not UTF-8")
}

fn kill(pid: u32) -> Result<()> {
    command::quiet(Command::new("kill").args(["-KILL", &pid.to_string()]))
}

/// What a node does in the demonstration: the first takes the caller and decodes nothing, so that the node that decodes and
/// the one that the caller speaks to are two.
const fn role_of(index: usize) -> Role {
    if index == 0 { Role::Gateway } else { Role::Both }
}
