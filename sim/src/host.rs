//! A decoder host as a task: it speaks the lease protocol and decodes with the scripted engine. Whoever holds its control
//! decides when it dies, stands still or does not return from a call.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use starling_actors::{HostLaunch, HostLauncher, LaunchError, LaunchedHost, ProcessEnd};
use starling_engine::scripted::Scripted;
use starling_engine::{Engine, Recognizer, Step};
use starling_protocol::frame::{FrameReader, encode};
use starling_protocol::lease::{CallInProgress, FlightEntry, FromHost, ToHost};
use starling_protocol::limits::MAX_LEASE_FRAME_BYTES;
use starling_protocol::{Attempt, CutCause, DecodeOffset, LeaseId, Segment, Utterance};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::plan::Kind;
use crate::speech::is_harm;

/// Time that loading takes.
const LOAD: Duration = Duration::from_millis(150);

/// Time that one step takes: real hosts take a tenth of a step's length or more.
const STEP_TIME: Duration = Duration::from_millis(4);

/// What is done to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    /// Its next step does not return.
    Hangs,
    /// It stands still.
    Frozen,
    Dead(ProcessEnd),
}

/// A host that was started.
#[derive(Clone)]
struct Control {
    fate: watch::Sender<Fate>,
}

/// Starts hosts as tasks.
#[derive(Clone)]
pub struct Hosts {
    all: Arc<Mutex<Vec<Control>>>,
    deaths: Arc<AtomicU64>,
    marked: bool,
}

impl Hosts {
    /// None yet. `marked`: texts say which attempt they are of.
    #[must_use]
    pub fn new(marked: bool) -> Self {
        Self { all: Arc::default(), deaths: Arc::default(), marked }
    }

    /// How many have ended without being told to.
    #[must_use]
    pub fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::Relaxed)
    }

    fn one_alive(&self, which: u64) -> Option<Control> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let alive: Vec<&Control> =
            all.iter().filter(|host| !matches!(*host.fate.borrow(), Fate::Dead(_))).collect();
        alive.get(which as usize % alive.len().max(1)).map(|host| (*host).clone())
    }

    fn doom(&self, which: u64, fate: Fate) {
        if let Some(host) = self.one_alive(which) {
            host.fate.send_replace(fate);
        }
    }

    /// One has such a fault, if hosts do.
    pub fn harm(&self, kind: Kind, which: u64) {
        match kind {
            Kind::Die => self.kill(which),
            Kind::Abort => self.abort(which),
            Kind::Hang => self.hang(which),
            Kind::Freeze => self.freeze(which),
            _ => {}
        }
    }

    /// One is killed from outside.
    pub fn kill(&self, which: u64) {
        self.doom(which, Fate::Dead(ProcessEnd::Signal(9)));
    }

    /// One dies of itself.
    pub fn abort(&self, which: u64) {
        self.doom(which, Fate::Dead(ProcessEnd::Signal(6)));
    }

    /// One does not return from its next step.
    pub fn hang(&self, which: u64) {
        self.doom(which, Fate::Hangs);
    }

    /// One stands still.
    pub fn freeze(&self, which: u64) {
        self.doom(which, Fate::Frozen);
    }
}

