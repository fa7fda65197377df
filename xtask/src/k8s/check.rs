//! What has to hold of everything that Starling is deployed with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::render::{self, OVERLAYS};
use super::{CHART, KUBERNETES};
use crate::command::{self, root, target};
use crate::setup::deploy::{Tools, tools};

/// Files of values for which the chart says in a sentence what is wrong with them.
const REFUSED: &str = "k8s/helm/starling/ci/refused";

/// How the first line of such a file says which words are to come.
const SAYS: &str = "# refused: ";

/// Checks it all.
pub(crate) fn check() -> Result<()> {
    let tools = tools()?;
    render::is_up_to_date(&tools)?;
    let scratch = target().join("k8s");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    let charts = charts(&tools, &scratch)?;
    refusals(&tools)?;
    let mut manifests = charts.clone();
    manifests.extend(kustomized(&tools, &scratch)?);
    manifests.extend(files_in("k8s/chaos", "yaml")?);
    let mut validate = python(&tools, "k8s/checks/validate.py");
    command::quiet(validate.arg(KUBERNETES).args(&manifests))?;
    command::quiet(python(&tools, "k8s/checks/validate_fails.py").arg(KUBERNETES))?;
    command::quiet(python(&tools, "k8s/checks/renders.py").arg(&tools.helm).arg(CHART))?;
    // What a pod is given, as the program itself reads it.
    command::build_programs()?;
    let mut settings = python(&tools, "k8s/checks/settings.py");
    command::quiet(settings.arg(command::built("starling")).args(&charts))?;
    let hadolint = tools.python.join("bin").join("hadolint");
    command::quiet(Command::new(hadolint).current_dir(root()).arg("Dockerfile"))?;
    against(&tools, "vendor.compose-spec", &[root().join("compose.yaml")])?;
    against(&tools, "vendor.github-workflows", &files_in(".github/workflows", "yaml")?)
}

/// The chart with every set of values, linted and rendered.
fn charts(tools: &Tools, scratch: &Path) -> Result<Vec<PathBuf>> {
    let mut sets = files_in(&format!("{CHART}/ci"), "yaml")?;
    sets.extend(files_in(CHART, "yaml")?.into_iter().filter(|path| named(path).starts_with("values-")));
    let mut rendered = Vec::new();
    for values in sets {
        command::output(helm(tools, "lint").args(["--quiet", CHART, "--values"]).arg(&values))?;
        let text = command::output(template(tools).arg(&values))?;
        let path = scratch.join(format!("chart-{}", named(&values)));
        fs::write(&path, text)?;
        rendered.push(path);
    }
    if root().join(CHART).join("files/rules").exists() {
        rendered.push(with_rules(tools, scratch)?);
    }
    Ok(rendered)
}

/// The chart with the rules and dashboards that it holds copies of.
fn with_rules(tools: &Tools, scratch: &Path) -> Result<PathBuf> {
    let mut helm = template(tools);
    helm.arg(format!("{CHART}/ci/open.yaml"));
    for what in ["prometheusRule", "dashboards"] {
        helm.args(["--set", &format!("monitoring.{what}.enabled=true")]);
    }
    let path = scratch.join("chart-rules.yaml");
    fs::write(&path, command::output(&mut helm)?)?;
    Ok(path)
}

fn refusals(tools: &Tools) -> Result<()> {
    for values in files_in(REFUSED, "yaml")? {
        let text = fs::read_to_string(&values)?;
        let wanted = text.lines().next().and_then(|line| line.strip_prefix(SAYS));
        let wanted = wanted.with_context(|| format!("{} begins with no `{SAYS}`", values.display()))?;
        match command::output(template(tools).arg(&values)) {
            Ok(_) => bail!("the chart takes {}", values.display()),
            Err(error) if format!("{error:#}").contains(wanted) => {}
            Err(error) => {
                return Err(error.context(format!("{} is not refused with: {wanted}", values.display())));
            }
        }
    }
    Ok(())
}

/// The base and its overlays as kustomize builds them; each overlay has to come to what the chart renders at once.
fn kustomized(tools: &Tools, scratch: &Path) -> Result<Vec<PathBuf>> {
    let mut built = Vec::new();
    let mut keep = |name: &str, text: &str| -> Result<()> {
        let path = scratch.join(format!("kustomize-{name}.yaml"));
        fs::write(&path, text)?;
        built.push(path);
        Ok(())
    };
    keep("base", &kustomize(tools, &root().join("k8s/base"))?)?;
    for (name, between) in OVERLAYS {
        let by_patches = kustomize(tools, &root().join("k8s/overlays").join(name))?;
        let at_once = scratch.join(name);
        fs::create_dir_all(&at_once)?;
        for (file, text) in super::overlay::base(&render::full(tools, name, between)?) {
            fs::write(at_once.join(file), text)?;
        }
        if by_patches != kustomize(tools, &at_once)? {
            bail!("k8s/overlays/{name} does not come to what the chart renders with its values");
        }
        keep(name, &by_patches)?;
    }
    Ok(built)
}

fn kustomize(tools: &Tools, folder: &Path) -> Result<String> {
    command::output(Command::new(&tools.kubectl).arg("kustomize").arg(folder))
}

fn helm(tools: &Tools, what: &str) -> Command {
    let mut helm = Command::new(&tools.helm);
    helm.current_dir(root()).arg(what);
    helm
}

/// The values' path follows.
pub(super) fn template(tools: &Tools) -> Command {
    let mut helm = helm(tools, "template");
    helm.args(["starling", CHART, "--namespace", "speech", "--values"]);
    helm
}

/// A script with the packages that it needs.
pub(super) fn python(tools: &Tools, script: &str) -> Command {
    let mut python = Command::new("python3");
    python
        .current_dir(root())
        .env("PYTHONPATH", &tools.python)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script);
    python
}

/// Checks files against a schema that comes with the checker.
fn against(tools: &Tools, schema: &str, files: &[PathBuf]) -> Result<()> {
    let program = tools.python.join("bin").join("check-jsonschema");
    let mut checker = Command::new("python3");
    checker.env("PYTHONPATH", &tools.python).arg(program).args(["--quiet", "--builtin-schema", schema]);
    command::quiet(checker.args(files))
}

/// The folder's own files with this ending, sorted.
fn files_in(folder: &str, ending: &str) -> Result<Vec<PathBuf>> {
    let path = root().join(folder);
    let files = fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut found: Vec<PathBuf> = files.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    found.retain(|path| path.is_file() && path.extension().is_some_and(|found| found == ending));
    found.sort();
    if found.is_empty() {
        bail!("there is nothing to check in {folder}");
    }
    Ok(found)
}

fn named(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
