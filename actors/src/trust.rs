//! Who belongs to the cluster, and how a node proves that it does.
//!
//! Owns: the cluster's secret and what is derived from it; the certificates by which nodes know each other; the TLS
//! settings made of them, for TCP and for QUIC alike. Must never: open a socket, or accept a peer that shows no certificate.
//!
//! Every certificate carries the node's name as `NAME.starling.internal`. Who dials says which name it means, and TLS fails
//! unless the other side proves it; who accepts reads the name back with [`peer_name`].

mod derived;
mod files;
mod secret;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use starling_protocol::NodeName;
use thiserror::Error;
use webpki::EndEntityCert;

pub use self::files::TrustPaths;
pub use self::secret::{ClusterSecret, DerivedKey, SecretError};

/// What follows a node's name in its certificate. `.internal` is reserved for private use, so that the name can't be
/// somebody's on the internet.
pub const NAME_SUFFIX: &str = ".starling.internal";

/// What a node shows to others, and what it asks them to show.
#[derive(Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    /// Trust in all that know `secret`. The node's own certificate is made here, with a key that never leaves this process.
    ///
    /// # Errors
    /// The name can't stand in a certificate, or the system has no randomness.
    pub fn derive(secret: &ClusterSecret, name: &NodeName) -> Result<Self, TrustError> {
        server_name(name)?;
        derived::trust(secret, name)
    }

    /// Trust in all whom the authority of `paths` has signed.
    ///
    /// # Errors
    /// A file can't be read or holds something else, the key isn't the certificate's, or the certificate is for another
    /// node than `name`.
    pub fn load(paths: &TrustPaths, name: &NodeName) -> Result<Self, TrustError> {
        server_name(name)?;
        files::trust(paths, name)
    }

    fn new(
        roots: RootCertStore,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TrustError> {
        // Named here, not installed for the process: two libraries in one program may each bring a provider of their own,
        // and then the default is nobody's.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Self { roots: Arc::new(roots), chain, key, provider };
        // Finds a key that isn't the certificate's now, not at the first connection.
        trust.server_config(b"")?;
        Ok(trust)
    }

    /// How to accept peers that speak `protocol` (an ALPN name): TLS 1.3, both sides show certificates.
    ///
    /// # Errors
    /// The certificates can't be used; what [`Trust`]'s constructors return has been checked for that.
    pub fn server_config(&self, protocol: &[u8]) -> Result<ServerConfig, TrustError> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&self.provider))
                .build()
                .map_err(|error| TrustError::Unusable(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        // A resumed connection shows no certificate. Nodes connect rarely; each time they prove themselves anew.
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// How to dial peers that speak `protocol` (an ALPN name). Dial with [`server_name`], so that only the node that is
    /// meant can answer.
    ///
    /// # Errors
    /// As [`Trust::server_config`].
    pub fn client_config(&self, protocol: &[u8]) -> Result<ClientConfig, TrustError> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// The name by which `name` is asked for when it is dialled.
///
/// # Errors
/// The name is good for a node but not for a certificate: a part of it is empty or begins or ends with `-`.
pub fn server_name(name: &NodeName) -> Result<ServerName<'static>, TrustError> {
    let full = format!("{name}{NAME_SUFFIX}");
    DnsName::try_from(full).map(ServerName::DnsName).map_err(|_| TrustError::Name { name: name.clone() })
}

/// The node that a certificate was made for. Believe it only of one that TLS has verified.
///
/// # Errors
/// The certificate can't be read, or names no node, or more than one.
pub fn peer_name(certificate: &CertificateDer<'_>) -> Result<NodeName, PeerNameError> {
    let certificate = EndEntityCert::try_from(certificate).map_err(|_| PeerNameError::Unreadable)?;
    let mut names = certificate.valid_dns_names().filter_map(|name| name.strip_suffix(NAME_SUFFIX));
    let name = names.next().ok_or(PeerNameError::NoName)?;
    if names.next().is_some() {
        return Err(PeerNameError::SeveralNames);
    }
    NodeName::parse(name).map_err(|_| PeerNameError::NoName)
}

/// Why there is no [`Trust`]. Nothing has changed.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The node's name can't stand in a certificate.
    #[error(
        "{name} can't stand in a certificate: each part between dots takes 1 to 63 characters and neither begins nor \
         ends with -"
    )]
    Name {
        /// The node's name.
        name: NodeName,
    },
    /// A certificate could not be made.
    #[error("can't make this node's certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A file can't be read or holds something else.
    #[error("{path}: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificate is for another node.
    #[error("{path}: expected a certificate for {expected}: {found}", path = path.display())]
    WrongNode {
        /// The certificate's file.
        path: PathBuf,
        /// The name that this node has to prove.
        expected: String,
        /// What the certificate says.
        found: String,
    },
    /// TLS can't work with the key or the certificates.
    #[error("the certificates can't be used: {0}")]
    Unusable(String),
}

impl From<rustls::Error> for TrustError {
    fn from(error: rustls::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// Why a certificate gives no node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PeerNameError {
    /// It is no certificate.
    #[error("the certificate can't be read")]
    Unreadable,
    /// It isn't a node's.
    #[error("the certificate has no name of the form NAME{NAME_SUFFIX}")]
    NoName,
    /// It would let its holder be several nodes.
    #[error("the certificate has more than one name of the form NAME{NAME_SUFFIX}")]
    SeveralNames,
}
