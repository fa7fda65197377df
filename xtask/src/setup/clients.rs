//! What clients are run with, our own and other people's: packages of Python and Node, pinned with their hashes in `clients/checks`;
//! and a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{apt, packages};
use crate::command::{output_of, root};

/// Whose packages they are: their folder in the home folder, and what they are called in messages.
const AREA: &str = "clients";

/// What Chromium's program may be called: Debian's name, that of Google's build of it, Ubuntu's. The checks look for the same.
const BROWSERS: [&str; 3] = ["chromium", "google-chrome", "chromium-browser"];

/// Makes sure that all is there that clients are run with.
pub(crate) fn everything() -> Result<()> {
    python()?;
    node()?;
    browser()
}

/// Makes sure that Python's packages are there; the folder that they are in.
pub(crate) fn python() -> Result<PathBuf> {
    packages::python(AREA, &checks().join("requirements.txt"))
}

/// Makes sure that Node's packages are there, and found from `clients/`.
pub(crate) fn node() -> Result<()> {
    let dir = packages::node(AREA, &checks())?;
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

fn checks() -> PathBuf {
    root().join("clients").join("checks")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_look_for_the_browsers_that_setup_looks_for() {
        let program = fs::read_to_string(checks().join("browser").join("chromium.mjs")).unwrap();
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
