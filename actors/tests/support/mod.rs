//! What the tests of whole nodes share: a decoder host that lives in the test, and a client.
#![allow(dead_code, unreachable_pub)] // Each test binary uses its own part.

pub mod caller;
pub mod client;
pub mod cluster;
pub mod fake_host;
pub mod keepers;
pub mod lines;
pub mod memory_link;
pub mod models;
pub mod quic;
pub mod real;
