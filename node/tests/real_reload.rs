//! What changes under a running node: models, by its configuration, read again at SIGHUP, and by `starling models add`; and keys.

mod program;

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use futures_util::{SinkExt, StreamExt};
use program::scripted::{heard, pcm, transcript, try_open};
use program::*;
use rustix::process::Signal;
use serde_json::{Value, json};
use starling_client::{AudioSender, Events};
use starling_node::tenants::KeyHash;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

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

/// A service that signs tokens, with its set of one public key.
struct Issuer {
    pair: rcgen::KeyPair,
    set: String,
}

impl Issuer {
    fn new() -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key pair");
        let public = data_encoding::BASE64URL_NOPAD.encode(pair.public_key_raw());
        let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": public }] }).to_string();
        Self { pair, set }
    }

    /// One of acme's that holds for an hour.
    fn token(&self) -> String {
        let claims = json!({ "tenant": "acme", "exp": starling_actors::unix_now().as_secs() + 3_600 });
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
        let signing = jsonwebtoken::EncodingKey::from_ed_der(&self.pair.serialize_der());
        jsonwebtoken::encode(&header, &claims, &signing).expect("signs")
    }
}

/// How a node answers whoever shows this key.
async fn answer(program: &Program, key: &str) -> String {
    let answer = get(program.http, &format!("/v1/models?token={key}")).await.expect("answered");
    answer.split(' ').nth(1).expect("a status").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_has_the_keys_read_again_and_never_opens_the_door() {
    const KEYS: [&str; 2] = ["starling_the_first_key", "starling_the_second_key"];
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let folder = TempDir::new().expect("a folder");
    let [keys_file, jwks_file] = ["keys", "jwks"].map(|name| folder.path().join(name));
    let keys_are = |text: &str| std::fs::write(&keys_file, text).expect("written");
    let issuer_is = |issuer: &Issuer| std::fs::write(&jwks_file, &issuer.set).expect("written");
    keys_are(&KeyHash::of(KEYS[0]).to_string());
    issuer_is(&issuer);
    let keyed = format!(
        "[jwt]\njwks_file = {jwks_file:?}\n{SCRIPTED}[[tenant]]\nname = \"acme\"\nkeys_file = {keys_file:?}\n"
    );
    let settings = Settings::new(&keyed);
    let program = Program::start(&["--config", settings.path()]).await;
    let answered = async |wanted: [(&str, &str); 4]| {
        for (key, status) in wanted {
            poll(&format!("{status} for {key}"), async || {
                (answer(&program, key).await == status).then_some(())
            })
            .await;
        }
    };
    let (token, others) = (issuer.token(), other.token());
    let (token, others) = (token.as_str(), others.as_str());
    answered([(KEYS[0], "200"), (KEYS[1], "401"), (token, "200"), (others, "401")]).await;

    keys_are(&KeyHash::of(KEYS[1]).to_string());
    program.signal(Signal::HUP);
    answered([(KEYS[1], "200"), (KEYS[0], "401"), (token, "200"), (others, "401")]).await;

    // A key where its hash should be is told by its line, and never itself.
    keys_are(KEYS[0]);
    issuer_is(&other);
    program.signal(Signal::HUP);
    logged(&program, "has no hash of a key in line 1").await;
    answered([(KEYS[1], "200"), (KEYS[0], "401"), (token, "200"), (others, "401")]).await;
    assert!(!program.log().contains(KEYS[0]), "{}", program.log());

    settings.write(SCRIPTED);
    program.signal(Signal::HUP);
    logged(&program, "no tenant is left in the settings").await;
    answered([("", "401"), (KEYS[1], "200"), (token, "200"), (others, "401")]).await;

    keys_are(&KeyHash::of(KEYS[0]).to_string());
    settings.write(&keyed);
    program.signal(Signal::HUP);
    answered([(KEYS[0], "200"), (KEYS[1], "401"), (others, "200"), (token, "401")]).await;
}

/// Bytes as a log could have them: as text, as digits, or as a list of numbers.
fn shapes(bytes: &[u8]) -> [String; 5] {
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    [text, HEXLOWER.encode(bytes), HEXUPPER.encode(bytes), BASE64.encode(bytes), numbers.join(", ")]
}

/// Speaks over a WebSocket, and hears what comes until all was said or the other side closes.
async fn converse(url: &str, header: (&'static str, &str), messages: Vec<Message>) {
    let mut request = url.into_client_request().expect("an address");
    request.headers_mut().insert(header.0, HeaderValue::from_str(header.1).expect("a header"));
    let Ok((mut socket, _)) = tokio_tungstenite::connect_async(request).await else { return };
    for message in messages {
        socket.send(message).await.expect("sent");
    }
    // Its server would wait for a confirmation before it closes.
    let rest = async {
        while let Some(Ok(message)) = socket.next().await {
            if message.to_text().is_ok_and(|text| text.contains(r#""type":"done""#)) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, rest).await.expect("ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_audio_are_in_no_log() {
    // As samples they are loud noise; as base64 they need no padding.
    const AUDIO: &[u8; 12] = b"MarkedAudio!";
    const KEY: &str = "starling_marked_key";
    const GUESS: &str = "starling_marked_guess";
    let hash = KeyHash::of(KEY);
    let text = format!(
        "[log]\nlevel = \"trace\"\n{SCRIPTED}[[tenant]]\nname = \"acme\"\noperator = true\nkeys = [\"{hash}\"]\n"
    );
    let settings = Settings::new(&text);
    let program = Program::start(&["--config", settings.path()]).await;
    poll("readiness", async || get(program.http, "/readyz").await?.starts_with("HTTP/1.1 200").then_some(()))
        .await;
    let audio = || Message::binary(AUDIO.repeat(1_000));
    let (native, vosk) = (format!("ws://{}/v1/stream", program.http), format!("ws://{}/", program.vosk));
    let realtime = format!("ws://{}/v1/realtime?intent=transcription", program.http);
    for key in [KEY, GUESS] {
        let hello = json!({ "type": "hello", "api_key": key, "options": { "words": true } }).to_string();
        let spoken = [Message::text(hello), audio(), Message::text(r#"{"type":"end"}"#)];
        let (header, protocol) = (format!("Bearer {key}"), format!("token, {key}"));
        converse(&native, ("authorization", &header), spoken.to_vec()).await;
        converse(&native, ("sec-websocket-protocol", &protocol), spoken.to_vec()).await;
        let eof = Message::text(r#"{"eof":1}"#);
        converse(&format!("{vosk}?api_key={key}"), ("x-nothing", ""), vec![audio(), eof]).await;
        let append =
            json!({ "type": "input_audio_buffer.append", "audio": BASE64.encode(&AUDIO.repeat(1_000)) });
        let protocols = format!("realtime, openai-insecure-api-key.{key}");
        let events = vec![Message::text(append.to_string()), Message::binary("wrong"), Message::Close(None)];
        converse(&realtime, ("sec-websocket-protocol", &protocols), events).await;
    }
    let line = format!("POST /v1/listen?encoding=linear16&sample_rate=8000&token={KEY}");
    let answer = exchange(program.http, &line, &AUDIO.repeat(1_000)).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let metrics = get(program.http, &format!("/metrics?token={KEY}")).await.expect("answered");
    let refused = metrics.lines().find(|line| line.contains("reason=\"unknown_key\""));
    assert!(refused.is_some_and(|line| line.ends_with(" 4")), "{refused:?}");
    let log = program.log();
    assert!(log.contains("\"level\":\"TRACE\"") && log.contains("session opened"), "{log}");
    for secret in [&AUDIO[..], KEY.as_bytes(), GUESS.as_bytes(), hash.to_string().as_bytes()] {
        for shape in shapes(secret) {
            let line = log.lines().find(|line| line.contains(&shape));
            assert!(line.is_none(), "{shape} in {line:?}");
        }
    }
}
