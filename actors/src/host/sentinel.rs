//! The node's end of a host's sentinels: pipes that end as soon as the host begins to die.
//!
//! Owns: what is known of a death before the process can be waited for. Must never: say that a host dies which may live on.
//!
//! The kernel has a process waited for once its memory is taken back, which for a host with a model takes tens of
//! milliseconds. How it dies stands in `/proc/PID/stat` from the beginning of that (proc(5), `exit_code`).

use futures_util::future::select_all;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::launcher::{ProcessEnd, process_end};

/// The reading ends of the pipes, and whose death they tell of.
pub(super) struct Sentinel {
    pipes: Vec<Receiver>,
    pid: u32,
}

impl Sentinel {
    /// For a child that holds the writing ends, at least one.
    pub(super) fn new(pipes: Vec<Receiver>, pid: u32) -> Self {
        Self { pipes, pid }
    }

    /// Resolves when the host dies and it can be told how; never if that has to be waited for.
    pub(super) async fn ended(mut self) -> ProcessEnd {
        // Nothing is ever written: whatever comes, the pipe is of no more use.
        let ends = self.pipes.iter_mut().map(|pipe| Box::pin(async { pipe.read(&mut [0]).await }));
        let _ = select_all(ends).await;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        match end_of(&stat, std::process::id()) {
            Some(end) => end,
            None => std::future::pending().await,
        }
    }
}

/// How a child of `parent` dies, by its line in `/proc`. `None` for one that lives, for one that exits with code 0 (which
/// can't be told apart), and for somebody else's.
fn end_of(stat: &str, parent: u32) -> Option<ProcessEnd> {
    // The name before it may hold anything, parentheses too.
    let (_, fields) = stat.rsplit_once(')')?;
    // State is the third of proc(5)'s numbers.
    let mut fields = fields.split_ascii_whitespace();
    let parent_of_it: u32 = fields.nth(1)?.parse().ok()?;
    let exit_code: i32 = fields.nth(52 - 5)?.parse().ok()?;
    let dies = parent_of_it == parent && exit_code != 0;
    dies.then(|| process_end(std::os::unix::process::ExitStatusExt::from_raw(exit_code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of `/proc`, the numbers in the middle left out.
    fn stat(name: &str, parent: u32, exit_code: i32) -> String {
        let middle = "0 ".repeat(51 - 4);
        format!("4711 ({name}) R {parent} {middle}{exit_code}\n")
    }

    #[test]
    fn a_death_is_read_off_the_line() {
        assert_eq!(end_of(&stat("decoder", 7, 9), 7), Some(ProcessEnd::Signal(9)));
        assert_eq!(end_of(&stat("decoder", 7, 0x80 | 11), 7), Some(ProcessEnd::Signal(11)));
        assert_eq!(end_of(&stat("decoder", 7, 72 << 8), 7), Some(ProcessEnd::Code(72)));
        assert_eq!(end_of(&stat("a) R 7 (", 7, 9), 7), Some(ProcessEnd::Signal(9)));
    }

    #[test]
    fn who_lives_or_is_no_child_is_waited_for() {
        assert_eq!(end_of(&stat("decoder", 7, 0), 7), None);
        assert_eq!(end_of(&stat("decoder", 8, 9), 7), None);
        assert_eq!(end_of("", 7), None);
        assert_eq!(end_of("4711 (decoder) Z 7", 7), None);
        let own = std::fs::read_to_string("/proc/self/stat").expect("there is one");
        let parent = std::os::unix::process::parent_id();
        assert_eq!(end_of(&own, parent), None);
    }
}
