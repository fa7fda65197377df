//! Models that change under a running node: by its configuration, read again at SIGHUP, and by `starling models add`.

mod program;

use program::scripted::{heard, pcm, transcript, try_open};
use program::*;
use rustix::process::Signal;
use serde_json::Value;
use starling_client::{AudioSender, Events};

async fn open(program: &Program) -> (AudioSender, Events) {
    try_open(program.url(), None).await.expect("is admitted")
}

/// Slots of a model that new sessions get.
async fn slots(of: &Program, model: &str) -> Option<u64> {
    let models = json(of.http, "/v1/models").await?;
    let model = models["models"].as_array()?.iter().find(|entry| entry["name"] == model)?.clone();
    model["slots"]["total"].as_u64()
}

async fn wait_for_slots(of: &Program, model: &str, wanted: Option<u64>) {
    poll(&format!("{wanted:?} slots of {model}"), async || (slots(of, model).await == wanted).then_some(()))
        .await;
}

async fn logged(by: &Program, text: &str) {
    poll(&format!("{text:?} in the log"), async || by.log().contains(text).then_some(())).await;
}

const SCRIPTED: &str = "[[model]]\nname = \"scripted\"\nhosts = 1\nslots = 2\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_has_the_models_read_again_and_open_sessions_keep_theirs() {
    let settings = Settings::new(SCRIPTED);
    let program = Program::serve(&["--config", settings.path()], 1).await;
    assert_eq!(slots(&program, "scripted").await, Some(2));
    let (mut sender, events) = open(&program).await;
    let pcm = pcm();
    let (first, rest) = pcm.split_at(pcm.len() / 2);
    sender.send(first).await.expect("sent");

    let more = SCRIPTED.replace("slots = 2", "slots = 5");
    settings.write(&format!("[log]\nlevel = \"debug\"\n[sessions]\nqueue_length = 9\n{more}"));
    program.signal(Signal::HUP);
    wait_for_slots(&program, "scripted", Some(5)).await;
    logged(&program, "in force only after a restart: sessions.queue_length").await;
    sender.send(rest).await.expect("sent");
    sender.end().await.expect("ended");
    assert_eq!(heard(events).await, transcript());
    logged(&program, "\"level\":\"DEBUG\"").await;
    logged(&program, "\"span\":{\"id\":").await;

    // What can't be read, or names what there is not, changes nothing.
    for (wrong, told) in [
        (SCRIPTED.replace("slots = 2", "slots = 0"), "model.0.slots"),
        ("[[model]]\nname = \"no-such-model\"\n".to_owned(), "no-such-model"),
        ("[[model".to_owned(), "cluster.toml"),
    ] {
        settings.write(&wrong);
        let before = program.log().matches("the settings are not taken").count();
        program.signal(Signal::HUP);
        poll("the refusal", async || {
            let log = program.log();
            let refusal =
                log.lines().filter(|line| line.contains("the settings are not taken")).nth(before)?;
            assert!(refusal.contains(told), "{refusal}");
            Some(())
        })
        .await;
        assert_eq!(slots(&program, "scripted").await, Some(5), "{wrong}");
    }

    settings.write(&more);
    program.signal(Signal::HUP);
    logged(&program, "as before").await;
    let (mut sender, events) = open(&program).await;
    sender.send(&pcm).await.expect("sent");
    sender.end().await.expect("ended");
    assert_eq!(heard(events).await, transcript());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_added_and_replaced_on_all_nodes() {
    let node = async |name: &str, seeds: &str| {
        let cluster = ["--node-id", name, "--cluster-listen", "127.0.0.1:0", "--seeds", seeds];
        Program::serve(&[&["--model", "scripted"][..], &cluster].concat(), 2).await
    };
    let a = node("a", "").await;
    let b = node("b", &a.gossip().expect("gossips").to_string()).await;
    let server = format!("http://{}", a.http);
    let add = async |arguments: &[&str]| {
        run(&[&["models", "add", "--server", server.as_str()][..], arguments].concat()).await
    };
    poll("both nodes to answer", async || {
        let output = add(&["scripted"]).await;
        assert!(output.status.success(), "{}", stderr(&output));
        (stdout(&output).matches(": unchanged, files ").count() == 2).then_some(())
    })
    .await;

    let replaced = add(&["scripted", "--slots", "6"]).await;
    assert!(replaced.status.success(), "{}", stderr(&replaced));
    assert!(stdout(&replaced).starts_with("a: replacing, files "), "{}", stdout(&replaced));
    wait_for_slots(&a, "scripted", Some(12)).await;
    wait_for_slots(&b, "scripted", Some(12)).await;
    poll("the slots of both in the cluster's view", async || {
        let status = run(&["status", "--json", "--server", &server]).await;
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        let model = status["models"].as_array()?.iter().find(|model| model["name"] == "scripted")?.clone();
        (model["nodes"] == 2 && model["slots"]["idle"] == 24).then_some(())
    })
    .await;

    // A model beside the first, with real speech, on one of the nodes.
    assert_eq!(slots(&b, "moonshine-tiny-en").await, None);
    let added = add(&["moonshine-tiny-en", "--hosts", "1", "--node", "b"]).await;
    assert!(added.status.success(), "{}", stderr(&added));
    assert!(stdout(&added).starts_with("b: added, files "), "{}", stdout(&added));
    wait_for_slots(&b, "moonshine-tiny-en", Some(4)).await;
    let recording = home().root().join("audio/beckett.wav").display().to_string();
    let arguments =
        ["transcribe", "--server", &b.url(), "--model", "moonshine-tiny-en", "--quiet", &recording];
    let transcribed = run(&arguments).await;
    assert!(transcribed.status.success(), "{}", stderr(&transcribed));
    assert!(stdout(&transcribed).to_lowercase().contains("fail"), "{}", stdout(&transcribed));
    assert_eq!(slots(&a, "moonshine-tiny-en").await, None);

    // Asked for what can't be, nodes say why and serve what they did.
    for (arguments, told) in [
        (&["no-such-model"][..], "no-such-model"),
        (&["scripted", "--slots", "0"], "a whole number from 1 to 256"),
        (&["scripted", "--node", "z"], "those that can are a, b"),
    ] {
        let output = add(arguments).await;
        assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
    }
    assert_eq!(slots(&a, "scripted").await, Some(12));
}
