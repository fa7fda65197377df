//! Two minutes of the soak on every change; `cargo xtask soak --hours 2` does it for longer.

use std::path::Path;
use std::process::Command;

#[test]
fn two_minutes_of_mixed_load_and_faults_lose_nothing_and_leave_nothing() {
    let out = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_starling-chaos"));
    let node = program.with_file_name("starling");
    assert!(node.exists(), "{} is missing: build it with `cargo build`", node.display());
    let mut command = Command::new(program);
    command.args(["soak", "--minutes", "2", "--every", "8", "16", "--out"]).arg(out.path());
    let output = command.output().expect("starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("nothing left behind"), "{said}");
    for name in ["soak.json", "soak.svg"] {
        assert!(out.path().join(name).exists(), "{name}");
    }
}
