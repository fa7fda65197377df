//! Our own client in a real browser, with a real model: over WebSocket while its node is killed, and over WebTransport.

mod program;

use std::process::Output;

use program::clients::*;
use program::cluster::Cluster;
use program::*;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A page of Chromium's that has the recording transcribed.
fn page(options: &[&str], servers: &[String]) -> JoinHandle<Output> {
    let mut command = Language::JavaScript.program("checks/browser/in-chromium.mjs");
    command.args(options).args(servers).arg(recording());
    began(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_goes_on_over_websocket_when_its_node_is_killed() {
    let mut cluster = Cluster::of(2).await;
    let undisturbed = segments(&cluster.urls()[0], &recording()).await;
    assert!(undisturbed.join(" ").contains("try again"), "{undisturbed:?}");
    cluster.quiet().await;
    let mut page = page(&["--loss"], &cluster.urls());
    let owner = tokio::select! {
        owner = cluster.owner() => owner,
        output = &mut page => panic!("the page was over too soon: {}", stderr(&output.expect("runs"))),
    };
    cluster.kill(owner);
    let told = told(page).await;
    assert_eq!(told["text"], undisturbed.join(" "), "{told}");
    assert_eq!(told["gaps"], 0, "{told}");
    assert!(told["replaced"].as_u64() >= Some(1), "{told}");
    assert!(told["partials"].as_u64() > Some(0), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_speaks_webtransport_with_a_self_signed_certificate() {
    let folder = TempDir::new().expect("a folder");
    let certificate = Certificate::in_folder(folder.path()).await;
    let settings = folder.path().join("cluster.toml");
    std::fs::write(&settings, certificate.settings()).expect("written");
    let settings = settings.display().to_string();
    let program = Program::serve(&["--config", &settings, "--model", "moonshine-tiny-en"], 1).await;
    let undisturbed = segments(&program.url(), &recording()).await;
    let server = format!("https://{}", program.listening("quic").expect("listens"));
    let told = told(page(&["--certificate-hash", &certificate.sha256], &[server])).await;
    assert_eq!(told["text"], undisturbed.join(" "), "{told}");
    assert_eq!((&told["gaps"], &told["replaced"]), (&0.into(), &0.into()), "{told}");
    assert!(told["partials"].as_u64() > Some(0), "{told}");
}
