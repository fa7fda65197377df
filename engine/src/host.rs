//! The decoder host: a process of its own that recognizers run in, so that a native crash costs nobody but it.
//!
//! Owns: the loop behind the binary `starling-decoder`. One thread reads the link (the caller's), one writes it, one sends
//! heartbeats, N decode, one opens and warms recognizers in the background. Must never: decode on the reading, writing or
//! heartbeat thread, or let one lease's error touch another lease.
//!
//! Two ends tell that the parent is gone: the socket's end of file, and a new parent process id (the socket may have leaked
//! into a sibling). Not the kernel's parent-death signal: it is tied to the parent's *thread*, and runtimes end threads.

mod calls;
mod clock;
mod flight;
mod folder;
mod heartbeat;
mod lease;
mod link;
mod pool;
mod queue;
mod sentinel;
mod told;
mod worker;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use starling_protocol::frame::DecodeError as FrameError;
use starling_protocol::lease::{FromHost, HostSpec, LEASE_PROTOCOL, ToHost};
use thiserror::Error;

use crate::{Engine, load, pin};
use calls::Calls;
use clock::Clock;
use flight::Flight;
use folder::Folder;
use lease::State;
use link::Outbox;

/// Exit code after [`ToHost::Shutdown`].
pub const EXIT_SHUTDOWN: i32 = 0;
/// Exit code when the environment does not describe a link.
pub const EXIT_USAGE: i32 = 64;
/// Exit code when the parent broke the protocol.
pub const EXIT_PROTOCOL: i32 = 70;
/// Exit code when the parent went away or stopped reading.
pub const EXIT_PARENT_GONE: i32 = 71;
/// Exit code after [`FromHost::LoadFailed`].
pub const EXIT_LOAD_FAILED: i32 = 72;

