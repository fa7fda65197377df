//! Copies of sessions: what an owner tells the nodes that keep a copy of its session's journal, and what a node that takes a
//! session over is given.
//!
//! A copy has a stream of its own on the data plane ([`crate::data`]). The owner opens it with
//! [`StreamHeader::Copy`](crate::data::StreamHeader::Copy), writes [`ToReplica`] and reads [`FromReplica`]. First comes the
//! session as it stands: [`ToReplica::Begin`], finals, audio and entries, [`ToReplica::Whole`]; from then on whatever
//! happens, in the order in which it happened. A new owner opens
//! [`StreamHeader::Fetch`](crate::data::StreamHeader::Fetch) and reads [`ToReplica`] up to [`ToReplica::Whole`].
//!
//! Variants and fields are only ever added. Binary layout: [`crate::frame`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lease::{DecodeOptions, TraceContext};
use crate::native::{Final, SessionOptions};
use crate::trace::{SegmentTimes, TraceRoot};
use crate::{Attempt, DecodeOffset, Epoch, Segment, SessionId, SourceOffset};

/// Most bytes of audio in one frame: a second at 16 kHz. Long fills are acknowledged, and bounded, piece by piece.
pub const MAX_COPY_AUDIO_BYTES: usize = 32 * 1024;

/// Longest frame on a copy's stream: a final of the longest segment with all its readings is far below it.
pub const MAX_COPY_FRAME_BYTES: usize = 4 << 20;

/// Opens a stream on which a copy is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyHeader {
    /// [`DATA_PROTOCOL`](crate::data::DATA_PROTOCOL) of the owner.
    pub version: u16,
    /// Whose copy.
    pub session: SessionId,
    /// The owner's epoch; a lower one than the highest that the node has obeyed is refused.
    pub epoch: Epoch,
    /// The session's trace.
    pub trace: Option<TraceContext>,
}

/// Opens a stream on which a copy is read. The copy stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchHeader {
    /// [`DATA_PROTOCOL`](crate::data::DATA_PROTOCOL) of who asks.
    pub version: u16,
    /// Whose copy.
    pub session: SessionId,
    /// The epoch that the asking node was promoted at; refused if another was promoted since.
    pub epoch: Epoch,
    /// The trace of the client that comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// Which set of copies, counted over a session's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct View(pub u64);

impl View {
    /// The one after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What a session is, fixed for its life: with it any node that has the model can go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// Its id.
    pub session: SessionId,
    /// The dialect's label: `native`.
    pub dialect: String,
    /// The model's name.
    pub model: String,
    /// Digest of the model's files.
    pub digest: String,
    /// The determinism class that it began in; empty while not known.
    pub class: String,
    /// Frames a second of its source.
    pub source_hz: u32,
    /// Frames a second that the model hears.
    pub decode_hz: u32,
    /// What the client asked for.
    pub options: SessionOptions,
    /// What decoders are opened with.
    pub decode: DecodeOptions,
    /// How long it waits for a client that has gone.
    pub linger_ms: u64,
    /// Its trace.
    pub trace: Option<TraceContext>,
    /// Whose it is; empty where nobody has a name.
    #[serde(default)]
    pub tenant: String,
    /// What is known of the session's own span, which `trace` names then; `None` where nobody traces it, and `trace` is the
    /// client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<TraceRoot>,
    /// When its first owner began with it, in milliseconds since 1970; 0 where that is not known, as after an older owner.
    #[serde(default, skip_serializing_if = "crate::lease::is_zero")]
    pub opened_unix_ms: u64,
}

impl SessionFacts {
    /// When its first owner began with it, since 1970, if that is known.
    #[must_use]
    pub fn opened(&self) -> Option<Duration> {
        let told = (self.opened_unix_ms > 0).then(|| Duration::from_millis(self.opened_unix_ms));
        told.or_else(|| self.root.map(|root| Duration::from_micros(root.started_us)))
    }
}

/// Where a copy begins: the session as it stood, apart from finals, audio and entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CopyStart {
    /// What the session is.
    pub facts: SessionFacts,
    /// The owner's epoch.
    pub epoch: Epoch,
    /// The set of copies that this one will belong to.
    pub view: View,
    /// The first final that follows, or the next one to be made: all before are confirmed.
    pub confirmed: Segment,
    /// The open segment.
    pub next_segment: Segment,
    /// Where the last final ended, in source frames: the open segment's first frame.
    pub final_end: SourceOffset,
    /// Up to where segments are committed, in decoder samples.
    pub committed: DecodeOffset,
    /// The first frame of audio that follows.
    pub audio_from: SourceOffset,
    /// Whether the client's audio is over; if no [`EntryKind::End`] follows, all finals were made.
    pub ended: bool,
    /// The last segments, for the session's trace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<SegmentTimes>,
    /// The last attempt that was begun; 0 where that is not known. It rides along with [`ToReplica::Audio`] and [`Commit`] from
    /// then on: an older keeper could make nothing of a message of its own.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub attempt: Attempt,
}

const fn is_unknown(attempt: &Attempt) -> bool {
    attempt.0 == 0
}

/// Something that affects text, apart from audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EntryKind {
    /// The open segment ends here.
    Finalize,
    /// The audio ends here.
    End,
}

/// From a session's owner to a node that keeps a copy; and from that node to one that takes the session over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToReplica {
    /// The first message.
    Begin(Box<CopyStart>),
    /// A final that the client has not confirmed; part of the session as it stands. They come in order.
    Kept(Box<Final>),
    /// Source, 16-bit little-endian, at most [`MAX_COPY_AUDIO_BYTES`].
    Audio {
        /// Its first frame: the one after the last.
        from: SourceOffset,
        /// The frames.
        #[serde(with = "crate::lease::bytes_field")]
        pcm: Vec<u8>,
        /// See [`CopyStart::attempt`].
        #[serde(default, skip_serializing_if = "is_unknown")]
        attempt: Attempt,
    },
    /// An entry of the journal.
    Entry {
        /// The decoder position it stands at.
        at: DecodeOffset,
        /// What it is.
        kind: EntryKind,
    },
    /// The session as it stood has been told; the copy is good from here on.
    Whole,
    /// A segment was committed. The client gets its final once this has been applied.
    Commit(Box<Commit>),
    /// The client has all finals up to this one.
    Confirmed {
        /// The last it has.
        through: Segment,
    },
    /// Another connection speaks for the session, at the same owner.
    Epoch {
        /// Its number.
        epoch: Epoch,
    },
    /// The copy belongs to another set now.
    View {
        /// Which.
        view: View,
    },
    /// The session is over: nobody will ask for it again. Comes last.
    Over,
}

/// A segment that was committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// Its final.
    pub last: Final,
    /// The decoder sample after its last.
    pub to: DecodeOffset,
    /// Whether it answered the first entry of the journal.
    pub answered: bool,
    /// Source before this is not needed any more.
    pub needed_from: SourceOffset,
    /// When it was heard, for the session's trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<SegmentTimes>,
    /// See [`CopyStart::attempt`].
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub attempt: Attempt,
}

/// From a node that keeps a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FromReplica {
    /// So many messages of this stream have been applied.
    Applied {
        /// Counted from its first.
        count: u64,
    },
    /// A higher epoch speaks for the session: whoever reads this owns it no more. Comes last.
    Fenced {
        /// The epoch.
        epoch: Epoch,
    },
    /// There is no more room for the copy, which is dropped. Comes last.
    Full,
    /// What was sent can't be; the copy is dropped. Comes last.
    Unfit,
}
