//! Clients of every dialect that say anything at all, on a node that the test plays: a gateway never falls over, what it closes
//! with is in its table, the session is given back, and another client is served meanwhile.

mod common;
mod wires;

use std::net::SocketAddr;
use std::panic;
use std::sync::{Arc, Mutex, Once};

use common::answer::request;
use common::events::{a_final, done, partial, progress};
use common::*;
use futures_util::{SinkExt, StreamExt};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use starling_actors::SessionEvent;
use starling_protocol::CutCause;
use starling_protocol::native::{ErrorBody, ErrorCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use wires::WireLife;

/// Each has a connection of its own, on real sockets.
const CASES: u32 = 24;

/// Codes that docs/protocol.md names, less 1011: nothing here goes wrong inside.
const CODES: [u16; 7] = [1000, 1002, 1007, 1008, 1009, 1012, 1013];

/// How a dialect's clients come in, and what they may say.
struct Dialect {
    on_vosk: bool,
    paths: &'static [&'static str],
    /// What a session begins with, where it takes a message for that.
    opening: Option<&'static str>,
    texts: &'static [&'static str],
}

const NATIVE: Dialect = Dialect {
    on_vosk: false,
    paths: &["/v1/stream"],
    opening: Some(r#"{"type":"hello"}"#),
    texts: &[
        r#"{"type":"hello","format":{"encoding":"pcm_f32le","sample_rate":48000,"channels":2},"options":{"words":true}}"#,
        r#"{"type":"hello","format":{"encoding":"opus","sample_rate":48000}}"#,
        r#"{"type":"hello","session":"00000000-0000-4000-8000-000000000001","resume":{"token":"t","epoch":18446744073709551615,"last_final":7,"final_to":281474976710656,"have_from":9}}"#,
        r#"{"type":"hello","format":{"sample_rate":4000}}"#,
        r#"{"type":"confirm","segment":18446744073709551615}"#,
        r#"{"type":"finalize"}"#,
        r#"{"type":"end"}"#,
    ],
};

const VOSK: Dialect = Dialect {
    on_vosk: true,
    paths: &["/any"],
    opening: None,
    texts: &[
        r#"{"config":{"sample_rate":16000,"words":true,"max_alternatives":3,"phrase_list":["one"]}}"#,
        r#"{"config":{"sample_rate":"nan","max_alternatives":-1}}"#,
        r#"{"config":{"sample_rate":1e300}}"#,
        r#"{"reset":1}"#,
        r#"{"eof" : 1}"#,
    ],
};

const GSTREAMER: Dialect = Dialect {
    on_vosk: false,
    paths: &["/client/ws/speech?content-type=audio/x-raw,+rate=(int)16000", "/client/ws/speech"],
    opening: None,
    texts: &["EOS", r#"{"adaptation_state":{"type":"string+gzip+base64","value":"abc"}}"#],
};

const DEEPGRAM: Dialect = Dialect {
    on_vosk: false,
    paths: &[
        "/v1/listen?encoding=linear16&sample_rate=8000&interim_results=true&vad_events=true&utterance_end_ms=1000",
        "/v1/listen?encoding=linear32&sample_rate=48000&channels=8&multichannel=true",
        "/v1/listen?encoding=opus&sample_rate=24000&channels=2",
        "/v1/listen",
    ],
    opening: None,
    texts: &[r#"{"type":"KeepAlive"}"#, r#"{"type":"Finalize"}"#, r#"{"type":"CloseStream"}"#],
};

const REALTIME: Dialect = Dialect {
    on_vosk: false,
    paths: &["/v1/realtime?intent=transcription"],
    opening: None,
    texts: &[
        r#"{"type":"session.update","session":{"type":"transcription","audio":{"input":{"turn_detection":null}}}}"#,
        r#"{"type":"session.update","session":{"type":"transcription","audio":{"input":{"format":{"type":"audio/pcmu"}}}}}"#,
        r#"{"type":"transcription_session.update","session":{"input_audio_format":"g711_alaw"}}"#,
        r#"{"type":"input_audio_buffer.append","audio":"AAAAAAAA"}"#,
        r#"{"type":"input_audio_buffer.append","audio":"AAA"}"#,
        r#"{"type":"input_audio_buffer.commit"}"#,
        r#"{"type":"input_audio_buffer.clear"}"#,
    ],
};

/// What a client sends.
#[derive(Debug, Clone)]
enum Sent {
    Text(String),
    Binary(Vec<u8>),
    /// A frame as RFC 6455 may not have it here: of this kind, with these bytes, maybe not the last of its message.
    Frame(OpCode, Vec<u8>, bool),
    Ping,
    Close(bool),
}

/// What a client does with one connection.
#[derive(Debug, Clone)]
struct Life {
    path: &'static str,
    begins: bool,
    sent: Vec<Sent>,
    /// After how many pieces of audio the node gives its session up.
    fails_after: Option<usize>,
}

fn text(dialect: &'static Dialect) -> impl Strategy<Value = String> {
    let valid = select(dialect.texts).prop_map(str::to_owned);
    let spoilt = (select(dialect.texts), any::<prop::sample::Index>(), any::<char>(), any::<bool>());
    let spoilt = spoilt.prop_map(|(text, at, by, inserted)| {
        let mut letters: Vec<char> = text.chars().collect();
        let at = at.index(letters.len());
        letters.splice(at..at + usize::from(!inserted), [by]);
        letters.into_iter().collect()
    });
    prop_oneof![5 => valid, 2 => spoilt, 1 => ".{0,40}"]
}

fn binary() -> impl Strategy<Value = Vec<u8>> {
    let begins = select(vec![&b"RIFF\x24\0\0\0WAVEfmt "[..], b"OggS", b"fLaC", b"EOS", b"\xFF\xFB\x90"]);
    let recording =
        (begins, vec(any::<u8>(), 0..600)).prop_map(|(begins, rest)| [begins, rest.as_slice()].concat());
    prop_oneof![
        3 => (0usize..4_000).prop_map(|bytes| vec![0; bytes]),
        2 => vec(any::<u8>(), 0..600),
        1 => recording,
    ]
}

fn lives(dialect: &'static Dialect) -> impl Strategy<Value = Life> {
    let kinds = select(vec![
        OpCode::Data(Data::Continue),
        OpCode::Data(Data::Text),
        OpCode::Data(Data::Binary),
        OpCode::Data(Data::Reserved(3)),
    ]);
    let frame = (kinds, vec(any::<u8>(), 0..40), any::<bool>());
    let sent = prop_oneof![
        8 => text(dialect).prop_map(Sent::Text),
        8 => binary().prop_map(Sent::Binary),
        1 => frame.prop_map(|(kind, bytes, last)| Sent::Frame(kind, bytes, last)),
        1 => Just(Sent::Ping),
        1 => any::<bool>().prop_map(Sent::Close),
    ];
    let fails_after = prop_oneof![4 => Just(None), 1 => (0usize..4).prop_map(Some)];
    (select(dialect.paths), 0u8..8, vec(sent, 0..14), fails_after)
        .prop_map(|(path, dice, sent, fails_after)| Life { path, begins: dice > 0, sent, fails_after })
}

/// Panics of anything but tests, wherever they are caught.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let of_a_test = info.location().is_some_and(|at| at.file().contains("tests/"));
            // A decoder of recordings that falls over is a recording that can't be decoded: it has a thread of its own for that.
            let of_media = std::thread::current().name() == Some("media");
            if !of_a_test && !of_media {
                PANICS.lock().expect("lock").push(info.to_string());
            }
            before(info);
        }));
    });
}

