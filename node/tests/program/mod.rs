//! The real program as a child process, with what its tests need of it.

#![allow(dead_code, unreachable_pub, reason = "each test binary takes its own part of this")]

pub mod clients;
pub mod cluster;
#[path = "../../../bench/src/port.rs"]
mod port;
pub mod scripted;
pub mod traces;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use starling_engine::catalogue::Home;
use tempfile::TempDir;

/// Far more than a start with real models takes on a busy machine; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Asks until the answer is there.
pub async fn poll<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what} did not come"),
    }
}

pub fn starling() -> Command {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_starling"));
    let decoder = program.with_file_name("starling-decoder");
    assert!(
        decoder.exists(),
        "{} is missing: build it with `cargo build -p starling-engine`",
        decoder.display()
    );
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        // A developer's own settings are not the test's.
        let shown = name.to_string_lossy();
        let set = ["STARLING_", "OTEL_", "TRACEPARENT", "TRACESTATE"];
        if set.iter().any(|set| shown.starts_with(set)) && name != "STARLING_HOME" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs to the end.
pub async fn run(arguments: &[&str]) -> Output {
    let mut command = starling();
    command.args(arguments).stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || command.output());
    let output = tokio::time::timeout(PATIENCE, ran).await.expect("ends in time").expect("not cancelled");
    output.expect("runs")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A node; killed when the test is over, whichever way.
pub struct Program {
    child: Child,
    pub http: SocketAddr,
    pub vosk: SocketAddr,
    folder: TempDir,
}

impl Program {
    /// Starts `serve` on ports of the system's choice and waits until it is ready.
    pub async fn serve(arguments: &[&str], hosts: usize) -> Self {
        Self::serve_at("127.0.0.1:0", arguments, hosts).await
    }

    /// The same, on an address of the caller's choice.
    pub async fn serve_at(http: &str, arguments: &[&str], hosts: usize) -> Self {
        Self::serve_with(http, arguments, &[], hosts).await
    }

    /// The same, with these variables set.
    pub async fn serve_with(
        http: &str,
        arguments: &[&str],
        variables: &[(&str, String)],
        hosts: usize,
    ) -> Self {
        let mut program = Self::start_at(http, arguments, variables).await;
        program.ready(hosts).await;
        program
    }

    /// Waits until it is ready, with so many decoder hosts.
    pub async fn ready(&mut self, hosts: usize) {
        let program = self;
        poll("readiness", async || {
            if let Some(status) = program.child.try_wait().expect("can be asked") {
                panic!("the node ended with {status}:\n{}", program.log());
            }
            let ready = get(program.http, "/readyz").await?.starts_with("HTTP/1.1 200");
            let metrics = get(program.http, "/metrics").await?;
            let sum: usize = metrics
                .lines()
                .filter(|line| line.starts_with("starling_hosts_ready{"))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
                .sum();
            (ready && sum >= hosts).then_some(())
        })
        .await;
    }

    /// Starts `serve` and waits until it listens.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", arguments, &[]).await
    }

    /// The same, with these variables set.
    pub async fn start_with(arguments: &[&str], variables: &[(&str, String)]) -> Self {
        Self::start_at("127.0.0.1:0", arguments, variables).await
    }

    async fn start_at(http: &str, arguments: &[&str], variables: &[(&str, String)]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = starling();
        command
            .args(["serve", "--http", http, "--vosk", "127.0.0.1:0", "--log-format", "json"])
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let mut child = command.spawn().expect("starts");
        let path = folder.path().join("log");
        let addresses = poll("the listening line", async || {
            let log = std::fs::read_to_string(&path).expect("readable");
            if let Some(status) = child.try_wait().expect("can be asked") {
                panic!("the node ended with {status}:\n{log}");
            }
            Some((listening(&log, "http")?, listening(&log, "vosk")?))
        })
        .await;
        Self { child, http: addresses.0, vosk: addresses.1, folder }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where it gossips, if it does.
    pub fn gossip(&self) -> Option<SocketAddr> {
        listening(&self.log(), "gossip")
    }

    /// Where it listens for this, if it does.
    pub fn listening(&self, what: &str) -> Option<SocketAddr> {
        listening(&self.log(), what)
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.http)
    }

    pub fn signal(&self, with: Signal) {
        signal(self.child.id(), with);
    }

    /// Process ids of its decoder hosts.
    pub fn hosts(&self) -> Vec<u32> {
        children(self.child.id())
    }

    /// Waits for its end; the hosts must have gone with it.
    pub async fn end(&mut self) -> ExitStatus {
        let hosts = self.hosts();
        let status = poll("the end", async || self.child.try_wait().expect("can be asked")).await;
        poll("the hosts' end", async || {
            hosts.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        })
        .await;
        status
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Its hosts notice that their parent is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on loopback for a program that has to be told one, or to be found there again; nobody else is given it meanwhile.
pub fn free_address() -> SocketAddr {
    port::free_address().expect("a free port")
}

fn listening(log: &str, what: &str) -> Option<SocketAddr> {
    let message = format!("listening for {what}");
    let line = log.lines().find(|line| line.contains(&message))?;
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    line["address"].as_str()?.parse().ok()
}

pub fn signal(pid: u32, with: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("not zero");
    // It may have gone by itself.
    let _ = kill_process(pid, with);
}

fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(')') else { return false };
        let mut fields = rest.split_whitespace();
        fields.next() != Some("Z") && fields.next() == Some(&parent.to_string())
    })
    .collect()
}

