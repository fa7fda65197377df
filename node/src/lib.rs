//! The node: command line, configuration, gateways, telemetry and shutdown around the actors that do the work.
//!
//! Owns: how clients reach a session and how an operator reaches the node. Must never: decide what happens to a session,
//! or know an engine.

pub mod build;
pub mod catalogue;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod exit;
pub mod fuzzing;
pub mod gateway;
pub mod keys;
pub mod kubernetes;
pub mod load;
mod measured;
mod media;
pub mod metrics;
pub mod models;
pub mod net;
pub mod operate;
mod remote;
pub mod room;
pub mod serve;
pub mod sessions;
mod signals;
pub mod status;
pub mod telemetry;
pub mod tenants;
mod terminal;
pub mod tls;
pub mod traces;
pub mod transcribe;
pub mod watched;