impl HostLauncher for Hosts {
    fn launch(&self, _: &HostLaunch) -> Result<LaunchedHost, LaunchError> {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let (reader, writer) = tokio::io::split(ours);
        let fate = watch::Sender::new(Fate::Lives);
        let kill = Arc::new(Notify::new());
        let flight: Arc<Mutex<Option<FlightEntry>>> = Arc::default();
        let (killed, ending) = (Arc::clone(&kill), fate.clone());
        tokio::spawn(async move {
            killed.notified().await;
            end(&ending, ProcessEnd::Signal(9));
        });
        let host = Host {
            fate: fate.clone(),
            flight: Arc::clone(&flight),
            leases: BTreeMap::new(),
            sequence: 0,
            marked: self.marked,
            stuck: None,
        };
        let (mut dead, ended, deaths) = (fate.subscribe(), fate.clone(), Arc::clone(&self.deaths));
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = dead.wait_for(|fate| matches!(fate, Fate::Dead(_))) => {
                    deaths.fetch_add(1, Ordering::Relaxed);
                }
                () = host.run(theirs) => end(&ended, ProcessEnd::Code(0)),
            }
        });
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(Control { fate: fate.clone() });
        let (ended, gone) = (fate.subscribe(), fate.subscribe());
        Ok(LaunchedHost {
            pid: None,
            reader: Box::new(reader),
            writer: Box::new(writer),
            ended: Box::pin(end_of(ended)),
            gone: Box::pin(async move {
                end_of(gone).await;
            }),
            kill,
            flight: Box::new(move || {
                flight.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
            }),
        })
    }
}

async fn end_of(mut fate: watch::Receiver<Fate>) -> ProcessEnd {
    match fate.wait_for(|fate| matches!(fate, Fate::Dead(_))).await.as_deref() {
        Ok(Fate::Dead(end)) => *end,
        _ => ProcessEnd::Unknown,
    }
}

fn end(fate: &watch::Sender<Fate>, how: ProcessEnd) {
    fate.send_if_modified(|fate| {
        let lived = !matches!(fate, Fate::Dead(_));
        if lived {
            *fate = Fate::Dead(how);
        }
        lived
    });
}

struct Lease {
    recognizer: Box<dyn Recognizer>,
    attempt: Attempt,
    segment: Segment,
    from: DecodeOffset,
    at: DecodeOffset,
}

struct Host {
    fate: watch::Sender<Fate>,
    flight: Arc<Mutex<Option<FlightEntry>>>,
    leases: BTreeMap<LeaseId, Lease>,
    sequence: u64,
    marked: bool,
    /// The call that does not return, and since when.
    stuck: Option<(LeaseId, DecodeOffset, Instant)>,
}

impl Host {
    async fn run(mut self, link: DuplexStream) {
        let (mut reader, mut writer) = tokio::io::split(link);
        let mut frames = FrameReader::new(MAX_LEASE_FRAME_BYTES);
        let mut queue = VecDeque::new();
        let mut heartbeat = tokio::time::interval(Duration::from_millis(100));
        let mut bytes = vec![0; 64 * 1024];
        let mut fate = self.fate.subscribe();
        loop {
            if *fate.borrow_and_update() == Fate::Frozen {
                std::future::pending::<()>().await;
            }
            let mut out = Vec::new();
            tokio::select! {
                biased;
                _ = fate.changed() => continue,
                count = reader.read(&mut bytes) => {
                    let Some(count) = count.ok().filter(|count| *count > 0) else { return };
                    frames.push(&bytes[..count]);
                    loop {
                        match frames.next::<ToHost>() {
                            Ok(Some(frame)) => queue.push_back(frame),
                            Ok(None) => break,
                            // The node does not speak the protocol: it is of no use.
                            Err(_) => return,
                        }
                    }
                }
                _ = heartbeat.tick() => out.push(self.heartbeat()),
                () = tokio::time::sleep(STEP_TIME), if !queue.is_empty() && self.stuck.is_none() => {
                    match queue.pop_front() {
                        Some(ToHost::Shutdown) => return,
                        Some(ToHost::Start(_)) => {
                            tokio::time::sleep(LOAD).await;
                            out.push(ready());
                        }
                        _ if matches!(*fate.borrow(), Fate::Dead(_)) => return,
                        Some(frame) => self.handle(frame, &mut out),
                        None => {}
                    }
                }
            }
            let mut encoded = Vec::new();
            for frame in out {
                if encode(&frame, MAX_LEASE_FRAME_BYTES, &mut encoded).is_err() {
                    return;
                }
            }
            if writer.write_all(&encoded).await.is_err() {
                return;
            }
        }
    }

