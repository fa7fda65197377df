use std::fs;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const ALPN: &[u8] = b"starling-test";

fn secret(text: &str) -> ClusterSecret {
    ClusterSecret::from_bytes(text.into()).expect("secret")
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).expect("name")
}

fn node(secret_text: &str, node: &str) -> Trust {
    Trust::derive(&secret(secret_text), &name(node)).expect("trust")
}

/// Both sides' names for each other, or the first thing that failed. A refusal by who accepts reaches who dials with its
/// first read, as TLS 1.3 has it.
async fn meet(
    server: ServerConfig,
    client: ClientConfig,
    dialled: &str,
) -> Result<(NodeName, NodeName), String> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let accept = async {
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(far).await.map_err(|e| e.to_string())?;
        stream.write_all(b"x").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        let certificates = stream.get_ref().1.peer_certificates().expect("certificates");
        peer_name(&certificates[0]).map_err(|e| e.to_string())
    };
    let connect = async {
        let name = server_name(&name(dialled)).expect("name");
        let connector = TlsConnector::from(Arc::new(client));
        let mut stream = connector.connect(name, near).await.map_err(|e| e.to_string())?;
        stream.read_u8().await.map_err(|e| e.to_string())?;
        assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        let certificates = stream.get_ref().1.peer_certificates().expect("certificates");
        peer_name(&certificates[0]).map_err(|e| e.to_string())
    };
    let both = async { tokio::try_join!(accept, connect) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("in time")
}

async fn meet_as(server: &Trust, client: &Trust, dialled: &str) -> Result<(NodeName, NodeName), String> {
    let (server, client) = (server.server_config(ALPN), client.client_config(ALPN));
    meet(server.expect("config"), client.expect("config"), dialled).await
}

#[tokio::test]
async fn nodes_with_one_secret_know_each_other_by_name() {
    let (a, b) = (node("sixteen bytes or more", "a"), node("sixteen bytes or more", "10.0.0.7"));
    assert_eq!(meet_as(&a, &b, "a").await, Ok((name("10.0.0.7"), name("a"))));
    assert_eq!(meet_as(&b, &a, "10.0.0.7").await, Ok((name("a"), name("10.0.0.7"))));
}

#[tokio::test]
async fn another_secret_is_refused_by_either_side() {
    let (a, b) = (node("sixteen bytes or more", "a"), node("sixteen bytes or less", "b"));
    let refused = meet_as(&a, &b, "a").await.expect_err("refused");
    assert!(refused.contains("certificate"), "{refused}");

    // One side is talked into trusting anybody's root: the other still refuses.
    let mut fooled = node("sixteen bytes or less", "b");
    fooled.roots = Arc::clone(&a.roots);
    let refused = meet_as(&a, &fooled, "a").await.expect_err("refused");
    assert!(refused.contains("certificate"), "{refused}");
}

#[tokio::test]
async fn whoever_shows_no_certificate_is_refused() {
    let a = node("sixteen bytes or more", "a");
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&a.provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_root_certificates(Arc::clone(&a.roots))
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    let refused = meet(a.server_config(ALPN).expect("config"), client, "a").await.expect_err("refused");
    assert!(refused.contains("certificate"), "{refused}");
}

#[tokio::test]
async fn whoever_is_not_the_node_that_was_meant_is_refused() {
    let (a, b) = (node("sixteen bytes or more", "a"), node("sixteen bytes or more", "b"));
    let refused = meet_as(&a, &b, "c").await.expect_err("refused");
    assert!(refused.contains("not valid for name"), "{refused}");
}

#[tokio::test]
async fn another_protocol_is_refused() {
    let (a, b) = (node("sixteen bytes or more", "a"), node("sixteen bytes or more", "b"));
    let client = b.client_config(b"something else").expect("config");
    assert!(meet(a.server_config(ALPN).expect("config"), client, "a").await.is_err());
}

#[tokio::test]
async fn an_operators_own_certificates_replace_the_derived_ones() {
    let folder = tempfile::tempdir().expect("folder");
    let (a, b) = (own(folder.path(), "a"), own(folder.path(), "b"));
    // A node's own authority signs it alone; both are trusted by both.
    let both = [fs::read_to_string(&a.ca), fs::read_to_string(&b.ca)].map(|pem| pem.expect("pem")).concat();
    fs::write(&a.ca, &both).expect("write");
    fs::write(&b.ca, &both).expect("write");
    let (a, b) = (Trust::load(&a, &name("a")).expect("a"), Trust::load(&b, &name("b")).expect("b"));
    assert_eq!(meet_as(&a, &b, "a").await, Ok((name("b"), name("a"))));
    let derived = node("sixteen bytes or more", "b");
    assert!(meet_as(&a, &derived, "a").await.is_err());
}

