//! A client of a dialect that can't come back: one connection, audio in, finals out.

use std::time::Duration;

use starling_protocol::native::{ClientMessage, ServerMessage};
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::{Client, PACE, PIECE};
use crate::connection::{Connection, Heard};
use crate::gateway::asks_to_wait;
use crate::net::{HostId, Port};

/// An open that gets no answer for so long is tried elsewhere.
const PATIENCE: Duration = Duration::from_secs(3);

/// A connection on which nothing was heard for so long is given up: its node's machine may have gone without a word. Longer than any
/// fault holds up what is said.
const DEAF: Duration = Duration::from_secs(30);

/// One of those.
pub struct ThinClient {
    /// Who.
    pub client: Client,
}

impl ThinClient {
    /// Speaks and listens until all is said or the connection is gone.
    pub async fn run(mut self) {
        for turn in 0.. {
            let node = (self.client.home + turn) % self.client.nodes;
            let Some(link) = self.open(node).await else {
                sleep(Duration::from_millis(500)).await;
                continue;
            };
            let (oracle, index) = (self.client.oracle.clone(), self.client.index);
            oracle.thin_opened(index, node);
            let done = self.speak(link).await;
            oracle.thin_over(index, done);
            return;
        }
    }

    async fn open(&mut self, node: HostId) -> Option<Connection> {
        let first = ClientMessage::Hello(Box::new(self.client.hello()));
        let Client { index, host, lines, oracle, .. } = &self.client;
        let mut link = Connection::open(lines, *host, node, Port::Thin, &first);
        match tokio::time::timeout(PATIENCE, link.next()).await {
            Ok(Heard::Message(message)) => match *message {
                ServerMessage::Ready { .. } => Some(link),
                ServerMessage::Error(body) if asks_to_wait(body.code) => None,
                other => {
                    oracle.violation(format!("client {index} is told {other:?} at first"));
                    None
                }
            },
            _ => None,
        }
    }

    async fn speak(&mut self, mut link: Connection) -> bool {
        let (oracle, index, all) = (self.client.oracle.clone(), self.client.index, self.client.frames());
        let start = Instant::now();
        let mut sent = 0;
        let mut ended = false;
        let mut heard_at = start;
        loop {
            let due = start + PACE * (sent / PIECE + 1) as u32;
            let reading = !*self.client.stalled.borrow_and_update();
            let (has_room, wrote) = (link.has_room(), link.wrote());
            tokio::select! {
                biased;
                _ = self.client.stalled.changed() => heard_at = Instant::now(),
                () = sleep_until(heard_at + DEAF), if reading => {
                    oracle.note(index, "has heard nothing for too long");
                    return false;
                }
                heard = link.next(), if reading => match heard {
                    Heard::Message(message) => {
                        heard_at = Instant::now();
                        if let ServerMessage::Error(body) = &*message {
                            oracle.note(index, &format!("error {:?}: {}", body.code, body.message));
                            return false;
                        }
                        if oracle.thin_said(index, &message) {
                            return true;
                        }
                    }
                    Heard::Pong => {}
                    Heard::Lost => return false,
                },
                () = sleep_until(due), if !ended && has_room => {
                    let end = (sent + PIECE).min(all);
                    if sent == end {
                        ended = true;
                        oracle.spoke(index);
                        link.say(&ClientMessage::End {});
                    } else {
                        link.audio(&self.client.bytes(sent, end));
                        sent = end;
                    }
                }
                () = wrote, if !has_room => {}
            }
        }
    }
}
