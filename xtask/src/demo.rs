//! The demonstration: a decoder killed in mid-sentence, and the transcript going on.
//!
//! Runs the release programs from outside, as an operator would: one node, one client that speaks a recording at the pace
//! of speech, and SIGKILL for whichever decoder process is at work. What the client got is compared with what the same node
//! gives when nobody is killed.

mod node;

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{self, cargo};
use crate::setup;
use node::Node;

/// The recording: the opening of "A Tale of Two Cities", 44 s.
const RECORDING: &str = "two_cities.wav";

/// The model that hears it.
const MODEL: &str = "moonshine-tiny-en";

/// Seconds into the recording at which a decoder is killed. Each lies in the middle of a sentence.
const KILLS_AT_S: [u64; 3] = [5, 17, 30];

#[expect(clippy::disallowed_methods, reason = "a tool run by hand has no other clock")]
pub(crate) fn run() -> Result<()> {
    setup::speech()?;
    let packages = ["--package", "starling-engine", "--package", "starling"];
    command::run(cargo().args(["build", "--release"]).args(packages))?;
    let home = setup::home()?;
    let recording = home.audio_dir().join(RECORDING);
    let program = command::target().join("release").join("starling");

    eprintln!("\nStarting a node with {MODEL} on loopback.");
    let node = Node::start(&program, home.root(), MODEL)?;

    eprintln!("Transcribing {RECORDING} undisturbed, as fast as the engine can:\n");
    let calm = transcribe(&program, &node, &recording, false)?.wait_with_output()?;
    let calm = text_of(calm)?;
    eprint!("{calm}");

    eprintln!("\nOnce more at the pace of speech, and the decoder's process is killed in mid-sentence:\n");
    let began = Instant::now();
    let client = transcribe(&program, &node, &recording, true)?;
    for at in KILLS_AT_S {
        let at = Duration::from_secs(at);
        sleep(at.saturating_sub(began.elapsed()));
        let pid = node.busiest_decoder()?;
        kill(pid)?;
        eprintln!("  {:>4.1} s: SIGKILL to decoder process {pid}", began.elapsed().as_secs_f64());
    }
    let disturbed = text_of(client.wait_with_output()?)?;
    eprint!("\n{disturbed}");
    let facts = node.failovers()?;
    eprintln!("\n{facts}");
    node.stop()?;
    if disturbed != calm {
        bail!("the transcripts differ: this must not happen");
    }
    eprintln!(
        "{} decoders killed; the transcript equals the undisturbed one, byte for byte.",
        KILLS_AT_S.len()
    );
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
