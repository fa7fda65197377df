//! By what a node proves who it is: certificates that follow from the secret, or the operator's own.

use starling_actors::trust::{ClusterSecret, DerivedKey, Trust, TrustPaths};
use starling_protocol::NodeName;

use crate::config::{ClusterSettings, Secret};
use crate::exit::{Exit, Failure};

/// The trust that the settings ask for.
///
/// # Errors
/// A certificate can't be made, read or used.
pub fn trust(settings: &ClusterSettings, secret: &Secret, name: &NodeName) -> Result<Trust, Failure> {
    made(settings, secret, name).map_err(|error| Failure::new(Exit::Usage, error))
}

/// The key that resume tokens are sealed with.
///
/// # Errors
/// The secret can't be one.
pub fn token_key(secret: &Secret) -> Result<DerivedKey, Failure> {
    let secret = ClusterSecret::from_bytes(secret.expose().to_vec());
    secret.map(|secret| secret.token_key()).map_err(|error| Failure::new(Exit::Usage, error))
}

fn made(settings: &ClusterSettings, secret: &Secret, name: &NodeName) -> anyhow::Result<Trust> {
    if !settings.cert_file.as_os_str().is_empty() {
        let (ca, cert, key) =
            (settings.ca_file.clone(), settings.cert_file.clone(), settings.key_file.clone());
        return Ok(Trust::load(&TrustPaths { ca, cert, key }, name)?);
    }
    let secret = ClusterSecret::from_bytes(secret.expose().to_vec())?;
    Ok(Trust::derive(&secret, name)?)
}
