//! A node: its pools, its sessions, and the handle that the rest of the program holds.
//!
//! Owns: which sessions exist and which model serves them. Must never: look into a session.

mod arguments;
mod crashed;
mod handle;
mod models;
mod relays;
mod reservations;
mod resume;
mod scaling;
mod supervisor;

pub use arguments::{Capabilities, Keep, ModelArguments, NodeArguments, SessionLimits, StandbyPolicy};
pub use handle::{ModelStatus, NodeHandle, NodeStatus, StartError};
pub use models::{ModelChange, ServeError};
pub use scaling::{MemoryKnown, ModelScaling, PoolScale};
