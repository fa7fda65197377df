//! What a client's connection allows. Every buffer on the way of its audio has its bound here.

use std::sync::Arc;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn::{IdleTimeout, ServerConfig, TransportConfig, VarInt};

use crate::config::GatewaySettings;

/// Streams that a client may have open on one connection, each with a session: a telephone system has as many calls on a
/// machine. One that has more opens another connection.
const STREAMS: u32 = 256;

/// Streams in one direction. The native protocol has none; HTTP/3 has three, and browsers try one or two more.
const ONE_WAY_STREAMS: u32 = if cfg!(feature = "webtransport") { 8 } else { 0 };

/// Bytes on a stream that were sent and not read: two seconds at 16 kHz. A session that takes no more audio holds its client up
/// here.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same over all streams of a connection, so that no session holds up another.
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;

/// Bytes that are kept for a client until it acknowledges them. Texts are short; 256 sessions' take a few hundred KiB a second.
const SEND_WINDOW: u64 = 1 << 20;

/// HTTP/3's datagrams have to be allowed for WebTransport, and are not used.
const DATAGRAMS: Option<usize> = if cfg!(feature = "webtransport") { Some(4 * 1024) } else { None };

/// 0-RTT is not offered: what is sent in it can be sent again by others, and a hello begins a session.
pub(super) fn server(
    tls: rustls::ServerConfig,
    gateway: &GatewaySettings,
) -> Result<ServerConfig, NoInitialCipherSuite> {
    let mut transport = TransportConfig::default();
    transport
        // Longer than fits is as good as for ever, and settings are ten minutes at most.
        .max_idle_timeout(IdleTimeout::try_from(gateway.peer_timeout).ok())
        .keep_alive_interval(Some(gateway.ping_interval))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(ONE_WAY_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(DATAGRAMS);
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}
