//! Starting a decoder host. Behind a trait, so that actors can be tested without processes.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use command_fds::{CommandFdExt, FdMapping};
use futures_util::future::BoxFuture;
use starling_protocol::lease::{
    FLIGHT_ENTRY_BYTES, FLIGHT_FD_VARIABLE, FlightEntry, SENTINEL_FDS_VARIABLE, SOCKET_FD_VARIABLE,
};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;
use tokio::sync::{Notify, oneshot};

use super::sentinel::Sentinel;

/// Descriptor numbers in the child, after the three standard ones.
const CHILD_SOCKET_FD: i32 = 3;
const CHILD_FLIGHT_FD: i32 = 4;
/// Two, because the last of a dying process's threads closes nothing before its memory is taken back.
const CHILD_SENTINEL_FDS: [i32; 2] = [5, 6];

/// What a host is started with.
#[derive(Debug, Clone)]
pub struct HostLaunch {
    /// For the process title and logs.
    pub model: String,
    /// Decode threads: lines of the flight recorder.
    pub threads: u16,
    /// Environment beside the node's own.
    pub environment: Vec<(String, String)>,
}

/// A host that was started.
pub struct LaunchedHost {
    /// Its process id, where there is a process.
    pub pid: Option<u32>,
    /// What it says.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What it is told.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// Resolves when it is gone, or so far gone that nothing more is to be had of it.
    pub ended: BoxFuture<'static, ProcessEnd>,
    /// Resolves when nothing is left of it, neither memory nor process.
    pub gone: BoxFuture<'static, ()>,
    /// Kills it (SIGKILL).
    pub kill: Arc<Notify>,
    /// Reads its flight recorder.
    pub flight: Box<dyn Fn() -> Vec<FlightEntry> + Send + Sync>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It exited.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It can't be told.
    Unknown,
}

/// A host can't be started. There is no process.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// Its socket or recorder can't be made.
    #[error("cannot prepare a decoder host's descriptors: {0}")]
    Descriptors(#[source] io::Error),
    /// The program can't be run.
    #[error("cannot run {program}: {source}")]
    Program {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Starts hosts.
pub trait HostLauncher: Send + Sync + 'static {
    /// Starts one.
    ///
    /// # Errors
    /// See [`LaunchError`].
    fn launch(&self, launch: &HostLaunch) -> Result<LaunchedHost, LaunchError>;
}

/// Starts hosts as child processes.
#[derive(Debug, Clone)]
pub struct ProcessLauncher {
    /// The `starling-decoder` program.
    pub program: PathBuf,
}

impl HostLauncher for ProcessLauncher {
    fn launch(&self, launch: &HostLaunch) -> Result<LaunchedHost, LaunchError> {
        let (ours, theirs) = StdUnixStream::pair().map_err(LaunchError::Descriptors)?;
        ours.set_nonblocking(true).map_err(LaunchError::Descriptors)?;
        let recorder = flight_recorder(launch.threads).map_err(LaunchError::Descriptors)?;
        let theirs_recorder = recorder.try_clone().map_err(LaunchError::Descriptors)?;
        let mut mappings = vec![
            FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: CHILD_SOCKET_FD },
            FdMapping { parent_fd: OwnedFd::from(theirs_recorder), child_fd: CHILD_FLIGHT_FD },
        ];
        let mut pipes = Vec::with_capacity(CHILD_SENTINEL_FDS.len());
        for child_fd in CHILD_SENTINEL_FDS {
            let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
            let (ours, parent_fd) = pipe.map_err(|error| LaunchError::Descriptors(error.into()))?;
            pipes.push(Receiver::from_owned_fd(ours).map_err(LaunchError::Descriptors)?);
            mappings.push(FdMapping { parent_fd, child_fd });
        }

        let mut command = std::process::Command::new(&self.program);
        command
            .arg("--model")
            .arg(&launch.model)
            .env(SOCKET_FD_VARIABLE, CHILD_SOCKET_FD.to_string())
            .env(FLIGHT_FD_VARIABLE, CHILD_FLIGHT_FD.to_string())
            .env(SENTINEL_FDS_VARIABLE, CHILD_SENTINEL_FDS.map(|number| number.to_string()).join(","))
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // The numbers differ, which is all that this can complain of.
        command.fd_mappings(mappings).map_err(|error| LaunchError::Descriptors(io::Error::other(error)))?;
        let mut command = tokio::process::Command::from(command);
        let program = &self.program;
        let child = command
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| LaunchError::Program { program: program.clone(), source })?;

        let stream = UnixStream::from_std(ours).map_err(LaunchError::Descriptors)?;
        let (reader, writer) = stream.into_split();
        let kill = Arc::new(Notify::new());
        let pid = child.id();
        let (reaped, gone) = oneshot::channel();
        let ended = end_of(child, Arc::clone(&kill), pid.map(|pid| Sentinel::new(pipes, pid)), reaped);
        let threads = usize::from(launch.threads);
        Ok(LaunchedHost {
            pid,
            reader: Box::new(reader),
            writer: Box::new(writer),
            ended: Box::pin(ended),
            gone: Box::pin(async {
                // Dropped without a word if nobody waits for its end any more: then there is nothing to wait for.
                let _ = gone.await;
            }),
            kill,
            flight: Box::new(move || read_flight(&recorder, threads)),
        })
    }
}

/// How a process ends, as soon as it can be known. What is left of it then goes in the background, until it is `reaped`.
async fn end_of(
    mut child: Child,
    kill: Arc<Notify>,
    sentinel: Option<Sentinel>,
    reaped: oneshot::Sender<()>,
) -> ProcessEnd {
    let noticed = async {
        match sentinel {
            Some(sentinel) => sentinel.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(noticed);
    let mut told = false;
    loop {
        tokio::select! {
            status = child.wait() => {
                let _ = reaped.send(());
                return status.map_or(ProcessEnd::Unknown, process_end);
            }
            end = &mut noticed => {
                tokio::spawn(async move {
                    let _ = child.wait().await;
                    let _ = reaped.send(());
                });
                return end;
            }
            () = kill.notified(), if !told => {
                told = true;
                // An error means that it has exited already; waiting tells how.
                let _ = child.start_kill();
            }
        }
    }
}

fn flight_recorder(threads: u16) -> io::Result<std::fs::File> {
    let descriptor = rustix::fs::memfd_create("starling-flight", rustix::fs::MemfdFlags::CLOEXEC)?;
    let file = std::fs::File::from(descriptor);
    file.set_len(u64::from(threads) * FLIGHT_ENTRY_BYTES as u64)?;
    Ok(file)
}

fn read_flight(recorder: &std::fs::File, threads: usize) -> Vec<FlightEntry> {
    let entry = |index: usize| {
        let mut bytes = [0; FLIGHT_ENTRY_BYTES];
        recorder.read_exact_at(&mut bytes, (index * FLIGHT_ENTRY_BYTES) as u64).ok()?;
        FlightEntry::from_bytes(&bytes)
    };
    (0..threads).filter_map(entry).collect()
}

pub(super) fn process_end(status: ExitStatus) -> ProcessEnd {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => ProcessEnd::Code(code),
        (None, Some(signal)) => ProcessEnd::Signal(signal),
        (None, None) => ProcessEnd::Unknown,
    }
}
