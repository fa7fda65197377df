//! The actor of one session: takes messages, tells the machine, keeps the timer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, Message, SupervisionEvent};
use starling_core::Timestamp;
use starling_core::audio::{Resampler, SourceStore};
use starling_core::replica::{OpenFailure, ReplicationEvent, SessionCopy, Tries};
use starling_core::session::{Restored, SessionConfig, SessionEvent as Event, SessionMachine};
use starling_protocol::control::{CopySummary, SessionReport};
use starling_protocol::lease::{DecodeOptions, TraceContext};
use starling_protocol::native::{ErrorBody, ErrorCode, WarningCode};
use starling_protocol::replica::View;
use starling_protocol::trace::TraceRoot;
use starling_protocol::{Epoch, NodeName, Segment, SourceOffset, Utterance};
use tokio::sync::{Semaphore, oneshot};
use tracing::error;

use super::api::{OpenRequest, SessionEvent};
use super::census::{Census, Sighting};
use super::decoding::{Lane, Placed};
use super::io::{Attachment, FINALIZE_BYTES, NOTES};
use super::outbox::Outbox;
use super::replication::{KeptFinal, Replication};
use super::standby::Standbys;
use crate::clock::{Clock, unix_now};
use crate::decoder::{DecoderHandle, HolderMessage};
use crate::decoders::Decoders;
use crate::node::StandbyPolicy;
use crate::observe::Observer;
use crate::replica::{CopyArguments, KeeperHandle, OpenedStream, unknown};
use crate::task::Timer;
use crate::trace::{Arrival, SessionTrace, SharedTrace};

pub(crate) type AttachReply = oneshot::Sender<Result<Attachment, ErrorBody>>;

pub(crate) struct SessionActor;

pub(crate) struct SessionArguments {
    pub(crate) request: OpenRequest,
    pub(crate) config: SessionConfig,
    pub(crate) options: DecodeOptions,
    pub(crate) model: Arc<str>,
    pub(crate) decoders: Decoders,
    pub(crate) resampler: Arc<Resampler>,
    pub(crate) journal_bytes: usize,
    pub(crate) digest: Arc<str>,
    pub(crate) copies: CopyArguments,
    /// Hears of the session's end, for who has an old copy of it.
    pub(crate) keeper: KeeperHandle,
    pub(crate) standby: StandbyPolicy,
    pub(crate) warnings: Vec<(WarningCode, String)>,
    /// Who opens it. Attached before a decoder is asked for, so that the answer finds somebody to tell.
    pub(crate) opener: Option<Opener>,
    /// What it goes on from, when it lived elsewhere before.
    pub(crate) restored: Option<Box<RestoredSession>>,
    pub(crate) clock: Clock,
    pub(crate) observer: Arc<dyn Observer>,
    /// Who tells of the session; `None` where nobody wants to know.
    pub(crate) trace: Option<SharedTrace>,
    /// What each line of the log says of it.
    pub(crate) log: tracing::Span,
    /// What is known of it if its actor fails.
    pub(crate) seen: Sighting,
}

/// A connection that speaks for a session from the first.
pub(crate) struct Opener {
    pub(crate) epoch: Epoch,
    pub(crate) last_final: Option<Segment>,
    pub(crate) have_from: SourceOffset,
    pub(crate) reply: AttachReply,
}

/// A session that lived elsewhere before.
pub(crate) struct RestoredSession {
    pub(crate) standing: Restored,
    /// The highest epoch that was obeyed before; the opener's is higher.
    pub(crate) last_epoch: Epoch,
    pub(crate) view: View,
    pub(crate) class: Arc<str>,
    pub(crate) holders: Vec<NodeName>,
    /// When its first owner began with it, since 1970, if that is known.
    pub(crate) opened: Option<Duration>,
    pub(crate) arrival: Arrival,
}

/// What a client sent.
pub(crate) enum Input {
    Audio(Vec<u8>),
    Finalize,
    End,
    Confirm(Segment),
    Abandon,
}

