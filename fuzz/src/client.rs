//! What a server says to the client library, whatever kind of server it is.

use std::time::Duration;

use serde::Deserialize;
use starling_client::fuzzing::{refused_upgrade, server, suggested};
use starling_client::machine::{Entropy, Input, Machine, Settings, Which};
use starling_protocol::native::{Hello, ServerMessage};
use starling_protocol::{Segment, SessionId};

/// The id that the client begins with.
const SESSION: &str = "00000000-0000-4000-8000-000000000001";

/// What happens to a client, one a line: a message of its server, or one of these.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Audio(u16),
    Finalize,
    End,
    Lost,
    Tick,
    Next(Box<ServerMessage>),
    Delivered(u64),
}

/// A client's whole life.
pub fn client_machine(data: &[u8]) {
    let session = SessionId::parse(SESSION).expect("an id");
    let settings = Settings {
        servers: vec!["node-1:80".into(), "node-2:80".into()],
        ring_frames: 16_000,
        open_deadline: Duration::from_secs(5),
        wait_when_busy: true,
        give_up: Duration::from_secs(60),
        attempt_timeout: Duration::from_secs(5),
        liveness: Duration::from_secs(10),
        backoff_first: Duration::from_millis(100),
        backoff_most: Duration::from_secs(3),
    };
    let mut machine = Machine::new(settings, Hello::new(session));
    let mut now = Duration::ZERO;
    let mut out = Vec::new();
    let entropy = Entropy { jitter: u32::MAX, session };
    machine.handle(now, Input::Start, entropy, &mut out);
    for line in data.split(|byte| *byte == b'\n') {
        let input = if let Ok(message) = serde_json::from_slice::<ServerMessage>(line) {
            Input::Message(Which::Present, Box::new(message))
        } else {
            match serde_json::from_slice(line) {
                Ok(Step::Audio(frames)) => Input::Audio(u64::from(frames).min(machine.room())),
                Ok(Step::Finalize) => Input::Finalize,
                Ok(Step::End) => Input::End,
                Ok(Step::Lost) => Input::Lost(Which::Present, "lost".to_owned()),
                Ok(Step::Next(message)) => Input::Message(Which::Next, message),
                // Only what was given to the consumer can have been taken by it.
                Ok(Step::Delivered(segment)) => Input::Delivered(Segment(segment.min(1 << 48))),
                Ok(Step::Tick) => {
                    now = machine.next_timeout().map_or(now, |due| due.max(now));
                    Input::Tick
                }
                Err(_) => continue,
            }
        };
        machine.handle(now, input, entropy, &mut out);
        // A connection takes what there is to be written, and there is an end to it.
        let written = std::iter::from_fn(|| machine.next_write()).take(1_000).count();
        assert!(written < 1_000, "writes for ever");
        assert!(out.len() <= 64, "one input, {} actions", out.len());
        out.clear();
        if machine.is_over() {
            return;
        }
    }
}

/// What a server answers instead of a WebSocket: its status in two bytes, then a body.
pub fn client_upgrade(data: &[u8]) {
    let Some((status, body)) = data.split_first_chunk() else { return };
    let status = u16::from_le_bytes(*status);
    let whole = refused_upgrade(status, Some(body.to_vec()));
    match (&whole, status) {
        (Some(ServerMessage::Error(error)), _) => {
            let fields =
                [&error.field, &error.value, &error.allowed].map(|part| part.as_ref().map_or(0, String::len));
            // What a proxy lacks words for is said in one of ours.
            let most = body.len().max(80);
            assert!(error.message.len() + fields.iter().sum::<usize>() <= most, "a refusal that grows");
        }
        // What a proxy says counts where it needs no words.
        (None, status) => assert!(!matches!(status, 401 | 403), "{status} says why"),
        (Some(other), _) => panic!("no error: {other:?}"),
    }
    // A body that a proxy has packed up anew, or that did not come, is no reason to take a refusal for something else.
    let bare = refused_upgrade(status, None);
    assert!(bare.is_none() || matches!(status, 401 | 403), "{bare:?}");
    if let Some(ServerMessage::Error(error)) = whole {
        let again = serde_json::json!({ "error": error }).to_string().into_bytes();
        assert_eq!(refused_upgrade(status, Some(again)), Some(ServerMessage::Error(error)));
    }
}

/// Where a server is, as a client is told by whoever uses it or by another server.
pub fn server_address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(server) = server(text) {
        assert!(!server.host.is_empty(), "{server:?}");
        assert!(!server.host.contains(['@', '/', '?', '#', '[', ']', ' ']), "{server:?}");
        assert_eq!(server.encrypted, !text.to_ascii_lowercase().starts_with("ws:"), "{text}");
    }
    let Some(found) = suggested(text) else { return };
    // A node that is not passed over is asked where it said, in clear as it said, and nothing else of it is asked.
    let node = found.unwrap_or_else(|| panic!("{text} leads nowhere"));
    let (host, port) = text.rsplit_once(':').expect("a port");
    assert_eq!((node.host.as_str(), Ok(node.port)), (host.trim_matches(['[', ']']), port.parse()));
    assert_eq!(node.url.as_deref(), Some(format!("ws://{text}/v1/stream").as_str()));
    assert!(node.can_be_asked && !node.encrypted && node.port > 0, "{node:?}");
}
