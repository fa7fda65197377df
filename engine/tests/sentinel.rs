//! The pipe that ends with a decoder host: who holds it, and what ends it.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use starling_protocol::lease::{SENTINEL_FD_VARIABLE, SOCKET_FD_VARIABLE};

/// Far above what anything here takes; reached only when something hangs.
const DEADLINE: Duration = Duration::from_secs(20);

const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A host that waits to be told what to load.
struct Host {
    child: Child,
    socket: UnixStream,
    sentinel: OwnedFd,
}

impl Host {
    fn start() -> Self {
        let (socket, theirs) = UnixStream::pair().expect("socket pair");
        let (sentinel, pipe) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
        let mapping = |parent_fd: OwnedFd, child_fd| FdMapping { parent_fd, child_fd };
        let mut command = Command::new(env!("CARGO_BIN_EXE_starling-decoder"));
        command.env(SOCKET_FD_VARIABLE, "10").env(SENTINEL_FD_VARIABLE, "11");
        command.fd_mappings(vec![mapping(theirs.into(), 10), mapping(pipe, 11)]).expect("descriptors");
        let child = command.spawn().expect("starling-decoder starts");
        Self { child, socket, sentinel }
    }

    /// The folder of the thread that holds the pipe, once the process itself has let go of it.
    fn holder(&self) -> PathBuf {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        for _ in 0..DEADLINE.as_millis() / LOOK_EVERY.as_millis() {
            let tasks = fs::read_dir(process.join("task")).expect("it lives");
            let tasks = tasks.filter_map(|task| Some(task.ok()?.path()));
            let holder = tasks.into_iter().find(|task| name_of(task) == "sentinel");
            if let (Some(holder), false) = (holder, open_files(&process).contains(&"11".to_owned())) {
                return holder;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        panic!("nobody holds the pipe alone");
    }

    /// Whether the pipe ends within `wait`.
    fn pipe_ends(&self, wait: Duration) -> bool {
        let timeout = Timespec::try_from(wait).expect("is short");
        let mut polled = [PollFd::from_borrowed_fd(self.sentinel.as_fd(), PollFlags::IN)];
        poll(&mut polled, Some(&timeout)).expect("polls") == 1 && polled[0].revents().contains(PollFlags::HUP)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn name_of(task: &Path) -> String {
    fs::read_to_string(task.join("comm")).unwrap_or_default().trim().to_owned()
}

fn open_files(of: &Path) -> Vec<String> {
    let files = fs::read_dir(of.join("fd")).into_iter().flatten();
    files.filter_map(|file| file.ok()?.file_name().into_string().ok()).collect()
}

#[test]
fn one_thread_holds_the_pipe_and_nothing_else() {
    let host = Host::start();
    assert_eq!(open_files(&host.holder()), ["11"]);
    assert!(!host.pipe_ends(Duration::ZERO), "it lives");
}

#[test]
fn the_pipe_ends_with_the_process_however_it_dies() {
    for with in [Signal::KILL, Signal::ABORT, Signal::TERM] {
        let mut host = Host::start();
        host.holder();
        kill_process(Pid::from_child(&host.child), with).expect("is killed");
        assert!(host.pipe_ends(DEADLINE), "{with:?}");
        assert_eq!(host.child.wait().expect("is gone").signal(), Some(with.as_raw()));
    }
    let mut host = Host::start();
    host.holder();
    host.socket.shutdown(std::net::Shutdown::Both).expect("closes");
    assert!(host.pipe_ends(DEADLINE));
    let mut rest = Vec::new();
    host.socket.read_to_end(&mut rest).expect("ends too");
    assert!(host.child.wait().expect("is gone").code().is_some());
}