/// The number that a connection is to have.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AskedEpoch {
    /// The one that the client named as it came back.
    Named(Epoch),
    /// The next, but this one at least: the client asks again, as it got no answer.
    NextFrom(Epoch),
}

pub(crate) enum SessionMessage {
    /// A connection wants to speak.
    Attach {
        tenant: String,
        epoch: AskedEpoch,
        last_final: Option<Segment>,
        have_from: SourceOffset,
        reply: AttachReply,
    },
    /// A connection is lost.
    Detached { epoch: Epoch },
    /// The client sent something.
    Input { epoch: Epoch, input: Input },
    /// The pool, the decoder or its peer says something.
    Decoder(HolderMessage),
    /// A keeper of a copy says something, or is gone.
    Copy(ReplicationEvent),
    /// A stream to a keeper was opened, or was not.
    CopyOpened { tries: Tries, opened: Result<OpenedStream, OpenFailure> },
    /// The timer of the copies' machine.
    CopiesTimedOut,
    /// Another node speaks for the session as this epoch: hand it over, or say which epoch is obeyed.
    Relinquish { epoch: Epoch, reply: oneshot::Sender<Result<Box<SessionCopy>, Epoch>> },
    /// How far the session has come.
    Summarize(oneshot::Sender<CopySummary>),
    /// How the session is.
    Report(oneshot::Sender<SessionReport>),
    /// The machine's timer.
    TimedOut,
    /// The node is stopping.
    ShutDown,
}

impl From<HolderMessage> for SessionMessage {
    fn from(message: HolderMessage) -> Self {
        Self::Decoder(message)
    }
}

impl TryFrom<SessionMessage> for HolderMessage {
    type Error = ();

    fn try_from(message: SessionMessage) -> Result<Self, ()> {
        match message {
            SessionMessage::Decoder(message) => Ok(message),
            _ => Err(()),
        }
    }
}

pub(crate) struct SessionState {
    pub(super) arguments: SessionArguments,
    pub(super) machine: SessionMachine,
    pub(super) store: SourceStore,
    pub(super) room: Arc<Semaphore>,
    /// Room for messages that hold no audio.
    pub(super) notes: Arc<Semaphore>,
    /// The decoder that speaks for the session.
    pub(super) first: Lane,
    /// The one that stands by.
    pub(super) standby: Lane,
    pub(super) standbys: Standbys,
    /// A grant that the machine is about to be told of.
    pub(super) granted: Option<DecoderHandle>,
    pub(super) placed: Placed,
    pub(super) outbox: Option<Arc<Outbox>>,
    /// The connection that is being welcomed or refused.
    pub(super) attaching: Option<AttachReply>,
    /// A welcome that waits for the first decoder.
    pub(super) welcome: Option<(AttachReply, Attachment)>,
    pub(super) admitted: bool,
    /// Finals made and not confirmed, or still to be sent to a keeper.
    pub(super) finals: VecDeque<KeptFinal>,
    /// The first final that the present connection was not given.
    pub(super) pushed: Segment,
    /// What is said last, once every final has gone out.
    pub(super) done: Option<SessionEvent>,
    /// The session needs no audio before this; a keeper may.
    pub(super) trim_to: SourceOffset,
    pub(super) replication: Option<Replication>,
    /// What the event being handled brought.
    pub(super) heard: Utterance,
    pub(super) partial_text: String,
    pub(super) refusal: Option<String>,
    pub(super) entries: usize,
    pub(super) times: Times,
    pub(super) census: Census,
    timer: Option<Timer>,
    /// Who tells of the session; `None` where nobody wants to know.
    pub(super) trace: Option<SharedTrace>,
    /// What an owner before this one told of it, for one after it.
    pub(super) root: Option<TraceRoot>,
    /// When its first owner began with it, since 1970.
    pub(super) opened: Duration,
    /// What each line of the log says of it.
    pub(super) log: tracing::Span,
}

/// When things came, for what is counted.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// When the session began on this node.
    pub(super) begun: Timestamp,
    pub(super) first_audio: Option<Timestamp>,
    pub(super) first_partial: bool,
    /// When the decoder was lost that has no successor yet, and why.
    pub(super) lost: Option<(Timestamp, &'static str)>,
    /// When audio up to a frame had come; one mark for each step's worth, at most.
    pub(super) arrivals: VecDeque<(SourceOffset, Timestamp)>,
}

