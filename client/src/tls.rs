//! Whom a client trusts over TLS: the authorities that the machine trusts, or those of a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use thiserror::Error;

/// What WebSockets and HTTP/1.1 are called in a handshake (RFC 7301, 6).
pub(crate) const HTTP_ALPN: &[u8] = b"http/1.1";

/// Certificates that are trusted.
#[derive(Debug, Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
}

/// There is nothing to trust.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The file can't be read, or holds no certificate.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The machine has no authorities where they are looked for.
    #[error("this machine trusts no authorities ({problem}); name a file with some")]
    Platform {
        /// What was met while looking.
        problem: String,
    },
}

impl Trust {
    /// What the machine trusts.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn platform() -> Result<Self, TrustError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(found.certs);
        if taken == 0 {
            let problem =
                found.errors.first().map_or_else(|| "none were found".to_owned(), ToString::to_string);
            return Err(TrustError::Platform { problem });
        }
        Ok(Self { roots: Arc::new(roots) })
    }

    /// The certificates of this PEM file and no others: authorities, or a server's own that is signed by itself.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn file(path: &Path) -> Result<Self, TrustError> {
        let bad = |problem: String| TrustError::File { path: path.to_owned(), problem };
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| bad(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("there is no certificate in it (PEM, BEGIN CERTIFICATE)".to_owned()));
        }
        Ok(Self { roots: Arc::new(roots) })
    }

    /// The settings of connections that speak HTTP/1.1, and what begins as that.
    ///
    /// # Errors
    /// The library has no protocol version in common with itself, which would be its own fault.
    pub fn for_http(&self) -> Result<ClientConfig, rustls::Error> {
        self.config(rustls::DEFAULT_VERSIONS, HTTP_ALPN)
    }

    /// The settings of QUIC connections that speak this.
    #[cfg(feature = "quic")]
    pub(crate) fn for_quic(&self, protocol: &[u8]) -> Result<ClientConfig, rustls::Error> {
        self.config(&[&rustls::version::TLS13], protocol)
    }

    fn config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocol: &[u8],
    ) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }
}
