//! The lease protocol: what a node and a decoder host say to each other, over a Unix socket pair within a machine.
//!
//! One link carries every lease of a host; each message names its lease. The node opens with [`ToHost::Start`]; the host
//! answers [`FromHost::Ready`] or [`FromHost::LoadFailed`]. Then, per lease: `Open`, `Feed` in steps of at most
//! [`STEP_MS`](crate::limits::STEP_MS), `Flush` where a segment has to end, `Close`. The host cuts segments on its own and
//! goes on with the next step as the first of the next segment, so that a cut costs no round trip.
//!
//! Credit: a node never has more than [`ToHost::Open::window`] steps of a lease undecoded at the host; each
//! [`FromHost::Decoded`] gives back what it covers. A host may drop a link that exceeds it.
//!
//! Variants and fields are only ever added. Binary layout: [`crate::frame`].

use serde::{Deserialize, Serialize};

use crate::{Attempt, CutCause, DecodeOffset, LeaseId, Segment, Utterance};

/// Version of this protocol. A host that speaks another answers `LoadFailed`.
pub const LEASE_PROTOCOL: u16 = 1;

/// Environment variable with the number of the inherited descriptor of the host's socket.
pub const SOCKET_FD_VARIABLE: &str = "STARLING_HOST_SOCKET_FD";

/// Environment variable with the number of the inherited descriptor of the host's flight recorder (see [`FlightEntry`]).
pub const FLIGHT_FD_VARIABLE: &str = "STARLING_HOST_FLIGHT_FD";

/// Environment variable with the numbers of the inherited descriptors, separated by commas, of pipes that nothing is written
/// to: the first to end tells the node that the host is dying, long before the kernel has taken the host's memory back and
/// closes its socket.
pub const SENTINEL_FDS_VARIABLE: &str = "STARLING_HOST_SENTINEL_FDS";

/// Which engine a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EngineKind {
    /// Kaldi by way of libvosk.
    Vosk,
    /// Moonshine on ONNX Runtime, with Silero for voice activity.
    Moonshine,
    /// Reads its text out of the samples. For tests and load only: it recognises no speech.
    Scripted,
}

impl EngineKind {
    /// The name that people see.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Vosk => "vosk",
            Self::Moonshine => "moonshine",
            Self::Scripted => "scripted",
        }
    }
}

/// What a host is to be: its first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSpec {
    /// [`LEASE_PROTOCOL`] of the node.
    pub protocol: u16,
    /// Which engine to load.
    pub engine: EngineKind,
    /// The model's name in the catalogue, for titles and logs.
    pub model: String,
    /// Folder of the prepared model; empty for the scripted engine.
    pub model_dir: String,
    /// Folder of the engine's shared libraries; empty for the scripted engine.
    pub library_dir: String,
    /// The rate the model hears, in Hz.
    pub sample_rate: u32,
    /// Threads that decode. Heartbeats and the link have threads of their own.
    pub threads: u16,
    /// Leases that may be open at once.
    pub slots: u16,
    /// Recognizers to open and warm before `Ready`.
    pub prewarm: u16,
    /// A pooled recognizer is closed after this much audio (0: never); bounds what its caches grow to.
    pub recognizer_audio_budget_s: u32,
    /// Resident memory past which the host says `Retiring` (0: never).
    pub memory_budget_bytes: u64,
    /// Niceness to run at: decoding must not starve the node that feeds it.
    pub nice: i8,
    /// Digest of the model's files, as its manifest has it; empty if none is to be compared. A host that finds other files
    /// answers `LoadFailed`: they were exchanged since the node looked.
    #[serde(default)]
    pub digest: String,
}

/// What affects the text of a lease. Resolved when the session opens and never changed after.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DecodeOptions {
    /// Give words with their times and confidences.
    pub words: bool,
    /// How many readings to give; 0 for one plain text.
    pub alternatives: u8,
    /// Words and phrases to listen for; empty for the model's own vocabulary.
    pub phrases: Vec<String>,
    /// Where segments are cut.
    pub cuts: CutOptions,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { words: true, alternatives: 0, phrases: Vec::new(), cuts: CutOptions::default() }
    }
}

/// Lengths that decide where a segment ends, apart from the engine's own endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CutOptions {
    /// From this length on a short pause ends the segment.
    pub pause_after_ms: u32,
    /// How long that pause is.
    pub pause_ms: u32,
    /// No segment is longer.
    pub max_ms: u32,
    /// A segment in which nothing was said for this long ends empty.
    pub no_speech_ms: u32,
    /// So much silence after speech ends the segment, where somebody wants another length than the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_ms: Option<u32>,
}

