//! A cluster that was not started for the scenario: its nodes by name, and the commands that harm and mend them.
//!
//! Owns: the file that names them, running its commands, and how many of them may be down now. Must never: touch a node that the file
//! does not name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::http::{Access, Door};

/// Deleting a pod or asking a service manager takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whoever watches over a node has started it again within this: a pod that is deleted takes tens of seconds.
pub(crate) const BACK_TIMEOUT: Duration = Duration::from_secs(120);

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// As it stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Theirs {
    /// How many nodes may be down at a time.
    pub(crate) budget: usize,
    /// A file with an operator's key, for nodes that ask for one; otherwise it is that of the variable `STARLING_API_KEY`.
    pub(crate) api_key_file: Option<PathBuf>,
    /// PEM file with the certificates to trust, and no others, of nodes over TLS; otherwise those that this machine trusts.
    pub(crate) ca_file: Option<PathBuf>,
    /// What follows of these two.
    #[serde(skip)]
    pub(crate) access: Access,
    #[serde(rename = "node")]
    pub(crate) nodes: Vec<TheirNode>,
    #[serde(default)]
    pub(crate) commands: Commands,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TheirNode {
    /// As `starling status` shows it.
    pub(crate) name: String,
    /// `HOST:PORT` of its native protocol and HTTP, or `https://HOST:PORT`.
    pub(crate) http: String,
}

impl TheirNode {
    pub(crate) fn door(&self) -> Door {
        Door::Address(self.http.clone())
    }
}

/// Run by `sh -c`, with the node's name in `NODE`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Commands {
    pub(crate) kill: Option<String>,
    /// Left out where something else starts a node that is gone.
    pub(crate) start: Option<String>,
    /// Has the node go in order. Left out, it is told to over HTTP.
    pub(crate) drain: Option<String>,
    /// Has it come back after that; left out, `start` does it.
    pub(crate) undrain: Option<String>,
    pub(crate) pause: Option<String>,
    pub(crate) resume: Option<String>,
    pub(crate) kill_hosts: Option<String>,
    pub(crate) pause_hosts: Option<String>,
    pub(crate) resume_hosts: Option<String>,
}

