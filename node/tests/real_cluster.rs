//! Three nodes as an operator meets them: real processes, the scripted engine, killed and started again.

mod program;

use program::*;
use rustix::process::Signal;
use serde_json::Value;

/// A node of the cluster, on ports of the system's choice.
async fn node(name: &str, seeds: &str) -> Program {
    let arguments =
        ["--model", "scripted", "--node-id", name, "--cluster-listen", "127.0.0.1:0", "--seeds", seeds];
    Program::start(&arguments).await
}

/// What `starling status --json` says of a node.
struct Seen {
    state: String,
    generation: u64,
}

async fn status(of: &Program) -> Option<Value> {
    let server = format!("http://{}", of.http);
    let output = run(&["status", "--json", "--server", &server]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).ok()
}

async fn seen(by: &Program, name: &str) -> Option<Seen> {
    let status = status(by).await?;
    let node = status["nodes"].as_array()?.iter().find(|node| node["name"] == name)?;
    Some(Seen { state: node["state"].as_str()?.to_owned(), generation: node["generation"].as_u64()? })
}

async fn wait_for(by: &Program, name: &str, state: &str) -> Seen {
    let what = format!("{name} as {state}");
    poll(&what, async || seen(by, name).await.filter(|seen| seen.state == state)).await
}

async fn all_alive(nodes: &[&Program]) {
    for by in nodes {
        for name in ["a", "b", "c"] {
            wait_for(by, name, "alive").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_find_each_other_and_see_each_other_die_come_back_and_go() {
    let a = node("a", "").await;
    let seed = a.gossip().expect("gossips").to_string();
    let mut b = node("b", &seed).await;
    let mut c = node("c", &format!("127.0.0.1:9,{seed}")).await;
    all_alive(&[&a, &b, &c]).await;

    // What they serve adds up once their hosts are ready and each has told of it: 2 hosts of 4 slots on 3 nodes.
    poll("the slots of all", async || {
        let status = status(&a).await?;
        let model = status["models"].as_array()?.iter().find(|model| model["name"] == "scripted")?;
        (model["nodes"] == 3 && model["slots"]["idle"] == 24).then_some(())
    })
    .await;
    let table = run(&["status", "--server", &a.url()]).await;
    let table = stdout(&table);
    assert!(
        table.starts_with("NODE") && table.contains("a*") && table.contains("gateway,decoder"),
        "{table}"
    );

    let before = wait_for(&a, "b", "alive").await;
    b.signal(Signal::KILL);
    b.end().await;
    wait_for(&a, "b", "down").await;
    wait_for(&c, "b", "down").await;
    let again = node("b", &seed).await;
    let after = wait_for(&c, "b", "alive").await;
    assert!(after.generation > before.generation, "{} {}", before.generation, after.generation);
    all_alive(&[&a, &again, &c]).await;

    // Frozen for so long that the others give it up, it comes back as the same run.
    let before = wait_for(&a, "c", "alive").await;
    let accused = c.log().matches("is down").count();
    c.signal(Signal::STOP);
    wait_for(&a, "c", "down").await;
    c.signal(Signal::CONT);
    assert_eq!(wait_for(&a, "c", "alive").await.generation, before.generation);
    poll("a word of the pause", async || {
        let log = c.log();
        (log.contains("this process stood still") && log.contains("had given this one up")).then_some(())
    })
    .await;
    all_alive(&[&a, &again, &c]).await;
    assert_eq!(c.log().matches("is down").count(), accused, "it blamed others for its own pause");

    c.signal(Signal::TERM);
    assert!(c.end().await.success());
    wait_for(&a, "c", "left").await;
    let metrics = get(a.http, "/metrics").await.expect("answered");
    assert!(metrics.contains("starling_cluster_members{state=\"left\"} 1"), "{metrics}");
    assert!(metrics.contains("starling_cluster_members{state=\"alive\"} 2"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_seeds_are_silent_waits_for_them_and_then_takes_callers_alone() {
    let is_ready = |answer: &str| answer.starts_with("HTTP/1.1 200");
    // Where the machine stands still for as long as a node waits, nobody is there to hear of it: then another one is asked.
    let mut tries = 0..5;
    let alone = loop {
        tries.next().expect("no node says that it waits for its seeds");
        let alone = node("alone", "127.0.0.1:9").await;
        let waits = poll("a word of the seeds", async || {
            let answer = get(alone.http, "/readyz").await?;
            let waits = answer.contains("none of the seeds has answered yet: 127.0.0.1:9");
            (waits || is_ready(&answer)).then_some(waits)
        })
        .await;
        if waits {
            break alone;
        }
    };
    poll("readiness", async || is_ready(&get(alone.http, "/readyz").await?).then_some(())).await;
    // Without seeds there is nobody to wait for.
    let first = node("first", "").await;
    assert!(!get(first.http, "/readyz").await.expect("answers").contains("seeds"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_under_one_name_the_earlier_ends_and_says_why() {
    let a = node("a", "").await;
    let seed = a.gossip().expect("gossips").to_string();
    let mut earlier = node("b", &seed).await;
    wait_for(&a, "b", "alive").await;
    let _later = node("b", &seed).await;
    assert_eq!(earlier.end().await.code(), Some(64));
    assert!(earlier.log().contains("give each node a name of its own"), "{}", earlier.log());
    wait_for(&a, "b", "alive").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_said_to_be_unreachable() {
    let output = run(&["status", "--server", "http://127.0.0.1:9"]).await;
    assert_eq!(output.status.code(), Some(69));
    assert!(stderr(&output).contains("127.0.0.1:9 cannot be asked"), "{}", stderr(&output));
    assert_eq!(run(&["status", "--server", "https://127.0.0.1:9"]).await.status.code(), Some(69));
    assert_eq!(run(&["status", "--server", "ftp://127.0.0.1:9"]).await.status.code(), Some(64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_makes_room_stays_until_its_machine_is_taken_away() {
    let a = node("a", "").await;
    let seed = a.gossip().expect("gossips").to_string();
    let mut others = [node("b", &seed).await, node("c", &seed).await];
    all_alive(&[&a]).await;
    for (name, program) in ["b", "c"].into_iter().zip(&mut others) {
        let drain = async |more: &[&str]| {
            let url = a.url();
            // A member is known before there is a link to it.
            poll("a way to it", async || {
                let drained = run(&[&["drain", name, "--server", &url][..], more].concat()).await;
                drained.status.success().then_some(())
            })
            .await;
        };
        drain(&["--stay", "1h"]).await;
        poll("a word of its staying", async || program.log().contains("drained; stays").then_some(())).await;
        // It is there, and nobody is sent there.
        wait_for(&a, name, "draining").await;
        assert!(!get(program.http, "/readyz").await.expect("it answers").starts_with("HTTP/1.1 200"));
        assert!(get(program.http, "/livez").await.expect("it answers").starts_with("HTTP/1.1 200"));
        match name {
            "b" => program.signal(Signal::TERM),
            _ => drain(&[]).await,
        }
        assert!(program.end().await.success(), "{}", program.log());
        wait_for(&a, name, "left").await;
    }
}
