//! The program over QUIC and TLS: the same transcript as over WebSocket, commands over TLS, and a node that is killed under a
//! caller. Real processes, the scripted engine.

mod program;

use std::time::Duration;

use program::*;
use rustix::process::Signal;
use serde_json::Value;
use starling_client::{Client, ClientConfig, Event, SessionConfig};
use starling_engine::scripted::{encode, encode_from, silence};
use tempfile::TempDir;

fn audio() -> Vec<i16> {
    let words: Vec<String> = (0..40).map(|number| format!("w{number}")).collect();
    let mut samples = encode(&words[..20]);
    samples.extend(silence(20));
    samples.extend(encode_from(20, &words[20..]));
    samples
}

fn transcript() -> String {
    (0..40).map(|number| format!("{number}:w{number}")).collect::<Vec<_>>().join(" ")
}

/// A folder with a certificate for loopback and settings that name it.
async fn prepared() -> (TempDir, String, String) {
    let folder = TempDir::new().expect("a folder");
    let certificate = Certificate::in_folder(folder.path()).await;
    let file = folder.path().join("cluster.toml");
    std::fs::write(&file, certificate.settings()).expect("written");
    (folder, file.display().to_string(), certificate.cert)
}

#[tokio::test]
async fn every_transport_gives_the_same_transcript_and_commands_speak_tls() {
    let (folder, settings, cert) = prepared().await;
    let program = Program::serve(&["--config", &settings, "--model", "scripted"], 2).await;
    let wav = scripted_wav(folder.path(), "a.wav", &audio()).display().to_string();
    let https = program.listening("https").expect("listens");
    let quic = format!("quic://{}", program.listening("quic").expect("listens"));
    let mut texts = Vec::new();
    for server in [program.url(), format!("wss://{https}"), quic.clone()] {
        let output =
            run(&["transcribe", &wav, "-q", "--format", "json", "--server", &server, "--ca", &cert]).await;
        assert!(output.status.success(), "{server}: {}", stderr(&output));
        texts.push(serde_json::from_str::<Value>(&stdout(&output)).expect("JSON"));
    }
    assert_eq!(texts[0]["text"], transcript());
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");

    let server = format!("https://{https}");
    let status = run(&["status", "--json", "--server", &server, "--ca", &cert]).await;
    assert!(status.status.success(), "{}", stderr(&status));
    assert!(stdout(&status).contains("\"nodes\""));
    let untrusted = run(&["transcribe", &wav, "-q", "--server", &quic, "--ca", "/nowhere.pem"]).await;
    assert_eq!(untrusted.status.code(), Some(64), "{}", stderr(&untrusted));
    assert!(stderr(&untrusted).contains("/nowhere.pem"));
    let other = run(&["status", "--server", &quic]).await;
    assert!(stderr(&other).contains("must begin with http:// or https://"), "{}", stderr(&other));
}

#[tokio::test]
async fn a_caller_over_quic_goes_on_at_another_node_when_its_own_is_killed() {
    let (_folder, settings, cert) = prepared().await;
    let seed = free_address().to_string();
    let mut nodes = Vec::new();
    for (name, listen) in [("node-0", seed.as_str()), ("node-1", "127.0.0.1:0")] {
        let cluster = ["--cluster-listen", listen, "--seeds", &seed, "--node-id", name];
        let arguments = [&["--config", &settings, "--model", "scripted"][..], &cluster].concat();
        nodes.push(Program::serve(&arguments, 2).await);
    }
    let urls: Vec<String> =
        nodes.iter().map(|node| format!("quic://{}", node.listening("quic").expect("listens"))).collect();
    let mut config = ClientConfig::new(urls);
    config.ca_file = Some(cert.into());
    let client = Client::new(config).expect("fine");
    // A session's copies are where its node knows others.
    for node in &nodes {
        poll("nodes that know each other", async || {
            let answer = get(node.http, "/v1/cluster").await?;
            let (_, body) = answer.split_once("\r\n\r\n")?;
            let status: Value = serde_json::from_str(body).ok()?;
            let known = status["nodes"].as_array()?.iter();
            let ready = |node: &&Value| {
                node["state"] == "alive" && node["models"][0]["slots"]["idle"].as_u64() > Some(0)
            };
            (known.filter(ready).count() == 2).then_some(())
        })
        .await;
    }
    let session = client.open(SessionConfig::default()).await.expect("is admitted");
    let mut durable = session.opened().durable;
    let (mut sender, mut events) = session.split();
    let pieces: Vec<u8> = audio().iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let (killed_in, killed) = tokio::sync::oneshot::channel();
    let (mut killed_in, mut killed) = (Some(killed_in), Some(killed));
    let sending = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        for (index, piece) in pieces.chunks(3_200).enumerate() {
            ticks.tick().await;
            if let Some(killed) = killed.take_if(|_| index == 10) {
                killed.await.expect("the node is killed");
            }
            sender.send(piece).await.expect("sent");
        }
        sender.end().await.expect("ended");
    });
    let (mut texts, mut reconnected, mut in_sentence) = (Vec::new(), false, false);
    while let Some(event) = tokio::time::timeout(PATIENCE, events.next()).await.expect("in time") {
        match event.expect("no error") {
            Event::Durable(now) => durable = now,
            Event::Partial { text, .. } => in_sentence = text.split(' ').count() > 5,
            Event::Final(last) if !last.text.is_empty() => texts.push(last.text),
            Event::Reconnected { restarted, .. } => {
                assert!(!restarted, "the copy was not found");
                reconnected = true;
            }
            Event::Gap { from, to } => panic!("frames {from} to {to} are lost"),
            Event::Done { .. } => break,
            _ => {}
        }
        if let Some(killed) = killed_in.take_if(|_| durable && in_sentence) {
            nodes[0].signal(Signal::KILL);
            killed.send(()).expect("the sender waits");
        }
    }
    sending.await.expect("sent");
    assert!(reconnected, "nothing was killed");
    assert_eq!(texts.join(" "), transcript());
}
