//! Whom to ask: the servers that the client was given, and the nodes that a server named for this session.

use std::collections::VecDeque;
use std::time::Duration;

use starling_protocol::native::ErrorBody;
use tokio_tungstenite::tungstenite::http::uri::Authority;

use super::{Action, Machine};
use crate::target::host_of;

/// Most nodes that are remembered of a `view`: more than copies are ever kept, few enough to be asked in a row.
const MAX_SUGGESTED: usize = 8;

/// Longest `HOST:PORT`: a DNS name has at most 253 bytes, a port five digits.
const MAX_ADDRESS_BYTES: usize = 259;

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Server {
    /// One of the client's own, by index.
    Configured(usize),
    /// `HOST:PORT` of a node that has this session, or a copy of it. Asked to go on with it, never for a new one.
    Suggested(String),
}

/// One round of asking: every known server once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Round {
    /// Those still to be asked, in this order.
    pub(super) left: VecDeque<Server>,
    /// What the last of those said that can't go on with the session: they don't know it, or lack audio.
    pub(super) unknown: Option<Box<ErrorBody>>,
    /// The last configured server that said so: one that is there to take a new session.
    pub(super) there: Option<usize>,
    /// What the last of those said that have no room.
    pub(super) busy: Option<Box<ErrorBody>>,
    /// Whether one of them may have the session and could not be asked.
    pub(super) unsure: bool,
}

impl Round {
    pub(super) fn of(left: VecDeque<Server>) -> Self {
        Self { left, ..Self::default() }
    }

    pub(super) fn ask_last(&mut self, server: &Server) {
        move_to_end(&mut self.left, server);
    }

    /// How long the servers want to be left alone.
    pub(super) fn wait(&self) -> Duration {
        let retry_after_ms = self.busy.as_ref().and_then(|body| body.retry_after_ms);
        Duration::from_millis(retry_after_ms.unwrap_or(0))
    }
}

impl Machine {
    /// Every server that may be asked now, each once, the likeliest first: those with a copy, the one that had the session
    /// last, then the client's own in rotation. One that is about to stop comes last.
    pub(super) fn known(&self) -> VecDeque<Server> {
        let mut known: VecDeque<Server> = VecDeque::new();
        let mut add = |server: &Server| {
            if !known.contains(server) {
                known.push_back(server.clone());
            }
        };
        if self.token.is_some() {
            self.suggested.iter().for_each(&mut add);
            add(&self.home);
        }
        let first = match self.home {
            Server::Configured(index) => index,
            Server::Suggested(_) => self.rotation,
        };
        let count = self.settings.servers.len();
        (0..count).for_each(|turn| add(&Server::Configured((first + turn) % count)));
        if self.home_stops {
            move_to_end(&mut known, &self.home);
        }
        known
    }

    /// Takes the nodes of a `view`. One that is also a configured server is asked as that.
    pub(super) fn suggest(&mut self, resume_at: &[String], out: &mut Vec<Action>) {
        self.suggested.clear();
        let mut ignored = Vec::new();
        for address in resume_at {
            let server = match self.settings.servers.iter().position(|server| server == address) {
                Some(index) => Server::Configured(index),
                None => Server::Suggested(address.clone()),
            };
            if self.suggested.len() >= MAX_SUGGESTED || !is_address(address) {
                ignored.push(address);
            } else if !self.suggested.contains(&server) {
                self.suggested.push(server);
            }
        }
        if let Some(first) = ignored.first() {
            let first = first.chars().take(MAX_ADDRESS_BYTES).collect();
            out.push(Action::HintsIgnored { count: ignored.len(), first });
        }
    }
}

fn move_to_end(servers: &mut VecDeque<Server>, server: &Server) {
    let place = servers.iter().position(|other| other == server);
    if let Some(server) = place.and_then(|place| servers.remove(place)) {
        servers.push_back(server);
    }
}

pub(crate) fn is_address(text: &str) -> bool {
    let is_host_and_port = |authority: Authority| {
        host_of(&authority).is_some()
            && !text.contains('@')
            && authority.port_u16().is_some_and(|port| port > 0)
    };
    text.len() <= MAX_ADDRESS_BYTES && text.parse().is_ok_and(is_host_and_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_with_a_port_is_an_address() {
        for good in ["10.0.0.7:8080", "node-2.starling.svc:1", "[::1]:8080"] {
            assert!(is_address(good), "{good}");
        }
        let long = format!("{}:80", "a".repeat(MAX_ADDRESS_BYTES));
        let bad = [
            "",
            "a",
            "a:",
            ":80",
            "a:0",
            "a:70000",
            "a:b",
            "me@a:80",
            "a:80/x",
            "ws://a:80",
            "a b:80",
            "8[fd00::1]:80",
            "a:[fd00::1]:80",
            "[a]:80",
            "[::1]a:80",
            &long,
        ];
        for bad in bad {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
