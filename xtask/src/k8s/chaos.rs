//! Whether the experiments in `k8s/chaos` do what the scenarios do that they are named after, and whether the scripts in `chaos/` for a
//! cluster do nothing before they are told to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::command::root;

/// What a scenario's fault is, and by what an experiment does it.
const FAULTS: [(&str, &str, &str); 3] = [
    ("kill", "PodChaos", "  action: pod-kill\n"),
    // Others see a node that is cut off as they see one that stands still.
    ("pause", "NetworkChaos", "  action: partition\n"),
    ("hog-cpu", "StressChaos", "  stressors:\n"),
];

fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.trim().strip_prefix(key))
        .map(|value| value.trim_matches(['"', '}', ' ']))
}

#[test]
fn experiments_do_what_their_scenarios_do() {
    let mut seen = Vec::new();
    for file in fs::read_dir(root().join("k8s/chaos")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let name = after(&text, "annotations: {starling/scenario:").unwrap();
        let scenario = root().join("chaos/scenarios").join(format!("{name}.toml"));
        let scenario = fs::read_to_string(&scenario).unwrap_or_else(|error| panic!("{name}: {error}"));
        let done = after(&scenario, "do = ").unwrap();
        let (_, kind, action) = FAULTS.into_iter().find(|(fault, ..)| *fault == done).unwrap();
        assert_eq!(after(&text, "kind: "), Some(kind), "{name}");
        assert!(text.contains(action), "{name}");
        if done != "kill" {
            let seconds: f64 = after(&scenario, "for_s = ").unwrap().parse().unwrap();
            assert_eq!(after(&text, "duration: "), Some(format!("{seconds}s").as_str()), "{name}");
        }
        assert_eq!(text.contains("mode: all\n  gracePeriod"), scenario.contains("whom = \"all\""), "{name}");
        seen.push(kind);
    }
    for (_, kind, _) in FAULTS {
        assert!(seen.contains(&kind), "no experiment is a {kind}");
    }
}

/// Runs a script with a kubectl that prints what it was asked, and for pods answers with `namespace`.
fn script(name: &str, args: &[&str], namespace: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let kubectl = dir.path().join("kubectl");
    let answer = format!("#!/bin/sh\nif [ \"$1\" = get ]; then echo {namespace}; else echo \"$*\"; fi\n");
    fs::write(&kubectl, answer).unwrap();
    fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    Command::new(Path::new(&root()).join("chaos").join(name)).args(args).env("PATH", path).output().unwrap()
}

#[test]
fn scripts_for_a_cluster_do_nothing_until_they_are_told_to() {
    for (name, harmless, real) in [
        ("kill-a-pod.sh", "--dry-run=server", "--wait=false"),
        ("kill-a-decoder-in-a-pod.sh", " sh 0", " sh KILL"),
        ("drain-a-machine.sh", "--dry-run=server", "--dry-run=none"),
    ] {
        let told = |args: &[&str]| String::from_utf8(script(name, args, "speech").stdout).unwrap();
        let (trial, really) = (told(&["speech", "x"]), told(&["speech", "x", "--really"]));
        assert!(trial.contains(harmless) && !trial.contains(real), "{name}: {trial}");
        assert!(really.contains(real) && !really.contains(harmless), "{name}: {really}");
        assert!(!script(name, &["speech"], "speech").status.success(), "{name} takes no namespace alone");
        assert!(!script(name, &[], "speech").status.success(), "{name} takes nothing at all");
    }
}

#[test]
fn a_machine_with_nodes_of_another_namespace_is_left_alone() {
    for namespaces in ["other", "speech; echo other", ""] {
        let output = script("drain-a-machine.sh", &["speech", "x", "--really"], namespaces);
        assert!(!output.status.success() && output.stdout.is_empty(), "{namespaces}: {output:?}");
    }
}
