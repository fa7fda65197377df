//! A client of a dialect that can't come back: one connection, audio in, finals out.

use std::time::Duration;

use starling_protocol::native::{ClientMessage, Hello, ServerMessage, SessionOptions};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::connection::{Connection, Heard};
use crate::gateway::asks_to_wait;
use crate::native_client::session_id;
use crate::net::{HostId, Net, Port};
use crate::oracle::SharedOracle;
use crate::rng::Rng;

/// Frames in one piece of audio, and the time of one.
const PIECE: usize = 1_600;
const PACE: Duration = Duration::from_millis(100);

/// An open that gets no answer for so long is tried elsewhere.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a client is told.
pub struct ThinClient {
    /// Which one.
    pub index: usize,
    /// Its place on the network.
    pub host: HostId,
    /// How many nodes there are, and which one it asks first.
    pub nodes: usize,
    /// See `nodes`.
    pub home: usize,
    /// What it says.
    pub audio: Vec<i16>,
    /// Its randomness.
    pub rng: Rng,
    /// The network.
    pub net: Net,
    /// Who watches.
    pub oracle: SharedOracle,
    /// Whether it reads nothing now.
    pub stalled: watch::Receiver<bool>,
}

impl ThinClient {
    /// Speaks and listens until all is said or the connection is gone.
    pub async fn run(mut self) {
        for turn in 0.. {
            let node = (self.home + turn) % self.nodes;
            let Some(link) = self.open(node).await else {
                sleep(Duration::from_millis(500)).await;
                continue;
            };
            self.oracle.thin_opened(self.index, node);
            let done = self.speak(link).await;
            self.oracle.thin_over(self.index, done);
            return;
        }
    }

    async fn open(&mut self, node: HostId) -> Option<Connection> {
        let mut hello = Hello::new(session_id(&mut self.rng));
        hello.options = SessionOptions { words: true, ..SessionOptions::default() };
        let first = ClientMessage::Hello(Box::new(hello));
        let mut link = Connection::open(&self.net, self.host, node, Port::Thin, &first);
        match tokio::time::timeout(PATIENCE, link.next()).await {
            Ok(Heard::Message(message)) => match *message {
                ServerMessage::Ready { .. } => Some(link),
                ServerMessage::Error(body) if asks_to_wait(body.code) => None,
                other => {
                    self.oracle.violation(format!("client {} is told {other:?} at first", self.index));
                    None
                }
            },
            _ => None,
        }
    }

    async fn speak(&mut self, mut link: Connection) -> bool {
        let start = Instant::now();
        let mut sent = 0;
        let mut ended = false;
        loop {
            let due = start + PACE * (sent / PIECE + 1) as u32;
            let reading = !*self.stalled.borrow_and_update();
            let (has_room, wrote) = (link.has_room(), link.wrote());
            tokio::select! {
                biased;
                _ = self.stalled.changed() => {}
                heard = link.next(), if reading => match heard {
                    Heard::Message(message) => {
                        if let ServerMessage::Error(body) = &*message {
                            self.oracle.note(self.index, &format!("error {:?}: {}", body.code, body.message));
                            return false;
                        }
                        if self.oracle.thin_said(self.index, &message) {
                            return true;
                        }
                    }
                    Heard::Pong => {}
                    Heard::Lost => return false,
                },
                () = sleep_until(due), if !ended && has_room => {
                    let end = (sent + PIECE).min(self.audio.len());
                    if sent == end {
                        ended = true;
                        self.oracle.spoke(self.index);
                        link.say(&ClientMessage::End {});
                    } else {
                        let piece = &self.audio[sent..end];
                        let bytes: Vec<u8> = piece.iter().flat_map(|sample| sample.to_le_bytes()).collect();
                        link.audio(&bytes);
                        sent = end;
                    }
                }
                () = wrote, if !has_room => {}
            }
        }
    }
}