impl Default for CutOptions {
    /// Bounds what a failover has to replay: nothing is over 15 s, most is under 7 s.
    fn default() -> Self {
        Self { pause_after_ms: 6_000, pause_ms: 250, max_ms: 15_000, no_speech_ms: 5_000, silence_ms: None }
    }
}

/// Whose turn it is when decode threads are short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Somebody is speaking.
    Live,
    /// A file; it can wait.
    Batch,
}

/// Trace context of W3C Trace Context, carried as text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct TraceContext {
    /// The `traceparent` header's value.
    pub traceparent: String,
    /// The `tracestate` header's value; may be empty.
    pub tracestate: String,
}

/// From a node to a decoder host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ToHost {
    /// First message: load this and report.
    Start(HostSpec),
    /// Begin a lease. Answered by `Opened` or `Refused`; feeding may begin at once.
    Open {
        /// The lease.
        lease: LeaseId,
        /// For logs and traces.
        attempt: Attempt,
        /// What affects the text.
        options: DecodeOptions,
        /// Number of the first segment.
        segment: Segment,
        /// Its first sample.
        from: DecodeOffset,
        /// Whose turn it is.
        priority: Priority,
        /// Most steps that will be undecoded at once.
        window: u16,
        /// Least audio between two partials; 0 for none at all until `Partials` says otherwise.
        partial_interval_ms: u32,
        /// The session's trace.
        trace: Option<TraceContext>,
        /// Most audio that is decoded before a `Decoded` says so; 0 for one after each step. Half the window is told whatever
        /// this is, and before a partial or after a cut so is all that is decoded.
        #[serde(default)]
        decoded_interval_ms: u32,
    },
    /// One step of audio: i16 little endian at the model's rate.
    Feed {
        /// The lease.
        lease: LeaseId,
        /// Position of the first sample; must be where the last step ended.
        at: DecodeOffset,
        /// At most one step of samples, a whole number of them.
        #[serde(with = "bytes_field")]
        pcm: Vec<u8>,
    },
    /// End the open segment here, whatever it holds. Always answered by a `Cut`.
    Flush {
        /// The lease.
        lease: LeaseId,
        /// Position the segment ends at; must be where the last step ended.
        at: DecodeOffset,
        /// What the cut is to say.
        cause: CutCause,
    },
    /// Change how often partials are made, which never affect finals, and how often it is told what is decoded.
    Partials {
        /// The lease.
        lease: LeaseId,
        /// Least audio between two partials; 0 for none.
        interval_ms: u32,
        /// As in `Open`.
        #[serde(default)]
        decoded_interval_ms: u32,
    },
    /// End the lease. Answered by `Closed`, after which the id means nothing.
    Close {
        /// The lease.
        lease: LeaseId,
    },
    /// Finish what is being decoded and exit with 0.
    Shutdown,
}

impl ToHost {
    /// The lease it names, if it is about one; to be changed where a message is passed on under another name.
    pub const fn lease_mut(&mut self) -> Option<&mut LeaseId> {
        match self {
            Self::Open { lease, .. }
            | Self::Feed { lease, .. }
            | Self::Flush { lease, .. }
            | Self::Partials { lease, .. }
            | Self::Close { lease } => Some(lease),
            Self::Start(_) | Self::Shutdown => None,
        }
    }
}

/// From a decoder host to its node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FromHost {
    /// The model is loaded and warm.
    Ready {
        /// Name and version of the engine's library.
        engine: String,
        /// What the same audio and options are decoded to the same text within: engine, library, CPU class.
        determinism: String,
        /// Time to load the model.
        load_ms: u32,
        /// Time to warm its recognizers.
        prewarm_ms: u32,
        /// Resident memory when warm.
        resident_bytes: u64,
    },
    /// The model can't be used. The host exits after this.
    LoadFailed {
        /// Why, in a sentence for an operator.
        message: String,
    },
    /// The lease holds a recognizer.
    Opened {
        /// The lease.
        lease: LeaseId,
        /// Whether the recognizer was warm.
        warm: bool,
    },
    /// The lease can't be served with these options, or at all. The id means nothing afterwards.
    Refused {
        /// The lease.
        lease: LeaseId,
        /// Why, in a sentence for whoever set the options.
        message: String,
    },
    /// Everything before `until` is decoded; gives the credit for it back, for as many steps as that may be.
    Decoded {
        /// The lease.
        lease: LeaseId,
        /// Position after the last decoded sample.
        until: DecodeOffset,
    },
    /// The text so far of the open segment.
    Partial {
        /// The lease.
        lease: LeaseId,
        /// The segment.
        segment: Segment,
        /// How far the text reaches.
        until: DecodeOffset,
        /// The text so far.
        text: String,
    },
    /// A segment has ended; the next begins at `to`.
    Cut {
        /// The lease.
        lease: LeaseId,
        /// The segment.
        segment: Segment,
        /// Its first sample.
        from: DecodeOffset,
        /// Position after its last.
        to: DecodeOffset,
        /// Why it ended here.
        cause: CutCause,
        /// What was said.
        utterance: Utterance,
        /// CPU time that native calls spent on it, in microseconds; 0 from a host that does not say.
        #[serde(default, skip_serializing_if = "is_zero")]
        busy_us: u64,
    },
    /// The engine answered with an error; the recognizer is gone and the lease with it. The host lives on.
    Failed {
        /// The lease.
        lease: LeaseId,
        /// Why.
        message: String,
    },
    /// The lease is over.
    Closed {
        /// The lease.
        lease: LeaseId,
    },
    /// Sent every 100 ms by a thread that never decodes.
    Heartbeat {
        /// Counts up by one.
        sequence: u64,
        /// Native calls in progress, at most one per decode thread.
        calls: Vec<CallInProgress>,
        /// Resident memory.
        resident_bytes: u64,
        /// Audio decoded since the start, over all leases.
        audio_ms: u64,
        /// CPU time spent in native calls for it.
        busy_ms: u64,
    },
    /// A budget is spent: give this host no new leases and replace it when it is empty.
    Retiring {
        /// Which budget.
        reason: String,
    },
}

