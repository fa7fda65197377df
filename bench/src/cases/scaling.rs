//! Hosts that become more and fewer: what the policies refuse and leave idle, and how long it takes until one more decodes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use starling_client::SessionOptions;
use tokio::time::Instant;

use super::Bench;
use crate::native::Raw;
use crate::node::{Node, Plan};
use crate::report::Report;
use crate::scaling::run::{Account, run as simulate};
use crate::scaling::{Policy, SUPPLIES, trace};

const CASE: &str = "scaling";

/// Far more than a model takes to load.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often somebody who is refused asks again.
const AGAIN: Duration = Duration::from_millis(2);

pub(crate) async fn run(bench: &Bench, report: &mut Report, calls: Option<&Path>) -> Result<()> {
    policies(bench.quick, report, calls)?;
    for model in ["vosk-ko-small", "moonshine-tiny-en"] {
        serving(bench, report, model).await.with_context(|| model)?;
    }
    Ok(())
}

fn policies(quick: bool, report: &mut Report, calls: Option<&Path>) -> Result<()> {
    let mut traces = trace::synthetic(quick);
    traces.extend(calls.map(trace::recorded).transpose()?);
    for trace in &traces {
        for supply in SUPPLIES {
            for policy in Policy::ALL {
                let account = simulate(trace, supply, policy);
                report.note(line(&format!("{}, {}", trace.name, supply.name), policy, &account));
            }
        }
    }
    Ok(())
}

pub(crate) fn line(what: &str, policy: Policy, account: &Account) -> String {
    let Account { calls, refused, waited, starts, flaps, idle_hours, hours } = account;
    format!(
        "{what:<52} {:<10} {calls:>7} calls {refused:>6} refused {waited:>6} waited {idle_hours:>9.1} idle of {hours:>9.1} \
         decoder-hours {starts:>5} starts {flaps:>4} flaps",
        policy.name()
    )
}

/// From the refusal for want of a decoder to being served: with the model on the disk, and with a host that is there still.
async fn serving(bench: &Bench, report: &mut Report, model: &str) -> Result<()> {
    let (mut cold, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..bench.repeats(10) {
        let node = start(bench, model).await?;
        let first = open(&node, model).await?;
        let second = open(&node, model).await?;
        // The second asked for another host; until it is there, who comes is refused.
        let began = Instant::now();
        if open(&node, model).await.is_ok() {
            bail!("the third caller was not refused");
        }
        let third = until_served(&node, model).await?;
        cold.push(began.elapsed().as_secs_f64() * 1_000.0);
        for session in [first, second, third] {
            session.end().await?;
        }
        // One host is one too many now, and stays for a while.
        let deadline = Instant::now() + PATIENCE;
        while node.metric("starling_hosts_ready")? > 1.0 {
            if Instant::now() > deadline {
                bail!("no host was parked");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let first = open(&node, model).await?;
        let second = open(&node, model).await?;
        let began = Instant::now();
        let third = until_served(&node, model).await?;
        resident.push(began.elapsed().as_secs_f64() * 1_000.0);
        drop((first, second, third));
    }
    let what = format!("{model}, from refused for want of a decoder to served, on disk");
    report.spread(CASE, &what, "ms", &cold, Some("< 2000"));
    report.spread(CASE, &format!("{model}, the same, resident"), "ms", &resident, Some("< 50"));
    Ok(())
}

async fn start(bench: &Bench, model: &str) -> Result<Node> {
    let mut plan = Plan::alone(&[])?;
    plan.sessions = "queue_length = 0\n".to_owned();
    plan.tables.push_str(&format!(
        "[[model]]\nname = \"{model}\"\nhosts = 1\nslots = 2\n[model.scaling]\nenabled = true\nmax = 4\n\
         idle_target = 1\ncooldown = \"0s\"\ncheck_interval = \"1s\"\nidle_ttl = \"10m\"\n"
    ));
    let mut node = Node::launch(&bench.programs, &bench.home, &plan)?;
    node.wait_until_ready(&[]).await?;
    Ok(node)
}

async fn open(node: &Node, model: &str) -> Result<Raw> {
    Raw::open(node.http, model, SessionOptions::default()).await
}

async fn until_served(node: &Node, model: &str) -> Result<Raw> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match open(node, model).await {
            Ok(session) => return Ok(session),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}
