//! Programs of the checkout's `clients/`, run with the packages that `cargo xtask setup` has fetched.

use std::io::Write;
use std::sync::mpsc;

use serde_json::Value;
use tokio::task::{JoinHandle, spawn_blocking};

use super::*;

/// A reading of ten seconds, the first sentence of which lasts six.
const RECORDING: &str = "beckett.wav";

/// What a client is written in.
#[derive(Debug, Clone, Copy)]
pub enum Language {
    Python,
    JavaScript,
}

use Language::{JavaScript, Python};

impl Language {
    /// A program by its path below `clients/`.
    pub fn program(self, path: &str) -> Command {
        let mut command = self.interpreter();
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients").join(path));
        command
    }

    /// What runs such programs, with their packages.
    pub fn interpreter(self) -> Command {
        let packages = home().root().join("clients").join(match self {
            Python => "python",
            JavaScript => "node",
        });
        let stamp = packages.join("installed");
        assert!(stamp.exists(), "{} is missing: run `cargo xtask setup` first", stamp.display());
        let mut command = Command::new(match self {
            Python => "python3",
            JavaScript => "node",
        });
        command.stdin(Stdio::null()).env("PYTHONPATH", packages);
        // What is beside the programs is the checkout's, not for caches.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

pub fn recording() -> PathBuf {
    home().audio_dir().join(RECORDING)
}

pub fn began(mut command: Command) -> JoinHandle<Output> {
    spawn_blocking(move || command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// The same with what it complains of in a file, for a test to look into meanwhile.
pub fn began_logging(mut command: Command, log: &Path) -> JoinHandle<Output> {
    command.stderr(std::fs::File::create(log).expect("a log"));
    let log = log.to_owned();
    spawn_blocking(move || {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Output { stderr: std::fs::read(log).unwrap_or_default(), ..output }
    })
}

/// Somebody who speaks into a program's standard input, as far as the middle of the first sentence until told to go on: what is to
/// happen meanwhile happens in time, however slow the machine.
pub struct Speaker {
    go_on: mpsc::Sender<()>,
    output: JoinHandle<Output>,
}

impl Speaker {
    /// The program reads WAV from its standard input.
    pub fn begin(mut command: Command) -> Self {
        const BYTES_A_SECOND: usize = 32_000;
        let wav = std::fs::read(recording()).expect("run `cargo xtask setup` first");
        let (go_on, word) = mpsc::channel();
        let output = spawn_blocking(move || {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut program = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
            let mut input = program.stdin.take().expect("is piped");
            // A program that ends too soon is found out by what it said.
            std::thread::spawn(move || {
                let (begin, rest) = wav.split_at(4 * BYTES_A_SECOND);
                if input.write_all(begin).is_ok() && word.recv().is_ok() {
                    let _ = input.write_all(rest);
                }
            });
            program.wait_with_output().expect("runs")
        });
        Self { go_on, output }
    }

    /// Says the rest. What the program makes of all of it, which has to succeed.
    pub async fn rest(self) -> Output {
        // It may have ended too soon.
        let _ = self.go_on.send(());
        ended(self.output).await
    }
}

/// The end of a program that has to succeed.
pub async fn ended(output: JoinHandle<Output>) -> Output {
    let output = tokio::time::timeout(PATIENCE, output).await.expect("ends in time").expect("runs");
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    output
}

/// What such a program prints as JSON.
pub async fn told(output: JoinHandle<Output>) -> Value {
    serde_json::from_slice(&ended(output).await.stdout).expect("JSON")
}

/// The texts of a recording's segments, as a node's own client is told them.
pub async fn segments(server: &str, recording: &Path) -> Vec<String> {
    segments_with(server, recording, &[]).await
}

/// The same with further arguments.
pub async fn segments_with(server: &str, recording: &Path, more: &[&str]) -> Vec<String> {
    let path = recording.display().to_string();
    let output = run(&[&["transcribe", "--server", server][..], more, &[path.as_str()]].concat()).await;
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output).lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