/// Sessions that were opened and given back.
type Counts = (usize, usize);

/// A node whose sessions play themselves, and a client that is served all the time.
struct Stage {
    http: SocketAddr,
    vosk: SocketAddr,
    audiosocket: SocketAddr,
    wyoming: SocketAddr,
    counts: watch::Receiver<Counts>,
    fails_after: Arc<Mutex<Option<usize>>>,
    steady: tokio::sync::Mutex<Socket>,
}

impl Stage {
    async fn start() -> Self {
        note_panics();
        let mut node = FakeNode::start().await;
        let (http, vosk) = (node.http, node.vosk);
        let (audiosocket, wyoming) = (node.audiosocket, node.wyoming);
        let (count, counts) = watch::channel((0, 0));
        let fails_after = Arc::new(Mutex::new(None));
        let failing = Arc::clone(&fails_after);
        let mut steady = node.native().await;
        tokio::spawn(async move {
            while let Some(session) = node.any_session().await {
                count.send_modify(|counts| counts.0 += 1);
                let (count, fails_after) = (count.clone(), *failing.lock().expect("lock"));
                tokio::spawn(async move {
                    play(session, fails_after).await;
                    count.send_modify(|counts| counts.1 += 1);
                });
            }
        });
        send_text(&mut steady, r#"{"type":"hello"}"#).await;
        assert_eq!(json(&mut steady).await["type"], "ready");
        Self {
            http,
            vosk,
            audiosocket,
            wyoming,
            counts,
            fails_after,
            steady: tokio::sync::Mutex::new(steady),
        }
    }

    /// The steady client is answered.
    async fn serves(&self) {
        let mut steady = self.steady.lock().await;
        send_text(&mut steady, r#"{"type":"finalize"}"#).await;
        assert_eq!(json(&mut steady).await["cause"], "finalize");
    }

    /// Every session but the steady client's has been given back, and nothing fell over.
    async fn is_free(&self) {
        let mut counts = self.counts.clone();
        let free = in_time(counts.wait_for(|(opened, freed)| opened - freed == 1)).await;
        drop(free.expect("the node lives"));
        let panics = std::mem::take(&mut *PANICS.lock().expect("lock"));
        assert!(panics.is_empty(), "{panics:#?}");
    }

    async fn live(&self, dialect: &Dialect, life: &Life) {
        *self.fails_after.lock().expect("lock") = life.fails_after;
        let address = if dialect.on_vosk { self.vosk } else { self.http };
        let mut socket = connect(format!("ws://{address}{}", life.path)).await;
        let opening = dialect.opening.filter(|_| life.begins).map(|text| Sent::Text(text.to_owned()));
        let mut taken = true;
        for sent in opening.iter().chain(&life.sent) {
            taken = taken && in_time(socket.send(message(sent))).await.is_ok();
        }
        self.serves().await;
        let asked = taken && in_time(socket.send(Message::Ping("there?".into()))).await.is_ok();
        match end(&mut socket).await {
            Some(code) => assert!(CODES.contains(&code), "closed with {code}"),
            // A connection that is closed while there is more to read is reset, and what was said last may be lost with it.
            None => assert!(asked || !life.sent.is_empty(), "the gateway left without a word"),
        }
        drop(socket);
        self.is_free().await;
    }
}

/// A client over bare TCP. What it is told is of its dialect, and the connection ends when it has ended its side.
async fn wired(stage: &Stage, address: SocketAddr, life: &WireLife, is_answer: fn(&[u8]) -> bool) {
    *stage.fails_after.lock().expect("lock") = life.fails_after;
    let mut stream = in_time(TcpStream::connect(address)).await.expect("connected");
    for piece in life.sent.chunks(life.cut) {
        if in_time(stream.write_all(piece)).await.is_err() {
            break;
        }
    }
    stage.serves().await;
    if life.waits {
        // It may be reset: of what was said there may be more to read.
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = in_time(stream.read_to_end(&mut answer)).await;
        assert!(is_answer(&answer), "{}", answer.escape_ascii());
    }
    drop(stream);
    stage.is_free().await;
}

/// The node's side of a session: everything is heard, and every request answered.
async fn play(mut session: Played, fails_after: Option<usize>) {
    let (mut bytes, mut pieces, mut segment) = (0, 0, 0);
    while let Some(seen) = session.seen.recv().await {
        match seen {
            Seen::Audio(more) => {
                bytes += more as u64;
                pieces += 1;
                session.say(partial("so far"));
                session.say(progress(bytes / 2, false));
            }
            Seen::Finalize => {
                session.say(a_final(segment, bytes / 2, "one", CutCause::Finalize));
                segment += 1;
            }
            Seen::End => {
                session.say(a_final(segment, bytes / 2, "two", CutCause::End));
                session.say(done(segment + 1, bytes / 2));
                session.say_nothing_more();
            }
            Seen::Confirm(_) => {}
            Seen::Abandoned | Seen::Dropped => return,
        }
        if fails_after == Some(pieces) {
            session.say(SessionEvent::Failed(ErrorBody::new(ErrorCode::IdleTimeout, "nothing was said")));
            session.say_nothing_more();
        }
    }
}

fn message(sent: &Sent) -> Message {
    match sent {
        Sent::Text(text) => Message::text(text.as_str()),
        Sent::Binary(bytes) => Message::binary(bytes.clone()),
        Sent::Frame(kind, bytes, last) => Message::Frame(Frame::message(bytes.clone(), *kind, *last)),
        Sent::Ping => Message::Ping("mine".into()),
        Sent::Close(false) => Message::Close(None),
        Sent::Close(true) => {
            Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "enough".into() }))
        }
    }
}

