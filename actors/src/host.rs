//! Decoder hosts: one actor for each child process.
//!
//! Owns: the process, its socket, its flight recorder, and the watch over its heartbeats. Must never: outlive its process or
//! let its process outlive it.

mod actor;
mod launcher;
mod sentinel;
mod starting;

pub(crate) use actor::{HostArguments, HostMessage, HostSupervisor};
pub use launcher::{HostLaunch, HostLauncher, LaunchError, LaunchedHost, ProcessEnd, ProcessLauncher};
