//! A node with many handshakes under way: newcomers have to show that they get what is sent to their address.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::quic::Authority;
use common::*;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint};
use starling_node::config::GatewaySettings;
use starling_node::tenants::Tenants;
use starling_protocol::native::stream::NATIVE_ALPN;
use tokio::net::UdpSocket;

/// As many as a node begins without asking.
const UNPROVEN: usize = 32;

/// RFC 9000, 17.2.5: a long header of the type Retry.
const RETRY: u8 = 0xf0;

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.expect("a port")
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("an address")
}

/// A handshake that the node has begun and that will not go on.
async fn stuck(authority: &Authority, node: SocketAddr) -> (UdpSocket, u8) {
    let hole = socket().await;
    let client = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    let crypto = QuicClientConfig::try_from(authority.tls(NATIVE_ALPN)).expect("fine");
    let config = ClientConfig::new(Arc::new(crypto));
    let _connecting = client.connect_with(config, address(&hole), "localhost").expect("valid");
    let mut packet = [0; 2_048];
    let length = in_time(hole.recv(&mut packet)).await.expect("the first packet");
    let sender = socket().await;
    sender.send_to(&packet[..length], node).await.expect("sent");
    in_time(sender.recv(&mut packet)).await.expect("an answer");
    (sender, packet[0])
}

#[tokio::test]
async fn newcomers_are_asked_once_more_and_get_in() {
    let authority = Authority::new();
    let settings = GatewaySettings::default();
    let mut node = FakeNode::over_quic(settings, Tenants::new(Vec::new()), &authority.certificate).await;
    let address = node.quic.expect("listens");
    let mut under_way = Vec::new();
    for _ in 0..UNPROVEN {
        let (sender, first) = stuck(&authority, address).await;
        assert_ne!(first & RETRY, RETRY, "asked without need");
        under_way.push(sender);
    }
    let (_, first) = stuck(&authority, address).await;
    assert_eq!(first & RETRY, RETRY, "not asked");
    // Whoever answers from its address gets in, as before.
    let caller = authority.call(address).await;
    let mut stream = caller.stream().await;
    stream.say(r#"{"type":"hello"}"#).await;
    assert_eq!(stream.hear().await["type"], "ready");
    node.session().await;
}
