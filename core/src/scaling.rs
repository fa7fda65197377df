//! How many decoders a model should have.
//!
//! Owns: that number and the reason for it: so many beside those in use that nobody waits, more at once when callers come, fewer
//! only after a while, and, once it has seen a few days, what the hour of the day and of the week lets expect; and how many pods that
//! comes to, and in which order they go. Must never: start or stop anything, or know what a decoder costs and where it runs.

mod actuator;
mod counted;
mod flow;
mod forecast;
mod hosts;
mod machine;
mod messages;
mod recent;

pub use actuator::{
    ActuatorAction, ActuatorConfig, ActuatorEvent, ActuatorMachine, ModelNeed, Observation, PodState,
    Standing, pods_needed,
};
pub use counted::{CountedScaler, node_reserve};
pub use forecast::{BUCKET, DAY, Forecast, WEEK};
pub use hosts::{HostScaler, HostsConfig, Room};
pub use machine::ScalingMachine;
pub use messages::{Demand, Scale, ScalingConfig, ScalingEvent, ScalingReason};
