//! TLS for clients: a certificate out of PEM files, read again when they change.
//!
//! Owns: the certificate that new connections are shown. Must never: be without one once it had one; files that can't be used
//! leave the earlier one in force.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the files have changed: certificates are renewed days before they end.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The one protocol that is spoken inside, over TCP (RFC 7301, 6): WebSockets begin as HTTP/1.1.
const ALPN: &[u8] = b"http/1.1";

/// A certificate can't be used. What was in force before stays.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file can't be read, or holds nothing of the kind.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The key is not the certificate's, or of a kind that can't be used.
    #[error("{} and {} don't go together: {source}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// Where a certificate and its key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and the chain up to its root.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A server's certificate.
#[derive(Debug)]
pub struct Certificate {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<(Stamp, Arc<CertifiedKey>)>,
}

/// When the files were last changed.
type Stamp = [Option<SystemTime>; 2];

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(files: CertificateFiles) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let stamp = files.stamp();
        let key = files.read(&provider)?;
        Ok(Arc::new(Self { files, provider, current: RwLock::new((stamp, key)) }))
    }

    /// When it ends, in seconds since 1970.
    #[must_use]
    pub fn ends_unix_s(&self) -> Option<i64> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.1.cert.first().and_then(|cert| ends_unix_s(cert))
    }

    /// What makes TLS of a connection.
    ///
    /// # Errors
    /// The library has no protocol version in common with itself, which would be its own fault.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, rustls::Error> {
        let config = self.config(rustls::DEFAULT_VERSIONS, &[ALPN])?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// The same for QUIC, and for whatever is spoken over that.
    ///
    /// # Errors
    /// As [`Self::acceptor`].
    pub fn for_quic(self: &Arc<Self>, protocols: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
        self.config(&[&rustls::version::TLS13], protocols)
    }

    fn config(
        self: &Arc<Self>,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }

    /// The hash of the one that is in force, without its chain.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let leaf = current.1.cert.first().map(|leaf| leaf.as_ref()).unwrap_or_default();
        Sha256::digest(leaf).into()
    }

    /// Reads the files again if they have changed; whether they had.
    ///
    /// # Errors
    /// They can't be used; they are not looked at again before they change once more.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let stamp = self.files.stamp();
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == stamp {
            return Ok(false);
        }
        let read = self.files.read(&self.provider);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.0 = stamp;
        current.1 = read?;
        Ok(true)
    }

    /// Looks at the files now and then, until the node stops.
    pub async fn keep_fresh(self: Arc<Self>, stopping: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = stopping.cancelled() => return,
            }
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.refresh()).await {
                Ok(Ok(true)) => {
                    tracing::info!(file = %self.files.cert.display(), "a new certificate is in force");
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "the new certificate is not taken; the earlier one is in force");
                }
                // The runtime is going.
                Err(_) => return,
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).1))
    }
}

impl CertificateFiles {
    fn stamp(&self) -> Stamp {
        [&self.cert, &self.key].map(|path| std::fs::metadata(path).and_then(|facts| facts.modified()).ok())
    }

    fn read(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
        let chain = CertificateDer::pem_file_iter(&self.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| file(&self.cert, &error))?;
        if chain.is_empty() {
            return Err(file(&self.cert, &"there is no certificate in it (PEM, BEGIN CERTIFICATE)"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| file(&self.key, &error))?;
        CertifiedKey::from_der(chain, key, provider).map(Arc::new).map_err(|source| TlsError::Pair {
            cert: self.cert.clone(),
            key: self.key.clone(),
            source,
        })
    }
}

/// When the first certificate of a PEM file ends, in seconds since 1970; `None` if there is none.
#[must_use]
pub fn file_ends_unix_s(pem: &Path) -> Option<i64> {
    ends_unix_s(&CertificateDer::from_pem_file(pem).ok()?)
}

fn ends_unix_s(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn file(path: &Path, problem: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), problem: problem.to_string() }
}

/// A certificate that was made for trials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfSigned {
    /// Where it lies.
    pub files: CertificateFiles,
    /// Its hash, by which browsers are told to trust it (`serverCertificateHashes` of WebTransport).
    pub sha256: [u8; 32],
}

