//! A narrow door for tests that feed these readers arbitrary bytes from outside this crate. No part of what a node does.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use starling_core::Timestamp;
use starling_protocol::NodeId;

use crate::control;
use crate::membership::swim::Swim;
use crate::{ClusterView, LoadReport, MembershipTimings};

/// A member of a cluster that is on its own, until others say otherwise.
pub struct Listener {
    swim: Swim,
    now: Timestamp,
}

/// What came of a packet.
#[derive(Debug)]
pub struct Heard {
    /// Why it was not taken.
    pub refused: Option<String>,
    /// The packets that are sent.
    pub sent: Vec<Bytes>,
    /// How many changes in the cluster were told of.
    pub changes: usize,
}

impl Listener {
    /// Listens at a port of this machine, which is not opened, and makes itself known at another.
    ///
    /// # Panics
    /// What it has to say of itself is too long for a packet.
    #[must_use]
    pub fn new(me: NodeId, port: u16, other: u16) -> Self {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (rng, now) = (StdRng::seed_from_u64(7), Timestamp::default());
        let mut swim = Swim::new(me, address(port), MembershipTimings::default(), LoadReport::default(), rng);
        swim.say(now, None).expect("fits");
        swim.announce(&[address(other)]);
        swim.settle(now);
        Self { swim, now }
    }

    /// Some time goes by, and then a packet comes. It was opened already.
    ///
    /// # Panics
    /// Timers run out without an end.
    pub fn hear(&mut self, after: Duration, packet: &[u8]) -> Heard {
        /// More than a member has, with a probe, its parts and what is done now and then at once.
        const MOST_TIMERS: usize = 10_000;
        self.now = self.now.plus(after);
        let run =
            std::iter::from_fn(|| self.swim.run_timer(self.now).then_some(())).take(MOST_TIMERS).count();
        assert!(run < MOST_TIMERS, "timers run out without an end");
        let refused = self.swim.hear(packet).err().map(|error| error.to_string());
        let changes = self.swim.settle(self.now).changes.len();
        let sent = std::iter::from_fn(|| self.swim.take_outgoing()).map(|(_, bytes)| bytes).collect();
        Heard { refused, sent, changes }
    }

    /// Everybody that it knows of.
    #[must_use]
    pub fn view(&self) -> ClusterView {
        self.swim.view()
    }
}

/// Who a peer is, as it says itself on a control link.
#[must_use]
pub fn peer_id(text: &str) -> Option<NodeId> {
    control::parse_id(text)
}
