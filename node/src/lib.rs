//! The node: command line, configuration, gateways, telemetry and shutdown around the actors that do the work.
//!
//! Owns: how clients reach a session and how an operator reaches the node. Must never: decide what happens to a session,
//! or know an engine.

pub mod config;
pub mod exit;
