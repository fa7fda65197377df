//! What a connection allows. Every buffer on the way of audio has its bound here.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};

/// Beats every 100 ms tell of a peer's loss (see `connection`). This is for the case that both sides' watches are asleep: a
/// suspended machine forgets its connections when it wakes.
const IDLE_MS: u32 = 5_000;

/// Beats are datagrams, which a congested connection may drop; these are not.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Streams that a peer may have open: its sessions that decode here and those that are copied here. Far more than a node
/// can serve; the pool refuses before this does.
const STREAMS: u32 = 4_096;

/// Bytes on a stream that were sent and not read: 20 steps of the largest kind (9,600 bytes), which is a session's window,
/// and some. A relay that does not read stops its session here, and no other.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same over all streams of a peer: what 32 of them may hold. It bounds what a peer can make this node keep.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// What the first packets expect of the round trip. Within a zone it is under a millisecond and between zones a few; quinn's
/// own third of a second would make one lost packet cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(50);

/// Packets that a peer may receive before it has to acknowledge them, within the 25 ms that it may take anyway. An
/// acknowledgement of its own costs both sides nearly what a step of audio does, and most can go with what is answered.
const UNACKNOWLEDGED: u32 = 4;

/// The largest packets that are tried: Ethernet's jumbo frames less the headers of IPv6 and UDP. A step of audio fits into one
/// of them, and into three of the ordinary ones.
const LARGEST_PACKET: u16 = 8_952;

/// Beats are a byte; a few may lie unread.
const DATAGRAMS: usize = 1_024;

fn transport() -> Arc<TransportConfig> {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED));
    let mut packets = MtuDiscoveryConfig::default();
    packets.upper_bound(LARGEST_PACKET);
    let mut transport = TransportConfig::default();
    transport
        .ack_frequency_config(Some(acknowledgements))
        .mtu_discovery_config(Some(packets))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .initial_rtt(INITIAL_RTT)
        .datagram_receive_buffer_size(Some(DATAGRAMS))
        .datagram_send_buffer_size(DATAGRAMS);
    Arc::new(transport)
}

pub(super) fn server(tls: rustls::ServerConfig) -> Result<ServerConfig, NoInitialCipherSuite> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport());
    Ok(config)
}

pub(super) fn client(tls: rustls::ClientConfig) -> Result<ClientConfig, NoInitialCipherSuite> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport());
    Ok(config)
}