/// The code that the connection was closed with; `None` when it goes on, or ends without one.
async fn end(socket: &mut Socket) -> Option<u16> {
    loop {
        match in_time(socket.next()).await? {
            Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
            Ok(Message::Pong(payload)) if payload == "there?" => return None,
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

fn run<T: std::fmt::Debug>(lives: impl Strategy<Value = T>, live: impl Fn(&Runtime, &Stage, T)) {
    let runtime = Runtime::new().expect("a runtime");
    let stage = runtime.block_on(Stage::start());
    // What fails is printed; a case that was found goes into a test of its own.
    let config =
        Config { cases: CASES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let run = TestRunner::new(config).run(&lives, |life| {
        live(&runtime, &stage, life);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
}

fn speak(dialect: &'static Dialect) {
    run(lives(dialect), |runtime, stage, life| runtime.block_on(stage.live(dialect, &life)));
}

#[test]
fn native_clients_may_say_anything() {
    speak(&NATIVE);
}

#[test]
fn vosk_clients_may_say_anything() {
    speak(&VOSK);
}

#[test]
fn gstreamer_clients_may_say_anything() {
    speak(&GSTREAMER);
}

#[test]
fn deepgram_clients_may_say_anything() {
    speak(&DEEPGRAM);
}

#[test]
fn realtime_clients_may_say_anything() {
    speak(&REALTIME);
}

#[test]
fn asterisk_may_say_anything() {
    run(wires::audiosocket(), |runtime, stage, life| {
        runtime.block_on(wired(stage, stage.audiosocket, &life, wires::are_frames));
    });
}

#[test]
fn wyoming_clients_may_say_anything() {
    run(wires::wyoming(), |runtime, stage, life| {
        runtime.block_on(wired(stage, stage.wyoming, &life, wires::are_events));
    });
}

/// In every dialect, before anything was said and in the middle of speech: the close frame is answered with its own code, and only
/// then the connection ends (RFC 6455, section 5.5.1).
#[test]
fn who_says_goodbye_is_answered() {
    const STATUS: Dialect =
        Dialect { on_vosk: false, paths: &["/client/ws/status"], opening: None, texts: &[] };
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let stage = Stage::start().await;
        for dialect in [&NATIVE, &VOSK, &GSTREAMER, &DEEPGRAM, &REALTIME, &STATUS] {
            let goodbye = [Sent::Close(true)];
            let speech = dialect.opening.map(|text| Sent::Text(text.to_owned())).into_iter();
            let speech: Vec<_> = speech.chain([Sent::Binary(vec![0; 640]), Sent::Close(true)]).collect();
            for sent in [&goodbye[..], &speech] {
                let address = if dialect.on_vosk { stage.vosk } else { stage.http };
                let mut socket = connect(format!("ws://{address}{}", dialect.paths[0])).await;
                for sent in sent {
                    in_time(socket.send(message(sent))).await.expect("the gateway takes it");
                }
                assert_eq!(end(&mut socket).await, Some(1000), "{}", dialect.paths[0]);
                assert!(in_time(socket.next()).await.is_none(), "{}", dialect.paths[0]);
                stage.is_free().await;
            }
        }
    });
}

#[test]
fn recordings_may_be_anything() {
    const LINES: [&str; 6] = [
        "POST /v1/transcriptions",
        "POST /v1/transcriptions?sample_rate=8000&words=maybe&alternatives=99",
        "POST /v1/audio/transcriptions",
        "POST /v1/listen?multichannel=true&encoding=linear16&sample_rate=8000&channels=2",
        "POST /v1/listen",
        "POST /client/dynamic/recognize",
    ];
    const TYPES: [&str; 5] = [
        "audio/wav",
        "audio/x-raw-int; rate=8000",
        "multipart/form-data; boundary=x",
        "application/json",
        "audio/x-raw; rate=99999999999999999999",
    ];
    const FORM: &[u8] = b"--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n";
    let body = (any::<bool>(), binary(), any::<bool>()).prop_map(|(form, body, ends)| {
        let (begin, end): (&[u8], &[u8]) =
            (if form { FORM } else { b"" }, if ends { b"\r\n--x--\r\n" } else { b"" });
        [begin, &body, end].concat()
    });
    run((select(&LINES[..]), select(&TYPES[..]), body), |runtime, stage, (line, kind, body)| {
        runtime.block_on(async {
            let answer = request(stage.http, line, &format!("content-type: {kind}\r\n"), &body).await;
            assert!(answer.status != 500 && answer.status < 504, "{}", answer.shown());
            stage.serves().await;
            stage.is_free().await;
        });
    });
}
