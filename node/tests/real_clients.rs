//! Clients in other languages on real nodes with a real model: our own, whose decoder and whose node are killed while they
//! speak, and other people's libraries as they are.

mod program;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use program::clients::Language::{JavaScript, Python};
use program::clients::*;
use program::cluster::Cluster;
use program::*;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Seconds of speech between one kill and the next: the first sentence has both.
const BETWEEN: Duration = Duration::from_millis(1_500);

impl Language {
    /// Our own client.
    fn ours(self) -> Command {
        self.program(match self {
            Python => "python/starling_client.py",
            JavaScript => "javascript/transcribe.mjs",
        })
    }
}

/// Our own client on a recording, at the pace of speech or as fast as it goes.
fn speaks(language: Language, servers: &[String], more: &[&str]) -> JoinHandle<Output> {
    let mut command = language.ours();
    command.args(servers.iter().flat_map(|server| ["--url", server])).args(more).arg(recording());
    began(command)
}

/// A check of somebody's library.
fn check(language: Language, path: &str, address: &str) -> Command {
    let mut command = language.program(path);
    command.arg(address).arg(recording());
    command
}

/// What it found.
async fn found(language: Language, path: &str, address: &str) -> Value {
    told(began(check(language, path, address))).await
}

/// A node with a real model that asks for a key, and the key.
async fn keyed() -> (Program, String) {
    let keys = stdout(&run(&["keys", "new"]).await);
    let line = |name: &str| keys.lines().find_map(|line| line.strip_prefix(name)).expect("is told").trim();
    let (key, hash) = (line("key:"), line("hash:"));
    let settings = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        "[[tenant]]\nname = \"acme\"\nkeys = [\"{hash}\"]\n[[model]]\nname = \"moonshine-tiny-en\"\nhosts = 1\n"
    );
    std::fs::write(settings.path(), text).expect("written");
    let program = Program::start(&["--config", &settings.path().display().to_string()]).await;
    poll("readiness", async || get(program.http, "/readyz").await?.starts_with("HTTP/1.1 200").then_some(()))
        .await;
    (program, key.to_owned())
}

