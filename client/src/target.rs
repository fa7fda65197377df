//! A server's address as it is written, and what follows from it.

use std::net::Ipv6Addr;

use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::http::uri::Authority;

/// Where a server speaks the native protocol over WebSocket.
const STREAM_PATH: &str = "/v1/stream";

/// The ports of `ws://`, `wss://` and `quic://` when none is written.
const PORTS: [u16; 3] = [80, 443, 443];

/// A server to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    WebSocket {
        url: String,
        place: Place,
        tls: bool,
    },
    #[cfg(feature = "quic")]
    Quic(Place),
}

/// Host and port. An IPv6 address has no brackets here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Target {
    /// Reads `ws://`, `wss://` or `quic://`, with what may follow.
    pub(crate) fn parse(server: &str) -> Option<Self> {
        let uri: Uri = server.parse().ok()?;
        let authority = uri.authority()?;
        let bare = uri.path_and_query().is_none_or(|path| path == "/");
        let place = |port: u16| {
            let host = host_of(authority)?;
            Some(Place { host: host.to_owned(), port: uri.port_u16().unwrap_or(port) })
        };
        let scheme = uri.scheme_str()?;
        match scheme {
            "ws" | "wss" => {
                let tls = scheme == "wss";
                let path = uri.path_and_query().filter(|_| !bare).map_or(STREAM_PATH, |path| path.as_str());
                let url = format!("{scheme}://{authority}{path}");
                Some(Self::WebSocket { url, place: place(PORTS[usize::from(tls)])?, tls })
            }
            #[cfg(feature = "quic")]
            "quic" if bare => Some(Self::Quic(place(PORTS[2])?)),
            _ => None,
        }
    }

    /// A node that a server named, as `HOST:PORT`.
    pub(crate) fn suggested(address: &str) -> Option<Self> {
        Self::parse(&format!("ws://{address}"))
    }

    pub(crate) const fn needs_trust(&self) -> bool {
        match self {
            Self::WebSocket { tls, .. } => *tls,
            #[cfg(feature = "quic")]
            Self::Quic(_) => true,
        }
    }

    pub(crate) const fn place(&self) -> &Place {
        match self {
            Self::WebSocket { place, .. } => place,
            #[cfg(feature = "quic")]
            Self::Quic(place) => place,
        }
    }
}

/// A host without the brackets that an IPv6 address has, and that nothing else has; `None` where there is none before the port.
pub(crate) fn host_of(authority: &Authority) -> Option<&str> {
    let (text, host) = (authority.as_str(), authority.host());
    let place = text.rsplit_once('@').map_or(text, |(_, place)| place);
    let port = place.strip_prefix(host)?;
    if !port.is_empty() && !port.strip_prefix(':')?.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => Some(host).filter(|host| !host.is_empty() && !host.contains(['[', ']'])),
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_path_gets_the_protocols_own() {
        for (server, expected_url, address) in [
            ("ws://localhost:2800", "ws://localhost:2800/v1/stream", "localhost:2800"),
            ("ws://[::1]:2800/", "ws://[::1]:2800/v1/stream", "[::1]:2800"),
            ("ws://a/x?y=1", "ws://a/x?y=1", "a:80"),
            ("wss://a", "wss://a/v1/stream", "a:443"),
            ("wss://a:8443/", "wss://a:8443/v1/stream", "a:8443"),
        ] {
            let target = Target::parse(server).expect(server);
            assert_eq!(target.place().to_string(), address);
            assert_eq!(target.needs_trust(), server.starts_with("wss"));
            assert!(matches!(target, Target::WebSocket { url, .. } if url == expected_url), "{server}");
        }
    }

    #[test]
    fn brackets_are_for_ipv6_alone() {
        for bad in [
            "ws://8[fd00::1]:80",
            "ws://a:[fd00::1]:80",
            "ws://[fd00::1",
            "ws://[a]:80",
            "ws://[]:80",
            "ws://[::1]a:80",
        ] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }

    #[cfg(feature = "quic")]
    #[test]
    fn quic_has_a_host_and_a_port_and_nothing_else() {
        for (server, address) in
            [("quic://a", "a:443"), ("quic://10.0.0.7:8443/", "10.0.0.7:8443"), ("quic://[::1]:1", "[::1]:1")]
        {
            let target = Target::parse(server).expect(server);
            assert_eq!(target.place().to_string(), address);
            assert!(target.needs_trust());
        }
        for bad in ["quic://a/v1/stream", "quic://", "quic:a", "h3://a"] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }
}
