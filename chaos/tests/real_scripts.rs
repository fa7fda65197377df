//! The scripts for a look by hand, on nodes that were started by hand; and the commands that the README gives for nodes elsewhere.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::free_addresses;
use tempfile::TempDir;

/// A node starts in a second or two, and a drained one ends in as much; this is far beyond.
const TRIES: usize = 600;
const EVERY: Duration = Duration::from_millis(100);

fn chaos() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn programs() -> PathBuf {
    let node = Path::new(env!("CARGO_BIN_EXE_starling-chaos")).with_file_name("starling");
    assert!(node.exists(), "{} is missing: build it with `cargo build`", node.display());
    node.parent().expect("in a folder").to_owned()
}

/// Nodes that somebody started by hand.
struct Nodes {
    folder: TempDir,
    running: BTreeMap<String, (Child, SocketAddr)>,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for (node, _) in self.running.values_mut() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

impl Nodes {
    fn start(names: &[&str]) -> Self {
        let places: Vec<(SocketAddr, SocketAddr)> = names.iter().map(|_| free_addresses()).collect();
        let seeds: Vec<String> = places.iter().map(|(_, gossip)| format!("\"{gossip}\"")).collect();
        let mut nodes = Self { folder: tempfile::tempdir().expect("a folder"), running: BTreeMap::new() };
        for (turn, (name, (http, gossip))) in names.iter().zip(places).enumerate() {
            let text = format!(
                "[listen]\nhttp = \"{http}\"\nvosk = \"off\"\n[cluster]\nlisten = \"{gossip}\"\nseeds = [{}]\n\
                 [[model]]\nname = \"scripted\"\nhosts = 2\nslots = 2\nthreads = 1\nprewarm = 1\n",
                seeds.join(", ")
            );
            let config = nodes.folder.path().join(format!("{name}.toml"));
            fs::write(&config, text).expect("written");
            let mut command = Command::new(programs().join("starling"));
            command.arg("--home").arg(nodes.folder.path().join("home")).arg("serve");
            // Both ways to write it.
            if turn % 2 == 0 {
                command.args(["--node-id", name]);
            } else {
                command.arg(format!("--node-id={name}"));
            }
            let log = File::create(nodes.folder.path().join(format!("{name}.log"))).expect("a log");
            command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            nodes.running.insert((*name).to_owned(), (command.spawn().expect("starts"), http));
        }
        nodes.until("they are one cluster", |nodes| {
            nodes.running.keys().all(|name| {
                let seen = nodes.status(name);
                nodes.running.keys().all(|other| seen.contains(&format!("\n{other} ")) || other == name)
            }) && nodes.running.keys().all(|name| nodes.hosts(name).len() == 2)
        });
        nodes
    }

    fn until(&mut self, what: &str, holds: impl Fn(&mut Self) -> bool) {
        for _ in 0..TRIES {
            if holds(self) {
                return;
            }
            sleep(EVERY);
        }
        let log = |name| fs::read_to_string(self.folder.path().join(format!("{name}.log")));
        let logs: Vec<String> = self.running.keys().filter_map(|name| log(name).ok()).collect();
        panic!("{what}: not within {:?}\n{}", EVERY * TRIES as u32, logs.concat());
    }

    fn server(&self, name: &str) -> String {
        format!("http://{}", self.running[name].1)
    }

