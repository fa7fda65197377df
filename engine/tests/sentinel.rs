//! The pipes that end with a decoder host: who holds them, and what ends them.

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
use starling_protocol::lease::{SENTINEL_FDS_VARIABLE, SOCKET_FD_VARIABLE};

/// Far above what anything here takes; reached only when something hangs.
const DEADLINE: Duration = Duration::from_secs(20);

const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A host that waits to be told what to load.
struct Host {
    child: Child,
    socket: UnixStream,
    sentinels: [OwnedFd; 2],
}

impl Host {
    fn start() -> Self {
        let (socket, theirs) = UnixStream::pair().expect("socket pair");
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
        let ((first, first_pipe), (second, second_pipe)) = (pipe(), pipe());
        let mapping = |parent_fd: OwnedFd, child_fd| FdMapping { parent_fd, child_fd };
        let mut command = Command::new(env!("CARGO_BIN_EXE_starling-decoder"));
        command.env(SOCKET_FD_VARIABLE, "10").env(SENTINEL_FDS_VARIABLE, "11,12");
        let mappings = vec![mapping(theirs.into(), 10), mapping(first_pipe, 11), mapping(second_pipe, 12)];
        command.fd_mappings(mappings).expect("descriptors");
        let child = command.spawn().expect("starling-decoder starts");
        Self { child, socket, sentinels: [first, second] }
    }

    /// The folders of the threads that hold the pipes, once the process itself has let go of them.
    fn holders(&self) -> Vec<PathBuf> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        for _ in 0..DEADLINE.as_millis() / LOOK_EVERY.as_millis() {
            let tasks = fs::read_dir(process.join("task")).expect("it lives");
            let tasks = tasks.filter_map(|task| Some(task.ok()?.path()));
            let holders: Vec<_> = tasks.filter(|task| name_of(task) == "sentinel").collect();
            let open = open_files(&process);
            if holders.len() == self.sentinels.len()
                && !["11", "12"].iter().any(|held| open.contains(&(*held).to_owned()))
            {
                return holders;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        panic!("nobody holds the pipes alone");
    }

    /// How many of the pipes end within `wait` each.
    fn pipes_that_end(&self, wait: Duration) -> usize {
        let timeout = Timespec::try_from(wait).expect("is short");
        let ends = |pipe: &&OwnedFd| {
            let mut polled = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
            poll(&mut polled, Some(&timeout)).expect("polls") == 1
                && polled[0].revents().contains(PollFlags::HUP)
        };
        self.sentinels.iter().filter(ends).count()
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
fn each_pipe_is_held_by_a_thread_that_holds_nothing_else() {
    let host = Host::start();
    let mut held: Vec<_> = host.holders().iter().map(|holder| open_files(holder)).collect();
    held.sort();
    assert_eq!(held, [["11"], ["12"]]);
    assert_eq!(host.pipes_that_end(Duration::ZERO), 0, "it lives");
}

#[test]
fn the_pipes_end_with_the_process_however_it_dies() {
    for with in [Signal::KILL, Signal::ABORT, Signal::TERM] {
        let mut host = Host::start();
        host.holders();
        kill_process(Pid::from_child(&host.child), with).expect("is killed");
        assert_eq!(host.pipes_that_end(DEADLINE), 2, "{with:?}");
        assert_eq!(host.child.wait().expect("is gone").signal(), Some(with.as_raw()));
    }
    let mut host = Host::start();
    host.holders();
    host.socket.shutdown(std::net::Shutdown::Both).expect("closes");
    assert_eq!(host.pipes_that_end(DEADLINE), 2);
    let mut rest = Vec::new();
    host.socket.read_to_end(&mut rest).expect("ends too");
    assert!(host.child.wait().expect("is gone").code().is_some());
}
