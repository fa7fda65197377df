//! What is rendered from the chart into the checkout, and whether it is up to date.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::CHART;
use super::overlay::{base, overlay};
use crate::command::{self, root};
use crate::setup::deploy::{Tools, tools};

/// Values of the base.
const BASE: &str = "k8s/base/values.yaml";

/// Overlays, each with the values that come between those of the base and its own.
pub(super) const OVERLAYS: [(&str, Option<&str>); 4] = [
    ("minikube", Some("k8s/helm/starling/values-minikube.yaml")),
    ("eks", Some("k8s/helm/starling/values-eks.yaml")),
    ("aks", Some("k8s/helm/starling/values-aks.yaml")),
    ("split", None),
];

/// What the chart holds a copy of, since a chart is packed by itself: from, to.
const COPIES: [(&str, &str); 3] = [
    ("deploy/prometheus/alerts.yml", "k8s/helm/starling/files/rules/alerts.yml"),
    ("deploy/prometheus/recording.yml", "k8s/helm/starling/files/rules/recording.yml"),
    ("deploy/grafana/starling.json", "k8s/helm/starling/files/dashboards/starling.json"),
];

/// Contents by path from the root.
type Wanted = BTreeMap<PathBuf, String>;

/// Writes what is rendered, and removes what is not any more.
pub(super) fn write() -> Result<()> {
    let tools = tools()?;
    // Rules and dashboards first: the chart is rendered with them.
    for wanted in [copies()?, rendered(&tools)?] {
        for path in stale(&wanted)? {
            fs::remove_file(root().join(&path))?;
        }
        for (path, text) in &wanted {
            let path = root().join(path);
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

/// Fails with the files that are not what the chart renders to.
pub(super) fn is_up_to_date(tools: &Tools) -> Result<()> {
    let mut wanted = copies()?;
    wanted.append(&mut rendered(tools)?);
    let differs = |(path, text): (&PathBuf, &String)| {
        fs::read_to_string(root().join(path)).is_ok_and(|found| found == *text)
    };
    let mut faults: Vec<String> = wanted
        .iter()
        .filter(|file| !differs(*file))
        .map(|(path, _)| format!("{} is not what it is made from", path.display()))
        .collect();
    faults.extend(stale(&wanted)?.iter().map(|path| format!("{} is made from nothing", path.display())));
    if faults.is_empty() {
        return Ok(());
    }
    bail!("run `cargo xtask k8s render`:\n  {}", faults.join("\n  "));
}

/// The chart's whole output for an overlay, without tests.
pub(super) fn full(tools: &Tools, name: &str, between: Option<&str>) -> Result<String> {
    let own = format!("k8s/overlays/{name}/values.yaml");
    let values: Vec<&str> = [Some(BASE), between, Some(own.as_str())].into_iter().flatten().collect();
    template(tools, &values)
}

fn rendered(tools: &Tools) -> Result<Wanted> {
    let plain = template(tools, &[BASE])?;
    let mut wanted = within("k8s/base", base(&plain));
    for (name, between) in OVERLAYS {
        let files = overlay(&plain, &full(tools, name, between)?);
        wanted.append(&mut within(&format!("k8s/overlays/{name}"), files));
    }
    Ok(wanted)
}

fn within(folder: &str, files: super::overlay::Files) -> Wanted {
    files.into_iter().map(|(name, text)| (Path::new(folder).join(name), text)).collect()
}

fn template(tools: &Tools, values: &[&str]) -> Result<String> {
    let mut helm = Command::new(&tools.helm);
    helm.current_dir(root()).args(["template", "starling", CHART, "--skip-tests", "--namespace", "starling"]);
    for file in values {
        helm.args(["--values", file]);
    }
    command::output(&mut helm)
}

fn copies() -> Result<Wanted> {
    // A checkout without one has a chart without it, which says so when it is asked for.
    let there = COPIES.into_iter().filter(|(from, _)| root().join(from).exists());
    there.map(|(from, to)| Ok((PathBuf::from(to), fs::read_to_string(root().join(from))?))).collect()
}

/// Files beside the wanted ones that nothing wants: those of the folders that hold nothing else.
fn stale(wanted: &Wanted) -> Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    let mut folders: Vec<&Path> = wanted.keys().filter_map(|path| path.parent()).collect();
    folders.dedup();
    for folder in folders {
        for file in fs::read_dir(root().join(folder)).into_iter().flatten() {
            let path = folder.join(file?.file_name());
            if !wanted.contains_key(&path) && !path.ends_with("values.yaml") {
                stale.push(path);
            }
        }
    }
    Ok(stale)
}
