//! When audio is sent to a keeper that has all before it.

use std::time::Duration;

use starling_protocol::replica::{EntryKind, View};
use starling_protocol::{DecodeOffset, Epoch, NodeName, Segment, SourceOffset};

use super::world::config;
use crate::Timestamp;
use crate::replica::{
    CopyItem, ReplicationAction, ReplicationConfig, ReplicationEvent, ReplicationMachine, Standing, Tries,
};

const GATHER: Duration = Duration::from_millis(300);
const TRIES: Tries = Tries(1);

struct Owner {
    machine: ReplicationMachine,
    now: Timestamp,
    applied: u64,
}

impl Owner {
    /// With one keeper, which has confirmed all there was.
    fn new() -> Self {
        let config = ReplicationConfig { gather: GATHER, ..config(1) };
        let standing = Standing {
            finals_from: Segment(0),
            next_segment: Segment(0),
            audio_from: SourceOffset(0),
            audio_to: SourceOffset(0),
            entries: Vec::new(),
        };
        let now = Timestamp::default();
        let machine = ReplicationMachine::new(now, config, Epoch(1), View(0), &standing, &mut Vec::new());
        let mut owner = Self { machine, now, applied: 0 };
        let node = NodeName::parse("keeper").expect("a name");
        owner.tell(ReplicationEvent::KeepersFound { nodes: vec![node] });
        let fill = owner.tell(ReplicationEvent::Opened { tries: TRIES, standing });
        assert!(matches!(fill[..], [CopyItem::Begin { .. }, CopyItem::Whole]), "{fill:?}");
        owner.confirm(2);
        owner
    }

    /// What is sent because of it.
    fn tell(&mut self, event: ReplicationEvent) -> Vec<CopyItem> {
        let mut out = Vec::new();
        self.machine.handle(self.now, event, &mut out);
        let sent = out.into_iter().filter_map(|action| match action {
            ReplicationAction::Send { item, .. } => Some(item),
            _ => None,
        });
        sent.collect()
    }

    fn confirm(&mut self, more: u64) {
        self.applied += more;
        let sent = self.tell(ReplicationEvent::Applied { tries: TRIES, count: self.applied });
        // The set of copies has changed.
        self.applied += sent.len() as u64;
        self.tell(ReplicationEvent::Applied { tries: TRIES, count: self.applied });
    }

    fn audio(&mut self, after_ms: u64, until: u64) -> Vec<CopyItem> {
        self.now = self.now.plus(Duration::from_millis(after_ms));
        self.tell(ReplicationEvent::AudioReceived { until: SourceOffset(until) })
    }
}

fn piece(from: u64, to: u64) -> CopyItem {
    CopyItem::Audio { from: SourceOffset(from), to: SourceOffset(to) }
}

#[test]
fn audio_goes_in_one_piece_when_it_has_been_gathered_for_long_enough() {
    let mut owner = Owner::new();
    assert_eq!(owner.audio(0, 100), []);
    assert_eq!(owner.audio(100, 200), []);
    assert_eq!(owner.audio(100, 300), []);
    assert_eq!(owner.audio(100, 400), [piece(0, 400)]);
    assert_eq!(owner.audio(100, 500), []);
    assert_eq!(owner.machine.audio_needed_from(), Some(SourceOffset(400)));
}

#[test]
fn what_else_is_to_be_told_takes_the_audio_before_it_along() {
    let mut owner = Owner::new();
    owner.audio(0, 100);
    let (at, until) = (DecodeOffset(100), SourceOffset(100));
    let sent = owner.tell(ReplicationEvent::Entered { at, kind: EntryKind::Finalize, until });
    assert_eq!(sent, [piece(0, 100), CopyItem::Entry { at, kind: EntryKind::Finalize }]);
    // The next begins to be gathered anew.
    assert_eq!(owner.audio(250, 200), []);
    assert_eq!(owner.audio(250, 300), []);
    assert_eq!(owner.audio(50, 400), [piece(100, 400)]);
}

#[test]
fn audio_that_nothing_follows_is_sent_in_the_end() {
    let mut owner = Owner::new();
    owner.audio(0, 100);
    let due = owner.machine.next_timeout().expect("somebody looks");
    assert_eq!(due, owner.now.plus(2 * GATHER));
    owner.now = due;
    assert_eq!(owner.tell(ReplicationEvent::TimedOut), [piece(0, 100)]);
}
