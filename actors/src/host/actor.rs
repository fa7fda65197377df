//! The actor of one decoder host.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};
use starling_core::host_watch::{Accusation, HostWatch, ROUND};
use starling_core::pool::{HostEnd, HostId, PoolEvent, StartCause};
use starling_protocol::LeaseId;
use starling_protocol::lease::{FlightEntry, FromHost, HostSpec, ToHost};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{debug, info, warn};

use super::launcher::{HostLaunch, HostLauncher, ProcessEnd};
use super::starting::Starting;
use crate::clock::Clock;
use crate::decoder::DecoderMessage;
use crate::frames::{FrameSource, write_frames};
use crate::observe::{Observation, Observer};
use crate::pool::{HostLoad, PoolMessage};

/// How long a host is given for its last frames once its process is gone, and to end once its socket is closed. What it said lies
/// in the socket's buffer already.
const LAST_FRAMES: Duration = Duration::from_millis(200);

/// How long a host may take to finish what it is decoding and exit.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// A host that takes nothing of what it is told for so long is of no use, however well its heartbeats come.
const TAKES_NOTHING: Duration = Duration::from_secs(30);

/// Signals that a process brings upon itself. SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS on Linux.
const OWN_SIGNALS: [i32; 7] = [6, 11, 7, 4, 8, 5, 31];

pub(crate) struct HostSupervisor;

pub(crate) struct HostArguments {
    pub(crate) id: HostId,
    pub(crate) cause: StartCause,
    pub(crate) spec: HostSpec,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) launcher: Arc<dyn HostLauncher>,
    pub(crate) pool: ActorRef<PoolMessage>,
    pub(crate) clock: Clock,
    pub(crate) observer: Arc<dyn Observer>,
}

pub(crate) enum HostMessage {
    /// The host said something.
    Frame(FromHost),
    /// Its socket is closed.
    LinkClosed(io::Result<()>),
    /// Its process is gone.
    Ended(ProcessEnd),
    /// Frames of this lease go to this decoder from now on.
    Bind { lease: LeaseId, decoder: ActorRef<DecoderMessage> },
    /// Frames of this lease go nowhere any more.
    Unbind { lease: LeaseId },
    /// Tell it this, in place of a decoder that failed.
    Tell(ToHost),
    /// Time to look at its heartbeats.
    Round,
    /// Let it finish and exit.
    Stop,
    /// End it now.
    Kill,
    /// The same, with nobody told beforehand: what follows is what follows on a crash. Answered with its process and `leases`.
    Crash { leases: usize, reply: RpcReplyPort<Option<(u32, usize)>> },
    /// Its last frames have been waited for long enough.
    Report,
}

pub(crate) struct HostState {
    id: HostId,
    model: String,
    pid: Option<u32>,
    pool: ActorRef<PoolMessage>,
    clock: Clock,
    observer: Arc<dyn Observer>,
    to_host: mpsc::Sender<ToHost>,
    kill: Arc<Notify>,
    flight: Box<dyn Fn() -> Vec<FlightEntry> + Send + Sync>,
    /// Until it is ready.
    starting: Option<Starting>,
    watch: Option<HostWatch>,
    routes: HashMap<LeaseId, ActorRef<DecoderMessage>>,
    /// What it is being killed for.
    verdict: Option<(HostEnd, Vec<LeaseId>)>,
    stopping: bool,
    ended: Option<ProcessEnd>,
    link_closed: bool,
}

impl Message for HostMessage {}

