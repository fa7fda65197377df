//! Decoders: one actor for each lease, with one stream into a host of this node or to a peer that has one.
//!
//! Owns: the lease, from its grant until the host has closed it or the stream to the peer has ended. Must never: give a slot
//! back while the host still works for it, or let an answer reach a holder that has let go. Where the host is makes no
//! difference to the holder: messages and causes are the same.

use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, DerivedActorRef, Message};
use starling_core::sabotage::{Bug, is};
use starling_core::session::LossCause;
use starling_protocol::lease::{FromHost, ToHost};
use starling_protocol::{Attempt, LeaseId};
use tokio::sync::mpsc;

use crate::data::LeaseStream;
use crate::host::HostMessage;
use crate::pool::{LeaseAnswer, PoolMessage};
use crate::task::AbortOnDrop;
use crate::trace::DecodeTrace;

/// How long a host may take to close a lease: the longest native call it is not accused of, and some. A host that takes
/// longer is stuck and will be told so.
const CLOSE_DEADLINE: Duration = Duration::from_secs(30);

/// Whoever a decoder works for: a session, or the relay of a peer's.
pub(crate) type Holder = DerivedActorRef<HolderMessage>;

/// What the holder of a lease is told. All of it names the attempt it is about.
pub(crate) enum HolderMessage {
    /// The lease that was asked for, or why there is none.
    Answer { attempt: Attempt, answer: LeaseAnswer },
    /// The decoder says something.
    Frame { attempt: Attempt, frame: FromHost },
    /// The decoder is gone.
    Lost { attempt: Attempt, cause: LossCause },
    /// The decoder's host is to be replaced.
    Retiring { attempt: Attempt },
    /// The engine can't serve the options.
    OptionsRefused { attempt: Attempt, message: String },
}

pub(crate) struct DecoderActor;

pub(crate) struct DecoderArguments {
    pub(crate) lease: LeaseId,
    pub(crate) attempt: Attempt,
    pub(crate) holder: Holder,
    pub(crate) seat: Seat,
    /// What is told of it, where the host is on this node.
    pub(crate) trace: Option<Box<DecodeTrace>>,
}

/// Where the host is.
pub(crate) enum Seat {
    /// On this node: a slot of the pool's.
    Host { pool: ActorRef<PoolMessage>, host: ActorRef<HostMessage> },
    /// On a peer: a lease that its relay has granted.
    Peer(LeaseStream),
}

pub(crate) enum DecoderMessage {
    /// The way into the host of this node's.
    HostLink(mpsc::Sender<ToHost>),
    /// The holder says something to the host.
    Command(ToHost),
    /// The host says something.
    Frame(FromHost),
    /// The lease is gone with its host.
    Lost(LossCause),
    /// The lease should leave its host at the next border.
    Move,
    /// The holder has let go.
    Close,
    /// The host has had long enough to close.
    CloseOverdue,
}

pub(crate) struct DecoderState {
    lease: LeaseId,
    attempt: Attempt,
    holder: Holder,
    /// The slot to be given back; `None` for one on a peer, which goes with its stream.
    slot: Option<(ActorRef<PoolMessage>, ActorRef<HostMessage>)>,
    /// What listens to the peer. Ends with this actor.
    _listening: Option<AbortOnDrop>,
    link: Option<mpsc::Sender<ToHost>>,
    /// Commands from before the link was there.
    early: Vec<ToHost>,
    opened: bool,
    closing: bool,
    trace: Option<Box<DecodeTrace>>,
}

impl Message for DecoderMessage {}

impl Actor for DecoderActor {
    type Msg = DecoderMessage;
    type State = DecoderState;
    type Arguments = DecoderArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<DecoderMessage>,
        arguments: DecoderArguments,
    ) -> Result<DecoderState, ActorProcessingErr> {
        let DecoderArguments { lease, attempt, holder, seat, trace } = arguments;
        let (slot, link, listening) = match seat {
            Seat::Host { pool, host } => {
                host.cast(HostMessage::Bind { lease, decoder: myself })?;
                (Some((pool, host)), None, None)
            }
            Seat::Peer(stream) => {
                let (link, listening) = stream.start(lease, myself);
                (None, Some(link), Some(listening))
            }
        };
        Ok(DecoderState {
            lease,
            attempt,
            holder,
            slot,
            _listening: listening,
            link,
            early: Vec::new(),
            opened: false,
            closing: false,
            trace,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<DecoderMessage>,
        message: DecoderMessage,
        state: &mut DecoderState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DecoderMessage::HostLink(link) => {
                state.link = Some(link);
                for command in std::mem::take(&mut state.early) {
                    state.command(&myself, command);
                }
            }
            DecoderMessage::Command(command) => state.command(&myself, command),
            DecoderMessage::Frame(frame) => state.frame(&myself, frame),
            DecoderMessage::Lost(cause) => {
                state.trace(|trace| trace.lost(cause));
                state.tell(HolderMessage::Lost { attempt: state.attempt, cause });
                myself.stop(None);
            }
            DecoderMessage::Move => state.tell(HolderMessage::Retiring { attempt: state.attempt }),
            DecoderMessage::Close => state.close(&myself),
            DecoderMessage::CloseOverdue => state.release(&myself),
        }
        Ok(())
    }
}

