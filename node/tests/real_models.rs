//! The program with the models that it serves by default, and with one that was damaged.

mod program;

use program::*;
use starling_engine::catalogue::Home;
use tempfile::TempDir;

fn prepared() -> Home {
    let home = home();
    for name in ["moonshine-tiny-en", "vosk-ko-small"] {
        let manifest = home.model_dir(name).join("manifest.toml");
        assert!(manifest.exists(), "{} is missing: run `cargo xtask setup` first", manifest.display());
    }
    home
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_no_configuration_serves_what_is_prepared() {
    let home = prepared();
    let program = Program::serve(&[], 4).await;
    let models = get(program.http, "/v1/models").await.expect("answered");
    let english = models.find("moonshine-tiny-en").expect("is served");
    let korean = models.find("vosk-ko-small").expect("is served");
    assert!(english < korean, "the first is the default: {models}");

    let recording = home.audio_dir().join("beckett.wav");
    let recording = recording.to_str().expect("UTF-8");
    let output = run(&["transcribe", "--server", &program.url(), recording]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).to_lowercase().contains("fail better"), "{}", stdout(&output));

    let body = std::fs::read(home.audio_dir().join("ko/ko-1.wav")).expect("run `cargo xtask setup` first");
    let answer = exchange(program.http, "POST /v1/transcriptions?language=ko&words=true", &body).await;
    let answer = answer.expect("answered");
    let (_, json) = answer.split_once("\r\n\r\n").expect("has a body");
    let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(json["model"], "vosk-ko-small");
    let words = json["segments"][0]["words"].as_array().expect("has words");
    let text = json["segments"][0]["text"].as_str().expect("has text");
    assert_eq!(words.len(), text.split(' ').count(), "{json}");
}

#[tokio::test]
async fn a_damaged_model_is_refused_before_it_is_loaded() {
    let whole = prepared();
    let folder = TempDir::new().expect("a folder");
    let damaged = Home::at(folder.path()).expect("a home");
    copy(&whole.model_dir("moonshine-tiny-en"), &damaged.model_dir("moonshine-tiny-en"));
    copy(&whole.library_dir("onnxruntime"), &damaged.library_dir("onnxruntime"));
    let file = damaged.model_dir("moonshine-tiny-en").join("tokenizer.bin");
    let mut bytes = std::fs::read(&file).expect("readable");
    bytes[1_000] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    let home = folder.path().to_str().expect("UTF-8");
    let output = run(&["--home", home, "serve", "--http", "127.0.0.1:0", "--vosk", "off"]).await;
    assert_eq!(output.status.code(), Some(65), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(
        message.contains("tokenizer.bin") && message.contains("models fetch moonshine-tiny-en"),
        "{message}"
    );
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}
