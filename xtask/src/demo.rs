//! The demonstration: decoders killed in mid-sentence, by process and by node, and the transcript going on.
//!
//! Runs the release programs from outside, as an operator would: three nodes, one client that speaks a recording at the pace
//! of speech to the first, and SIGKILL for whichever decoder process is at work, and for the node that it belongs to. What
//! the client got is compared with what the same nodes give when nobody is killed.

mod node;

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{self, cargo};
use crate::setup;
use node::{Cluster, Node};

/// The recording: the opening of "A Tale of Two Cities", 44 s.
const RECORDING: &str = "two_cities.wav";

/// The model that hears it.
const MODEL: &str = "moonshine-tiny-en";

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The process that decodes.
    Decoder,
    /// The node that the process belongs to.
    Node,
}

/// Seconds into the recording, each in the middle of a sentence, and what is killed then.
const KILLS: [(u64, Victim); 3] = [(5, Victim::Decoder), (17, Victim::Node), (30, Victim::Decoder)];

#[expect(clippy::disallowed_methods, reason = "a tool run by hand has no other clock")]
pub(crate) fn run() -> Result<()> {
    setup::speech()?;
    let packages = ["--package", "starling-engine", "--package", "starling"];
    command::run(cargo().args(["build", "--release"]).args(packages))?;
    let home = setup::home()?;
    let recording = home.audio_dir().join(RECORDING);
    let program = command::target().join("release").join("starling");

    eprintln!("\nStarting three nodes with {MODEL} on loopback: one takes callers, two decode.");
    let mut cluster = Cluster::start(&program, home.root(), MODEL)?;

    eprintln!("Transcribing {RECORDING} undisturbed, as fast as the engine can:\n");
    let calm = transcribe(&program, cluster.front(), &recording, false)?.wait_with_output()?;
    let calm = text_of(calm)?;
    eprint!("{calm}");

    eprintln!("\nOnce more at the pace of speech, and whatever decodes is killed in mid-sentence:\n");
    let began = Instant::now();
    let client = transcribe(&program, cluster.front(), &recording, true)?;
    for (at, victim) in KILLS {
        sleep(Duration::from_secs(at).saturating_sub(began.elapsed()));
        let (node, decoder) = cluster.busiest_decoder()?;
        let what = match victim {
            Victim::Decoder => {
                kill(decoder)?;
                format!("decoder process {decoder} of node {node}")
            }
            Victim::Node => format!("node {node}, process {}", cluster.kill(&node)?),
        };
        eprintln!("  {:>4.1} s: SIGKILL to {what}", began.elapsed().as_secs_f64());
    }
    let disturbed = text_of(client.wait_with_output()?)?;
    eprint!("\n{disturbed}");
    let facts = cluster.front().failovers()?;
    eprintln!("\n{facts}");
    cluster.stop()?;
    if disturbed != calm {
        bail!("the transcripts differ: this must not happen");
    }
    eprintln!("Two decoders and a node killed; the transcript equals the undisturbed one, byte for byte.");
    Ok(())
}

fn transcribe(program: &Path, node: &Node, recording: &Path, realtime: bool) -> Result<std::process::Child> {
    let mut command = Command::new(program);
    command.arg("transcribe").arg(recording).args(["--server", &node.url()]);
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
