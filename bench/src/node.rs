//! A node under measurement: started as a user would, stopped when dropped.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::port::free_address;
use crate::process;

/// A model of the node's configuration.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) hosts: u16,
    pub(crate) slots: u16,
    pub(crate) threads: u16,
    pub(crate) prewarm: u16,
}

/// Loading two models on a busy machine takes a few seconds; this is far beyond.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Room for all callers of a case.
pub(crate) const LISTEN: &str = "max_connections = 2048\n";

/// What a process is started with, and again when it was killed.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) http: SocketAddr,
    pub(crate) vosk: SocketAddr,
    pub(crate) models: Vec<Model>,
    /// Further lines of its configuration's table `[listen]`.
    pub(crate) listen: String,
    /// Lines of its configuration's table `[sessions]`.
    pub(crate) sessions: String,
    /// Whole tables of its configuration beyond `[listen]`, `[sessions]` and models.
    pub(crate) tables: String,
}

impl Plan {
    /// A node of its own that says little.
    pub(crate) fn alone(models: &[Model]) -> Result<Self> {
        Ok(Self {
            http: free_address()?,
            vosk: free_address()?,
            models: models.to_vec(),
            listen: LISTEN.to_owned(),
            sessions: String::new(),
            tables: "[log]\nlevel = \"warn\"\n".to_owned(),
        })
    }
}

pub(crate) struct Node {
    child: Child,
    pub(crate) http: SocketAddr,
    pub(crate) vosk: SocketAddr,
    folder: TempDir,
}

impl Node {
    /// Starts a node with these models and waits until it is ready.
    pub(crate) async fn start(programs: &Path, home: &Path, models: &[Model]) -> Result<Self> {
        let mut node = Self::launch(programs, home, &Plan::alone(models)?)?;
        node.wait_until_ready(models).await?;
        Ok(node)
    }

    /// Starts a node and does not wait.
    pub(crate) fn launch(programs: &Path, home: &Path, plan: &Plan) -> Result<Self> {
        let folder = TempDir::new().context("making a folder for the node's configuration")?;
        let file = folder.path().join("cluster.toml");
        std::fs::write(&file, configuration(plan)).context("writing the configuration")?;
        let log = std::fs::File::create(folder.path().join("log")).context("making the log")?;
        let program = programs.join("starling");
        let child = Command::new(&program)
            .arg("--home")
            .arg(home)
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Self { child, http: plan.http, vosk: plan.vosk, folder })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The decoder hosts.
    pub(crate) fn hosts(&self) -> Vec<u32> {
        process::children(self.pid())
    }

    /// CPU time of the node itself, and of its hosts together, in seconds.
    pub(crate) fn cpu(&self) -> Result<(f64, f64)> {
        let hosts: Result<Vec<f64>> = self.hosts().into_iter().map(process::cpu_seconds).collect();
        Ok((process::cpu_seconds(self.pid())?, hosts?.iter().sum()))
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let (status, body) = get(self.http, "/metrics")?;
        if status != 200 {
            bail!("/metrics answered {status}");
        }
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            let is_it = key == name || key.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
            if is_it { value.parse::<f64>().ok() } else { None }
        });
        values.reduce(|sum, value| sum + value).with_context(|| format!("/metrics has no {name}"))
    }

    pub(crate) async fn wait_until_ready(&mut self, models: &[Model]) -> Result<()> {
        let hosts: u32 = models.iter().map(|model| u32::from(model.hosts)).sum();
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            self.fail_if_ended()?;
            let is_ready = matches!(get(self.http, "/readyz"), Ok((200, _)))
                && self.metric("starling_hosts_ready").is_ok_and(|ready| ready >= f64::from(hosts));
            if is_ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the node was not ready in {START_TIMEOUT:?}:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn fail_if_ended(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the node ended with {status}:\n{}", self.log()),
            None => Ok(()),
        }
    }

    /// All that it has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nothing is measured of the way it stops; its hosts end with it. One that is stopped can be killed too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that nobody listens on. Between this and the node's start somebody might; the node then says so and ends.
fn configuration(plan: &Plan) -> String {
    let Plan { http, vosk, models, listen, sessions, tables } = plan;
    let mut text = format!(
        "[listen]\nhttp = \"{http}\"\nvosk = \"{vosk}\"\n{listen}\n[sessions]\nqueue_wait = \"30s\"\n\
         {sessions}\n{tables}"
    );
    for Model { name, hosts, slots, threads, prewarm } in models {
        let _ = write!(
            text,
            "\n[[model]]\nname = \"{name}\"\nhosts = {hosts}\nslots = {slots}\nthreads = {threads}\nprewarm = {prewarm}\n"
        );
    }
    text
}

/// One GET with nothing kept open. Blocking: it is loopback, and nothing is measured meanwhile.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("no HTTP status")?, body.to_owned()))
}
