//! `cargo xtask k8s`: the chart is where manifests are written; what kustomize builds from is rendered out of it.
//!
//! Owns which files are rendered from which values, and what is checked of them. Must never speak to a cluster.

#[cfg(test)]
mod chaos;
mod check;
mod overlay;
mod render;
mod roll;

use anyhow::Result;
use clap::Subcommand;

pub(crate) use check::check;
pub(crate) use roll::roll;

/// The chart.
const CHART: &str = "k8s/helm/starling";

/// The version of Kubernetes whose schemas manifests are held to: that of the kubectl in `k8s/checks`.
const KUBERNETES: &str = "1.35";

/// What is to be done with manifests.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Task {
    /// Render k8s/base and k8s/overlays from the chart, and copy rules and dashboards into it
    Render,
    /// Check the chart with all its values, what is rendered, chaos experiments, the Dockerfile, compose.yaml and workflows
    Check,
    /// Start the nodes of the rendered chart in network namespaces, and roll them while callers speak
    Roll,
}

pub(crate) fn run(task: Task) -> Result<()> {
    match task {
        Task::Render => render::write(),
        Task::Check => check(),
        Task::Roll => roll(),
    }
}
