//! Certificates that an operator made, from PEM files.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use starling_protocol::NodeName;

use super::{NAME_SUFFIX, Trust, TrustError, peer_name};

/// Where an operator's own certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustPaths {
    /// Certificates of the authorities that sign nodes' certificates.
    pub ca: PathBuf,
    /// The node's certificate, with its name as `NAME.starling.internal`, and those between it and the authority.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

pub(super) fn trust(paths: &TrustPaths, name: &NodeName) -> Result<Trust, TrustError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(&paths.ca)? {
        roots.add(root).map_err(|error| problem(&paths.ca, &error))?;
    }
    let chain = certificates(&paths.cert)?;
    check_name(&paths.cert, chain.first(), name)?;
    let key = PrivateKeyDer::from_pem_file(&paths.key).map_err(|error| problem(&paths.key, &error))?;
    Trust::new(roots, chain, key)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| problem(path, &error))?;
    if certificates.is_empty() {
        return Err(problem(path, &"there is no certificate in it (PEM, BEGIN CERTIFICATE)"));
    }
    Ok(certificates)
}

fn check_name(path: &Path, leaf: Option<&CertificateDer<'_>>, name: &NodeName) -> Result<(), TrustError> {
    let found = match leaf.map(peer_name) {
        Some(Ok(found)) if found == *name => return Ok(()),
        Some(Ok(found)) => format!("it is for {found}{NAME_SUFFIX}"),
        Some(Err(error)) => error.to_string(),
        None => "there is none".to_owned(),
    };
    Err(TrustError::WrongNode { path: path.to_owned(), expected: format!("{name}{NAME_SUFFIX}"), found })
}

fn problem(path: &Path, problem: &impl ToString) -> TrustError {
    TrustError::File { path: path.to_owned(), problem: problem.to_string() }
}
