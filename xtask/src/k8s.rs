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

#[cfg(test)]
mod tests {
    use crate::command::root;

    #[test]
    fn probes_ask_for_what_a_node_answers() {
        let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
        let (pod, routes) = (read("k8s/helm/starling/templates/_pod.tpl"), read("node/src/gateway.rs"));
        let asked: Vec<&str> =
            pod.split("httpGet: {path: ").skip(1).filter_map(|rest| rest.split(',').next()).collect();
        assert_eq!(asked.len(), 3, "{asked:?}");
        for path in asked {
            assert!(routes.contains(&format!(".route(\"{path}\"")), "a node does not answer at {path}");
        }
    }
}
