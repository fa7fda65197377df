//! A decoder host as a task on (maybe paused) tokio time. It speaks the lease protocol and decodes with the scripted engine;
//! the test decides when it dies, falls silent or works slowly.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use starling_actors::{HostLaunch, HostLauncher, LaunchError, LaunchedHost, ProcessEnd};
use starling_engine::scripted::Scripted;
use starling_engine::{Engine, Recognizer, Step};
use starling_protocol::frame::{FrameReader, encode};
use starling_protocol::lease::{CallInProgress, FlightEntry, FromHost, ToHost};
use starling_protocol::limits::MAX_LEASE_FRAME_BYTES;
use starling_protocol::{CutCause, DecodeOffset, LeaseId, Segment};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Time that one step takes.
pub const STEP_TIME: Duration = Duration::from_millis(10);

/// What a test can do to one host.
#[derive(Clone)]
pub struct HostControl {
    end: watch::Sender<Option<ProcessEnd>>,
    frozen: watch::Sender<bool>,
    working_on: Arc<Mutex<Option<FlightEntry>>>,
    /// The model it was started for.
    pub model: String,
    /// The digest of that model's files, once it was told.
    digest: Arc<Mutex<String>>,
}

impl HostControl {
    pub fn die(&self, end: ProcessEnd) {
        self.end.send_replace(Some(end));
    }

    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub fn digest(&self) -> String {
        self.digest.lock().expect("no panic").clone()
    }

    pub fn is_alive(&self) -> bool {
        self.end.borrow().is_none()
    }
}

/// Starts hosts as tasks.
#[derive(Clone, Default)]
pub struct FakeLauncher {
    pub hosts: Arc<Mutex<Vec<HostControl>>>,
    /// A block with this number kills whoever decodes it, like a signal of its own making.
    pub poison: Option<i16>,
    /// Hosts never become ready.
    pub never_ready: bool,
    /// Nor do those of a model with these files.
    pub broken: Option<&'static str>,
    /// The determinism class that hosts say they are of.
    pub class: &'static str,
    /// How long something is left of a host after its end was noticed.
    pub lingers: Duration,
}

impl FakeLauncher {
    pub fn alive(&self) -> Vec<HostControl> {
        self.hosts.lock().expect("no panic").iter().filter(|host| host.is_alive()).cloned().collect()
    }

    /// Kills one host after the other, until told to stop; which and when is the seed's doing.
    pub fn kill_hosts(&self, seed: u64) -> JoinHandle<()> {
        let hosts = self.clone();
        tokio::spawn(async move {
            for round in 0.. {
                tokio::time::sleep(Duration::from_millis(300 + (seed * 397 + round * 211) % 1_900)).await;
                let alive = hosts.alive();
                if let Some(host) = alive.get((seed + round) as usize % alive.len().max(1)) {
                    host.die(ProcessEnd::Signal(9));
                }
            }
        })
    }
}

impl HostLauncher for FakeLauncher {
    fn launch(&self, launch: &HostLaunch) -> Result<LaunchedHost, LaunchError> {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let (reader, writer) = tokio::io::split(ours);
        let control = HostControl {
            end: watch::Sender::new(None),
            frozen: watch::Sender::new(false),
            working_on: Arc::default(),
            model: launch.model.clone(),
            digest: Arc::default(),
        };
        let kill = Arc::new(Notify::new());
        let host = Host {
            control: control.clone(),
            leases: HashMap::new(),
            sequence: 0,
            poison: self.poison,
            never_ready: self.never_ready,
            broken: self.broken,
            class: self.class,
        };
        let (killed, ending) = (Arc::clone(&kill), control.end.clone());
        tokio::spawn(async move {
            killed.notified().await;
            ending.send_if_modified(|end| {
                let alive = end.is_none();
                *end = end.or(Some(ProcessEnd::Signal(9)));
                alive
            });
        });
        let mut dead = control.end.subscribe();
        let running = control.end.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = host.run(theirs) => { running.send_if_modified(|end| { *end = end.or(Some(ProcessEnd::Code(0))); true }); }
                _ = dead.wait_for(Option::is_some) => {}
            }
        });
        let (mut ended, mut gone) = (control.end.subscribe(), control.end.subscribe());
        let lingers = self.lingers;
        let working_on = Arc::clone(&control.working_on);
        self.hosts.lock().expect("no panic").push(control);
        Ok(LaunchedHost {
            pid: None,
            reader: Box::new(reader),
            writer: Box::new(writer),
            ended: Box::pin(async move {
                ended.wait_for(Option::is_some).await.ok().and_then(|end| *end).unwrap_or(ProcessEnd::Unknown)
            }),
            gone: Box::pin(async move {
                let _ = gone.wait_for(Option::is_some).await;
                tokio::time::sleep(lingers).await;
            }),
            kill,
            flight: Box::new(move || working_on.lock().expect("no panic").iter().copied().collect()),
        })
    }
}

