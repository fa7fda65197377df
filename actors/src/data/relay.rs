//! The decoding node's end of a peer's lease: it holds a slot of the node's own pool for a session that lives elsewhere.
//!
//! Owns: the stream, the slot's handle, the count of steps that are undecoded. Must never: let a peer put more on its way to
//! a host than its window, or hold a slot for a stream that has ended.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, Message};
use starling_core::credit::Credit;
use starling_core::pool::{Claim as ReservationClaim, Purpose, Refusal, Refused};
use starling_core::session::{LeaseKind, LossCause};
use starling_protocol::CutCause;
use starling_protocol::NodeName;
use starling_protocol::control::ReservationId;
use starling_protocol::data::{
    HeaderReply, LeaseHeader, LeasePurpose, LeaseReply, MAX_HEADER_BYTES, StreamRefusal,
};
use starling_protocol::lease::{FromHost, ToHost};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::{debug, warn};

use super::accept::{LeaseRequest, refuse};
use super::lease::TAKES_NOTHING;
use crate::claim::Claim;
use crate::decoder::{DecoderHandle, HolderMessage};
use crate::frames::{FrameSource, Writer, write_frame, write_frames};
use crate::pool::{Grant, PoolMessage};
use crate::task::AbortOnDrop;
use crate::trace::{LeaseTrace, log_span};

/// Most steps that a peer may have undecoded here: three times what sessions use, and still only seconds of audio.
const MOST_WINDOW: u16 = 64;

/// Flushes and changes of partials that may be unanswered. A session keeps to 16 flushes.
const MOST_NOTES: usize = 32;

/// Commands that lie between the stream and this actor. The stream is not read while they do.
const COMMANDS: usize = 16;

/// Replies that lie between this actor and the stream. Each step gives at most three (a partial, a cut, its decoding), so
/// that a peer which keeps to its window and reads what it is told never fills it.
const REPLIES: usize = 4 * MOST_WINDOW as usize + MOST_NOTES;

/// What a request without patience waits for the pool to answer.
const LEAST_PATIENCE: Duration = Duration::from_millis(50);

/// A new session waits no longer, whatever its node says: it has a deadline of its own, which is shorter.
const MOST_PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct RelayActor;

pub(crate) struct RelayArguments {
    pub(crate) request: LeaseRequest,
    pub(crate) pool: ActorRef<PoolMessage>,
    /// Keeps the pool.
    pub(crate) claim: Claim,
}

pub(crate) enum RelayMessage {
    /// The pool or the decoder says something.
    Decoder(HolderMessage),
    /// The peer says something. The permit lets the stream be read on.
    Command(ToHost, OwnedSemaphorePermit),
    /// The peer says nothing any more.
    Ended,
    /// The request has waited long enough.
    Impatient,
    /// The node is stopping: the session should leave at its next cut.
    Leave,
}

impl From<HolderMessage> for RelayMessage {
    fn from(message: HolderMessage) -> Self {
        Self::Decoder(message)
    }
}

impl TryFrom<RelayMessage> for HolderMessage {
    type Error = ();

    fn try_from(message: RelayMessage) -> Result<Self, ()> {
        match message {
            RelayMessage::Decoder(message) => Ok(message),
            _ => Err(()),
        }
    }
}

pub(crate) struct RelayState {
    from: NodeName,
    header: LeaseHeader,
    pool: ActorRef<PoolMessage>,
    stage: Stage,
    _listening: AbortOnDrop,
    _claim: Claim,
    /// What each line of the log says of it.
    log: tracing::Span,
}

enum Stage {
    /// The pool was asked for a slot.
    Asked { writer: Writer },
    /// The peer has it.
    Leased(Lease),
    /// All was said.
    Over,
}

struct Lease {
    decoder: DecoderHandle,
    replies: mpsc::Sender<LeaseReply>,
    /// `None` until the peer has opened.
    credit: Option<Credit>,
    notes: usize,
}

