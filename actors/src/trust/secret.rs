//! The cluster's secret and the keys that are derived from it.
//!
//! Owns: the secret's bytes, which are wiped when they are let go. Must never: print them.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use hkdf::Hkdf;
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

/// A key for one purpose.
pub type DerivedKey = Zeroizing<[u8; 32]>;

/// Separates what is derived here from what anybody else derives from the same bytes.
const SALT: &[u8] = b"starling cluster secret";

/// What all nodes of a cluster share.
#[derive(Clone)]
pub struct ClusterSecret(Zeroizing<Vec<u8>>);

impl ClusterSecret {
    /// The shortest secret: 128 bits, should they be random, can't be guessed.
    pub const MIN_BYTES: usize = 16;

    /// The longest secret. It is a key, and whoever names a larger file has named the wrong one.
    pub const MAX_BYTES: usize = 4096;

    /// A secret of these bytes, as they are.
    ///
    /// # Errors
    /// There are too few or too many.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, SecretError> {
        let bytes = Zeroizing::new(bytes);
        match bytes.len() {
            0..Self::MIN_BYTES => Err(SecretError::TooShort { bytes: bytes.len() }),
            Self::MIN_BYTES..=Self::MAX_BYTES => Ok(Self(bytes)),
            _ => Err(SecretError::TooLong),
        }
    }

    /// The secret in a file, less one line's end at its end: editors add one, and mounted secrets have none.
    ///
    /// # Errors
    /// The file can't be read, or holds too little or too much.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        let unreadable = |error| SecretError::Unreadable { path: path.to_owned(), error };
        // Room for all of it at once: a buffer that grows leaves copies behind.
        let limit = Self::MAX_BYTES + 2;
        let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
        let file = File::open(path).map_err(unreadable)?;
        file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        Self::from_bytes(std::mem::take(&mut *bytes))
            .map_err(|error| SecretError::InFile { path: path.to_owned(), error: Box::new(error) })
    }

    /// The key that resume tokens are sealed with.
    #[must_use]
    pub fn token_key(&self) -> DerivedKey {
        self.derive("starling token 1")
    }

    /// The key that gossip is sealed with.
    #[must_use]
    pub fn gossip_key(&self) -> DerivedKey {
        self.derive("starling gossip 1")
    }

    /// The seed of the cluster's certificate authority.
    pub(super) fn authority_seed(&self) -> DerivedKey {
        self.derive("starling authority 1")
    }

    fn derive(&self, purpose: &str) -> DerivedKey {
        let mut key = DerivedKey::default();
        Hkdf::<Sha256>::new(Some(SALT), &self.0)
            .expand(purpose.as_bytes(), &mut *key)
            .expect("32 bytes are within what HKDF gives");
        key
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(..)")
    }
}

/// Why there is no [`ClusterSecret`]. Nothing has changed.
#[derive(Debug, Error)]
pub enum SecretError {
    /// Too few bytes.
    #[error(
        "the cluster's secret has {bytes} bytes and needs at least {min}; `openssl rand -hex 32` makes a good one",
        min = ClusterSecret::MIN_BYTES
    )]
    TooShort {
        /// How many there are.
        bytes: usize,
    },
    /// Too many bytes.
    #[error("the cluster's secret is longer than {max} bytes", max = ClusterSecret::MAX_BYTES)]
    TooLong,
    /// The file can't be read.
    #[error("can't read the cluster's secret from {path}: {error}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// What the file holds is no secret.
    #[error("{path}: {error}", path = path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<SecretError>,
    },
}
