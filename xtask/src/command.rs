//! Running other programs from the workspace's root, saying which, and saying which of them failed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The checkout's root: the folder above this crate's.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// A `cargo` that is the one this task was started by.
pub(crate) fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// What is checked and tested has all that an image has; a bare `cargo build` makes less.
pub(crate) const FEATURES: [&str; 2] = ["--features", "starling/kubernetes"];

/// Builds all programs, with the tests: what tests depend on asks for other features of hundreds of packages, which would all be built
/// twice if programs were built alone.
pub(crate) fn build_programs() -> Result<()> {
    run(cargo().args(["build", "--workspace", "--bins", "--tests"]).args(FEATURES))
}

/// One of them.
pub(crate) fn built(program: &str) -> PathBuf {
    target().join("debug").join(program)
}

/// Copies a program without what debuggers alone need, which is most of it.
pub(crate) fn strip(from: &Path, to: &Path) -> Result<()> {
    quiet(Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(from))
}

/// Prints the command, runs it with this terminal, and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", describe(command));
    quiet(command)
}

/// Runs the command without a word, and fails unless it succeeds.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    let line = describe(command);
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// What the command prints on its standard output, if it can be started and succeeds.
pub(crate) fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the command prints on its standard output; it fails with what it prints on the other.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, told.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(program.to_string_lossy().into_owned()).chain(args).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert!(error.to_string().contains("sh -c exit 3"), "{error}");
        let error = run(&mut Command::new("/no/such/program")).unwrap_err();
        assert!(format!("{error:#}").contains("cannot start `program`"), "{error:#}");
    }

    #[test]
    fn output_is_nothing_when_the_command_fails() {
        assert_eq!(output_of(Command::new("echo").arg("a")).as_deref(), Some("a\n"));
        assert_eq!(output_of(&mut Command::new("false")), None);
        assert_eq!(output_of(&mut Command::new("/no/such/program")), None);
    }
}