    fn heartbeat(&mut self) -> FromHost {
        self.sequence += 1;
        let call = |(lease, until, since): (LeaseId, DecodeOffset, Instant)| CallInProgress {
            lease,
            until,
            running_ms: u32::try_from(since.elapsed().as_millis()).unwrap_or(u32::MAX),
            bound_ms: 10,
            first_use: false,
        };
        let calls = self.stuck.map(call).into_iter().collect();
        FromHost::Heartbeat { sequence: self.sequence, calls, resident_bytes: 1, audio_ms: 1, busy_ms: 1 }
    }

    fn at_work(&self, entry: Option<FlightEntry>) {
        *self.flight.lock().unwrap_or_else(PoisonError::into_inner) = entry;
    }

    fn handle(&mut self, frame: ToHost, out: &mut Vec<FromHost>) {
        match frame {
            ToHost::Open { lease, options, segment, from, attempt, .. } => {
                match Scripted::new().open(&options) {
                    Ok(recognizer) => {
                        self.leases.insert(lease, Lease { recognizer, attempt, segment, from, at: from });
                        out.push(FromHost::Opened { lease, warm: true });
                    }
                    Err(problem) => out.push(FromHost::Refused { lease, message: problem.to_string() }),
                }
            }
            ToHost::Feed { lease, at, pcm } => self.feed(lease, at, &pcm, out),
            ToHost::Flush { lease: id, cause, .. } => {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.cut(id, cause, self.marked, out);
                }
            }
            ToHost::Close { lease } => {
                self.leases.remove(&lease);
                out.push(FromHost::Closed { lease });
            }
            _ => {}
        }
    }

    fn feed(&mut self, id: LeaseId, at: DecodeOffset, pcm: &[u8], out: &mut Vec<FromHost>) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if at != lease.at {
            // As a real host says it, and the lease is gone.
            let message = format!("a step begins at {at}, the last one ended at {}", lease.at);
            self.leases.remove(&id);
            return out.push(FromHost::Failed { lease: id, message });
        }
        let samples: Vec<i16> =
            pcm.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        lease.at = at.plus(samples.len() as u64);
        let until = lease.at;
        if *self.fate.borrow() == Fate::Hangs {
            self.stuck = Some((id, until, Instant::now()));
            return;
        }
        self.at_work(Some(FlightEntry { lease: id, until }));
        if is_harm(&samples) {
            return end(&self.fate, ProcessEnd::Signal(6));
        }
        let Some(lease) = self.leases.get_mut(&id) else { return };
        let heard =
            lease.recognizer.accept(&samples).and_then(|step| Ok((step, lease.recognizer.partial()?)));
        match heard {
            Ok((step, text)) => {
                out.push(FromHost::Partial { lease: id, segment: lease.segment, until, text });
                if let Step::Endpoint(cause) = step {
                    lease.cut(id, cause, self.marked, out);
                }
                out.push(FromHost::Decoded { lease: id, until });
            }
            Err(problem) => {
                self.leases.remove(&id);
                out.push(FromHost::Failed { lease: id, message: problem.to_string() });
            }
        }
        self.at_work(None);
    }
}

impl Lease {
    fn cut(&mut self, lease: LeaseId, cause: CutCause, marked: bool, out: &mut Vec<FromHost>) {
        // The scripted engine has nothing to fail at here.
        let mut utterance: Utterance = self.recognizer.finish().unwrap_or_default();
        if marked && !utterance.text.is_empty() {
            utterance.text = format!("{}@{}", utterance.text, self.attempt.0);
        }
        let (segment, from, to) = (self.segment, self.from, self.at);
        out.push(FromHost::Cut { lease, segment, from, to, cause, utterance, busy_us: 0 });
        self.segment = segment.next();
        self.from = to;
    }
}

fn ready() -> FromHost {
    FromHost::Ready {
        engine: "simulated".into(),
        determinism: "simulated".into(),
        load_ms: LOAD.as_millis() as u32,
        prewarm_ms: 0,
        resident_bytes: 1,
    }
}