impl Theirs {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut theirs = Self::parse(&text).with_context(|| path.display().to_string())?;
        // As seen from the file.
        let beside = |file: &PathBuf| path.parent().map_or_else(|| file.clone(), |folder| folder.join(file));
        theirs.ca_file = theirs.ca_file.as_ref().map(beside);
        let key = match theirs.api_key_file.as_ref().map(beside) {
            Some(file) => {
                let text = std::fs::read_to_string(&file);
                Some(text.with_context(|| format!("cannot read api_key_file {}", file.display()))?)
            }
            None => std::env::var("STARLING_API_KEY").ok(),
        };
        let tls = theirs.nodes.iter().any(|node| node.http.starts_with("https://"));
        let key = key.map(|key| key.trim().to_owned());
        theirs.access = Access::new(key, tls, theirs.ca_file.as_deref())?;
        Ok(theirs)
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let theirs: Self = toml::from_str(text)?;
        ensure!(
            !theirs.nodes.is_empty(),
            "it names no [[node]]; every node that may be harmed has to be named"
        );
        for (deed, undo) in [("pause", "resume"), ("pause_hosts", "resume_hosts")] {
            ensure!(
                theirs.command(deed).is_none() || theirs.command(undo).is_some(),
                "commands.{deed} is given and commands.{undo} is not; what is stopped has to go on again"
            );
        }
        ensure!(
            theirs.command("undrain").is_none() || theirs.command("drain").is_some(),
            "commands.undrain is given and commands.drain is not"
        );
        let most = theirs.nodes.len();
        ensure!(
            (1..most.max(2)).contains(&theirs.budget),
            "budget is {}; it must be at least 1 and leave one of the {most} nodes",
            theirs.budget
        );
        Ok(theirs)
    }

    /// Waits until these and all others that are down are no more than may be.
    pub(crate) async fn afford(&self, names: &[&str]) -> Result<()> {
        let deadline = Instant::now() + BACK_TIMEOUT;
        loop {
            let mut down = self.down().await;
            down.extend(names.iter().map(|name| (*name).to_owned()));
            if down.len() <= self.budget {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "for {BACK_TIMEOUT:?}, {down:?} would have been down at a time; budget allows {}",
                self.budget
            );
            sleep(LOOK_EVERY).await;
        }
    }

    /// Who is not ready, is not taken for alive by another, or has no decoder host left.
    async fn down(&self) -> BTreeSet<String> {
        let mut down = BTreeSet::new();
        for node in &self.nodes {
            let ready = self.access.ask(&node.door(), "GET", "/readyz").await;
            let seen = self.access.cluster(&node.door()).await;
            let (Ok((200, _)), Ok(seen)) = (ready, seen) else {
                down.insert(node.name.clone());
                continue;
            };
            for other in seen.nodes {
                let slots = other.models.iter().map(|model| model.slots.busy + model.slots.idle).sum::<u64>();
                let decodes = other.models.is_empty() || slots > 0;
                let is_named = self.nodes.iter().any(|node| node.name == other.name);
                if is_named && (other.state != "alive" || !decodes) {
                    down.insert(other.name);
                }
            }
        }
        down
    }

    /// The command of this name, if the file has it.
    pub(crate) fn command(&self, which: &str) -> Option<&str> {
        let command = match which {
            "kill" => &self.commands.kill,
            "start" => &self.commands.start,
            "drain" => &self.commands.drain,
            "undrain" => &self.commands.undrain,
            "pause" => &self.commands.pause,
            "resume" => &self.commands.resume,
            "kill_hosts" => &self.commands.kill_hosts,
            "pause_hosts" => &self.commands.pause_hosts,
            "resume_hosts" => &self.commands.resume_hosts,
            _ => return None,
        };
        command.as_deref()
    }

    /// Runs one of the commands for a node; `which` names it.
    pub(crate) async fn run(&self, which: &str, node: &str) -> Result<()> {
        ensure!(
            self.nodes.iter().any(|known| known.name == node),
            "node {node} is not one that may be harmed"
        );
        let line = match (which, self.command(which)) {
            // Whoever watches over the node does it.
            ("start", None) => return Ok(()),
            (_, line) => line.with_context(|| format!("commands.{which} is missing"))?,
        };
        let mut shell = Command::new("sh");
        shell
            .args(["-c", line])
            .env("NODE", node)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let ran = timeout(PATIENCE, shell.status()).await;
        let status = ran.with_context(|| format!("`{line}` took longer than {PATIENCE:?}"))??;
        ensure!(status.success(), "`{line}` failed for {node} ({status})");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "[[node]]\nname = \"a\"\nhttp = \"a:1\"\n[[node]]\nname = \"b\"\nhttp = \"b:1\"\n";

    #[tokio::test]
    async fn only_named_nodes_are_touched_and_by_the_commands_of_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let trace = folder.path().join("trace");
        let text = format!("budget = 1\n{NODES}[commands]\nkill = 'echo \"$NODE\" > {}'\n", trace.display());
        let theirs = Theirs::parse(&text).expect("right");
        theirs.run("kill", "b").await.expect("runs");
        assert_eq!(std::fs::read_to_string(&trace).expect("written"), "b\n");
        assert!(theirs.run("kill", "c").await.is_err());
        let missing = theirs.run("pause", "a").await.expect_err("missing");
        assert!(missing.to_string().contains("commands.pause"), "{missing}");
        theirs.run("start", "a").await.expect("left to others");
    }

    #[test]
    fn what_is_stopped_can_go_on() {
        let parse = |commands: &str| Theirs::parse(&format!("budget = 1\n{NODES}[commands]\n{commands}"));
        let why = parse("pause = \"true\"\n").expect_err("no resume").to_string();
        assert!(why.contains("commands.resume is not"), "{why}");
        assert!(parse("undrain = \"true\"\n").is_err() && parse("drain = \"true\"\n").is_ok());
        assert!(parse("pause_hosts = \"true\"\n").is_err());
        assert!(parse("pause = \"true\"\nresume = \"true\"\n").is_ok());
    }

    #[test]
    fn a_budget_leaves_a_node() {
        for (budget, fine) in [(0, false), (1, true), (2, false)] {
            assert_eq!(Theirs::parse(&format!("budget = {budget}\n{NODES}")).is_ok(), fine, "{budget}");
        }
        assert!(Theirs::parse("budget = 1\nnode = []\n").is_err());
    }
}
