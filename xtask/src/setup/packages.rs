//! Packages of Python and Node, pinned with their hashes, installed into the home folder by the machine's own pip and npm, which know
//! where packages come from. Owns how that is done; what is needed is for others to say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use starling_engine::catalogue::Home;

use super::home;
use crate::command::{self, output_of};

/// The oldest Python and Node that all the pinned packages run on.
const PYTHON_AT_LEAST: [u32; 2] = [3, 10];
const NODE_AT_LEAST: [u32; 2] = [20, 0];

/// Written last, and beside the packages, so that its content says what is there whole.
const STAMP: &str = "installed";

/// Makes sure that the packages of a `requirements.txt` are there; the folder that they are in.
pub(super) fn python(area: &str, requirements: &Path) -> Result<PathBuf> {
    let missing =
        "Python's pip is missing (tried `python3 -m pip`); on Debian and Ubuntu: apt install python3-pip";
    output_of(Command::new("python3").args(["-m", "pip", "--version"])).context(missing)?;
    let version = output_of(Command::new("python3").arg("--version")).unwrap_or_default();
    at_least("python3", &version, PYTHON_AT_LEAST)?;
    // Compiled parts are for one version of Python.
    let wanted = format!("{version}{}", read(requirements)?);
    install(area, "python", &wanted, |dir| {
        let pip = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
        let safely = ["--no-deps", "--only-binary=:all:", "--require-hashes"];
        let mut command = Command::new("python3");
        command.args(pip).args(safely).arg("--target").arg(dir).arg("--requirement").arg(requirements);
        command::quiet(command.env("PIP_ROOT_USER_ACTION", "ignore"))
    })
}

/// Makes sure that the packages of the `package-lock.json` in `from` are there; the folder that has `node_modules`.
pub(super) fn node(area: &str, from: &Path) -> Result<PathBuf> {
    let missing = |what: &str| {
        format!(
            "`{what}` is missing; install Node 20 or newer with npm, on Debian 13 and Ubuntu 25.04: apt install nodejs npm"
        )
    };
    let version = output_of(Command::new("node").arg("--version")).with_context(|| missing("node"))?;
    at_least("node", &version, NODE_AT_LEAST)?;
    output_of(Command::new("npm").arg("--version")).with_context(|| missing("npm"))?;
    let files = ["package.json", "package-lock.json", ".npmrc"].map(|name| from.join(name));
    let wanted: String = files.iter().map(|path| read(path)).collect::<Result<_>>()?;
    install(area, "node", &wanted, |dir| {
        for file in &files {
            fs::copy(file, dir.join(file.file_name().unwrap_or_default()))?;
        }
        let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        let mut command = Command::new("npm");
        command::quiet(command.args(npm).current_dir(dir).stdout(Stdio::null()))
    })
}

/// Has `fill` make a folder unless the one that is there is what is wanted; says which.
pub(super) fn install(
    area: &str,
    name: &str,
    wanted: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let home = home()?;
    let dir = folder(&home, area, name);
    if fs::read_to_string(dir.join(STAMP)).is_ok_and(|found| found == wanted) {
        eprintln!("packages of {name} for {area} are there: {}", dir.display());
        return Ok(dir);
    }
    eprintln!("  packages of {name} for {area}: install");
    let staging = folder(&home, area, &format!("{name}.{}", std::process::id()));
    let filled = fs::create_dir_all(&staging)
        .map_err(anyhow::Error::from)
        .and_then(|()| fill(&staging))
        .and_then(|()| Ok(fs::write(staging.join(STAMP), wanted)?))
        .and_then(|()| replace(&staging, &dir));
    if filled.is_err() {
        // What is half done is of no use, and what went wrong is told already.
        let _ = fs::remove_dir_all(&staging);
    }
    filled.with_context(|| format!("cannot install the packages of {name} into {}", dir.display()))?;
    eprintln!("packages of {name} for {area} installed: {}", dir.display());
    Ok(dir)
}

fn replace(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    Ok(fs::rename(from, to)?)
}

fn folder(home: &Home, area: &str, name: &str) -> PathBuf {
    home.root().join(area).join(name)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn at_least(program: &str, told: &str, wanted: [u32; 2]) -> Result<()> {
    let digits = told.trim().trim_start_matches(|c: char| !c.is_ascii_digit());
    let parts: Vec<u32> = digits.split('.').map_while(|part| part.parse().ok()).take(2).collect();
    if <[u32; 2]>::try_from(parts).is_ok_and(|found| found >= wanted) {
        return Ok(());
    }
    bail!("`{program}` is {}; it has to be {}.{} or newer", told.trim(), wanted[0], wanted[1]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::root;

    #[test]
    fn old_versions_are_refused_and_named() {
        assert!(at_least("node", "v20.20.2\n", NODE_AT_LEAST).is_ok());
        assert!(at_least("python3", "Python 3.11.7\n", PYTHON_AT_LEAST).is_ok());
        for (program, told, wanted) in
            [("node", "v18.19.0\n", NODE_AT_LEAST), ("python3", "Python 3.9.2\n", PYTHON_AT_LEAST)]
        {
            let error = at_least(program, told, wanted).unwrap_err().to_string();
            assert!(error.contains(told.trim()) && error.contains("or newer"), "{error}");
        }
        assert!(at_least("node", "", NODE_AT_LEAST).is_err());
    }

    #[test]
    fn locks_pin_hashes_and_name_no_registry() {
        for checks in ["clients", "k8s"].map(|area| root().join(area).join("checks")) {
            let requirements = read(&checks.join("requirements.txt")).unwrap();
            let pinned = requirements.lines().filter(|line| !line.starts_with([' ', '#']));
            assert!(
                pinned.clone().count() > 3 && pinned.clone().all(|line| line.contains("==")),
                "{requirements}"
            );
            let lock = read(&checks.join("package-lock.json")).unwrap();
            let lock: serde_json::Value = serde_json::from_str(&lock).unwrap();
            let packages = lock["packages"].as_object().unwrap();
            for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
                assert!(package["integrity"].is_string() && package["resolved"].is_null(), "{name}");
            }
            assert!(!requirements.contains("://"));
        }
    }
}
