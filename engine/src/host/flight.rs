//! The flight recorder: what each decode thread was about to do, in memory that outlives the host.
//!
//! Owns: the writes. Must never: block a decode call on anything but a write to a memory file.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use starling_protocol::lease::{FLIGHT_ENTRY_BYTES, FlightEntry};

#[derive(Debug)]
pub(super) struct Flight {
    file: Option<File>,
}

impl Flight {
    pub(super) fn new(descriptor: Option<OwnedFd>) -> Self {
        Self { file: descriptor.map(File::from) }
    }

    /// Notes what thread `index` is about to do.
    pub(super) fn note(&self, index: usize, entry: FlightEntry) {
        self.write(index, &entry.to_bytes());
    }

    /// Notes that it came back.
    pub(super) fn clear(&self, index: usize) {
        self.write(index, &[0; FLIGHT_ENTRY_BYTES]);
    }

    fn write(&self, index: usize, bytes: &[u8; FLIGHT_ENTRY_BYTES]) {
        let Some(file) = &self.file else { return };
        if let Err(error) = file.write_all_at(bytes, (index * FLIGHT_ENTRY_BYTES) as u64) {
            tracing::warn!(%error, "the flight recorder cannot be written");
        }
    }
}