impl Message for SessionMessage {}

impl Actor for SessionActor {
    type Msg = SessionMessage;
    type State = SessionState;
    type Arguments = SessionArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SessionMessage>,
        mut arguments: SessionArguments,
    ) -> Result<SessionState, ActorProcessingErr> {
        let mut out = Vec::new();
        let (opener, restored) = (arguments.opener.take(), arguments.restored.take());
        let (now, config) = (arguments.clock.now(), arguments.config);
        let root = restored.as_ref().and_then(|restored| restored.arrival.root);
        let opened = restored.as_ref().and_then(|restored| restored.opened).unwrap_or_else(unix_now);
        let (trace, log) = (arguments.trace.take(), arguments.log.clone());
        let machine = match &restored {
            None => SessionMachine::new(now, config, &mut out),
            Some(restored) => {
                SessionMachine::restore(now, config, &restored.standing, restored.last_epoch, &mut out)
            }
        };
        let (observer, dialect) = (Arc::clone(&arguments.observer), arguments.request.dialect);
        let mut state = SessionState {
            census: Census::new(observer, dialect, Arc::clone(&arguments.model), Arc::clone(&arguments.seen)),
            room: Arc::new(Semaphore::new(arguments.journal_bytes)),
            notes: Arc::new(Semaphore::new(NOTES)),
            arguments,
            machine,
            store: SourceStore::new(),
            first: Lane::default(),
            standby: Lane::default(),
            standbys: Standbys::default(),
            granted: None,
            placed: Placed::default(),
            outbox: None,
            attaching: None,
            welcome: None,
            admitted: false,
            finals: VecDeque::new(),
            pushed: Segment(0),
            done: None,
            trim_to: SourceOffset(0),
            replication: None,
            heard: Utterance::default(),
            partial_text: String::new(),
            refusal: None,
            entries: 0,
            times: Times { begun: now, ..Times::default() },
            timer: None,
            trace,
            root,
            opened,
            log,
        };
        let _entered = state.log.clone().entered();
        if let Some(restored) = restored {
            state.restore(&myself, *restored);
        }
        if let Some(Opener { epoch, last_final, have_from, reply }) = opener {
            state.attaching = Some(reply);
            state.drive(&myself, Event::Attach { epoch, last_final, have_from });
        }
        state.perform(&myself, out);
        state.take_census();
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionMessage>,
        message: SessionMessage,
        state: &mut SessionState,
    ) -> Result<(), ActorProcessingErr> {
        let _entered = state.log.clone().entered();
        match message {
            // Whoever guesses an id learns nothing from the answer.
            SessionMessage::Attach { tenant, reply, .. } if tenant != state.arguments.request.tenant => {
                let _ = reply.send(Err(unknown()));
            }
            SessionMessage::Attach { epoch, last_final, have_from, reply, .. } => {
                let epoch = match epoch {
                    AskedEpoch::Named(epoch) => epoch,
                    AskedEpoch::NextFrom(least) => state.machine.last_epoch().next().max(least),
                };
                state.attaching = Some(reply);
                state.drive(&myself, Event::Attach { epoch, last_final, have_from });
            }
            SessionMessage::Detached { epoch } => {
                state.drive(&myself, Event::Detached { epoch });
                if state.machine.attached().is_none() {
                    state.close_outbox();
                }
            }
            SessionMessage::Input { epoch, input } => state.input(&myself, epoch, input),
            SessionMessage::Decoder(message) => state.decoder_says(&myself, message),
            SessionMessage::Copy(event) => state.replicate(&myself, event),
            SessionMessage::CopyOpened { tries, opened } => state.copy_opened(&myself, tries, opened),
            SessionMessage::CopiesTimedOut => state.copies_timed_out(&myself),
            SessionMessage::Relinquish { epoch, reply } => state.relinquish(&myself, epoch, reply),
            SessionMessage::Summarize(reply) => drop(reply.send(state.summary())),
            SessionMessage::Report(reply) => drop(reply.send(state.report())),
            SessionMessage::TimedOut => {
                state.timer = None;
                state.drive(&myself, Event::TimedOut);
            }
            SessionMessage::ShutDown => state.drive(&myself, Event::ShutDown),
        }
        state.take_census();
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SessionMessage>,
        event: SupervisionEvent,
        state: &mut SessionState,
    ) -> Result<(), ActorProcessingErr> {
        // The actor of a decoder on a peer is the session's own child. One that ends as it should has told why.
        if let SupervisionEvent::ActorFailed(who, problem) = event {
            let _entered = state.log.clone().entered();
            error!(%problem, "a decoder's actor failed");
            state.decoder_failed(&myself, who.get_id());
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<SessionMessage>,
        state: &mut SessionState,
    ) -> Result<(), ActorProcessingErr> {
        state.room.close();
        state.notes.close();
        if let Some(outbox) = &state.outbox {
            outbox.finish(super::api::SessionEvent::Failed(ErrorBody::new(
                ErrorCode::Internal,
                "the session was stopped",
            )));
        }
        Ok(())
    }
}

