//! A cluster that was not started by the runner, with keys: it is harmed by the commands of a file, and mended by them.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::free_addresses;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Nodes of somebody's own, by the files with their process numbers.
struct Nodes(PathBuf);

impl Drop for Nodes {
    fn drop(&mut self) {
        for name in NAMES {
            let kill = "kill -KILL $(cat \"$0\") 2>/dev/null";
            let _ = Command::new("sh").args(["-c", kill]).arg(self.0.join(name)).status();
        }
    }
}

/// A key, and its hash.
fn key(program: &Path) -> (&'static str, String) {
    let key = "a key that is long enough to have been drawn";
    let mut hashing = Command::new(program);
    let mut hashing = hashing
        .args(["keys", "hash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts; build it with `cargo build`");
    hashing.stdin.take().expect("piped").write_all(key.as_bytes()).expect("written");
    let said = hashing.wait_with_output().expect("ends").stdout;
    (key, String::from_utf8(said).expect("text").trim().to_owned())
}

#[test]
fn a_cluster_with_keys_is_harmed_and_mended_by_its_owners_commands() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let program = Path::new(env!("CARGO_BIN_EXE_starling-chaos"));
    let node = program.with_file_name("starling");
    let (key, hash) = key(&node);
    fs::write(path("key"), key).expect("written");
    let places: Vec<(SocketAddr, SocketAddr)> = NAMES.iter().map(|_| free_addresses()).collect();
    let seeds: Vec<String> = places.iter().map(|(_, gossip)| format!("\"{gossip}\"")).collect();
    let start = path("start.sh");
    let script = format!(
        "cd {0} && exec {1} --home {0}/home serve --config \"$NODE.toml\" >> \"$NODE.log\" 2>&1 & echo $! > {0}/$NODE\n",
        folder.path().display(),
        node.display(),
    );
    fs::write(&start, script).expect("written");
    let mut theirs = "budget = 1\napi_key_file = \"key\"\n".to_owned();
    let nodes = Nodes(folder.path().to_owned());
    for (name, (http, gossip)) in NAMES.iter().zip(&places) {
        let text = format!(
            "[listen]\nhttp = \"{http}\"\nvosk = \"off\"\n[log]\nformat = \"json\"\n[cluster]\nnode_id = \"{name}\"\nlisten = \"{gossip}\"\nseeds = [{}]\n\
             [[tenant]]\nname = \"us\"\noperator = true\nkeys = [\"{hash}\"]\n\
             [[model]]\nname = \"scripted\"\nhosts = 1\nslots = 16\nthreads = 1\nprewarm = 1\n",
            seeds.join(", ")
        );
        fs::write(path(&format!("{name}.toml")), text).expect("written");
        // Writing into a String does not fail.
        let _ = writeln!(theirs, "[[node]]\nname = \"{name}\"\nhttp = \"{http}\"");
        let started = Command::new("sh").arg(&start).env("NODE", name).status().expect("starts");
        assert!(started.success());
    }
    let _ = writeln!(
        theirs,
        "[commands]\nkill = 'echo \"kill $NODE\" >> {0}/trace; kill -KILL $(cat {0}/$NODE)'\nstart = 'echo \"start $NODE\" >> {0}/trace; sh {1}'",
        folder.path().display(),
        start.display()
    );
    fs::write(path("theirs.toml"), theirs).expect("written");
    fs::write(path("trace"), "").expect("written");

    let run = |really: &[&str]| {
        let mut command = Command::new(program);
        command.args(["owner-kill", "--engine", "scripted", "--callers", "6"]).args(really);
        command.arg("--cluster").arg(path("theirs.toml")).arg("--out").arg(folder.path());
        let output = command.output().expect("starts");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said.into_owned())
    };
    let (shown, said) = run(&[]);
    assert!(shown && said.contains("Nothing was done"), "{said}");
    assert_eq!(fs::read_to_string(path("trace")).expect("there"), "");
    let (well, said) = run(&["--really"]);
    let logs = || NAMES.map(|name| fs::read_to_string(path(&format!("{name}.log"))).unwrap_or_default());
    assert!(well, "{said}\n{}", logs().concat());
    let done = fs::read_to_string(path("trace")).expect("there");
    let done: Vec<&str> = done.split_whitespace().collect();
    assert!(done.len() == 4 && done[0] == "kill" && done[2] == "start" && done[1] == done[3], "{done:?}");
    drop(nodes);
}