impl FromHost {
    /// The lease it names, if it is about one.
    #[must_use]
    pub const fn lease(&self) -> Option<LeaseId> {
        match self {
            Self::Opened { lease, .. }
            | Self::Refused { lease, .. }
            | Self::Decoded { lease, .. }
            | Self::Partial { lease, .. }
            | Self::Cut { lease, .. }
            | Self::Failed { lease, .. }
            | Self::Closed { lease } => Some(*lease),
            Self::Ready { .. } | Self::LoadFailed { .. } | Self::Heartbeat { .. } | Self::Retiring { .. } => {
                None
            }
        }
    }

    /// As [`FromHost::lease`]; to be changed where a message is passed on under another name.
    pub const fn lease_mut(&mut self) -> Option<&mut LeaseId> {
        match self {
            Self::Opened { lease, .. }
            | Self::Refused { lease, .. }
            | Self::Decoded { lease, .. }
            | Self::Partial { lease, .. }
            | Self::Cut { lease, .. }
            | Self::Failed { lease, .. }
            | Self::Closed { lease } => Some(lease),
            Self::Ready { .. } | Self::LoadFailed { .. } | Self::Heartbeat { .. } | Self::Retiring { .. } => {
                None
            }
        }
    }
}

pub(crate) const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A native call that has not returned yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CallInProgress {
    /// Whose audio it works on.
    pub lease: LeaseId,
    /// Position after the step it works on.
    pub until: DecodeOffset,
    /// How long it has been running.
    pub running_ms: u32,
    /// The longest this kind of call has taken so far on this host, first uses left out; 0 before one was measured.
    pub bound_ms: u32,
    /// The recognizer's first call, or one that opens or warms it: its length says nothing of being stuck.
    pub first_use: bool,
}

/// A decode thread's line in the host's flight recorder: what it was about to do when the process died.
///
/// The recorder is an unnamed file in memory that the node keeps open: [`FLIGHT_ENTRY_BYTES`] bytes per decode thread, in
/// the order of their indexes. A thread writes its line before each native call and clears it afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlightEntry {
    /// Whose audio the call worked on.
    pub lease: LeaseId,
    /// Position after the step it worked on.
    pub until: DecodeOffset,
}

/// Bytes of one [`FlightEntry`]: lease + 1 and position as u64 little endian; all zero when no call is in progress.
pub const FLIGHT_ENTRY_BYTES: usize = 16;

impl FlightEntry {
    /// The entry's bytes in the recorder.
    #[must_use]
    pub fn to_bytes(self) -> [u8; FLIGHT_ENTRY_BYTES] {
        let mut bytes = [0; FLIGHT_ENTRY_BYTES];
        bytes[..8].copy_from_slice(&(self.lease.0 + 1).to_le_bytes());
        bytes[8..].copy_from_slice(&self.until.0.to_le_bytes());
        bytes
    }

    /// Reads an entry back; `None` when no call was in progress.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; FLIGHT_ENTRY_BYTES]) -> Option<Self> {
        let (lease, until) = bytes.split_at(8);
        let lease = u64::from_le_bytes(lease.try_into().ok()?).checked_sub(1)?;
        let until = u64::from_le_bytes(until.try_into().ok()?);
        Some(Self { lease: LeaseId(lease), until: DecodeOffset(until) })
    }
}

pub(crate) mod bytes_field {
    //! MessagePack's binary type for `Vec<u8>`, which serde would write as an array of numbers.

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

#[cfg(test)]
mod tests;
