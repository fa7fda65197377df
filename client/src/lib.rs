//! Client for Starling's native protocol: a session that outlives its connection.
//!
//! Owns: the client's side of a session — keeping the audio that may have to be sent again, reconnecting, resuming, giving
//! each final exactly once and in order. The decisions are in [`machine`], which does no I/O; the rest is a thin shell
//! around it: over WebSocket, in clear or over TLS, and over QUIC.
//!
//! Must never: drop or repeat a final silently, hold an unbounded queue, or wait without a deadline for a server.
//!
//! ```no_run
//! use starling_client::{Client, ClientConfig, Event, SessionConfig};
//!
//! # async fn example(audio: Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(ClientConfig::new(["ws://127.0.0.1:8080"]))?;
//! let (mut sender, mut events) = client.open(SessionConfig::default()).await?.split();
//! tokio::spawn(async move {
//!     sender.send(&audio).await?;
//!     sender.end().await
//! });
//! while let Some(event) = events.next().await {
//!     if let Event::Final(last) = event? {
//!         println!("{}", last.text);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

#![deny(missing_docs)]

mod config;
#[cfg(test)]
mod docs_tests;
mod driver;
mod error;
pub mod fuzzing;
pub mod machine;
mod ring;
mod session;
mod target;
pub mod tls;

pub use config::{Client, ClientConfig, SessionConfig};
pub use error::{ConfigError, OpenError, SendError, SessionError};
pub use machine::{Event, Opened};
pub use session::{AudioSender, Events, Session};
pub use starling_protocol::lease::TraceContext;
pub use starling_protocol::native::{
    ApiKey, AudioFormat, Encoding, ErrorBody, ErrorCode, Final, SessionOptions, TimedAlternative, TimedWord,
    WarningCode,
};
pub use starling_protocol::{CutCause, Segment, SessionId, SourceOffset};