/// Longest wait for native calls in progress after `Shutdown`; the parent kills what takes longer.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// The parent did not keep to the protocol.
#[derive(Debug, Error)]
pub enum ProtocolError {
    /// Bytes that are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The first message has to be `Start`, and only the first.
    #[error("{0} came where it is not allowed: Start is the first message, and comes once")]
    Order(&'static str),
    /// The link broke.
    #[error("link cannot be read: {0}")]
    Read(#[from] std::io::Error),
}

/// What a host inherits of its parent.
#[derive(Debug)]
pub struct Link {
    /// Both directions of the lease protocol.
    pub socket: UnixStream,
    /// The flight recorder.
    pub flight: Option<OwnedFd>,
    /// The writing end of the pipe that ends with this process.
    pub sentinels: Vec<OwnedFd>,
}

/// What all threads share.
struct Shared {
    clock: Clock,
    outbox: Outbox,
    calls: Calls,
    flight: Flight,
    loaded: OnceLock<Loaded>,
    state: Mutex<State>,
    /// Something may be ready to decode, or a thread has finished.
    work: Condvar,
    /// The pool may want another recognizer.
    warming: Condvar,
}

/// A model that is ready.
struct Loaded {
    engine: Box<dyn Engine>,
    spec: HostSpec,
    /// The engine may read from it later too.
    _folder: Folder,
}

impl Shared {
    /// The state, also after a panic elsewhere: panics end the process, so nobody sees a torn one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one link until `Shutdown` or the parent's end, and says with which code to exit.
///
/// # Errors
/// The parent broke the protocol.
pub fn run(link: Link) -> Result<i32, ProtocolError> {
    let Link { socket, flight, sentinels } = link;
    for pipe in sentinels {
        sentinel::start(pipe)?;
    }
    let mut inbox = link::Inbox::new(socket.try_clone()?);
    let Some(first) = inbox.next()? else { return Ok(EXIT_PARENT_GONE) };
    let ToHost::Start(spec) = first else { return Err(ProtocolError::Order("another message than Start")) };
    name_process(&spec.model);
    let (outbox, writer) = link::start_writer(socket)?;
    if spec.protocol != LEASE_PROTOCOL {
        let message = format!("protocol is {}; this host speaks {LEASE_PROTOCOL}", spec.protocol);
        return Ok(fail_load(&outbox, writer, message));
    }
    let threads = usize::from(spec.threads.max(1));
    let shared = Arc::new(Shared {
        clock: Clock::start(),
        outbox,
        calls: Calls::new(threads),
        flight: Flight::new(flight),
        loaded: OnceLock::new(),
        state: Mutex::new(State::new(&spec)),
        work: Condvar::new(),
        warming: Condvar::new(),
    });
    heartbeat::start(Arc::clone(&shared), spec.memory_budget_bytes)?;
    // The model loads beside the reader, so that the parent's end is seen meanwhile.
    let loader = Arc::clone(&shared);
    spawn("load", spec.nice, move || match prepare(&loader, spec) {
        Ok(ready) => loader.outbox.send(ready),
        Err(message) => {
            link::exit_now(fail_load(&loader.outbox, writer, message));
        }
    })?;
    while let Some(message) = inbox.next()? {
        match message {
            ToHost::Start(_) => return Err(ProtocolError::Order("a second Start")),
            ToHost::Shutdown => return Ok(shut_down(&shared)),
            message => lease::handle(&shared, message),
        }
    }
    tracing::info!("the parent closed the link");
    Ok(EXIT_PARENT_GONE)
}

fn fail_load(outbox: &Outbox, writer: link::Writer, message: String) -> i32 {
    tracing::error!(%message, "cannot load");
    outbox.send(FromHost::LoadFailed { message });
    outbox.close();
    writer.wait();
    EXIT_LOAD_FAILED
}

/// Loads, warms, and starts the threads that decode.
fn prepare(shared: &Arc<Shared>, mut spec: HostSpec) -> Result<FromHost, String> {
    let started = shared.clock.micros();
    let folder = Folder::settle(&mut spec)?;
    let engine = load::load(&spec).map_err(|error| folder.name_in(&error.to_string()))?;
    let load_us = shared.clock.micros() - started;
    let description = engine.describe().clone();
    let loaded = Loaded { engine, spec, _folder: folder };
    pool::prewarm(shared, &loaded).map_err(|error| format!("no recognizer can be warmed: {error}"))?;
    let prewarm_us = shared.clock.micros() - started - load_us;
    let (threads, nice) = (loaded.spec.threads.max(1), loaded.spec.nice);
    if shared.loaded.set(loaded).is_err() {
        return Err("the model was loaded twice".to_owned());
    }
    for index in 0..usize::from(threads) {
        let worker = Arc::clone(shared);
        spawn(&format!("decode-{index}"), nice, move || worker::decode(&worker, index))
            .map_err(|error| format!("no decode thread can be started: {error}"))?;
    }
    let warmer = Arc::clone(shared);
    // Background opening yields to live decoding.
    spawn("warm", nice.saturating_add(10), move || pool::keep_warm(&warmer))
        .map_err(|error| format!("no warming thread can be started: {error}"))?;
    let milliseconds = |us: u64| u32::try_from(us / 1_000).unwrap_or(u32::MAX);
    Ok(FromHost::Ready {
        engine: description.engine,
        determinism: format!("{}; {}", description.determinism, pin::cpu_class()),
        load_ms: milliseconds(load_us),
        prewarm_ms: milliseconds(prewarm_us),
        resident_bytes: heartbeat::resident_bytes(),
    })
}

/// Lets native calls in progress return and what they said go out.
fn shut_down(shared: &Shared) -> i32 {
    let mut state = shared.lock();
    state.stopping = true;
    shared.work.notify_all();
    shared.warming.notify_all();
    let until = shared.clock.micros() + SHUTDOWN_WAIT.as_micros() as u64;
    while state.decoding > 0 {
        let left = until.saturating_sub(shared.clock.micros());
        if left == 0 {
            tracing::warn!(calls = state.decoding, "native calls still run at shutdown");
            break;
        }
        let wait = shared.work.wait_timeout(state, Duration::from_micros(left));
        state = wait.map(|(state, _)| state).unwrap_or_else(|poison| poison.into_inner().0);
    }
    drop(state);
    shared.outbox.close();
    shared.outbox.wait_written(SHUTDOWN_WAIT);
    EXIT_SHUTDOWN
}

fn spawn(name: &str, nice: i8, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // On Linux niceness belongs to the thread, so the reader, the writer and the heartbeats keep the parent's.
        if nice != 0
            && let Err(error) = rustix::process::setpriority_process(None, i32::from(nice))
        {
            tracing::warn!(%error, nice, "niceness cannot be set");
        }
        body();
    })?;
    Ok(())
}

/// What `ps` shows in its short form; the kernel keeps 15 bytes.
fn name_process(model: &str) {
    let full: Vec<u8> = format!("starling-dec:{model}").bytes().filter(|byte| *byte != 0).take(15).collect();
    let Ok(name) = std::ffi::CString::new(full) else { return };
    if let Err(error) = rustix::thread::set_name(&name) {
        tracing::debug!(%error, "the process cannot be named");
    }
}
