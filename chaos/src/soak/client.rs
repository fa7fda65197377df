//! Clients that are not on the SDK, by what they speak.
//!
//! Owns: which there are. Must never: come back with a session, which such clients can't.

use anyhow::Result;

use super::thin::{self, Dialect, Ports};
use super::{bare, realtime, recording};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// Live speech in a WebSocket's binary messages.
    Thin(Dialect),
    Realtime,
    AudioSocket,
    Wyoming,
    /// A recording as the body of a request.
    Recording,
    /// A recording in a form, as `OpenAI` has it.
    Form,
}

impl Client {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Thin(dialect) => dialect.name(),
            Self::Realtime => "realtime",
            Self::AudioSocket => "audiosocket",
            Self::Wyoming => "wyoming",
            Self::Recording => "recording",
            Self::Form => "form",
        }
    }

    /// Speaks, and appends the finals to `heard`. That it came to its end in order is `Ok`.
    pub(crate) async fn call(self, ports: &Ports, audio: &[u8], heard: &mut Vec<String>) -> Result<()> {
        match self {
            Self::Thin(dialect) => thin::call(dialect, ports, audio, heard).await,
            Self::Realtime => realtime::call(ports, audio, heard).await,
            Self::AudioSocket => bare::audiosocket(ports, audio, heard).await,
            Self::Wyoming => bare::wyoming(ports, audio, heard).await,
            Self::Recording => recording::send(ports, audio, heard).await,
            Self::Form => recording::send_form(ports, audio, heard).await,
        }
    }
}
