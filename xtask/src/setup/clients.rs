//! What clients are run with, our own and other people's: packages of Python and Node, pinned with their hashes in `clients/checks`,
//! installed into `.starling/clients` by the machine's own pip and npm, which know where packages come from; and a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use starling_engine::catalogue::Home;

use super::{apt, home};
use crate::command::{self, output_of, root};

/// The oldest Python and Node that all the pinned packages run on.
const PYTHON_AT_LEAST: [u32; 2] = [3, 10];
const NODE_AT_LEAST: [u32; 2] = [20, 0];

/// What Chromium's program may be called: Debian's name, that of Google's build of it, Ubuntu's. The checks look for the same.
const BROWSERS: [&str; 3] = ["chromium", "google-chrome", "chromium-browser"];

/// Written last, and beside the packages, so that its content says what is there whole.
const STAMP: &str = "installed";

/// Makes sure that all is there that clients are run with.
pub(crate) fn everything() -> Result<()> {
    python()?;
    node()?;
    browser()
}

/// Makes sure that Python's packages are there; the folder that they are in.
pub(crate) fn python() -> Result<PathBuf> {
    let missing =
        "Python's pip is missing (tried `python3 -m pip`); on Debian and Ubuntu: apt install python3-pip";
    output_of(Command::new("python3").args(["-m", "pip", "--version"])).context(missing)?;
    let version = output_of(Command::new("python3").arg("--version")).unwrap_or_default();
    at_least("python3", &version, PYTHON_AT_LEAST)?;
    let requirements = checks().join("requirements.txt");
    // Compiled parts are for one version of Python.
    let wanted = format!("{version}{}", read(&requirements)?);
    install("python", &wanted, |dir| {
        let pip = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"];
        let safely = ["--no-deps", "--only-binary=:all:", "--require-hashes"];
        let mut command = Command::new("python3");
        command.args(pip).args(safely).arg("--target").arg(dir).arg("--requirement").arg(&requirements);
        command::quiet(command.env("PIP_ROOT_USER_ACTION", "ignore"))
    })
}

/// Makes sure that Node's packages are there, and found from `clients/`.
pub(crate) fn node() -> Result<()> {
    let missing = |what: &str| {
        format!(
            "`{what}` is missing; install Node 20 or newer with npm, on Debian 13 and Ubuntu 25.04: apt install nodejs npm"
        )
    };
    let version = output_of(Command::new("node").arg("--version")).with_context(|| missing("node"))?;
    at_least("node", &version, NODE_AT_LEAST)?;
    output_of(Command::new("npm").arg("--version")).with_context(|| missing("npm"))?;
    let files = ["package.json", "package-lock.json", ".npmrc"].map(|name| checks().join(name));
    let wanted: String = files.iter().map(|path| read(path)).collect::<Result<_>>()?;
    let dir = install("node", &wanted, |dir| {
        for file in &files {
            fs::copy(file, dir.join(file.file_name().unwrap_or_default()))?;
        }
        let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        let mut command = Command::new("npm");
        command::quiet(command.args(npm).current_dir(dir).stdout(std::process::Stdio::null()))
    })?;
    link(&dir.join("node_modules"), &root().join("clients").join("node_modules"))
}

/// Makes sure that Chromium is there, for the client in a page.
fn browser() -> Result<()> {
    let version = || BROWSERS.iter().find_map(|name| output_of(Command::new(name).arg("--version")));
    if let Some(version) = version() {
        eprintln!("a browser for clients is there: {}", version.trim());
        return Ok(());
    }
    let missing = format!(
        "a browser is missing (tried `{}`); on Debian: apt install --no-install-recommends chromium",
        BROWSERS.join("`, `")
    );
    apt("chromium").with_context(|| missing.clone())?;
    // Ubuntu's package of that name is a way to another kind of package, which not every machine can have.
    let version = version().context(missing)?;
    eprintln!("a browser for clients installed: {}", version.trim());
    Ok(())
}

/// Has `fill` make a folder unless the one that is there is what is wanted; says which.
fn install(name: &str, wanted: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let home = home()?;
    let dir = folder(&home, name);
    if fs::read_to_string(dir.join(STAMP)).is_ok_and(|found| found == wanted) {
        eprintln!("packages of {name} for clients are there: {}", dir.display());
        return Ok(dir);
    }
    eprintln!("  packages of {name} for clients: install");
    let staging = folder(&home, &format!("{name}.{}", std::process::id()));
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
    eprintln!("packages of {name} for clients installed: {}", dir.display());
    Ok(dir)
}

fn replace(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    Ok(fs::rename(from, to)?)
}

/// Node looks for packages in the folders above a program; nothing else tells it where they are.
fn link(target: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|found| found == target) {
        return Ok(());
    }
    // A link to somewhere else, or none.
    let _ = fs::remove_file(link);
    let linked = std::os::unix::fs::symlink(target, link);
    linked.with_context(|| format!("cannot make the link {}", link.display()))
}

fn folder(home: &Home, name: &str) -> PathBuf {
    home.root().join("clients").join(name)
}

fn checks() -> PathBuf {
    root().join("clients").join("checks")
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
    bail!("`{program}` is {}; clients need {}.{} or newer", told.trim(), wanted[0], wanted[1]);
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let requirements = read(&checks().join("requirements.txt")).unwrap();
        let pinned = requirements.lines().filter(|line| !line.starts_with([' ', '#']));
        assert!(
            pinned.clone().count() > 3 && pinned.clone().all(|line| line.contains("==")),
            "{requirements}"
        );
        let lock = read(&checks().join("package-lock.json")).unwrap();
        let lock: serde_json::Value = serde_json::from_str(&lock).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(package["integrity"].is_string() && package["resolved"].is_null(), "{name}");
        }
        assert!(!requirements.contains("://"));
    }

    #[test]
    fn the_checks_look_for_the_browsers_that_setup_looks_for() {
        let program = read(&checks().join("browser").join("chromium.mjs")).unwrap();
        let names = BROWSERS.map(|name| format!("'{name}'")).join(", ");
        assert!(program.contains(&format!("const NAMES = [{names}];")), "{names}");
    }

    #[test]
    fn a_link_is_made_once_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("link");
        for target in ["a", "a", "b"] {
            link(Path::new(target), &at).unwrap();
            assert_eq!(fs::read_link(&at).unwrap(), Path::new(target));
        }
    }
}