/// A whole answer of an HTTP server; `None` when nobody answers.
pub async fn get(address: SocketAddr, path: &str) -> Option<String> {
    exchange(address, &format!("GET {path}"), b"").await
}

/// What an HTTP server answers, if that is JSON.
pub async fn json(address: SocketAddr, path: &str) -> Option<serde_json::Value> {
    let answer = get(address, path).await?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

pub async fn exchange(address: SocketAddr, line: &str, body: &[u8]) -> Option<String> {
    exchange_with(address, line, "", body).await
}

/// The same with further lines in the head.
pub async fn exchange_with(address: SocketAddr, line: &str, more: &str, body: &[u8]) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    String::from_utf8(answer).ok()
}

/// Where `cargo xtask setup` lays models and recordings out.
pub fn home() -> Home {
    Home::discover(None).expect("a home folder")
}

/// A configuration file that can be written again.
pub struct Settings {
    file: PathBuf,
    _folder: TempDir,
}

impl Settings {
    pub fn new(text: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("cluster.toml");
        let settings = Self { file, _folder: folder };
        settings.write(text);
        settings
    }

    pub fn write(&self, text: &str) {
        std::fs::write(&self.file, text).expect("written");
    }

    pub fn path(&self) -> &str {
        Path::to_str(&self.file).expect("plain")
    }
}

/// A certificate for loopback, made by the program.
pub struct Certificate {
    pub cert: String,
    pub key: String,
    /// In hexadecimal.
    pub sha256: String,
}

impl Certificate {
    pub async fn in_folder(folder: &Path) -> Self {
        let path = folder.display().to_string();
        let made =
            run(&["cert", "self-signed", "--name", "127.0.0.1", "--name", "localhost", "--out", &path]).await;
        assert!(made.status.success(), "{}", stderr(&made));
        let told = stdout(&made);
        let sha256 = told.lines().find_map(|line| line.strip_prefix("SHA-256 ")).expect("is told");
        assert_eq!(sha256.len(), 64, "{told}");
        Self { cert: format!("{path}/cert.pem"), key: format!("{path}/key.pem"), sha256: sha256.to_owned() }
    }

    /// Settings of a node with TLS and QUIC, on ports of the system's choice.
    pub fn settings(&self) -> String {
        let Self { cert, key, .. } = self;
        format!(
            "[listen]\nhttps = \"127.0.0.1:0\"\nquic = \"127.0.0.1:0\"\n[tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n"
        )
    }
}

/// A WAV file of the scripted engine's audio.
pub fn scripted_wav(folder: &Path, name: &str, samples: &[i16]) -> PathBuf {
    let path = folder.join(name);
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(&path, spec).expect("begins");
    samples.iter().for_each(|sample| writer.write_sample(*sample).expect("writes"));
    writer.finalize().expect("ends");
    path
}
