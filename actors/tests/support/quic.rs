//! Links over QUIC on loopback, certificates for them, and a way between two that a test can cut.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use starling_actors::{IncomingStreams, QuinnLink, QuinnLinkArguments, QuinnSocket, QuinnTrust};
use starling_protocol::NodeName;
use starling_protocol::data::DATA_ALPN;

use super::memory_link::name;

/// A cluster's authority, the certificates it has given, and where its nodes listen.
#[derive(Clone)]
pub struct Cluster {
    authority: Arc<CertifiedIssuer<'static, KeyPair>>,
    given: Arc<Mutex<HashMap<Vec<u8>, NodeName>>>,
    addresses: Arc<Mutex<HashMap<(NodeName, NodeName), SocketAddr>>>,
}

impl Cluster {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        Self { authority: Arc::new(authority), given: Arc::default(), addresses: Arc::default() }
    }

    pub fn trust(&self, node: &str) -> QuinnTrust {
        let params = CertificateParams::new([certificate_name(&name(node))]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &*self.authority).expect("a certificate");
        let chain = vec![leaf.der().clone()];
        self.given.lock().expect("no panic").insert(leaf.der().to_vec(), name(node));
        let private = || PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).expect("a root");
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = [&rustls::version::TLS13];
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .expect("TLS 1.3")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(chain.clone(), private())
            .expect("its key");
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, private())
            .expect("its key");
        server.alpn_protocols = vec![DATA_ALPN.to_vec()];
        client.alpn_protocols = vec![DATA_ALPN.to_vec()];
        let given = Arc::clone(&self.given);
        let peer_name = move |certificate: &CertificateDer<'_>| {
            given.lock().expect("no panic").get(certificate.as_ref()).cloned()
        };
        QuinnTrust { server, client, certificate_name, peer_name: Box::new(peer_name) }
    }

    /// A node's link. Others find it by its name.
    pub fn link(&self, node: &str) -> (QuinnLink, IncomingStreams) {
        self.link_with(node, self.trust(node))
    }

    pub fn link_with(&self, node: &str, trust: QuinnTrust) -> (QuinnLink, IncomingStreams) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let socket = QuinnSocket::of(socket).expect("is of the runtime");
        let (addresses, own) = (Arc::clone(&self.addresses), name(node));
        let address_of = move |peer: &NodeName| {
            let addresses = addresses.lock().expect("no panic");
            let direct = || addresses.get(&(peer.clone(), peer.clone()));
            addresses.get(&(own.clone(), peer.clone())).or_else(direct).copied()
        };
        let arguments =
            QuinnLinkArguments { name: name(node), socket, trust, address_of: Box::new(address_of) };
        let (link, streams) = QuinnLink::start(arguments).expect("starts");
        self.found_at(node, node, link.local_addr().expect("is bound"));
        (link, streams)
    }

    /// Where `from` finds `to`; where all others find it, for a node itself.
    pub fn found_at(&self, from: &str, to: &str, address: SocketAddr) {
        self.addresses.lock().expect("no panic").insert((name(from), name(to)), address);
    }

    /// A way from `from` to `to` that can be cut.
    pub async fn wire(&self, from: &str, to: &str) -> Wire {
        let key = (name(to), name(to));
        let target = self.addresses.lock().expect("no panic")[&key];
        let wire = Wire::new(target).await;
        self.found_at(from, to, wire.address);
        wire
    }
}

fn certificate_name(node: &NodeName) -> String {
    format!("{node}.test.internal")
}

/// Passes packets on between one peer and another, or drops them all.
pub struct Wire {
    pub address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Wire {
    async fn new(target: SocketAddr) -> Self {
        let bind = || tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (front, back) = (bind().await.expect("a port"), bind().await.expect("a port"));
        let address = front.local_addr().expect("is bound");
        let cut = Arc::new(AtomicBool::new(false));
        let dropping = Arc::clone(&cut);
        tokio::spawn(async move {
            let (mut there, mut here) = (vec![0; 65_536], vec![0; 65_536]);
            let mut caller = None;
            loop {
                tokio::select! {
                    Ok((count, from)) = front.recv_from(&mut there) => {
                        caller = Some(from);
                        if !dropping.load(Ordering::Relaxed) {
                            let _ = back.send_to(&there[..count], target).await;
                        }
                    }
                    Ok((count, _)) = back.recv_from(&mut here) => {
                        if let (Some(caller), false) = (caller, dropping.load(Ordering::Relaxed)) {
                            let _ = front.send_to(&here[..count], caller).await;
                        }
                    }
                    else => return,
                }
            }
        });
        Self { address, cut }
    }

    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}
