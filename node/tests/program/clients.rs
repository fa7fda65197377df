//! Programs of the checkout's `clients/`, run with the packages that `cargo xtask setup` has fetched.

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
