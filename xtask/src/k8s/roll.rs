//! A rollout without Kubernetes: what the chart renders, started as pods are, and rolled while callers speak.

use std::fs;
use std::process::Command;

use anyhow::Result;

use super::check::{python, template};
use crate::command::{self, root, target};
use crate::setup::{self, deploy};

/// Three combined pods with everything at its default.
const VALUES: &str = "k8s/helm/starling/ci/open.yaml";

/// Long enough that its callers see each pod go.
const RECORDING: &str = "two_cities.wav";

/// Rolls them, or says what that would take.
pub(crate) fn roll() -> Result<()> {
    if !setup::is_root() {
        eprintln!("no rollout is tried: only root makes network namespaces");
        return Ok(());
    }
    setup::network()?;
    setup::speech()?;
    let tools = deploy::tools()?;
    command::build_programs()?;
    let manifests = target().join("k8s").join("roll.yaml");
    fs::create_dir_all(target().join("k8s"))?;
    fs::write(&manifests, command::output(template(&tools).arg(VALUES))?)?;
    let home = setup::home()?;
    let pods = python(&tools, "k8s/checks/pods.py");
    // What is started and made in there goes with it.
    let mut apart = Command::new("unshare");
    apart.current_dir(root()).args(["--mount", "--net", "--pid", "--fork", "--kill-child"]);
    apart.arg(pods.get_program()).args(pods.get_args());
    apart.envs(pods.get_envs().filter_map(|(name, value)| Some((name, value?))));
    apart.arg(command::built("starling")).arg(home.root()).arg(&manifests);
    command::run(apart.arg(home.audio_dir().join(RECORDING)))
}
