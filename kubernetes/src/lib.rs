//! What Starling asks of Kubernetes: how many pods its StatefulSet has, that it should have more or fewer, and which node sees to it.
//!
//! Owns: the calls to the API server, each with a deadline, and the loop that looks, decides and acts. The decisions are machines
//! ([`starling_core::scaling::ActuatorMachine`], [`starling_core::leadership`]). Must never: decide; know how nodes are drained, which
//! whoever starts it gives as a [`Fleet`]; or ask for more rights than `get` and `patch` on one StatefulSet's `scale`, `get` and `update` on
//! one Lease, `create` on Leases, and `get` on the StatefulSet's own pods.

#![deny(missing_docs)]

mod actuator;
mod api;
mod clock;
mod election;
mod fleet;

pub use actuator::{Actuator, ActuatorArguments};
pub use api::{CallError, Connection, NotInCluster};
pub use election::LeaseTimings;
pub use fleet::{ActuatorFact, Fleet, FleetError, FleetView, NodeState, Outcome};
/// How many pods there may be.
pub use starling_core::scaling::{ActuatorConfig, ModelNeed};
