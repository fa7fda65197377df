//! A narrow door for tests that feed these readers arbitrary bytes from outside this crate. No part of what a client does.

use starling_protocol::native::ServerMessage;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Response;

use crate::driver;
use crate::machine::is_address;
use crate::target::Target;

/// Where a server's address leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its host, an IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether nobody else can read what is said.
    pub encrypted: bool,
    /// What is asked for, if it is a WebSocket.
    pub url: Option<String>,
    /// Whether that can be asked for at all.
    pub can_be_asked: bool,
}

impl From<Target> for Server {
    fn from(target: Target) -> Self {
        let (place, encrypted) = (target.place().clone(), target.needs_trust());
        let url = match target {
            Target::WebSocket { url, .. } => Some(url),
            #[cfg(feature = "quic")]
            Target::Quic(_) => None,
        };
        let can_be_asked = url.as_deref().is_none_or(|url| url.into_client_request().is_ok());
        Self { host: place.host, port: place.port, encrypted, url, can_be_asked }
    }
}

/// Where a client's own server is.
#[must_use]
pub fn server(address: &str) -> Option<Server> {
    Target::parse(address).map(Server::from)
}

/// Where a node is that a server named for a session; `None` for one that is passed over. In it, what any address comes to: all that
/// are not passed over have to lead somewhere.
#[must_use]
pub fn suggested(address: &str) -> Option<Option<Server>> {
    is_address(address).then(|| Target::suggested(address).map(Server::from))
}

/// What a server said that answered with this instead of a WebSocket.
#[must_use]
pub fn refused_upgrade(status: u16, body: Option<Vec<u8>>) -> Option<ServerMessage> {
    let response = Response::builder().status(status).body(body).ok()?;
    driver::said_by(&Error::Http(Box::new(response))).map(|said| *said)
}