impl Actor for HostSupervisor {
    type Msg = HostMessage;
    type State = HostState;
    type Arguments = HostArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<HostMessage>,
        arguments: HostArguments,
    ) -> Result<HostState, ActorProcessingErr> {
        let HostArguments { id, cause, spec, environment, launcher, pool, clock, observer } = arguments;
        // Whoever starts the pool waits for this.
        let starting = Starting::begin(id, &spec, cause);
        let launch = HostLaunch { model: spec.model.clone(), threads: spec.threads, environment };
        let launched = launcher.launch(&launch).inspect_err(|_| starting.failed("not_launched"))?;
        starting.launched(launched.pid);
        // Room for every lease's whole window and its control messages; credit keeps it from filling.
        let capacity = 2 * usize::from(spec.slots) * 64 + 64;
        let (to_host, from_actors) = mpsc::channel(capacity);

        let (gone, process_gone) = oneshot::channel();
        let reading = myself.clone();
        tokio::spawn(async move {
            let mut frames = FrameSource::new(launched.reader);
            let mut process_gone: oneshot::Receiver<()> = process_gone;
            let result = loop {
                // Of a dead host what has come is read, and the end of its socket is not waited for: it comes when the kernel has
                // taken its memory back.
                tokio::select! {
                    biased;
                    frame = frames.next() => match frame {
                        Ok(Some(frame)) => drop(reading.cast(HostMessage::Frame(frame))),
                        Ok(None) => break Ok(()),
                        Err(error) => break Err(error),
                    },
                    _ = &mut process_gone => break Ok(()),
                }
            };
            let _ = reading.cast(HostMessage::LinkClosed(result));
        });
        let writing = myself.clone();
        tokio::spawn(async move {
            if let Err(error) = write_frames(launched.writer, from_actors, TAKES_NOTHING).await {
                let _ = writing.cast(HostMessage::LinkClosed(Err(error)));
            }
        });
        let (ended, told) = (myself.clone(), pool.clone());
        tokio::spawn(async move {
            let end = launched.ended.await;
            let _ = ended.cast(HostMessage::Ended(end));
            // The reader may have ended before.
            let _ = gone.send(());
            launched.gone.await;
            let _ = told.cast(PoolMessage::HostGone { host: id });
        });
        myself.send_interval(ROUND, || HostMessage::Round);

        let model = spec.model.clone();
        // A new channel has room.
        let _ = to_host.try_send(ToHost::Start(spec));
        debug!(host = id.0, model, pid = launched.pid, "decoder host started");
        Ok(HostState {
            id,
            model,
            pid: launched.pid,
            pool,
            clock,
            observer,
            to_host,
            kill: launched.kill,
            flight: launched.flight,
            starting: Some(starting),
            watch: None,
            routes: HashMap::new(),
            verdict: None,
            stopping: false,
            ended: None,
            link_closed: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<HostMessage>,
        message: HostMessage,
        state: &mut HostState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HostMessage::Frame(frame) => state.frame(frame),
            HostMessage::Bind { lease, decoder } => {
                let _ = decoder.cast(DecoderMessage::HostLink(state.to_host.clone()));
                state.routes.insert(lease, decoder);
            }
            HostMessage::Unbind { lease } => drop(state.routes.remove(&lease)),
            HostMessage::Tell(frame) => drop(state.to_host.try_send(frame)),
            HostMessage::Round => state.round(),
            HostMessage::Stop => {
                state.stopping = true;
                let _ = state.to_host.try_send(ToHost::Shutdown);
                myself.send_after(STOP_DEADLINE, || HostMessage::Kill);
            }
            HostMessage::Kill => {
                if state.watch.is_none() && state.verdict.is_none() && !state.stopping {
                    state.verdict = Some((HostEnd::LoadFailed, Vec::new()));
                }
                state.kill.notify_one();
            }
            HostMessage::Crash { leases, reply } => {
                let pid = state.pid.filter(|_| state.ended.is_none());
                warn!(host = state.id.0, model = state.model, pid, "decoder host is killed on purpose");
                state.kill.notify_one();
                let _ = reply.send(pid.map(|pid| (pid, leases)));
            }
            HostMessage::LinkClosed(result) => {
                if let Err(error) = result {
                    debug!(host = state.id.0, %error, "decoder host's link broke");
                }
                state.link_closed = true;
                if state.ended.is_none() {
                    // Without a link it is of no use; its exit status tells whose fault it was.
                    let kill = Arc::clone(&state.kill);
                    tokio::spawn(async move {
                        tokio::time::sleep(LAST_FRAMES).await;
                        kill.notify_one();
                    });
                }
            }
            HostMessage::Ended(end) => {
                state.ended = Some(end);
                myself.send_after(LAST_FRAMES, || HostMessage::Report);
            }
            HostMessage::Report => state.link_closed = true,
        }
        if let (Some(end), true) = (state.ended, state.link_closed) {
            state.report(end);
            myself.stop(None);
        }
        Ok(())
    }
}