impl SessionState {
    /// Tells whoever wants to know.
    pub(super) fn trace(&self, tell: impl FnOnce(&mut SessionTrace, Timestamp)) {
        if let Some(trace) = &self.trace {
            tell(&mut trace.lock(), self.arguments.clock.now());
        }
    }

    /// What others are told of the trace: the session's own span, or what its client said.
    pub(super) fn context(&self) -> Option<TraceContext> {
        self.trace
            .as_ref()
            .map(|trace| trace.lock().context())
            .or_else(|| self.arguments.request.trace.clone())
    }

    pub(super) fn drive(&mut self, myself: &ActorRef<SessionMessage>, event: Event) {
        self.look_at_pulse(myself);
        let mut out = Vec::new();
        self.machine.handle(self.arguments.clock.now(), event, &mut out);
        self.perform(myself, out);
        self.return_entries_room();
        self.arm(myself);
    }

    /// Sets the timer, unless one is set that comes early enough: it will set the next.
    fn arm(&mut self, myself: &ActorRef<SessionMessage>) {
        let Some(at) = self.machine.next_timeout() else { return };
        if self.timer.as_ref().is_none_or(|timer| at < timer.at()) {
            let now = self.arguments.clock.now();
            self.timer = Some(Timer::set(myself, now, at, || SessionMessage::TimedOut));
        }
    }

    fn input(&mut self, myself: &ActorRef<SessionMessage>, epoch: Epoch, input: Input) {
        let current = self.machine.attached() == Some(epoch);
        if matches!(input, Input::End | Input::Confirm(_)) {
            self.notes.add_permits(1);
        }
        match input {
            Input::Audio(bytes) if current && !self.machine.journal().ended() => {
                let frames = self.store.append(&bytes);
                self.note_arrival(frames);
                self.drive(myself, Event::AudioReceived { frames });
            }
            // Nobody will trim what was never stored.
            Input::Audio(bytes) => self.room.add_permits(bytes.len()),
            Input::Finalize if current && !self.machine.journal().ended() => {
                self.entries += 1;
                self.drive(myself, Event::FinalizeRequested);
            }
            Input::Finalize => self.room.add_permits(FINALIZE_BYTES as usize),
            Input::End if current => self.drive(myself, Event::EndRequested),
            Input::Confirm(segment) if current => self.drive(myself, Event::Confirmed { segment }),
            Input::Abandon if current => self.drive(myself, Event::Abandoned),
            Input::End | Input::Confirm(_) | Input::Abandon => {}
        }
    }

    fn return_entries_room(&mut self) {
        let pending = self.machine.journal().pending_entries();
        // The end is an entry too, but it took no room.
        let pending = pending - usize::from(self.machine.journal().ended() && pending > 0);
        let answered = self.entries.saturating_sub(pending);
        self.entries -= answered;
        self.room.add_permits(answered * FINALIZE_BYTES as usize);
    }
}
