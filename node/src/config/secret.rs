//! The secret that the nodes of a cluster share. It is no setting like the others: it is never printed.

use std::fmt;
use std::path::Path;

/// The variable that may hold it. One underscore, so that it is taken for no setting.
pub const SECRET_VARIABLE: &str = "STARLING_CLUSTER_SECRET";

/// Fewer bytes could be guessed: whoever has one packet can try secrets as fast as he can hash.
const LEAST_BYTES: usize = 16;

/// A file that is longer is none with a secret in it.
const MOST_BYTES: usize = 4_096;

/// What a secret must be, for messages.
pub(super) const ALLOWED: &str = "a secret of 16 to 4096 bytes";

/// Used on loopback when there is none. It keeps nobody out, and packets have one form.
const WELL_KNOWN: &str = "starling on loopback without a secret";

/// A secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The secret in a text, without the white space around it that editors and shells leave.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().as_bytes().to_vec())
    }

    pub(super) fn is_long_enough(&self) -> bool {
        (LEAST_BYTES..=MOST_BYTES).contains(&self.0.len())
    }

    /// The one that everybody knows.
    #[must_use]
    pub fn well_known() -> Self {
        Self::new(WELL_KNOWN)
    }

    /// Its bytes, to derive keys from.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// Reads a secret's file. The error follows "which".
pub(super) fn read(path: &Path) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let secret = Secret::new(&text);
    if !secret.is_long_enough() {
        return Err(format!("holds {} bytes; it must be {ALLOWED}", secret.0.len()));
    }
    Ok(secret)
}
