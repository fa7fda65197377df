//! Memory of an idle session in the node, and of each host.

use std::time::Duration;

use anyhow::{Result, ensure};
use starling_client::SessionOptions;

use super::Bench;
use crate::native::Raw;
use crate::node::Model;
use crate::process;
use crate::report::Report;

/// Enough that the allocator's steps don't show.
const SESSIONS: usize = 200;

/// The scripted engine has a slot for each and no memory of its own; the node's part is the same with any engine.
const SCRIPTED: Model = Model { name: "scripted", hosts: 1, slots: 256, threads: 1, prewarm: 0 };

const HOSTS: [Model; 2] = [
    Model { name: "vosk-ko-small", hosts: 1, slots: 4, threads: 2, prewarm: 2 },
    Model { name: "moonshine-tiny-en", hosts: 1, slots: 4, threads: 2, prewarm: 2 },
];

pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let node = bench.node(&[SCRIPTED]).await?;
    // Whatever the first sessions cost once is not an idle session's.
    let first = sessions(&node, 16).await?;
    let before = process::resident_bytes(node.pid())?;
    let open = sessions(&node, SESSIONS).await?;
    // What was only needed to open them is given back.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = process::resident_bytes(node.pid())?;
    ensure!(node.metric("starling_sessions")? >= SESSIONS as f64, "the sessions are not open");
    let kib = after.saturating_sub(before) as f64 / SESSIONS as f64 / 1_024.0;
    report.figure("memory", "node, an idle session", "KiB", kib, Some("< 64"));
    report.figure("memory", "node, with no session", "MiB", before as f64 / f64::from(1 << 20), None);
    drop((first, open));
    for model in HOSTS {
        let node = bench.node(std::slice::from_ref(&model)).await?;
        for pid in node.hosts() {
            let mib = process::resident_bytes(pid)? as f64 / f64::from(1 << 20);
            report.figure("memory", format!("host of {}, 2 warm recognizers", model.name), "MiB", mib, None);
        }
    }
    Ok(())
}

async fn sessions(node: &crate::node::Node, count: usize) -> Result<Vec<Raw>> {
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        open.push(Raw::open(node.http, SCRIPTED.name, SessionOptions::default()).await?);
    }
    Ok(open)
}
