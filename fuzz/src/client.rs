//! What a server says to the client library, whatever kind of server it is.

use std::time::Duration;

use serde::Deserialize;
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
