//! What the machine is told and what it asks for.

use std::ops::Range;
use std::time::Duration;

use starling_protocol::native::{ErrorBody, Final, Hello, ServerMessage, WarningCode};
use starling_protocol::{Segment, SessionId, SourceOffset};

use super::servers::Server;
use crate::error::{OpenError, SessionError};

/// What the machine is told once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// `HOST:PORT` of each configured server; the machine asks them by index.
    pub servers: Vec<String>,
    /// Frames of audio that are kept to be sent again.
    pub ring_frames: u64,
    /// See [`ClientConfig::open_deadline`](crate::ClientConfig).
    pub open_deadline: Duration,
    /// See [`ClientConfig::wait_when_busy`](crate::ClientConfig).
    pub wait_when_busy: bool,
    /// See [`ClientConfig::give_up`](crate::ClientConfig).
    pub give_up: Duration,
    /// See [`ClientConfig::attempt_timeout`](crate::ClientConfig).
    pub attempt_timeout: Duration,
    /// See [`ClientConfig::liveness`](crate::ClientConfig).
    pub liveness: Duration,
    /// See [`ClientConfig::backoff_first`](crate::ClientConfig).
    pub backoff_first: Duration,
    /// See [`ClientConfig::backoff_most`](crate::ClientConfig).
    pub backoff_most: Duration,
}

/// Randomness for one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entropy {
    /// Spreads the next attempt: 0 for no delay, `u32::MAX` for the longest.
    pub jitter: u32,
    /// An unused id, should a new server session have to be begun.
    pub session: SessionId,
}

/// Which of the two connections that there can be at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    /// The one that speaks for the session, or is about to.
    Present,
    /// The one that is being opened while the present one is still served, to take its place.
    Next,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// First of all: connect.
    Start,
    /// The time of [`Machine::next_timeout`](super::Machine::next_timeout) has come.
    Tick,
    /// The consumer appended this many frames to the ring; never more than [`Machine::room`](super::Machine::room).
    Audio(u64),
    /// The consumer wants the open segment ended here.
    Finalize,
    /// No more audio will come.
    End,
    /// The server said this on that connection.
    Message(Which, Box<ServerMessage>),
    /// Something else was heard on that connection, such as a pong.
    Heard(Which),
    /// That connection, or the attempt at it, is gone.
    Lost(Which, String),
    /// The consumer has taken every final up to this one.
    Delivered(Segment),
}

/// Something is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Drop whatever connections there are, connect to this server and send this first: the present connection.
    Connect {
        /// The server.
        server: Server,
        /// The first message.
        hello: Box<Hello>,
    },
    /// Keep the present connection, drop the next one, and connect to this server beside it: the next connection.
    ConnectNext {
        /// The server.
        server: Server,
        /// The first message.
        hello: Box<Hello>,
    },
    /// Drop the next connection, or the attempt at it.
    DropNext,
    /// Drop the present connection; the next one, open or still being opened, is the present one from now on.
    Switch,
    /// Drop whatever connections and attempts there are.
    Disconnect,
    /// Confirm up to this segment, in the server's terms, and close: the server has nothing left to keep. Drop the next
    /// connection.
    Farewell(Segment),
    /// Have the server give a sign of life on the present connection.
    Ping,
    /// The session is open.
    Opened(Opened),
    /// The session could not be opened; nothing follows.
    OpenFailed(OpenError),
    /// Give the consumer this. Nothing follows [`Event::Done`].
    Deliver(Event),
    /// The session is over before its end; nothing follows.
    Failed(SessionError),
    /// The server complained of a message that this client sent; the session goes on.
    Complaint(Box<ErrorBody>),
    /// The server named nodes for resuming that are no `HOST:PORT`, or too many; they are left out.
    HintsIgnored {
        /// How many.
        count: usize,
        /// The beginning of the first.
        first: String,
    },
}

/// What is known of a session when it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// The session's id.
    pub session: SessionId,
    /// The model that was chosen.
    pub model: String,
    /// Whether acknowledged audio is in two copies. [`Event::Durable`] says when that changes.
    pub durable: bool,
}

/// What a consumer is told.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The text so far of the open segment. Those that were overtaken before they were read are left out.
    Partial {
        /// The segment.
        segment: Segment,
        /// Its first source frame.
        from: SourceOffset,
        /// How far the text reaches.
        until: SourceOffset,
        /// The text so far.
        text: String,
    },
    /// A segment's committed text: each exactly once, in order, adjoining the last, or the gap after it.
    Final(Final),
    /// Audio that was sent and will have no text: every server lost it, and it is no longer held here either. Begins where
    /// the last final ended; the next begins where it ends. A `finalize` that was asked for within it gets no final.
    Gap {
        /// The first source frame that is lost.
        from: SourceOffset,
        /// The source frame after the last.
        to: SourceOffset,
    },
    /// Whether the servers hold acknowledged audio twice has changed. While they don't, the loss of one costs what is no
    /// longer held here.
    Durable(bool),
    /// The server has something to say; the session goes on.
    Warning {
        /// What kind.
        code: WarningCode,
        /// In a sentence.
        message: String,
    },
    /// A lost connection was replaced. Nothing comes twice, and nothing was lost but what an [`Event::Gap`] names.
    Reconnected {
        /// From the loss to the new connection's `ready`.
        gap: Duration,
        /// Whether the servers had lost the session, so that it was begun anew at the last final.
        restarted: bool,
    },
    /// Every final has come.
    Done {
        /// How many segments there were.
        segments: u64,
        /// How many source frames were sent.
        frames: SourceOffset,
    },
}

/// The next thing to be written to the present connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A binary message with these frames of the ring.
    Audio(Range<u64>),
    /// `confirm`, in the server's terms.
    Confirm(Segment),
    /// `finalize`.
    Finalize,
    /// `end`.
    End,
}
