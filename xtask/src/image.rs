//! `cargo xtask image`: builds and pushes the images of the Dockerfile with whatever builds images here, and tries them.
//!
//! Owns their names and the order of building. Must never hold credentials: who may push is between the builder and its registry.

mod check;

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

pub(crate) use check::check;

use crate::command::{self, output_of, root};
use crate::setup::deploy::builder;

/// What is to be built.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Push what was built
    #[arg(long)]
    push: bool,
    /// The image's name, with its registry in front if it is to be pushed
    #[arg(long, value_name = "NAME", default_value = "starling")]
    repository: String,
    /// The tag
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Models to put into the image, by their names in the catalogue; may be given several times
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// Build an image of the models alone as well, to be mounted as a volume
    #[arg(long, requires = "models")]
    models_image: bool,
    /// What builds and pushes [default: the first that can]
    #[arg(long, value_name = "NAME", value_parser = ["docker", "buildah", "podman"])]
    builder: Option<String>,
    /// Build from a Debian made of packages, with programs of the debug profile, and try the image in place of all that
    #[arg(long, exclusive = true)]
    check: bool,
}

/// One image: the Dockerfile's stage, and what follows the tag.
const RUNTIME: (&str, &str) = ("runtime", "");
const FETCH: (&str, &str) = ("fetch", "-fetch");
const MODELS: (&str, &str) = ("models", "-models");

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.check {
        return check();
    }
    let images = images(options)?;
    let tool = match &options.builder {
        Some(name) => name.as_str(),
        None => {
            builder()?.context("there is nothing that builds images; install docker, buildah or podman")?
        }
    };
    for (stage, name) in &images {
        command::run(build(tool, stage, name).args(arguments(options)).arg("."))?;
    }
    if options.push {
        for (_, name) in &images {
            command::run(Command::new(tool).args(["push", name]))?;
        }
    }
    Ok(())
}

/// Stages and the names of what they make. A name that nothing can be pushed under is refused before anything is built.
fn images(options: &Options) -> Result<Vec<(&'static str, String)>> {
    if options.push && !options.repository.contains('/') {
        bail!("--repository is {}, which names no registry: it has to be like HOST/NAME", options.repository);
    }
    let mut images = vec![RUNTIME, FETCH];
    if options.models_image {
        images.push(MODELS);
    }
    let name = |end: &str| format!("{}:{}{end}", options.repository, options.tag);
    Ok(images.into_iter().map(|(stage, end)| (stage, name(end))).collect())
}

/// Builds a stage. What the build is given, and the folder, follow.
fn build(tool: &str, stage: &str, name: &str) -> Command {
    let mut command = Command::new(tool);
    command.current_dir(root()).arg("build");
    if tool != "docker" {
        // The other format has no health check. Layers are kept for the next stage.
        command.args(["--format", "docker", "--layers"]);
    }
    command.args(["--target", stage, "--tag", name]);
    command
}

fn arguments(options: &Options) -> Vec<String> {
    let git = |args: &[&str]| {
        output_of(Command::new("git").current_dir(root()).args(args)).map(|text| text.trim().to_owned())
    };
    let given = [
        ("COMMIT", git(&["rev-parse", "--short=12", "HEAD"])),
        ("COMMIT_SECONDS", git(&["show", "-s", "--format=%ct", "HEAD"])),
        ("MODELS", (!options.models.is_empty()).then(|| options.models.join(" "))),
    ];
    let given = given.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    given.flat_map(|value| ["--build-arg".to_owned(), value]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> String {
        std::fs::read_to_string(root().join(path)).unwrap()
    }

    #[test]
    fn all_that_names_a_version_names_the_workspaces() {
        let version = env!("CARGO_PKG_VERSION");
        assert!(read("k8s/helm/starling/Chart.yaml").contains(&format!("appVersion: \"{version}\"")));
        let compose = read("compose.yaml");
        assert_eq!(
            compose.matches("${STARLING_TAG:-").count(),
            compose.matches(&format!("TAG:-{version}}}")).count()
        );
        let toolchain = read("rust-toolchain.toml");
        let channel = toolchain.split("channel = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        assert!(read("Dockerfile").contains(&format!("RUST_IMAGE=rust:{channel}-")), "{channel}");
    }

    fn plain() -> Options {
        Options {
            push: false,
            repository: "starling".into(),
            tag: "1".into(),
            models: Vec::new(),
            models_image: false,
            builder: None,
            check: false,
        }
    }

    #[test]
    fn a_name_without_a_registry_is_built_and_not_pushed() {
        let mut options = plain();
        let names = ["starling:1", "starling:1-fetch"];
        assert_eq!(images(&options).unwrap().iter().map(|(_, name)| name).collect::<Vec<_>>(), names);
        options.push = true;
        let refused = images(&options).unwrap_err().to_string();
        assert!(refused.contains("--repository is starling"), "{refused}");
        options.repository = "registry.example/starling".into();
        assert_eq!(images(&options).unwrap()[0], ("runtime", "registry.example/starling:1".to_owned()));
    }

    #[test]
    fn models_are_one_argument_and_absent_ones_none() {
        let mut options = plain();
        assert!(!arguments(&options).iter().any(|argument| argument.starts_with("MODELS")));
        options.models = vec!["a".into(), "b".into()];
        assert!(arguments(&options).contains(&"MODELS=a b".to_owned()));
    }

    #[test]
    fn only_docker_is_left_its_own_format() {
        let line = |tool| format!("{:?}", build(tool, "runtime", "x"));
        assert!(line("buildah").contains("\"--format\" \"docker\"") && !line("docker").contains("--format"));
    }
}
