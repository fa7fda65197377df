//! A small disk of a node's own, which can be filled.
//!
//! Owns: the mount and what fills it. Must never: fill a disk that anybody else writes to.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The least that a tmpfs gives.
const PAGE_BYTES: usize = 4_096;

pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Mounts it over an empty folder.
    pub(crate) fn mount(folder: &Path, mib: u32) -> Result<Self> {
        let size = format!("size={mib}m,mode=700");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).status();
        ensure!(status.context("starting mount")?.success(), "no disk at {}", folder.display());
        Ok(Self(folder.to_owned()))
    }

    /// To the last page. How many bytes that took.
    pub(crate) fn fill(&self) -> Result<u64> {
        let mut file = File::create(self.filler()).context("making a file that fills the disk")?;
        let mut bytes = 0;
        loop {
            match file.write(&[0; PAGE_BYTES]) {
                Ok(written) => bytes += written as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("filling a disk"),
            }
        }
        let refused = fs::write(self.0.join("one-byte-more"), "1");
        ensure!(
            refused.is_err_and(|error| error.kind() == ErrorKind::StorageFull),
            "a disk that was filled still takes what is written"
        );
        Ok(bytes)
    }

    pub(crate) fn empty(&self) -> Result<()> {
        // Made, but with no room for its byte.
        let _ = fs::remove_file(self.0.join("one-byte-more"));
        fs::remove_file(self.filler()).context("emptying a disk")
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: hosts of a node that was killed still have its log open. If it fails, it goes with the namespace it is mounted in.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
