//! What the ways in cost: opening and closing sessions, answering in real time, holding those that are silent; for each
//! transport, and as they grow in number.
//!
//! The scripted engine decodes in microseconds and says in its text which audio it heard, so that what is measured is the
//! node's, and each answer is known to be the answer to what was sent. The callers run on the same cores as the node and its
//! hosts: what they take is missing there.

mod call;
mod caller;
mod dial;
mod idle;
mod live;
mod said;
mod script;
mod silent;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::Bench;
use crate::files;
use crate::node::{Model, Node, Plan};
use crate::port::free_address;
use crate::report::Report;
use call::Transport;
use dial::Dial;

const CASE: &str = "gateway";

/// The most that a model may have (`model.slots`).
const SLOTS_OF_HOST: usize = 256;

/// What the node and the callers each have open beside their connections: hosts with five descriptors each, files, timers.
const FILES_BESIDE: usize = 600;

/// Connections that are to be had at once, and how the figures grow up to there.
const CROWD: [usize; 4] = [10, 100, 1_000, 10_000];
const CROWD_QUICK: [usize; 2] = [10, 1_000];

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let crowd = crowd(bench, report)?;
    let place = Place::new(bench)?;
    let engine_ms = live::engine_ms()?;
    report.figure(CASE, "the engine itself, a step of 100 ms", "ms", engine_ms, None);
    live::run(bench, &place, engine_ms, report).await.context("live")?;
    for transport in Transport::ALL {
        idle::run(bench, &place, transport, &crowd, report).await.with_context(|| transport.name())?;
    }
    Ok(())
}

/// Those that never say anything.
pub(crate) async fn silent(bench: &Bench, report: &mut Report) -> Result<()> {
    let most = crowd(bench, report)?.last().copied().unwrap_or(0);
    silent::run(bench, &Place::new(bench)?, most, live::engine_ms()?, report).await
}

/// How many connections there are to be, as far as this process may have them.
fn crowd(bench: &Bench, report: &mut Report) -> Result<Vec<usize>> {
    let crowd: &[usize] = if bench.quick { &CROWD_QUICK } else { &CROWD };
    let most = crowd.last().copied().unwrap_or(0);
    let allowed = files::allow(most + FILES_BESIDE)?;
    if allowed < most + FILES_BESIDE {
        report.note(format!(
            "{} connections at most: this process may open {allowed} files, and no more (ulimit -Hn); {} are wanted",
            allowed - FILES_BESIDE,
            most + FILES_BESIDE
        ));
    }
    report
        .note("the callers run on the same cores as the node and its hosts; what they take is missing there");
    report.note(format!("a host takes {SLOTS_OF_HOST} sessions at most, so that more have several"));
    Ok(crowd.iter().map(|count| (*count).min(allowed - FILES_BESIDE)).collect())
}

/// Where nodes of this case are started.
struct Place {
    programs: PathBuf,
    home: PathBuf,
    /// A certificate that is signed by itself, and its key.
    tls: TempDir,
}

impl Place {
    fn new(bench: &Bench) -> Result<Self> {
        let tls = TempDir::new().context("making a folder for a certificate")?;
        let made = Command::new(bench.programs.join("starling"))
            .args(["cert", "self-signed", "--out"])
            .arg(tls.path())
            .output()
            .context("making a certificate")?;
        ensure!(made.status.success(), "no certificate: {}", String::from_utf8_lossy(&made.stderr));
        Ok(Self { programs: bench.programs.clone(), home: bench.home.clone(), tls })
    }

    /// A node that takes so many sessions and `further` connections at once, and who calls it.
    async fn node(&self, sessions: usize, further: usize) -> Result<(Node, Dial)> {
        let hosts = u16::try_from(sessions.div_ceil(SLOTS_OF_HOST).max(1))?;
        let slots = u16::try_from(sessions.div_ceil(usize::from(hosts)).max(1))?;
        // As many threads as cores, and one for each host at least.
        let models = [Model { name: "scripted", hosts, slots, threads: 0, prewarm: 0 }];
        let quic = free_address()?;
        let (cert, key) = (self.tls.path().join("cert.pem"), self.tls.path().join("key.pem"));
        let mut plan = Plan::alone(&models)?;
        plan.listen = format!("quic = \"{quic}\"\nmax_connections = {}\n", sessions + further + 64);
        // So long that everybody is still there when the last has come.
        plan.tables += &format!(
            "\n[tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n\n[gateway]\nhandshake_timeout = \"10m\"\n\
             ping_interval = \"20s\"\n"
        );
        let mut node = Node::launch(&self.programs, &self.home, &plan)?;
        node.wait_until_ready(&models).await?;
        let dial = Dial::new(node.http, node.vosk, quic, &cert)?;
        Ok((node, dial))
    }
}