struct Lease {
    recognizer: Box<dyn Recognizer>,
    segment: Segment,
    from: DecodeOffset,
    at: DecodeOffset,
}

struct Host {
    control: HostControl,
    leases: HashMap<LeaseId, Lease>,
    sequence: u64,
    poison: Option<i16>,
    never_ready: bool,
    broken: Option<&'static str>,
    class: &'static str,
}

impl Host {
    async fn run(mut self, link: DuplexStream) {
        let (mut reader, mut writer) = tokio::io::split(link);
        let mut frames = FrameReader::new(MAX_LEASE_FRAME_BYTES);
        let mut queue = VecDeque::new();
        let mut heartbeat = tokio::time::interval(Duration::from_millis(100));
        let mut bytes = vec![0; 64 * 1024];
        let mut frozen = self.control.frozen.subscribe();
        loop {
            if *frozen.borrow() {
                let _ = frozen.wait_for(|frozen| !frozen).await;
            }
            let mut out = Vec::new();
            tokio::select! {
                biased;
                _ = frozen.changed() => continue,
                count = reader.read(&mut bytes) => {
                    let Ok(count) = count else { return };
                    if count == 0 {
                        return;
                    }
                    frames.push(&bytes[..count]);
                    while let Some(frame) = frames.next::<ToHost>().expect("the node speaks the protocol") {
                        queue.push_back(frame);
                    }
                }
                _ = heartbeat.tick() => {
                    self.sequence += 1;
                    let calls: Vec<CallInProgress> = Vec::new();
                    out.push(FromHost::Heartbeat { sequence: self.sequence, calls, resident_bytes: 1, audio_ms: 1, busy_ms: 1 });
                }
                () = tokio::time::sleep(STEP_TIME), if !queue.is_empty() => {
                    let Some(frame) = queue.pop_front() else { continue };
                    if matches!(frame, ToHost::Shutdown) {
                        return;
                    }
                    self.handle(frame, &mut out);
                }
            }
            let mut encoded = Vec::new();
            for frame in out {
                encode(&frame, MAX_LEASE_FRAME_BYTES, &mut encoded).expect("fits");
            }
            if writer.write_all(&encoded).await.is_err() {
                return;
            }
        }
    }

    fn handle(&mut self, frame: ToHost, out: &mut Vec<FromHost>) {
        match frame {
            ToHost::Start(spec) => {
                let broken = self.never_ready || self.broken.is_some_and(|digest| *digest == spec.digest);
                *self.control.digest.lock().expect("no panic") = spec.digest;
                if !broken {
                    out.push(FromHost::Ready {
                        engine: "fake".into(),
                        determinism: self.class.into(),
                        load_ms: 0,
                        prewarm_ms: 0,
                        resident_bytes: 1,
                    });
                }
            }
            ToHost::Open { lease, options, segment, from, .. } => {
                let recognizer = Scripted::new().open(&options).expect("options are the scripted engine's");
                self.leases.insert(lease, Lease { recognizer, segment, from, at: from });
                out.push(FromHost::Opened { lease, warm: false });
            }
            ToHost::Feed { lease: id, at, pcm } => {
                let Some(lease) = self.leases.get_mut(&id) else { return };
                assert_eq!(at, lease.at, "steps follow each other");
                let samples: Vec<i16> =
                    pcm.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
                lease.at = at.plus(samples.len() as u64);
                let until = lease.at;
                *self.control.working_on.lock().expect("no panic") = Some(FlightEntry { lease: id, until });
                // The fourth sample of a block is the low half of its number.
                if self.poison.is_some() && samples.get(3).copied() == self.poison {
                    self.control.die(ProcessEnd::Signal(6));
                    return;
                }
                let step = lease.recognizer.accept(&samples).expect("decodes");
                *self.control.working_on.lock().expect("no panic") = None;
                let text = lease.recognizer.partial().expect("decodes");
                out.push(FromHost::Partial { lease: id, segment: lease.segment, until, text });
                if let Step::Endpoint(cause) = step {
                    lease.cut(id, cause, out);
                }
                out.push(FromHost::Decoded { lease: id, until });
            }
            ToHost::Flush { lease: id, cause, .. } => {
                if let Some(lease) = self.leases.get_mut(&id) {
                    lease.cut(id, cause, out);
                }
            }
            ToHost::Close { lease } => {
                self.leases.remove(&lease);
                out.push(FromHost::Closed { lease });
            }
            _ => {}
        }
    }
}

impl Lease {
    fn cut(&mut self, lease: LeaseId, cause: CutCause, out: &mut Vec<FromHost>) {
        let utterance = self.recognizer.finish().expect("decodes");
        let (segment, from, to) = (self.segment, self.from, self.at);
        out.push(FromHost::Cut { lease, segment, from, to, cause, utterance, busy_us: 0 });
        self.segment = segment.next();
        self.from = to;
    }
}
