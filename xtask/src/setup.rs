//! What has to be on the machine and in `.starling/` before anything runs.

pub(crate) mod clients;
pub(crate) mod deploy;
mod packages;
mod speech;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use starling_engine::catalogue::{Catalogue, Home, fetch};

use crate::command::{self, output_of, root};
use crate::progress::Bar;

/// The engines, models and recordings that demo, tests and benchmarks run on.
const SPEECH: [&str; 3] = ["vosk-ko-small", "moonshine-tiny-en", "samples"];

/// The oldest cargo-nextest whose configuration has all that `.config/nextest.toml` uses.
const NEXTEST_AT_LEAST: [u32; 3] = [0, 9, 100];

pub(crate) fn everything() -> Result<()> {
    speech()?;
    network()?;
    prometheus()?;
    clients::everything()?;
    deploy::everything()?;
    nextest()?;
    cargo_deny()?;
    eprintln!("everything is in {}", home()?.root().display());
    Ok(())
}

/// Engines, models and recordings.
pub(crate) fn speech() -> Result<()> {
    need_c_compiler()?;
    let home = home()?;
    for name in SPEECH {
        get(&home, name)?;
    }
    speech::korean(&home)
}

/// The home folder that setup fills: the checkout's own.
pub(crate) fn home() -> Result<Home> {
    Home::at(&root().join(".starling")).context("cannot place the home folder")
}

/// The test runner: the one on the path if it is new enough, else the one that is fetched.
pub(crate) fn nextest() -> Result<PathBuf> {
    let installed = output_of(Command::new("cargo-nextest").args(["nextest", "--version"]));
    if installed.and_then(|text| version_in(&text)).is_some_and(|version| version >= NEXTEST_AT_LEAST) {
        return Ok(PathBuf::from("cargo-nextest"));
    }
    tool("cargo-nextest")
}

/// The program that checks dependencies; always the pinned one, since its findings change with its version.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    tool("cargo-deny")
}

fn tool(name: &str) -> Result<PathBuf> {
    let home = home()?;
    get(&home, name)?;
    Ok(home.tools_dir().join(name))
}

/// Fetches the entry and what it requires, or says in one line that it is there.
fn get(home: &Home, name: &str) -> Result<()> {
    let catalogue = Catalogue::load(home)?;
    let done = fetch(home, &catalogue, catalogue.get(name)?, &mut Bar::new(name))?;
    for entry in done {
        let state = if entry.was_there { "is there" } else { "fetched" };
        eprintln!("{} {state}: {}", entry.name, entry.dir.display());
    }
    Ok(())
}

/// What cuts nodes off: `ip`, of iproute2, and `nft`, of nftables. Network namespaces take root; for anybody else what needs them is
/// not run.
pub(crate) fn network() -> Result<()> {
    for (tool, version, package) in [("ip", "-V", "iproute2"), ("nft", "--version", "nftables")] {
        if is_root() && output_of(Command::new(tool).arg(version)).is_none() {
            apt(package).with_context(|| {
                format!("`{tool}` is missing; on Debian and Ubuntu: apt install {package}")
            })?;
        }
    }
    Ok(())
}

/// Prometheus and its `promtool`, which the tests of rules and dashboard run. They start it themselves: none is to run beside them.
pub(crate) fn prometheus() -> Result<()> {
    let there = |program: &str| output_of(Command::new(program).arg("--version")).is_some();
    if there("prometheus") && there("promtool") {
        return Ok(());
    }
    apt("prometheus").context(
        "Prometheus is missing (tried `prometheus` and `promtool`); on Debian and Ubuntu: apt install --no-install-recommends prometheus",
    )?;
    // Nor at the next boot. Without systemd there is nothing to forbid.
    let _ = as_root(&["systemctl", "disable", "prometheus"]).output();
    Ok(())
}

/// What finds leaks in libraries that are not ours.
pub(crate) fn valgrind() -> Result<()> {
    if output_of(Command::new("valgrind").arg("--version")).is_some() {
        return Ok(());
    }
    apt("valgrind").context("`valgrind` is missing; on Debian and Ubuntu: apt install valgrind")
}

pub(crate) fn is_root() -> bool {
    output_of(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0")
}

/// Installs a Debian package: as root, or by a `sudo` that asks for no password.
fn apt(package: &str) -> Result<()> {
    if output_of(Command::new("apt-get").arg("--version")).is_none() {
        bail!("it can't be installed from here: there is no apt-get");
    }
    if !is_root() && output_of(Command::new("sudo").args(["-n", "true"])).is_none() {
        bail!("only root can install it, and `sudo` asks for a password");
    }
    // Packages' services are not started: programs alone are wanted. The first is for init scripts (invoke-rc.d(8)), the second for
    // systemd (systemctl(1)).
    let quietly = ["env", "RUNLEVEL=1", "SYSTEMD_OFFLINE=1", "apt-get"];
    for args in [&["update", "-q"][..], &["install", "-y", "-q", "--no-install-recommends", package]] {
        command::run(as_root(&quietly).args(args))?;
    }
    Ok(())
}

/// The beginning of a command that root runs, or `sudo`.
fn as_root(begin: &[&str]) -> Command {
    let sudo: &[&str] = if is_root() { &[] } else { &["sudo", "-n"] };
    let mut words = sudo.iter().chain(begin);
    let mut command = Command::new(words.next().unwrap_or(&"sudo"));
    command.args(words);
    command
}

/// Rust links with it, and it compiles the cryptography that fetching from the internet uses.
fn need_c_compiler() -> Result<()> {
    if output_of(Command::new("cc").arg("--version")).is_none() {
        bail!("a C compiler is missing (tried `cc`); on Debian and Ubuntu: apt install build-essential");
    }
    if output_of(Command::new("make").arg("--version")).is_some() {
        return Ok(());
    }
    // The decoders' allocator is built with it.
    apt("make").context("`make` is missing; on Debian and Ubuntu: apt install make")
}

/// The first `a.b.c` in a program's account of its version.
fn version_in(text: &str) -> Option<[u32; 3]> {
    text.split_whitespace().find_map(|word| {
        let parts: Vec<u32> = word.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        parts.try_into().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_and_compared_as_numbers() {
        let version = version_in("cargo-nextest 0.9.143 (60fa45f63 2026-08-04)\nrelease: 0.9.143\n");
        assert_eq!(version, Some([0, 9, 143]));
        assert!(version_in("cargo-nextest 0.9.72") < Some(NEXTEST_AT_LEAST));
        assert_eq!(version_in("no version"), None);
    }

    #[test]
    fn what_setup_fetches_is_in_the_catalogue() {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::load(&Home::at(dir.path()).unwrap()).unwrap();
        for name in SPEECH.into_iter().chain(["cargo-nextest", "cargo-deny", speech::SYNTHESIZER]) {
            assert!(catalogue.get(name).is_ok(), "{name}");
        }
    }
}