#[test]
fn what_is_wrong_with_an_operators_files_is_said() {
    let folder = tempfile::tempdir().expect("folder");
    let good = own(folder.path(), "a");
    let said =
        |paths: &TrustPaths, node: &str| Trust::load(paths, &name(node)).expect_err("refused").to_string();

    let other = said(&good, "b");
    assert!(
        other.contains("b.starling.internal") && other.contains("it is for a.starling.internal"),
        "{other}"
    );
    let missing = said(&TrustPaths { ca: folder.path().join("none"), ..good.clone() }, "a");
    assert!(missing.contains("none"), "{missing}");
    let no_certificate = said(&TrustPaths { ca: good.key.clone(), ..good.clone() }, "a");
    assert!(no_certificate.contains("no certificate"), "{no_certificate}");
    let wrong_key = said(&TrustPaths { key: own(folder.path(), "b").key, ..good }, "a");
    assert!(wrong_key.contains("can't be used"), "{wrong_key}");
}

#[test]
fn a_secret_is_read_without_its_line_end_and_never_printed() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("secret");
    let keys =
        ["sixteen bytes or more", "sixteen bytes or more\n", "sixteen bytes or more\r\n"].map(|text| {
            fs::write(&path, text).expect("write");
            *ClusterSecret::from_file(&path).expect("secret").token_key()
        });
    assert!(keys.iter().all(|key| *key == keys[0]));
    assert_ne!(keys[0], *secret("sixteen bytes or less").token_key());
    assert_ne!(keys[0], *secret("sixteen bytes or more").gossip_key());
    assert_eq!(format!("{:?}", secret("sixteen bytes or more")), "ClusterSecret(..)");
}

#[test]
fn a_bad_secret_says_what_would_be_good() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("secret");
    let said = || ClusterSecret::from_file(&path).expect_err("refused").to_string();
    assert!(said().contains("can't read"), "{}", said());
    fs::write(&path, "fifteen bytes..\n").expect("write");
    assert!(said().contains("15 bytes and needs at least 16"), "{}", said());
    fs::write(&path, vec![b'x'; 10_000]).expect("write");
    assert!(said().contains("longer than 4096"), "{}", said());
}

#[test]
fn a_name_that_no_certificate_can_hold_is_refused_with_the_reason() {
    for bad in ["-a", "a-", "a..b", "."] {
        let error = Trust::derive(&secret("sixteen bytes or more"), &name(bad)).expect_err(bad);
        assert!(error.to_string().contains("can't stand in a certificate"), "{error}");
    }
    let longest = "x".repeat(NodeName::MAX_BYTES);
    Trust::derive(&secret("sixteen bytes or more"), &name(&longest)).expect("longest name");
}

#[test]
fn a_certificate_that_names_no_node_or_several_names_nobody() {
    let certificate = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().expect("key");
        CertificateParams::new(names).expect("params").self_signed(&key).expect("certificate").der().clone()
    };
    let ours = certificate(&["example.org", "a.starling.internal"]);
    assert_eq!(peer_name(&ours), Ok(name("a")));
    assert_eq!(peer_name(&certificate(&["a.example.org"])), Err(PeerNameError::NoName));
    assert_eq!(peer_name(&certificate(&["*.starling.internal"])), Err(PeerNameError::NoName));
    let several = certificate(&["a.starling.internal", "b.starling.internal"]);
    assert_eq!(peer_name(&several), Err(PeerNameError::SeveralNames));
    assert_eq!(peer_name(&CertificateDer::from(vec![1, 2, 3])), Err(PeerNameError::Unreadable));
}

/// A node's files, signed by an authority of its own.
fn own(folder: &std::path::Path, node: &str) -> TrustPaths {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, format!("authority of {node}"));
    let authority_key = KeyPair::generate().expect("key");
    let root = authority.self_signed(&authority_key).expect("root");
    let key = KeyPair::generate().expect("key");
    let leaf = CertificateParams::new([format!("{node}{NAME_SUFFIX}")])
        .expect("params")
        .signed_by(&key, &Issuer::from_params(&authority, authority_key))
        .expect("leaf");
    let paths = TrustPaths {
        ca: folder.join(format!("{node}-ca.pem")),
        cert: folder.join(format!("{node}.pem")),
        key: folder.join(format!("{node}.key")),
    };
    fs::write(&paths.ca, root.pem()).expect("write");
    fs::write(&paths.cert, leaf.pem()).expect("write");
    fs::write(&paths.key, key.serialize_pem()).expect("write");
    paths
}