/// The recording as OpenAI takes it: 24 kHz, a straight line from each sample to the next.
fn at_24_khz(folder: &Path) -> PathBuf {
    let mut reader = hound::WavReader::open(recording()).expect("opens");
    let spec = reader.spec();
    assert_eq!((spec.channels, spec.sample_rate), (1, 16_000));
    let samples: Vec<i32> = reader.samples::<i16>().map(|sample| i32::from(sample.expect("reads"))).collect();
    let path = folder.join("24khz.wav");
    let mut writer =
        hound::WavWriter::create(&path, hound::WavSpec { sample_rate: 24_000, ..spec }).expect("begins");
    for index in 0..samples.len() / 2 * 3 {
        let (before, thirds) = (index * 2 / 3, (index * 2 % 3) as i32);
        let after = samples[(before + 1).min(samples.len() - 1)];
        let sample = samples[before] + (after - samples[before]) * thirds / 3;
        writer.write_sample(sample as i16).expect("writes");
    }
    writer.finalize().expect("ends");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_clients_go_on_when_their_decoder_and_their_node_are_killed() {
    let mut cluster = Cluster::start().await;
    let path = recording().display().to_string();
    let undisturbed = run(&["transcribe", "--server", &cluster.urls()[0], &path]).await;
    let undisturbed = stdout(&undisturbed);
    assert!(undisturbed.contains("try again"), "{undisturbed}");
    for language in [Python, JavaScript] {
        let calm = ended(speaks(language, &cluster.urls(), &[])).await;
        assert_eq!(stdout(&calm), undisturbed, "{language:?}");

        cluster.quiet().await;
        let speaking = speaks(language, &cluster.urls(), &["--realtime"]);
        let owner = cluster.owner().await;
        let decoder = cluster.decoder().await;
        tokio::time::sleep(BETWEEN).await;
        let hosts = cluster.nodes[decoder].as_ref().expect("is there").hosts();
        hosts.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        let own = cluster.nodes[owner].as_ref().expect("is there");
        poll("word of the lost decoder", async || {
            own.log().contains("a session lost its decoder").then_some(())
        })
        .await;
        tokio::time::sleep(BETWEEN).await;
        cluster.kill(cluster.owner().await);
        let told = ended(speaking).await;
        assert_eq!(stdout(&told), undisturbed, "{language:?}: {}", stderr(&told));
        assert!(stderr(&told).contains("was lost and replaced"), "{language:?}: {}", stderr(&told));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_clients_survive_servers_that_drop_forget_and_send_them_away() {
    let mut python = Language::Python.program("python/test_starling_client.py");
    python.arg("--quiet");
    let javascript = Language::JavaScript.program("javascript/starling-client.test.mjs");
    let (python, javascript) = (began(python), began(javascript));
    let javascript = ended(javascript).await;
    assert!(stdout(&javascript).contains("# fail 0"), "{}", stdout(&javascript));
    let python = ended(python).await;
    assert!(stderr(&python).contains("OK"), "{}", stderr(&python));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_clients_show_their_key() {
    let (program, key) = keyed().await;
    for language in [Python, JavaScript] {
        let told = ended(speaks(language, &[program.url()], &["--key", &key])).await;
        assert!(stdout(&told).contains("try again"), "{language:?}: {}", stdout(&told));
        let refused = speaks(language, &[program.url()], &["--key", "nobody's"]).await.expect("runs");
        assert_eq!(refused.status.code(), Some(1), "{language:?}");
        let said = stderr(&refused);
        assert!(said.contains("the server refused the session: the key is"), "{language:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libraries_of_others_work_as_they_are() {
    const OPENAI: [(Language, &str); 2] = [
        (Python, "checks/python/openai_recordings.py"),
        (JavaScript, "checks/javascript/openai-recordings.mjs"),
    ];
    const DEEPGRAM: [(Language, &str); 2] =
        [(Python, "checks/python/deepgram_listen.py"), (JavaScript, "checks/javascript/deepgram-listen.mjs")];
    // With a key: without one they are let in where none is asked for, as live ones are below.
    let (program, key) = keyed().await;
    let segments = segments_with(&program.url(), &recording(), &["--api-key", &key]).await;
    let text = segments.join(" ");
    assert!(text.contains("try again"), "{text}");
    let (http, address) = (format!("http://{}", program.http), program.http.to_string());
    let keyed = |(language, path): (Language, &str), key: &str| {
        let openai = path.contains("openai");
        let mut command = check(language, path, if openai { &http } else { &address });
        command.env(if openai { "OPENAI_API_KEY" } else { "DEEPGRAM_API_KEY" }, key);
        began(command)
    };

    for which in OPENAI {
        let openai = told(keyed(which, &key)).await;
        for way in ["json", "verbose_json", "stream", "deltas"] {
            assert_eq!(openai[way], text, "{which:?}, {way}: {openai}");
        }
        assert_eq!(openai["models"], json!(["moonshine-tiny-en"]), "{which:?}");
        assert_eq!(openai["language"], "english", "{which:?}");
        assert_eq!(openai["segments"], json!(segments), "{which:?}");
        assert_eq!(openai["duration"].as_f64().map(f64::round), Some(10.0), "{which:?}");
    }
    for which in DEEPGRAM {
        let deepgram = told(keyed(which, &key)).await;
        assert_eq!(deepgram["recording"], text, "{which:?}");
        assert_eq!(deepgram["live"], text, "{which:?}");
        assert_eq!(deepgram["last"], json!(["Metadata"]), "{which:?}");
    }
    let refused = [OPENAI, DEEPGRAM].concat().into_iter().map(|which| (which, keyed(which, "nobody's")));
    for (which, refused) in refused.collect::<Vec<_>>() {
        let refused = tokio::time::timeout(PATIENCE, refused).await.expect("ends in time").expect("runs");
        assert!(!refused.status.success(), "{which:?}: {}", stdout(&refused));
        assert!(stderr(&refused).contains("401"), "{which:?}: {}", stderr(&refused));
    }

    let vosk = format!("ws://{}/?token={key}", program.vosk);
    let vosk = found(Python, "checks/python/vosk_lockstep.py", &vosk).await;
    assert_eq!(vosk["text"], text);
    // The recording has 49.8 times 200 ms; one reply for each message, and one for `eof`.
    assert_eq!((&vosk["replies"], &vosk["result"]), (&json!(51), &json!([])), "this model has no times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_vosk_server_that_says_nothing_of_words_gets_them() {
    let program = Program::serve(&["--model", "vosk-ko-small"], 2).await;
    let speech = home().audio_dir().join("ko/ko-1.wav");
    let text = segments(&program.url(), &speech).await.join(" ");
    let mut client = Python.program("checks/python/vosk_lockstep.py");
    client.arg(format!("ws://{}", program.vosk)).arg(&speech);
    let heard = told(began(client)).await;
    assert_eq!(heard["text"], text);
    let words = heard["result"].as_array().expect("a list");
    let spelt: Vec<&str> = words.iter().filter_map(|word| word["word"].as_str()).collect();
    assert_eq!(spelt.join(" "), text, "{heard}");
    let mut before = 0.0;
    for word in words {
        assert_eq!(word.as_object().map(|fields| fields.len()), Some(4), "{word}");
        let [conf, start, end] = ["conf", "start", "end"].map(|name| word[name].as_f64().expect("a number"));
        assert!((0.0..=1.0).contains(&conf) && before <= start && start <= end, "{word}");
        before = end;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libraries_of_others_speak_live_as_they_are() {
    let folder = TempDir::new().expect("a folder");
    let certificate = Certificate::in_folder(folder.path()).await;
    let settings = folder.path().join("cluster.toml");
    std::fs::write(&settings, certificate.settings()).expect("written");
    let settings = settings.display().to_string();
    let arguments = ["--config", &settings, "--model", "moonshine-tiny-en", "--wyoming", "127.0.0.1:0"];
    let program = Program::serve(&arguments, 2).await;
    let sentences = segments(&program.url(), &recording()).await;
    assert_eq!(sentences.len(), 2, "{sentences:?}");

    let wyoming = format!("tcp://{}", program.listening("wyoming").expect("listens"));
    let wyoming = found(Python, "checks/python/wyoming_utterances.py", &wyoming).await;
    assert_eq!(wyoming["program"], "starling");
    assert_eq!(wyoming["streams"], true);
    assert_eq!(wyoming["models"], json!({"moonshine-tiny-en": ["en"]}));
    let utterance = json!({
        "events": ["transcript-start", "transcript-chunk", "transcript-chunk", "transcript", "transcript-stop"],
        "chunks": [sentences[0], format!(" {}", sentences[1])],
        "text": sentences.join(" "),
    });
    assert_eq!(wyoming["utterances"], json!([utterance, utterance]));

    // Another rate is, to the last bit, other audio: what is said to be heard in it is what our own client is told.
    let speech = at_24_khz(folder.path());
    let sentences = segments(&program.url(), &speech).await;
    let text = sentences.join(" ");
    assert!(text.contains("try again"), "{text}");
    let http = format!("http://{}", program.http);
    let mut python = Python.program("checks/python/openai_realtime.py");
    python.arg(&http).arg(&speech);
    let python = told(began(python)).await;
    assert_eq!(python["commits"]["items"], json!([text]), "{python}");
    // Deltas stop where the final no longer says what was told, which depends on where the partials happened to be cut.
    let deltas: Vec<String> =
        serde_json::from_value(python["commits"]["deltas"].clone()).expect("a list of texts");
    assert!(deltas.len() == 1 && !deltas[0].trim().is_empty(), "{python}");
    assert_eq!(python["turns"]["items"], json!(sentences), "{python}");
    let events = python["turns"]["events"].as_array().expect("a list");
    assert!(events.contains(&json!("input_audio_buffer.speech_started")), "{python}");

    let https = format!("https://localhost:{}", program.listening("https").expect("listens").port());
    let mut javascript = JavaScript.program("checks/javascript/openai-realtime.mjs");
    javascript.args([http, https]).arg(&speech).env("NODE_EXTRA_CA_CERTS", &certificate.cert);
    let javascript = told(began(javascript)).await;
    assert_eq!(javascript, json!({"OpenAIRealtimeWS": text, "OpenAIRealtimeWebSocket": text}));
}
