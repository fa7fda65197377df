//! `starling load` against a node that the test plays: what it counts, and the code it ends with.

mod common;
mod program;

use std::net::SocketAddr;

use common::events::{a_final, done, partial};
use common::{FakeNode, Seen, in_time};
use program::{run, scripted_wav, signal, starling, stderr, stdout};
use rustix::process::Signal;
use serde_json::Value;
use starling_engine::scripted::silence;
use starling_protocol::CutCause;
use starling_protocol::native::{ErrorBody, ErrorCode};
use tempfile::TempDir;

/// Half a second: what is in it is of no matter to a played node.
const BLOCKS: usize = 5;
const FRAMES: u64 = 8_000;

struct Place {
    folder: TempDir,
    audio: String,
    json: String,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let audio = scripted_wav(folder.path(), "a.wav", &silence(BLOCKS)).display().to_string();
        let json = folder.path().join("report.json").display().to_string();
        Self { folder, audio, json }
    }

    fn report(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(&self.json).expect("written")).expect("JSON")
    }
}

/// Answers so many sessions, one after the other as they come, with these texts in turn.
async fn play(node: &mut FakeNode, texts: &[&str]) {
    for text in texts {
        let mut session = node.session().await;
        session.wait_for(&Seen::End).await;
        session.say(partial(text));
        session.say(a_final(0, FRAMES, text, CutCause::End));
        session.say(done(1, FRAMES));
        session.wait_for(&Seen::Dropped).await;
    }
}

async fn load(place: &Place, node: SocketAddr, more: &[&str]) -> std::process::Output {
    let server = format!("ws://{node}");
    let arguments = ["load", "--server", &server, "--interval", "0s", "--json", &place.json, "--quiet"];
    run(&[&arguments[..], more, &[&place.audio]].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_sends_the_recording_as_often_as_it_is_told() {
    let (place, mut node) = (Place::new(), FakeNode::start().await);
    let ran = load(&place, node.http, &["--clients", "2", "--requests", "3", "--fast"]);
    let (output, ()) = tokio::join!(ran, play(&mut node, &["one two three"; 6]));
    assert!(output.status.success(), "{}", stderr(&output));
    let table = stdout(&output);
    assert!(table.contains("words lost                        0 (of 3 in each session)"), "{table}");
    let report = place.report();
    assert_eq!(report["sessions"]["done"], 6, "{report}");
    assert_eq!(report["end_of_audio_to_last_final"]["count"], 6, "{report}");
    // A partial that its final follows at once may be left out.
    let partials = report["first_audio_to_first_partial"]["count"].as_u64().expect("a number");
    assert!((1..=6).contains(&partials), "{report}");
    assert!((report["audio_hours"].as_f64().expect("a number") * 3_600.0 - 3.0).abs() < 1e-6, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_word_and_a_word_that_came_twice_are_counted() {
    let (place, mut node) = (Place::new(), FakeNode::start().await);
    let expected = place.folder.path().join("expected.txt");
    std::fs::write(&expected, "one two three\n").expect("written");
    let expected = expected.display().to_string();
    let arguments = ["--clients", "1", "--requests", "3", "--expect", &expected];
    let ran = load(&place, node.http, &arguments);
    let texts = ["one three", "one two three", "one two two three"];
    let (output, ()) = tokio::join!(ran, play(&mut node, &texts));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let words = &place.report()["words"];
    assert_eq!((&words["lost"], &words["twice_or_wrong"]), (&Value::from(1), &Value::from(1)), "{words}");
    assert_eq!((&words["differing_sessions"], &words["compared_with"]), (&2.into(), &"expected".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_by_their_reason() {
    let (place, node) = (Place::new(), FakeNode::start().await);
    let refusal = ErrorBody::new(ErrorCode::OverQuota, "enough for today");
    node.refuse(refusal);
    let output = load(&place, node.http, &["--clients", "2"]).await;
    assert_eq!(output.status.code(), Some(75), "{}", stderr(&output));
    assert_eq!(place.report()["sessions"]["refused"]["over_quota"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_it_with_the_report() {
    let (place, mut node) = (Place::new(), FakeNode::start().await);
    let server = format!("ws://{}", node.http);
    let mut command = starling();
    command.args([
        "load",
        "--server",
        &server,
        "--requests",
        "1000",
        "--clients",
        "1",
        "--json",
        &place.json,
    ]);
    command.arg(&place.audio).stdout(std::process::Stdio::null());
    let mut child = command.spawn().expect("starts");
    let session = node.session().await;
    signal(child.id(), Signal::INT);
    let ended = tokio::task::spawn_blocking(move || child.wait());
    let status = in_time(ended).await.expect("not cancelled").expect("ends");
    drop(session);
    let report = place.report();
    assert!(status.success(), "{report}");
    assert_eq!((&report["interrupted"], &report["sessions"]["done"]), (&true.into(), &0.into()), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_is_said_before_anybody_is_bothered() {
    let place = Place::new();
    let nowhere = run(&["load", "--clients", "1", "no-such.wav"]).await;
    assert_eq!(nowhere.status.code(), Some(66), "{}", stderr(&nowhere));
    let none = run(&["load", "--clients", "0", &place.audio]).await;
    assert_eq!(none.status.code(), Some(64), "{}", stderr(&none));
    assert!(stderr(&none).contains("--clients"), "{}", stderr(&none));
    let gone = run(&["load", "--clients", "1", "--server", "ws://127.0.0.1:9", &place.audio]).await;
    assert_eq!(gone.status.code(), Some(69), "{}", stderr(&gone));
}
