//! Room on the disk, the lock that keeps two fetches apart, and putting finished work in its place.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use super::home::Home;
use super::progress::Progress;

/// How often a lock that another process holds is tried again: quick enough that nobody waits for nothing.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// How long another process is waited for: longer than the largest model takes on a slow line is more patience than
/// a person has.
const LOCK_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Holds the home folder for one writer; given back when dropped, or by the system when the process ends.
#[derive(Debug)]
pub(super) struct HomeLock {
    _file: File,
}

impl HomeLock {
    /// `Ok(None)` when another process did not give it back in time.
    pub(super) fn take(home: &Home, progress: &mut dyn Progress) -> io::Result<Option<Self>> {
        std::fs::create_dir_all(home.root())?;
        let file =
            File::options().create(true).truncate(false).write(true).open(home.root().join(".lock"))?;
        let polls = LOCK_PATIENCE.as_millis() / LOCK_POLL.as_millis();
        for poll in 0..polls {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(TryLockError::WouldBlock) if poll == 0 => {
                    progress.note("another fetch or import is under way; waiting for it");
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
            std::thread::sleep(LOCK_POLL);
        }
        Ok(None)
    }
}

/// Whether an error means that the disk, a quota or a file-size limit is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Bytes that may still be written below `dir`, which must exist; `None` when the system does not say.
pub(super) fn available_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Sum of the sizes of all files below `dir`, in bytes; files that vanish meanwhile count nothing.
pub(super) fn size_below(dir: &Path) -> u64 {
    let Ok(items) = std::fs::read_dir(dir) else { return 0 };
    items
        .filter_map(Result::ok)
        .map(|item| match item.metadata() {
            Ok(meta) if meta.is_dir() => size_below(&item.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Puts `new` where `target` is, both folders or files on one file system; what was there before is deleted.
pub(super) fn swap_in(new: &Path, target: &Path, scratch: &Path) -> io::Result<()> {
    let old = tempfile::Builder::new().prefix("old-").tempdir_in(scratch)?;
    exchange(new, target, &old.path().join("kept"))
}

/// Puts `new` where `target` is; what was there before goes to `kept`, and comes back should the second step fail.
pub(super) fn exchange(new: &Path, target: &Path, kept: &Path) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let was_there = target.symlink_metadata().is_ok();
    if was_there {
        std::fs::rename(target, kept)?;
    }
    let placed = std::fs::rename(new, target);
    if placed.is_err() && was_there {
        std::fs::rename(kept, target)?;
    }
    placed
}
