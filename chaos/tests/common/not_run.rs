//! What can't be tried on a system, told where somebody sees it.

use std::fs::File;
use std::io::Write as _;

/// Names the file that this is told in: what a test prints is shown to nobody when it passes. `cargo xtask test` ends with what is in there.
const FILE: &str = "TESTS_NOT_RUN";

/// Tells that something was not tried, and why.
pub(crate) fn not_run(what: &str, why: &str) {
    let line = format!("{what}: {why}\n");
    print!("not run: {line}");
    if let Some(file) = std::env::var_os(FILE) {
        let mut told = File::options().create(true).append(true).open(file).expect("it can be told");
        told.write_all(line.as_bytes()).expect("it can be told");
    }
}