impl DecoderState {
    fn command(&mut self, myself: &ActorRef<DecoderMessage>, command: ToHost) {
        if self.closing {
            return;
        }
        let Some(link) = &self.link else { return self.early.push(command) };
        self.opened |= matches!(command, ToHost::Open { .. });
        if let Some(trace) = &mut self.trace {
            trace.told(&command);
        }
        if link.try_send(command).is_err() {
            // The host reads nothing, or is gone. What was not sent is missing from now on: the lease is of no use.
            self.tell(HolderMessage::Lost { attempt: self.attempt, cause: LossCause::Protocol });
            self.close(myself);
        }
    }

    fn frame(&mut self, myself: &ActorRef<DecoderMessage>, frame: FromHost) {
        self.trace(|trace| trace.heard(&frame));
        match frame {
            FromHost::Closed { .. } => self.release(myself),
            FromHost::Refused { message, .. } => {
                self.tell(HolderMessage::OptionsRefused { attempt: self.attempt, message });
                self.release(myself);
            }
            FromHost::Failed { message, .. } => {
                tracing::warn!(lease = self.lease.0, message, "the engine failed for a session");
                self.tell(HolderMessage::Lost { attempt: self.attempt, cause: LossCause::EngineFailed });
                self.release(myself);
            }
            frame => self.tell(HolderMessage::Frame { attempt: self.attempt, frame }),
        }
    }

    fn trace(&mut self, note: impl FnOnce(&mut DecodeTrace)) {
        if let Some(trace) = &mut self.trace {
            note(trace);
        }
    }

    fn tell(&self, message: HolderMessage) {
        if !self.closing || is(Bug::AttemptNotFenced) {
            // A holder that is gone needs to be told nothing.
            let _ = self.holder.send_message(message);
        }
    }

    fn close(&mut self, myself: &ActorRef<DecoderMessage>) {
        if self.closing {
            return;
        }
        self.closing = true;
        self.trace(DecodeTrace::closed);
        if let (Some(link), true, Some(_)) = (&self.link, self.opened, &self.slot) {
            // On a full link the deadline frees the slot, and the host's end frees its recognizer.
            let _ = link.try_send(ToHost::Close { lease: self.lease });
            myself.send_after(CLOSE_DEADLINE, || DecoderMessage::CloseOverdue);
        } else {
            self.release(myself);
        }
    }

    fn release(&mut self, myself: &ActorRef<DecoderMessage>) {
        self.closing = true;
        if let Some((pool, host)) = &self.slot {
            let lease = self.lease;
            let _ = host.cast(HostMessage::Unbind { lease });
            if is(Bug::SlotLeaked) && lease.0 % 4 == 3 {
                return myself.stop(None);
            }
            let _ = pool.cast(PoolMessage::Released { lease });
        }
        myself.stop(None);
    }
}

/// What the holder of a lease holds of its decoder. Dropping it lets go, however the holder ends.
pub(crate) struct DecoderHandle {
    actor: ActorRef<DecoderMessage>,
    lease: LeaseId,
}

impl DecoderHandle {
    pub(crate) const fn new(actor: ActorRef<DecoderMessage>, lease: LeaseId) -> Self {
        Self { actor, lease }
    }

    pub(crate) const fn lease(&self) -> LeaseId {
        self.lease
    }

    pub(crate) fn id(&self) -> ActorId {
        self.actor.get_id()
    }

    pub(crate) fn send(&self, command: ToHost) {
        // A decoder that is gone has told why, or is about to.
        let _ = self.actor.cast(DecoderMessage::Command(command));
    }
}

impl Drop for DecoderHandle {
    fn drop(&mut self) {
        let _ = self.actor.cast(DecoderMessage::Close);
    }
}