/// The peer said something that can't be.
#[derive(Debug, Clone, Copy)]
struct Violation(&'static str);

impl Message for RelayMessage {}

impl Actor for RelayActor {
    type Msg = RelayMessage;
    type State = RelayState;
    type Arguments = RelayArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<RelayMessage>,
        arguments: RelayArguments,
    ) -> Result<RelayState, ActorProcessingErr> {
        let RelayArguments { request: LeaseRequest { from, header, frames, writer }, pool, claim } =
            arguments;
        let purpose = match header.purpose {
            LeasePurpose::Continue => Purpose::Continue(LeaseKind::Shared),
            LeasePurpose::Quarantine => Purpose::Continue(LeaseKind::Quarantine),
            LeasePurpose::Standby => Purpose::Standby { avoid: None },
            // Whatever a newer node may want a lease for, it has no claim to the reserve.
            _ => Purpose::New,
        };
        let holder = myself.get_derived();
        let session = header.session;
        let reserved =
            header.reservation.map(|id| ReservationClaim { reservation: ReservationId(id), session });
        let standby = header.purpose == LeasePurpose::Standby;
        let trace = Some(LeaseTrace { session, epoch: header.epoch, standby });
        let (attempt, claim_to) = (header.attempt, reserved);
        pool.cast(PoolMessage::Acquire { attempt, purpose, claim: claim_to, holder, trace })?;
        let patience = Duration::from_millis(u64::from(header.patience_ms));
        myself.send_after(patience.clamp(LEAST_PATIENCE, MOST_PATIENCE), || RelayMessage::Impatient);
        let listening = AbortOnDrop::spawn(listen(frames, myself));
        let log = log_span(session, header.trace.as_ref());
        debug!(parent: &log, %from, attempt = header.attempt.0, "a peer asks for a lease");
        let stage = Stage::Asked { writer };
        Ok(RelayState { from, header, pool, stage, _listening: listening, _claim: claim, log })
    }

    async fn handle(
        &self,
        myself: ActorRef<RelayMessage>,
        message: RelayMessage,
        state: &mut RelayState,
    ) -> Result<(), ActorProcessingErr> {
        let _entered = state.log.clone().entered();
        match message {
            RelayMessage::Decoder(message) => state.decoder(message),
            RelayMessage::Command(command, permit) => {
                if let Err(Violation(what)) = state.command(command) {
                    warn!(from = %state.from, session = %state.header.session, what, "a peer breaks its lease's rules");
                    state.lose(LossCause::Protocol);
                }
                drop(permit);
            }
            RelayMessage::Ended => state.stage = Stage::Over,
            RelayMessage::Impatient => {
                // The pool knows when it is worth asking again.
                let (attempt, holder) = (state.header.attempt, myself.get_derived());
                state.pool.cast(PoolMessage::GiveUp { attempt, holder })?;
            }
            RelayMessage::Leave => {
                // Who waits for a host of its own has nowhere else to go.
                if state.header.purpose != LeasePurpose::Quarantine {
                    state.refuse(StreamRefusal::Draining);
                }
                state.reply(LeaseReply::Retiring);
            }
        }
        if matches!(state.stage, Stage::Over) {
            myself.stop(None);
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        myself: ActorRef<RelayMessage>,
        state: &mut RelayState,
    ) -> Result<(), ActorProcessingErr> {
        // Has no effect once it was answered; a lease is given back by its handle.
        let (attempt, holder) = (state.header.attempt, myself.get_derived());
        let _ = state.pool.cast(PoolMessage::Withdraw { attempt, holder });
        Ok(())
    }
}

impl RelayState {
    fn decoder(&mut self, message: HolderMessage) {
        match message {
            HolderMessage::Answer { answer: Ok(grant), .. } => self.granted(grant),
            HolderMessage::Answer { answer: Err(Refused { reason, retry_after }), .. } => {
                self.refuse(match reason {
                    Refusal::Draining => StreamRefusal::Draining,
                    Refusal::QueueFull | Refusal::WaitedTooLong => {
                        let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
                        StreamRefusal::BusyFor { retry_after_ms }
                    }
                });
            }
            HolderMessage::Frame { frame, .. } => self.frame(frame),
            HolderMessage::Lost { cause, .. } => self.lose(cause),
            HolderMessage::Retiring { .. } => self.reply(LeaseReply::Retiring),
            HolderMessage::OptionsRefused { message, .. } => {
                self.reply(LeaseReply::Host(FromHost::Refused { lease: self.header.lease, message }));
                self.stage = Stage::Over;
            }
        }
    }

    fn granted(&mut self, grant: Grant) {
        // A grant that comes after the end is dropped, and the drop gives the slot back.
        let Stage::Asked { writer } = std::mem::replace(&mut self.stage, Stage::Over) else { return };
        let (replies, queue) = mpsc::channel(REPLIES);
        let (from, session) = (self.from.clone(), self.header.session);
        tokio::spawn(async move {
            if let Err(error) = answer(writer, queue).await {
                debug!(%from, %session, %error, "a peer's stream broke");
            }
        });
        let waited_ms = u32::try_from(grant.waited.as_millis()).unwrap_or(u32::MAX);
        self.stage = Stage::Leased(Lease { decoder: grant.decoder, replies, credit: None, notes: 0 });
        self.reply(LeaseReply::Granted { waited_ms, determinism: grant.class.to_string() });
    }

    fn frame(&mut self, mut frame: FromHost) {
        let Stage::Leased(lease) = &mut self.stage else { return };
        match &frame {
            FromHost::Decoded { until, .. } => {
                if let Some(credit) = &mut lease.credit {
                    credit.decoded(*until);
                }
            }
            FromHost::Cut { cause: CutCause::Finalize | CutCause::End, .. } => {
                lease.notes = lease.notes.saturating_sub(1);
            }
            _ => {}
        }
        if let Some(name) = frame.lease_mut() {
            *name = self.header.lease;
        }
        self.reply(LeaseReply::Host(frame));
    }

    fn command(&mut self, mut command: ToHost) -> Result<(), Violation> {
        let Stage::Leased(lease) = &mut self.stage else {
            return Err(Violation("it speaks before it was granted anything"));
        };
        match command.lease_mut() {
            Some(name) if *name == self.header.lease => *name = lease.decoder.lease(),
            _ => return Err(Violation("it names another lease")),
        }
        match (&command, &mut lease.credit) {
            (ToHost::Open { window, .. }, None) if (1..=MOST_WINDOW).contains(window) => {
                lease.credit = Some(Credit::new(*window));
            }
            (ToHost::Open { .. }, None) => return Err(Violation("its window is over the limit")),
            (ToHost::Open { .. }, Some(_)) => return Err(Violation("it opens twice")),
            (ToHost::Close { .. }, _) => {
                self.stage = Stage::Over;
                return Ok(());
            }
            (_, None) => return Err(Violation("it has not opened")),
            (ToHost::Feed { at, pcm, .. }, Some(credit)) => {
                if !credit.has_room() {
                    return Err(Violation("it feeds more than its window"));
                }
                credit.sent(at.plus(pcm.len() as u64 / 2));
            }
            (ToHost::Flush { .. }, Some(_)) => {
                lease.notes += 1;
                if lease.notes > MOST_NOTES {
                    return Err(Violation("it flushes without end"));
                }
            }
            _ => {}
        }
        lease.decoder.send(command);
        Ok(())
    }

    fn reply(&mut self, reply: LeaseReply) {
        if let Stage::Leased(lease) = &self.stage
            && lease.replies.try_send(reply).is_err()
        {
            // The stream is broken, or the peer reads nothing: what is missing now can't be made up for.
            self.stage = Stage::Over;
        }
    }

    fn lose(&mut self, cause: LossCause) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            // The pool grants nothing to an attempt that it has called lost.
            Stage::Asked { writer } => drop(tokio::spawn(refuse(writer, StreamRefusal::Busy))),
            Stage::Leased(lease) => drop(lease.replies.try_send(LeaseReply::Lost { cause: cause.into() })),
            Stage::Over => {}
        }
    }

    /// Has no effect on a lease that was granted.
    fn refuse(&mut self, reason: StreamRefusal) {
        if !matches!(self.stage, Stage::Asked { .. }) {
            return;
        }
        if let Stage::Asked { writer } = std::mem::replace(&mut self.stage, Stage::Over) {
            debug!(from = %self.from, session = %self.header.session, %reason, "a peer's lease is refused");
            tokio::spawn(refuse(writer, reason));
        }
    }
}

async fn answer(mut writer: Writer, replies: mpsc::Receiver<LeaseReply>) -> std::io::Result<()> {
    let accepting = write_frame(&mut writer, &HeaderReply::Accepted, MAX_HEADER_BYTES);
    tokio::time::timeout(TAKES_NOTHING, accepting).await??;
    write_frames(writer, replies, TAKES_NOTHING).await
}

/// Reads what the peer says, no faster than it is dealt with.
async fn listen(mut frames: FrameSource, relay: ActorRef<RelayMessage>) {
    let room = Arc::new(Semaphore::new(COMMANDS));
    while let Ok(Some(command)) = frames.next().await {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        if relay.cast(RelayMessage::Command(command, permit)).is_err() {
            return;
        }
    }
    let _ = relay.cast(RelayMessage::Ended);
}
