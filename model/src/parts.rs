//! What machines hand to each other in the model: texts, pieces of audio, copies, messages.
//!
//! Owns: their hashes. What is too large to be hashed in each state is hashed once, when it is made.

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use starling_core::audio::SourceStore;
use starling_core::replica::SessionCopy;
use starling_protocol::lease::{CutOptions, DecodeOptions};
use starling_protocol::native::{Final, SessionOptions};
use starling_protocol::replica::{SessionFacts, ToReplica};
use starling_protocol::{CutCause, Segment, SessionId, SourceOffset};

/// The lowest rate there is, so that a step is as small as can be.
pub(crate) const RATE: u32 = 8_000;

/// Frames that the client says at a time: a step of the decoder, which ends a segment, and half of one more, which the end does.
pub(crate) const PIECES: [u64; 1] = [1_200];

/// Frames that the client says in all.
pub(crate) const ALL: u64 = PIECES[0];

/// The sample of a frame: nothing else is like it, within a session.
const fn sample(frame: u64) -> i16 {
    (frame + 1) as i16
}

/// The client's audio.
pub(crate) fn pcm(from: u64, to: u64) -> Vec<u8> {
    (from..to).flat_map(|frame| sample(frame).to_le_bytes()).collect()
}

/// A segment as it is committed, or told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Text {
    pub(crate) segment: Segment,
    pub(crate) from: SourceOffset,
    pub(crate) to: SourceOffset,
    pub(crate) cause: CutCause,
    pub(crate) text: String,
}

impl Text {
    pub(crate) fn to_final(&self) -> Final {
        Final {
            segment: self.segment,
            from: self.from,
            to: self.to,
            start: 0.0,
            end: 0.0,
            cause: self.cause,
            text: self.text.clone(),
            words: Vec::new(),
            confidence: None,
            alternatives: Vec::new(),
            error: None,
        }
    }
}

impl From<&Final> for Text {
    fn from(last: &Final) -> Self {
        let Final { segment, from, to, cause, ref text, .. } = *last;
        Self { segment, from, to, cause, text: text.clone() }
    }
}

/// What a decoder hears in these frames: the first, and whether the others follow. What was let go is silence.
pub(crate) fn heard(store: &SourceStore, from: u64, to: u64) -> String {
    let first = store.sample(SourceOffset(from));
    let whole = (from..to).all(|frame| {
        i64::from(store.sample(SourceOffset(frame))) == i64::from(first) + (frame - from) as i64
    });
    let end = to - from;
    if whole && first != 0 { format!("{}+{end}", first - 1) } else { "noise".into() }
}

/// What is heard if the audio is what the client said from that frame on.
pub(crate) fn expected(from: u64, to: u64) -> String {
    format!("{from}+{}", to - from)
}

/// Audio that a session holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Store(pub(crate) Arc<SourceStore>);

impl Hash for Store {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (from, to) = (self.0.start(), self.0.end());
        (from, to).hash(state);
        // Every piece has its own.
        (from.0..to.0).step_by(100).for_each(|frame| self.0.sample(SourceOffset(frame)).hash(state));
    }
}

/// A message to a keeper.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    pub(crate) message: Arc<ToReplica>,
    digest: u64,
}

impl Message {
    pub(crate) fn new(message: ToReplica) -> Self {
        let mut hasher = DefaultHasher::new();
        hash_message(&message, &mut hasher);
        Self { message: Arc::new(message), digest: hasher.finish() }
    }
}

impl Hash for Message {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

fn hash_message(message: &ToReplica, state: &mut DefaultHasher) {
    match message {
        ToReplica::Audio { from, pcm, .. } => (from, pcm).hash(state),
        other => {
            // A hasher that is written to does not fail.
            let _ = write!(Hashed(state), "{other:?}");
            state.write_u8(0xff);
        }
    }
}

/// Hashes what is written to it.
struct Hashed<'a>(&'a mut DefaultHasher);

impl fmt::Write for Hashed<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// A copy of a session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Copy {
    copy: Arc<SessionCopy>,
    digest: u64,
}

impl Copy {
    pub(crate) fn new(copy: SessionCopy) -> Self {
        let mut hasher = DefaultHasher::new();
        copy.messages().for_each(|message| hash_message(&message, &mut hasher));
        (copy.is_whole(), copy.is_over()).hash(&mut hasher);
        Self { copy: Arc::new(copy), digest: hasher.finish() }
    }

    pub(crate) fn get(&self) -> &SessionCopy {
        &self.copy
    }

    /// The copy after one more message; `None` if that does not fit.
    pub(crate) fn applied(&self, message: ToReplica) -> Option<Self> {
        let mut copy = SessionCopy::clone(&self.copy);
        copy.apply(message).ok()?;
        Some(Self::new(copy))
    }
}

impl Hash for Copy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

pub(crate) fn facts(session: SessionId) -> SessionFacts {
    SessionFacts {
        session,
        tenant: String::new(),
        dialect: String::new(),
        model: String::new(),
        digest: String::new(),
        class: String::new(),
        source_hz: RATE,
        decode_hz: RATE,
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