/// By how much clocks may differ: a certificate holds from so long before it was made.
const CLOCKS_DIFFER: time::Duration = time::Duration::hours(1);

/// Makes a certificate for trials, signed by itself, as `cert.pem` and `key.pem` in a folder. The key is for its owner to read.
/// It is an ECDSA certificate on P-256; with at most 14 `days`, all in all, browsers take it by its hash.
///
/// # Errors
/// A name that can't stand in a certificate, or a folder that can't be written.
pub fn self_signed(names: Vec<String>, days: u16, folder: &Path) -> io::Result<SelfSigned> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let key = rcgen::KeyPair::generate().map_err(io::Error::other)?;
    let mut params = rcgen::CertificateParams::new(names).map_err(io::Error::other)?;
    params.not_before = time::OffsetDateTime::now_utc() - CLOCKS_DIFFER;
    // Both of its ends belong to it.
    params.not_after = params.not_before + time::Duration::days(days.into()) - time::Duration::SECOND;
    let cert = params.self_signed(&key).map_err(io::Error::other)?;
    std::fs::create_dir_all(folder)?;
    let files = CertificateFiles { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&files.key)?.write_all(key.serialize_pem().as_bytes())?;
    std::fs::write(&files.cert, cert.pem())?;
    Ok(SelfSigned { files, sha256: Sha256::digest(cert.der()).into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(folder: &Path) -> CertificateFiles {
        self_signed(vec!["localhost".to_owned()], 14, folder).expect("made").files
    }

    /// Two changes within a file system's tick would look like one.
    fn touched(files: &CertificateFiles) {
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        let file = std::fs::OpenOptions::new().append(true).open(&files.cert).expect("opens");
        file.set_modified(later).expect("is set");
    }

    #[test]
    fn a_certificate_that_is_replaced_is_in_force_and_one_that_cannot_be_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let certificate = Certificate::load(made(folder.path())).expect("fine");
        let shown = || certificate.current.read().expect("no panic").1.cert[0].to_vec();
        let first = shown();
        assert!(!certificate.refresh().expect("unchanged"));
        let ends = || certificate.ends_unix_s().expect("has an end");
        assert_eq!(file_ends_unix_s(&certificate.files.cert), Some(ends()));
        let fortnight = ends();
        self_signed(vec!["localhost".to_owned()], 1, folder.path()).expect("made");
        touched(&certificate.files);
        assert!(certificate.refresh().expect("fine"));
        let sooner = fortnight - ends();
        assert!((13 * 86_400 - 600..=13 * 86_400).contains(&sooner), "{sooner} s");
        let second = shown();
        assert_ne!(first, second);
        std::fs::write(&certificate.files.key, "nonsense").expect("written");
        let problem = certificate.refresh().expect_err("no key").to_string();
        assert!(problem.contains("key.pem"), "{problem}");
        assert_eq!(shown(), second);
        assert!(!certificate.refresh().expect("nothing new"), "it is not said again and again");
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = made(folder.path());
        let other = made(&folder.path().join("other"));
        let error = |cert: &Path, key: &Path| {
            let files = CertificateFiles { cert: cert.to_owned(), key: key.to_owned() };
            Certificate::load(files).expect_err("no use").to_string()
        };
        assert!(error(&files.cert, &other.key).contains("don't go together"));
        assert!(error(&files.key, &files.key).contains("there is no certificate in it"));
        assert!(error(Path::new("/nowhere"), &files.key).starts_with("/nowhere: "));
    }

    #[test]
    fn only_its_owner_reads_a_new_key() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let mode = std::fs::metadata(made(folder.path()).key).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
