//! What the owner of a session has beside its machine, and what it would write on its streams.

use std::collections::VecDeque;

use starling_protocol::lease::{CutOptions, DecodeOptions};
use starling_protocol::native::{Final, SessionOptions};
use starling_protocol::replica::{Commit, CopyStart, EntryKind, SessionFacts, ToReplica};
use starling_protocol::{Attempt, CutCause, DecodeOffset, Epoch, Segment, SessionId, SourceOffset};

use crate::replica::{CopyItem, Standing};

pub(super) fn session() -> SessionId {
    SessionId::parse("6f2c1f5e-08a3-4b0e-9f0d-3f6f0f5f7a11").expect("an id")
}

pub(super) fn facts() -> SessionFacts {
    SessionFacts {
        session: session(),
        tenant: String::new(),
        dialect: "native".into(),
        model: "m".into(),
        digest: "d".into(),
        class: String::new(),
        source_hz: 16_000,
        decode_hz: 16_000,
        options: SessionOptions::default(),
        decode: DecodeOptions {
            words: false,
            alternatives: 0,
            phrases: Vec::new(),
            cuts: CutOptions::default(),
        },
        linger_ms: 60_000,
        trace: None,
        root: None,
        opened_unix_ms: 0,
    }
}

/// A final whose text says what it is.
pub(super) fn final_of(segment: u64, from: u64, to: u64) -> Final {
    Final {
        segment: Segment(segment),
        from: SourceOffset(from),
        to: SourceOffset(to),
        start: 0.0,
        end: 0.0,
        cause: CutCause::Endpoint,
        text: format!("segment {segment}"),
        words: Vec::new(),
        confidence: None,
        alternatives: Vec::new(),
        error: None,
    }
}

/// What the owner has beside its machine.
#[derive(Default)]
pub(super) struct Owner {
    pub(super) audio: u64,
    pub(super) committed: u64,
    pub(super) trimmed: u64,
    pub(super) finals: Vec<Final>,
    /// Whether each of them answers an entry.
    pub(super) answered: Vec<bool>,
    pub(super) confirmed: u64,
    pub(super) entries: VecDeque<(DecodeOffset, EntryKind)>,
    pub(super) epoch: Epoch,
}

impl Owner {
    pub(super) fn standing(&self) -> Standing {
        Standing {
            finals_from: Segment(self.confirmed),
            next_segment: Segment(self.finals.len() as u64),
            audio_from: SourceOffset(self.committed.min(self.audio)),
            audio_to: SourceOffset(self.audio),
            entries: self.entries.iter().copied().collect(),
        }
    }

    pub(super) fn message(&self, item: CopyItem) -> ToReplica {
        match item {
            CopyItem::Begin { view } => ToReplica::Begin(Box::new(CopyStart {
                facts: facts(),
                epoch: self.epoch,
                view,
                confirmed: Segment(self.confirmed),
                next_segment: Segment(self.finals.len() as u64),
                final_end: SourceOffset(self.committed),
                committed: DecodeOffset(self.committed),
                audio_from: SourceOffset(self.committed),
                ended: false,
                recent: Vec::new(),
                attempt: Attempt(1),
            })),
            CopyItem::Kept { segment } => ToReplica::Kept(Box::new(self.finals[segment.0 as usize].clone())),
            CopyItem::Audio { from, to } => {
                assert!(from.0 >= self.trimmed, "audio that is to be sent was let go");
                ToReplica::Audio { from, pcm: vec![0; (to.0 - from.0) as usize * 2], attempt: Attempt(1) }
            }
            CopyItem::Entry { at, kind } => ToReplica::Entry { at, kind },
            CopyItem::Whole => ToReplica::Whole,
            CopyItem::Commit { segment } => {
                let last = self.finals[segment.0 as usize].clone();
                let to = last.to.0;
                ToReplica::Commit(Box::new(Commit {
                    last,
                    to: DecodeOffset(to),
                    answered: self.answered[segment.0 as usize],
                    needed_from: SourceOffset(to),
                    times: None,
                    attempt: Attempt(1),
                }))
            }
            CopyItem::Confirmed { through } => ToReplica::Confirmed { through },
            CopyItem::Epoch { epoch } => ToReplica::Epoch { epoch },
            CopyItem::View { view } => ToReplica::View { view },
            CopyItem::Over => ToReplica::Over,
        }
    }
}
