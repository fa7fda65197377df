//! Decoders: one actor for each lease, with one stream into a host.
//!
//! Owns: the lease, from its grant until the host has closed it. Must never: give a slot back while the host still works for
//! it, or let an answer reach a session that has let go.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use starling_core::session::LossCause;
use starling_protocol::lease::{FromHost, ToHost};
use starling_protocol::{Attempt, LeaseId};
use tokio::sync::mpsc;

use crate::host::HostMessage;
use crate::pool::PoolMessage;
use crate::session::SessionMessage;

/// How long a host may take to close a lease: the longest native call it is not accused of, and some. A host that takes
/// longer is stuck and will be told so.
const CLOSE_DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct DecoderActor;

pub(crate) struct DecoderArguments {
    pub(crate) lease: LeaseId,
    pub(crate) attempt: Attempt,
    pub(crate) session: ActorRef<SessionMessage>,
    pub(crate) pool: ActorRef<PoolMessage>,
    pub(crate) host: ActorRef<HostMessage>,
}

pub(crate) enum DecoderMessage {
    /// The way into the host.
    HostLink(mpsc::Sender<ToHost>),
    /// The session says something to the host.
    Command(ToHost),
    /// The host says something.
    Frame(FromHost),
    /// The lease is gone with its host.
    Lost(LossCause),
    /// The lease should leave its host at the next border.
    Move,
    /// The session has let go.
    Close,
    /// The host has had long enough to close.
    CloseOverdue,
}

pub(crate) struct DecoderState {
    arguments: DecoderArguments,
    link: Option<mpsc::Sender<ToHost>>,
    /// Commands from before the link was there.
    early: Vec<ToHost>,
    opened: bool,
    closing: bool,
}

impl Actor for DecoderActor {
    type Msg = DecoderMessage;
    type State = DecoderState;
    type Arguments = DecoderArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<DecoderMessage>,
        arguments: DecoderArguments,
    ) -> Result<DecoderState, ActorProcessingErr> {
        arguments.host.cast(HostMessage::Bind { lease: arguments.lease, decoder: myself })?;
        Ok(DecoderState { arguments, link: None, early: Vec::new(), opened: false, closing: false })
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
                state.tell(SessionMessage::LeaseLost { attempt: state.arguments.attempt, cause });
                myself.stop(None);
            }
            DecoderMessage::Move => {
                state.tell(SessionMessage::LeaseRetiring { attempt: state.arguments.attempt });
            }
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
        if link.try_send(command).is_err() {
            // The host reads nothing, or is gone. What was not sent is missing from now on: the lease is of no use.
            let cause = LossCause::Protocol;
            self.tell(SessionMessage::LeaseLost { attempt: self.arguments.attempt, cause });
            self.close(myself);
        }
    }

    fn frame(&mut self, myself: &ActorRef<DecoderMessage>, frame: FromHost) {
        match frame {
            FromHost::Closed { .. } => self.release(myself),
            FromHost::Refused { message, .. } => {
                self.tell(SessionMessage::OptionsRefused { attempt: self.arguments.attempt, message });
                self.release(myself);
            }
            FromHost::Failed { message, .. } => {
                tracing::warn!(lease = self.arguments.lease.0, message, "the engine failed for a session");
                let cause = LossCause::EngineFailed;
                self.tell(SessionMessage::LeaseLost { attempt: self.arguments.attempt, cause });
                self.release(myself);
            }
            frame => self.tell(SessionMessage::Decoder { attempt: self.arguments.attempt, frame }),
        }
    }

    fn tell(&self, message: SessionMessage) {
        if !self.closing {
            // A session that is gone needs to be told nothing.
            let _ = self.arguments.session.cast(message);
        }
    }

    fn close(&mut self, myself: &ActorRef<DecoderMessage>) {
        if self.closing {
            return;
        }
        self.closing = true;
        if let (Some(link), true) = (&self.link, self.opened) {
            // On a full link the deadline frees the slot, and the host's end frees its recognizer.
            let _ = link.try_send(ToHost::Close { lease: self.arguments.lease });
            myself.send_after(CLOSE_DEADLINE, || DecoderMessage::CloseOverdue);
        } else {
            self.release(myself);
        }
    }

    fn release(&mut self, myself: &ActorRef<DecoderMessage>) {
        self.closing = true;
        let lease = self.arguments.lease;
        let _ = self.arguments.host.cast(HostMessage::Unbind { lease });
        let _ = self.arguments.pool.cast(PoolMessage::Released { lease });
        myself.stop(None);
    }
}

/// What a session holds of its decoder. Dropping it lets go, however the session ends.
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

    pub(crate) fn send(&self, command: ToHost) {
        // A decoder that is gone has told the session why, or is about to.
        let _ = self.actor.cast(DecoderMessage::Command(command));
    }
}

impl Drop for DecoderHandle {
    fn drop(&mut self) {
        let _ = self.actor.cast(DecoderMessage::Close);
    }
}