    fn status(&self, name: &str) -> String {
        let mut command = Command::new(programs().join("starling"));
        let output = command.args(["status", "--server", &self.server(name)]).output().expect("starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn pid(&self, name: &str) -> String {
        self.running[name].0.id().to_string()
    }

    /// The processes that decode for a node, the oldest first.
    fn hosts(&self, name: &str) -> Vec<String> {
        let mut command = Command::new("pgrep");
        let found = command.args(["-P", &self.pid(name), "^starling-dec"]).output().expect("starts");
        String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect()
    }

    fn runs(&mut self, name: &str) -> bool {
        let node = &mut self.running.get_mut(name).expect("started").0;
        node.try_wait().expect("is asked").is_none()
    }
}

/// Whether it went well, and what was said.
fn script(name: &str, args: &[&str]) -> (bool, String) {
    script_with(&programs(), name, args)
}

/// The same, with other programs before those that there are.
fn script_with(programs: &Path, name: &str, args: &[&str]) -> (bool, String) {
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("there is one"));
    let mut command = Command::new(chaos().join(name));
    let Output { status, stdout, stderr } = command.args(args).env("PATH", path).output().expect("starts");
    (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[test]
fn scripts_harm_the_node_that_they_are_given_and_no_other_once_they_are_told_to() {
    // Names that nobody else's nodes have; the second would be meant by the first if that were a pattern.
    let unique = std::process::id();
    let (first, second, third) = (format!("a.{unique}"), format!("a-{unique}"), format!("b{unique}"));
    let mut nodes = Nodes::start(&[&first, &second, &third]);
    let at = nodes.server(&third);

    for (name, args) in [
        ("kill-a-node.sh", &[][..]),
        ("kill-a-decoder.sh", &[]),
        ("drain-a-node.sh", &[]),
        ("drain-a-node.sh", &[&*first]),
        ("kill-a-node.sh", &[".*", "--really"]),
        ("kill-a-node.sh", &["a", "--really"]),
        ("kill-a-decoder.sh", &["a", "--really"]),
        ("drain-a-node.sh", &["a", &at, "--really"]),
        ("drain-a-node.sh", &[&*third, &at, "--really"]),
        ("drain-a-node.sh", &[&*first, "http://127.0.0.1:9", "--really"]),
    ] {
        let (well, said) = script(name, args);
        assert!(!well && !said.is_empty(), "{name} {args:?}: {said}");
    }
    let (hosts, others) = (nodes.hosts(&first), nodes.hosts(&second));
    for (name, args, told) in [
        ("kill-a-node.sh", &[&*first][..], nodes.pid(&first)),
        ("kill-a-decoder.sh", &[&*first], hosts[0].clone()),
        ("drain-a-node.sh", &[&*first, &at], "alive".to_owned()),
    ] {
        let (well, said) = script(name, args);
        assert!(well && said.contains(&first) && said.contains(&told), "{name}: {said}");
    }
    assert!([&first, &second, &third].into_iter().all(|name| nodes.runs(name)));
    assert_eq!((nodes.hosts(&first), nodes.hosts(&second)), (hosts.clone(), others.clone()));
    in_a_pod_with(&fs::read_to_string(format!("/proc/{}/comm", hosts[0])).expect("runs"));

    let (well, said) = script("kill-a-decoder.sh", &[&first, "--really"]);
    assert!(well && said.contains(&hosts[0]), "{said}");
    nodes.until("one host is gone and replaced", |nodes| {
        let now = nodes.hosts(&first);
        !now.contains(&hosts[0]) && now.contains(&hosts[1]) && now.len() == 2
    });
    assert_eq!(nodes.hosts(&second), others);

    let (well, said) = script("drain-a-node.sh", &[&second, &at, "--really"]);
    assert!(well, "{said}");
    nodes.until("the drained node has ended", |nodes| !nodes.runs(&second));
    let ended = nodes.running.get_mut(&second).expect("started").0.wait().expect("ends");
    assert!(ended.success() && nodes.runs(&first) && nodes.runs(&third), "{ended}");

    let (well, said) = script("kill-a-node.sh", &[&first, "--really"]);
    assert!(well && said.contains(&first), "{said}");
    let ended = nodes.running.get_mut(&first).expect("started").0.wait().expect("ends");
    assert_eq!(ended.signal(), Some(9));
    assert!(nodes.runs(&third));
}

/// Runs what is to be run in the pod `pod-0`, but looks through FOLDER, and says whom it would kill.
const KUBECTL: &str = r#"#!/bin/sh
case "$*" in "--namespace speech exec pod-0 --container starling -- sh -c "*) shift 9 ;; *) exit 9 ;; esac
script=$(echo "$1" | sed 's,/proc/\[,FOLDER/proc/[,g; s,#/proc/,#FOLDER/proc/,g')
shift
exec sh -c "kill() { echo kill \"\$@\"; }; $script" "$@"
"#;

/// Finds a host in a pod by what it really calls itself. The pod is a folder with the names of its processes, for a script that looks through all
/// of them would find those of whoever else runs here; nothing is killed.
fn in_a_pod_with(comm: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    for (pid, name) in [("1", "starling\n"), ("12", comm), ("13", comm)] {
        fs::create_dir_all(folder.path().join("proc").join(pid)).expect("made");
        fs::write(folder.path().join("proc").join(pid).join("comm"), name).expect("written");
    }
    let kubectl = KUBECTL.replace("FOLDER", &folder.path().display().to_string());
    program(&folder.path().join("kubectl"), &kubectl);
    for (args, does) in [
        (&["speech", "pod-0"][..], "kill -s 0 12\n"),
        (&["speech", "pod-0", "--really"], "kill -s KILL 12\n"),
    ] {
        let (well, said) = script_with(folder.path(), "kill-a-decoder-in-a-pod.sh", args);
        assert!(well && said.ends_with(does) && said.lines().count() == 2, "{said}");
    }
    fs::remove_dir_all(folder.path().join("proc/12")).expect("removed");
    fs::remove_dir_all(folder.path().join("proc/13")).expect("removed");
    let (well, said) =
        script_with(folder.path(), "kill-a-decoder-in-a-pod.sh", &["speech", "pod-0", "--really"]);
    assert!(!well && said.contains("no decoder hosts"), "{said}");
}

fn program(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("is set");
}

/// Every line of the README that an operator may copy does what its name says to the node that it is given, and to nothing else.
#[test]
fn the_commands_of_the_readme_reach_the_node_that_they_are_given() {
    let readme = fs::read_to_string(chaos().join("README.md")).expect("there");
    let folder = tempfile::tempdir().expect("a folder");
    let record = "#!/bin/sh\nprintf '%s' \"${0##*/}\"; printf ' [%s]' \"$@\"; echo\n";
    for name in ["ssh", "kubectl"] {
        program(&folder.path().join(name), record);
    }
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("there is one"));
    let told = |command: &str| {
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", command]).env("PATH", &path).env("NODE", "node 2").output();
        let Output { status, stdout, stderr } = output.expect("starts");
        assert!(status.success(), "{command}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).trim_end().to_owned()
    };
    let quoted = |line: &str| {
        let (name, rest) = line.split_once(" = '")?;
        Some((name.to_owned(), rest.split_once('\'')?.0.to_owned()))
    };
    let (_, block) = readme.split_once("\n[commands]").expect("an example");
    let (block, behind) = block.split_once("```").expect("it ends");
    let over_ssh: BTreeMap<String, String> = block.lines().filter_map(quoted).collect();
    assert!(over_ssh.len() >= 7, "{over_ssh:?}");
    for (name, command) in &over_ssh {
        let told = told(command);
        let does = match &**name {
            "kill" => "[sudo] [systemctl] [kill] [-s] [KILL] [starling]",
            "pause" => "[sudo] [systemctl] [kill] [-s] [STOP] [starling]",
            "resume" => "[sudo] [systemctl] [kill] [-s] [CONT] [starling]",
            "start" | "undrain" => "[sudo] [systemctl] [start] [starling]",
            "drain" => "[sudo] [systemctl] [stop] [--no-block] [starling]",
            "kill_hosts" => "[sudo] [pkill] [-KILL] [starling-dec]",
            other => panic!("{other} is not known here"),
        };
        assert_eq!(told, format!("ssh [node 2] {does}"), "{name}");
    }
    let in_kubernetes: BTreeMap<String, String> =
        behind.split('`').filter(|code| code.contains("kubectl")).filter_map(quoted).collect();
    assert_eq!(in_kubernetes.keys().collect::<Vec<_>>(), ["drain", "kill", "undrain"]);
    for (name, does) in [
        ("kill", "[-n] [starling] [delete] [pod] [--now] [node 2]"),
        ("drain", "[drain] [--ignore-daemonsets] [--delete-emptydir-data] [-l] [starling-node=node 2]"),
        ("undrain", "[uncordon] [-l] [starling-node=node 2]"),
    ] {
        assert_eq!(told(&in_kubernetes[name]), format!("kubectl {does}"), "{name}");
    }
}
