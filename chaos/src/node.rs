//! A node that is started for a scenario: as a user would, on loopback or in a network namespace, and again at the same addresses.
//!
//! Owns: its process, configuration, log and disk. Must never: outlive the scenario.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::disk::Disk;
use crate::network::Place;
use crate::process;
use crate::scenario::NodePlan;

/// What all nodes of a scenario share, and who forges packets does not have.
const SECRET: &str = "shared by the nodes of a scenario";

pub(crate) struct Node {
    pub(crate) plan: NodePlan,
    pub(crate) place: Place,
    pub(crate) paused: bool,
    pub(crate) disk: Option<Disk>,
    program: PathBuf,
    home: PathBuf,
    // The disk is mounted there, and goes first.
    folder: TempDir,
    child: Option<Child>,
}

/// What all nodes of a scenario are told.
pub(crate) struct Common<'a> {
    pub(crate) model: &'a str,
    pub(crate) seeds: &'a [SocketAddr],
    pub(crate) settings: &'a str,
    pub(crate) programs: &'a Path,
    /// Older ones, for the nodes that are to run them.
    pub(crate) previous: Option<&'a Path>,
    pub(crate) home: &'a Path,
    /// The size of each node's own disk, if it has one.
    pub(crate) disk_mib: Option<u32>,
}

impl Node {
    pub(crate) fn start(plan: &NodePlan, place: Place, common: &Common<'_>) -> Result<Self> {
        let folder = TempDir::new().context("making a folder for a node")?;
        let disk = common.disk_mib.map(|mib| Disk::mount(folder.path(), mib)).transpose()?;
        let text = configuration(plan, &place, common);
        fs::write(folder.path().join("cluster.toml"), text).context("writing a node's configuration")?;
        // The scripted engine has no models that would have to be there.
        let home = if disk.is_some() && common.model == "scripted" {
            folder.path().join("home")
        } else {
            common.home.to_owned()
        };
        let programs = if plan.previous { common.previous } else { Some(common.programs) };
        let mut node = Self {
            plan: plan.clone(),
            place,
            paused: false,
            disk,
            program: programs.context("there are no older programs")?.join("starling"),
            home,
            folder,
            child: None,
        };
        node.launch()?;
        Ok(node)
    }

    /// From now on it is started from these programs.
    pub(crate) fn upgrade(&mut self, programs: &Path) {
        self.program = programs.join("starling");
    }

    /// Starts it, also again. One that runs is left alone.
    pub(crate) fn launch(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child
            && child.try_wait()?.is_none()
        {
            return Ok(());
        }
        let path = self.folder.path().join("log");
        let log = File::options().create(true).append(true).open(path).context("opening a node's log")?;
        let mut command = match &self.place.namespace {
            // It becomes the program, under the same number.
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{namespace}")).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        for (name, _) in std::env::vars_os() {
            // An operator's own settings are not the scenario's.
            if name.to_string_lossy().starts_with("STARLING_") {
                command.env_remove(name);
            }
        }
        if self.disk.is_some() {
            command.env("TMPDIR", self.folder.path());
        }
        command.env("STARLING_CLUSTER_SECRET", SECRET);
        command
            .arg("--home")
            .arg(&self.home)
            .args(["serve", "--insecure-open", "--config"])
            .arg(self.folder.path().join("cluster.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn();
        let child = child.with_context(|| format!("starting {}; build it first", self.program.display()))?;
        self.child = Some(child);
        self.paused = false;
        Ok(())
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it can be asked something.
    pub(crate) fn runs(&self) -> bool {
        self.child.is_some() && !self.paused
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("killing a node")?;
            child.wait().context("waiting for a node")?;
        }
        Ok(())
    }

    pub(crate) fn pause(&mut self, pause: bool) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.plan.name))?;
        self.paused = pause;
        process::signal(pid, if pause { Signal::STOP } else { Signal::CONT })
    }

    /// Whether it has ended by itself, and well.
    pub(crate) fn ended(&mut self) -> Result<bool> {
        let Some(child) = &mut self.child else { return Ok(true) };
        match child.try_wait()? {
            None => Ok(false),
            Some(status) if status.success() => {
                self.child = None;
                Ok(true)
            }
            Some(status) => {
                self.child = None;
                bail!("{} ended with {status}:\n{}", self.plan.name, self.log_tail())
            }
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The last of it, for messages.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // One that stands still can be killed too. Its hosts end with it.
        let _ = self.kill();
    }
}

fn configuration(plan: &NodePlan, place: &Place, common: &Common<'_>) -> String {
    let quoted =
        |texts: Vec<String>| texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
    let roles = quoted(plan.roles.clone());
    let seeds = quoted(common.seeds.iter().map(SocketAddr::to_string).collect());
    let (http, gossip) = (place.listen, place.gossip);
    let NodePlan { name, slots, hosts, cluster, listen, sessions, .. } = plan;
    let slots = slots.div_ceil(*hosts);
    // Many callers begin at once, and come back at once: what they wait for is not what is tried here.
    format!(
        "[listen]\nhttp = \"{http}\"\n{listen}\nmax_connections = 8192\n\n[log]\nformat = \"json\"\nlevel = \"info\"\n\n\
         [cluster]\nnode_id = \"{name}\"\nroles = [{roles}]\nlisten = \"{gossip}\"\nseeds = [{seeds}]\n{cluster}\n\
         [sessions]\nqueue_wait = \"30s\"\nqueue_length = 4096\n{sessions}\n\n{}\n\
         [[model]]\nname = \"{}\"\nhosts = {hosts}\nslots = {slots}\nthreads = 1\nprewarm = 1\n",
        common.settings, common.model
    )
}
