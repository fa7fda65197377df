//! A node whose log can't be written: `/dev/full` answers as a file on a full disk does.

mod program;

use std::fs::OpenOptions;
use std::process::Stdio;

use program::{free_address, get, poll, signal, starling};
use rustix::process::Signal;

#[tokio::test]
async fn a_log_that_can_not_be_written_ends_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("cluster.toml");
    let settings = "[listen]\nvosk = \"off\"\n[[model]]\nname = \"scripted\"\nhosts = 1\n";
    std::fs::write(&config, settings).expect("written");
    // It can't say where it listens.
    let address = free_address();
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("Linux");
    let mut command = starling();
    command.args(["serve", "--http", &address.to_string(), "--log-level", "debug", "--config"]).arg(&config);
    command.stdin(Stdio::null()).stdout(full()).stderr(full());
    let mut node = command.spawn().expect("starts");
    // Both log meanwhile, node and host.
    poll("readiness", async || {
        assert_eq!(node.try_wait().expect("can be asked"), None, "the node ended");
        let metrics = get(address, "/metrics").await?;
        let is_up = |line: &str| line.starts_with("starling_hosts_ready{") && line.ends_with(" 1");
        let ready = get(address, "/readyz").await?.starts_with("HTTP/1.1 200");
        (ready && metrics.lines().any(is_up)).then_some(())
    })
    .await;
    signal(node.id(), Signal::TERM);
    let status = poll("the end", async || node.try_wait().expect("can be asked")).await;
    assert!(status.success(), "{status}");
}
