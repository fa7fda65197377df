//! The program as an operator and a caller meet it: real processes, the scripted engine.

mod program;

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use program::*;
use rustix::process::Signal;
use starling_client::{AudioSender, Client, ClientConfig, Event, Events, SessionConfig};
use starling_engine::scripted::{encode, silence};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;

/// Two utterances, by the words of which anything lost or repeated shows.
fn audio() -> Vec<i16> {
    let words: Vec<String> = (0..40).map(|number| format!("w{number}")).collect();
    let mut samples = encode(&words[..20]);
    samples.extend(silence(20));
    samples.extend(starling_engine::scripted::encode_from(20, &words[20..]));
    samples
}

fn transcript() -> String {
    let words: Vec<String> = (0..40).map(|number| format!("{number}:w{number}")).collect();
    words.join(" ")
}

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

async fn session(program: &Program) -> (AudioSender, Events) {
    let client = Client::new(ClientConfig::new([program.url()])).expect("an address");
    client.open(SessionConfig::default()).await.expect("is admitted").split()
}

/// The joined text of all finals up to `done`.
async fn heard(events: &mut Events) -> String {
    let mut texts = Vec::new();
    loop {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("in time");
        match event.expect("not over").expect("no error") {
            Event::Final(last) if !last.text.is_empty() => texts.push(last.text),
            Event::Done { .. } => return texts.join(" "),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_in_gives_the_same_text_and_a_killed_host_changes_nothing() {
    let program = Program::serve(&["--model", "scripted"], 2).await;
    let samples = audio();

    let (mut sender, mut events) = session(&program).await;
    sender.send(&bytes(&samples)).await.expect("sent");
    sender.end().await.expect("ended");
    assert_eq!(heard(&mut events).await, transcript(), "native");

    let folder = TempDir::new().expect("a folder");
    let wav = scripted_wav(folder.path(), "a.wav", &samples);
    let body = std::fs::read(&wav).expect("readable");
    let answer = exchange(program.http, "POST /v1/transcriptions?words=true", &body).await.expect("answered");
    assert!(answer.contains(&format!("\"text\":\"{}\"", transcript())), "http: {answer}");

    let (finals, replies, messages) = vosk(&program, &samples).await;
    assert_eq!(finals, transcript(), "vosk");
    assert_eq!(replies, messages, "one reply for each message");

    let (mut sender, mut events) = session(&program).await;
    let pieces = bytes(&samples);
    let (kill, first_kill) = oneshot::channel();
    let (mut kill, mut first_kill) = (Some(kill), Some(first_kill));
    let sending = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        for (index, piece) in pieces.chunks(3_200).enumerate() {
            ticks.tick().await;
            // In the middle of the first utterance: whoever kills must not come when all is decoded.
            if let Some(first_kill) = first_kill.take_if(|_| index == 10) {
                first_kill.await.expect("something is killed");
            }
            sender.send(piece).await.expect("sent");
        }
        sender.end().await.expect("ended");
    });
    let mut texts = Vec::new();
    let mut killed = 0;
    while let Some(event) = tokio::time::timeout(PATIENCE, events.next()).await.expect("in time") {
        match event.expect("no error") {
            // In the middle of each utterance.
            Event::Partial { text, .. } if killed <= texts.len() && text.split(' ').count() > 5 => {
                killed += 1;
                program.hosts().into_iter().for_each(|pid| signal(pid, Signal::KILL));
                if let Some(kill) = kill.take() {
                    kill.send(()).expect("the sender waits");
                }
            }
            Event::Final(last) if !last.text.is_empty() => texts.push(last.text),
            Event::Done { .. } => break,
            _ => {}
        }
    }
    sending.await.expect("sent");
    assert!(killed > 0, "nothing was killed");
    assert_eq!(texts.join(" "), transcript(), "killed {killed} times");
    let metrics = get(program.http, "/metrics").await.expect("answered");
    let lost = metrics
        .lines()
        .any(|line| line.starts_with("starling_decoders_lost_total{") && !line.ends_with(" 0"));
    assert!(lost, "{metrics}");
}

/// In lock-step, as the dialect's clients are: the finals' text, the replies and the messages.
async fn vosk(program: &Program, samples: &[i16]) -> (String, usize, usize) {
    let url = format!("ws://{}/", program.vosk);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("upgraded");
    let config = Message::text(r#"{"config":{"sample_rate":16000}}"#);
    socket.send(config).await.expect("sent");
    let mut messages: Vec<Message> =
        bytes(samples).chunks(6_400).map(|piece| Message::binary(piece.to_vec())).collect();
    messages.push(Message::text("{\"eof\" : 1}"));
    let count = messages.len();
    let (mut texts, mut replies) = (Vec::new(), 0);
    for message in messages {
        socket.send(message).await.expect("sent");
        let reply = tokio::time::timeout(PATIENCE, socket.next()).await.expect("in time");
        let reply = reply.expect("not closed").expect("no error").into_text().expect("text");
        let reply: serde_json::Value = serde_json::from_str(&reply).expect("JSON");
        replies += 1;
        texts.extend(reply["text"].as_str().filter(|text| !text.is_empty()).map(str::to_owned));
    }
    let last = tokio::time::timeout(PATIENCE, socket.next()).await.expect("in time");
    let code = match last {
        Some(Ok(Message::Close(Some(frame)))) => u16::from(frame.code),
        other => panic!("{other:?}"),
    };
    assert_eq!(code, 1000);
    (texts.join(" "), replies, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dialect_has_no_word_for_is_in_the_log_once() {
    let program = Program::serve(&["--model", "scripted"], 1).await;
    let logged = |part: &str| program.log().lines().filter(|line| line.contains(part)).count();

    let url = format!("ws://{}/", program.vosk);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("upgraded");
    let config = r#"{"config":{"sample_rate":16000,"phrase_list":["yes"]}}"#;
    socket.send(Message::text(config)).await.expect("sent");
    let messages = [Message::binary(wav_bytes(&audio())), Message::text("{\"eof\" : 1}")];
    for message in messages {
        socket.send(message).await.expect("sent");
        let reply = tokio::time::timeout(PATIENCE, socket.next()).await.expect("in time");
        assert!(matches!(reply, Some(Ok(Message::Text(_)))), "{reply:?}");
    }
    assert_eq!(logged("begins like a recording (WAV)"), 1, "{}", program.log());
    assert_eq!(logged("model scripted has no phrase lists"), 1, "{}", program.log());
    let metrics = get(program.http, "/metrics").await.expect("answered");
    assert!(metrics.contains("starling_suspect_audio_total{reason=\"recording\"} 1"), "{metrics}");

    let url = format!(
        "ws://{}/client/ws/speech?content-type=audio/x-raw&user-id=ann&content-id=call-7",
        program.http
    );
    let (_call, _) = tokio_tungstenite::connect_async(url).await.expect("upgraded");
    let says_whose = |line: &str| line.contains(r#""user":"ann""#) && line.contains(r#""content":"call-7""#);
    poll("word of whose call it is", async || program.log().lines().any(says_whose).then_some(())).await;

    let query = "encoding=linear16&sample_rate=16000&keywords=a&keywords=b&tier=base";
    let url = format!("ws://{}/v1/listen?{query}", program.http);
    let (_socket, _) = tokio_tungstenite::connect_async(url).await.expect("upgraded");
    poll("word of Deepgram's options", async || (logged(r#""ignored":"keywords, tier""#) == 1).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_lets_the_open_session_finish_and_refuses_new_ones() {
    let mut program = Program::serve(&["--model", "scripted"], 2).await;
    let samples = audio();
    let (mut sender, mut events) = session(&program).await;
    sender.send(&bytes(&samples[..samples.len() / 2])).await.expect("sent");
    program.signal(Signal::TERM);
    let not_ready = poll("a readiness that is off", async || {
        get(program.http, "/readyz").await.filter(|answer| answer.starts_with("HTTP/1.1 503"))
    })
    .await;
    assert!(not_ready.contains("the node is stopping"), "{not_ready}");
    let refused = exchange(program.http, "POST /v1/transcriptions", &wav_bytes(&samples)).await;
    assert!(refused.expect("answered").contains("shutting_down"));
    poll("a closed vosk port", async || {
        tokio::net::TcpStream::connect(program.vosk).await.is_err().then_some(())
    })
    .await;

    sender.send(&bytes(&samples[samples.len() / 2..])).await.expect("sent");
    sender.end().await.expect("ended");
    assert_eq!(heard(&mut events).await, transcript());
    assert_eq!(program.end().await.code(), Some(0), "{}", program.log());
}

fn wav_bytes(samples: &[i16]) -> Vec<u8> {
    let folder = TempDir::new().expect("a folder");
    std::fs::read(scripted_wav(folder.path(), "a.wav", samples)).expect("readable")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drain_has_a_deadline_and_a_second_signal_none() {
    let mut program = Program::serve(&["--model", "scripted", "--drain-deadline", "300ms"], 2).await;
    let (mut sender, mut events) = session(&program).await;
    sender.send(&bytes(&audio())).await.expect("sent");
    program.signal(Signal::INT);
    assert_eq!(program.end().await.code(), Some(0), "{}", program.log());
    drop(sender);
    drop(tokio::time::timeout(Duration::ZERO, events.next()).await);

    let mut program = Program::serve(&["--model", "scripted", "--drain-deadline", "1h"], 2).await;
    let (_sender, _events) = session(&program).await;
    program.signal(Signal::TERM);
    poll("the first signal's line", async || program.log().contains("stopping; a second").then_some(()))
        .await;
    program.signal(Signal::TERM);
    assert_eq!(program.end().await.code(), Some(130), "{}", program.log());
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = run(&["serve", "--http", &address, "--vosk", "off", "--model", "scripted"]).await;
    assert_eq!(output.status.code(), Some(71));
    let message = stderr(&output);
    assert!(message.contains(&format!("listen.http = {address}")) && message.contains("in use"), "{message}");
}

#[tokio::test]
async fn what_can_not_be_served_is_said_with_its_remedy() {
    let home = TempDir::new().expect("a folder");
    let home = home.path().to_str().expect("UTF-8");
    let serve = ["--home", home, "serve", "--http", "127.0.0.1:0", "--vosk", "off"];
    let with = |more: &[&'static str]| [&serve[..], more].concat();

    let output = run(&with(&[])).await;
    assert_eq!(output.status.code(), Some(66));
    assert!(stderr(&output).contains("starling models fetch moonshine-tiny-en"), "{}", stderr(&output));

    let output = run(&with(&["--model", "vosk-ko-small"])).await;
    assert_eq!(output.status.code(), Some(66));
    assert!(stderr(&output).contains("starling models fetch vosk-ko-small"), "{}", stderr(&output));

    let output = run(&with(&["--model", "nonsense"])).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("`nonsense`"), "{}", stderr(&output));

    let output = run(&with(&["--model", "scripted", "--decoder", "/nowhere/decoder"])).await;
    assert_eq!(output.status.code(), Some(66));
    assert!(stderr(&output).contains("/nowhere/decoder"), "{}", stderr(&output));

    let output = run(&["serve", "--http", "0.0.0.0:0", "--model", "scripted"]).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("--insecure-open"), "{}", stderr(&output));
}

#[tokio::test]
async fn an_open_address_is_warned_of_at_each_start() {
    let program = Program::start(&["--model", "scripted", "--http", "0.0.0.0:0", "--insecure-open"]).await;
    assert!(program.log().contains("no key is asked for"), "{}", program.log());
}

/// An address of this machine beyond loopback, if it has one. Nothing is sent to find it.
fn beyond_loopback() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

#[tokio::test]
async fn without_keys_sessions_are_named_on_the_node_s_machine_alone() {
    let program = Program::start(&["--model", "scripted", "--http", "0.0.0.0:0", "--insecure-open"]).await;
    let port = program.http.port();
    let status = async |address: IpAddr, path| {
        let answer = get((address, port).into(), path).await.expect("an answer");
        answer.split(' ').nth(1).map(str::to_owned)
    };
    let mut from = vec![(IpAddr::from([127, 0, 0, 1]), "200")];
    // A machine without a network has only itself; who may is in the tests of tenants.
    from.extend(beyond_loopback().map(|address| (address, "403")));
    for (address, sessions) in from {
        for (path, wanted) in [
            ("/v1/cluster", sessions),
            ("/v1/sessions", sessions),
            ("/metrics", "200"),
            ("/v1/scaling", "200"),
        ] {
            assert_eq!(status(address, path).await.as_deref(), Some(wanted), "{path} at {address}");
        }
    }
}

#[tokio::test]
async fn words_of_opentelemetry_s_that_are_not_known_keep_no_node_from_starting() {
    let variables = [
        ("OTEL_TRACES_EXPORTER", "console".to_owned()),
        ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317".to_owned()),
    ];
    let program = Program::start_with(&["--model", "scripted"], &variables).await;
    let log = program.log();
    for said in ["OTEL_TRACES_EXPORTER is", "OTEL_TRACES_SAMPLER is", "over HTTP to port 4317"] {
        assert!(log.contains(said), "{log}");
    }
}

#[tokio::test]
async fn a_configuration_is_checked_without_a_start() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("cluster.toml");
    std::fs::write(&file, "[sessions]\n\nlinger = \"soon\"\n").expect("written");
    let path = file.to_str().expect("UTF-8");
    let output = run(&["check-config", "--config", path]).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("sessions.linger is \"soon\"") && stderr(&output).contains("line 3"));

    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../cluster.toml");
    let output = run(&["check-config", "--config", sample, "--http", "127.0.0.1:9"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("http = \"127.0.0.1:9\""), "{}", stdout(&output));
}

#[tokio::test]
async fn help_version_and_completions_are_there() {
    let output = run(&["--version"]).await;
    assert!(output.status.success() && stdout(&output).starts_with("starling 0."), "{}", stdout(&output));
    assert!(stdout(&output).contains(std::env::consts::ARCH));
    let output = run(&["completions", "bash"]).await;
    assert!(output.status.success() && stdout(&output).contains("_starling"));
    assert_eq!(run(&["--help"]).await.status.code(), Some(0));
    assert_eq!(run(&["serv"]).await.status.code(), Some(64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transcribe_prints_each_format_and_its_exit_code_says_what_failed() {
    let program = Program::serve(&["--model", "scripted"], 2).await;
    let folder = TempDir::new().expect("a folder");
    let wav = scripted_wav(folder.path(), "talk.wav", &audio());
    let wav = wav.to_str().expect("UTF-8");
    let url = program.url();
    let with = async |more: &[&str]| run(&[&["transcribe", "--server", &url], more].concat()).await;

    let output = with(&[wav]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output).split_whitespace().collect::<Vec<_>>().join(" "), transcript());

    let output = with(&[wav, "--format", "json", "--words"]).await;
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!((&json["text"], &json["duration"]), (&transcript().into(), &6.0.into()));

    let output = with(&[wav, "--format", "srt"]).await;
    assert!(stdout(&output).starts_with("1\n00:00:0"), "{}", stdout(&output));

    let target = folder.path().join("out");
    let target = target.to_str().expect("UTF-8");
    let output = with(&[wav, "/nowhere.wav", "--format", "vtt", "--output", target]).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(std::fs::read_to_string(format!("{target}/talk.vtt")).expect("written").starts_with("WEBVTT"));

    assert_eq!(with(&["/nowhere.wav"]).await.status.code(), Some(66));
    assert_eq!(with(&[concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]).await.status.code(), Some(65));
    assert_eq!(with(&[wav, "--model", "nonsense"]).await.status.code(), Some(64));
    assert_eq!(with(&[wav, wav, "--format", "srt"]).await.status.code(), Some(64));
    drop(program);
    let output = with(&[wav]).await;
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
}
