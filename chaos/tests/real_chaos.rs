//! A selection of the scenarios on every change; `cargo xtask chaos` does them all.

#[path = "common/not_run.rs"]
mod not_run;

use std::path::Path;
use std::process::Command;

use not_run::not_run;
use rustix::process::geteuid;

/// One that takes namespaces, or limits of the kernel's: for anybody but root it can't be done, and has not been survived.
fn survive_as_root(scenario: &str) {
    if geteuid().is_root() {
        survive(scenario);
    } else {
        not_run(&format!("chaos scenario {scenario}"), "it takes root, for namespaces of its own");
    }
}

/// Does one, with its reports where they are gone afterwards. One that can't be done here has not been survived.
fn survive(scenario: &str) {
    let out = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_starling-chaos"));
    let node = program.with_file_name("starling");
    assert!(node.exists(), "{} is missing: build it with `cargo build`", node.display());
    let output = Command::new(program).arg(scenario).arg("--out").arg(out.path()).output().expect("starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for extension in ["json", "svg"] {
        assert!(out.path().join(scenario).with_extension(extension).exists(), "{scenario}.{extension}");
    }
}

#[test]
fn hosts_are_killed() {
    survive("host-kill");
}

#[test]
fn the_callers_own_node_and_its_copies_are_killed_at_once() {
    survive("owner-and-replica-kill");
}

#[test]
fn a_node_that_stood_still_wakes_up_with_sessions_that_are_no_longer_its_own() {
    survive("owner-fenced");
}

#[test]
fn all_nodes_are_killed_and_started_again() {
    survive("all-kill");
}

#[test]
fn a_node_with_stuck_clients_is_drained() {
    survive("drain-stuck");
}

#[test]
fn two_callers_speak_poison_among_innocents() {
    survive("poison");
}

#[test]
fn the_callers_own_node_and_its_copies_no_longer_reach_each_other() {
    survive_as_root("partition-owner-replica");
}

#[test]
fn a_node_is_cut_from_all_others_and_its_callers() {
    survive_as_root("minority");
}

#[test]
fn disks_are_full() {
    survive_as_root("disk-full");
}

#[test]
fn what_can_not_be_done_here_is_not_passed() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling-chaos"));
    // No older programs are named.
    let output = command.arg("mixed-versions").output().expect("starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("not run: --previous"), "{said}");
}

#[test]
fn what_would_be_done_to_a_cluster_of_ones_own_is_only_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("theirs.toml");
    let trace = folder.path().join("trace");
    let node = |name: &str| format!("[[node]]\nname = \"{name}\"\nhttp = \"127.0.0.1:9\"\n");
    let text =
        format!("budget = 1\n{}{}[commands]\nkill = 'touch {}'\n", node("a"), node("b"), trace.display());
    std::fs::write(&file, text).expect("written");
    let run = |scenario: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_starling-chaos"));
        command.arg(scenario).arg("--cluster").arg(&file).output().expect("starts")
    };
    let shown = run("owner-kill");
    let said = String::from_utf8_lossy(&shown.stdout);
    assert!(
        shown.status.success() && said.contains("a at 127.0.0.1:9") && said.contains("Nothing was done"),
        "{said}"
    );
    for (scenario, why) in [
        ("owner-and-replica-kill", "budget allows 1"),
        ("owner-pause", "commands.pause; it is missing"),
        ("cpu-hog", "not for a cluster of your own"),
        ("drain-stuck", "never leave"),
    ] {
        let refused = run(scenario);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(why), "{scenario}: {said}");
    }
    assert!(!trace.exists());
}