impl HostState {
    fn frame(&mut self, frame: FromHost) {
        match &frame {
            FromHost::Heartbeat { .. } => return self.heartbeat(frame),
            FromHost::Ready { engine, determinism, load_ms, prewarm_ms, resident_bytes } => {
                info!(
                    host = self.id.0,
                    model = self.model,
                    pid = self.pid,
                    engine,
                    determinism,
                    load_ms,
                    prewarm_ms,
                    resident_bytes,
                    "decoder host ready"
                );
                self.watch = Some(HostWatch::new(self.clock.now()));
                let class = PoolMessage::HostClass { host: self.id, class: determinism.as_str().into() };
                let _ = self.pool.cast(class);
                let load = Duration::from_millis(u64::from(*load_ms));
                let prewarm = Duration::from_millis(u64::from(*prewarm_ms));
                if let Some(starting) = self.starting.take() {
                    starting.ready(load, prewarm);
                }
                self.observer.observe(&Observation::HostStarted { model: &self.model, load, prewarm });
                let _ = self.pool.cast(PoolMessage::Event(PoolEvent::HostReady { host: self.id }));
                return;
            }
            FromHost::LoadFailed { message } => {
                warn!(host = self.id.0, model = self.model, message, "decoder host cannot load its model");
                self.observer.observe(&Observation::HostLoadFailed { model: &self.model, message });
                let _ = self.pool.cast(PoolMessage::LoadFailed { message: message.clone() });
                self.verdict = Some((HostEnd::LoadFailed, Vec::new()));
                return;
            }
            FromHost::Retiring { reason } => {
                info!(host = self.id.0, model = self.model, reason, "decoder host is to be replaced");
                let _ = self.pool.cast(PoolMessage::Event(PoolEvent::HostRetiring { host: self.id }));
                return;
            }
            _ => {}
        }
        // A newer host may say more than this node knows.
        if let Some(decoder) = frame.lease().and_then(|lease| self.routes.get(&lease)) {
            let _ = decoder.cast(DecoderMessage::Frame(frame));
        }
    }

    fn heartbeat(&mut self, frame: FromHost) {
        let FromHost::Heartbeat { calls, resident_bytes, audio_ms, busy_ms, .. } = frame else { return };
        if let Some(watch) = &mut self.watch {
            watch.heartbeat(self.clock.now(), calls);
        }
        let load = HostLoad { resident_bytes, audio_ms, busy_ms };
        let _ = self.pool.cast(PoolMessage::HostLoad { host: self.id, load });
    }

    fn round(&mut self) {
        let accusation = self.watch.as_mut().and_then(|watch| watch.round(self.clock.now()));
        let Some(accusation) = accusation else { return };
        if self.verdict.is_some() {
            return;
        }
        warn!(
            host = self.id.0,
            model = self.model,
            pid = self.pid,
            ?accusation,
            "decoder host is lost; killing it"
        );
        self.verdict = Some(match accusation {
            Accusation::Silent => (HostEnd::Silent, Vec::new()),
            Accusation::Stuck(lease) => (HostEnd::Stuck, vec![lease]),
        });
        self.kill.notify_one();
    }

    fn report(&mut self, end: ProcessEnd) {
        let (verdict, suspects) = self.verdict.take().unwrap_or_else(|| self.judge(end));
        if verdict == HostEnd::Stopped {
            debug!(host = self.id.0, model = self.model, "decoder host stopped");
        } else {
            warn!(
                host = self.id.0,
                model = self.model,
                pid = self.pid,
                ?end,
                ?suspects,
                "decoder host is gone"
            );
        }
        if let Some(starting) = self.starting.take() {
            starting.failed(verdict.label());
        }
        self.observer.observe(&Observation::HostExited { model: &self.model, end: verdict });
        let event = PoolEvent::HostEnded { host: self.id, end: verdict, suspects };
        let _ = self.pool.cast(PoolMessage::Event(event));
    }

    fn judge(&self, end: ProcessEnd) -> (HostEnd, Vec<LeaseId>) {
        let crashed = match end {
            ProcessEnd::Code(0) | ProcessEnd::Unknown => false,
            ProcessEnd::Code(_) => true,
            ProcessEnd::Signal(signal) => OWN_SIGNALS.contains(&signal),
        };
        if crashed {
            let suspects = (self.flight)().into_iter().map(|entry| entry.lease).collect();
            return (HostEnd::Crashed, suspects);
        }
        let verdict = if self.stopping { HostEnd::Stopped } else { HostEnd::Killed };
        (verdict, Vec::new())
    }
}
