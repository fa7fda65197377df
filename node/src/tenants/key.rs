//! API keys: what is kept of one, and new ones.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use rand::Rng;
use rand::rngs::StdRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Before the digits of a hash.
const SCHEME: &str = "sha256:";

/// Before the digits of a new key, so that one that leaks is recognized by whoever scans for such.
const KEY_PREFIX: &str = "starling_";

/// Of randomness in a new key: not to be guessed, so that a plain hash is enough to keep.
const KEY_BYTES: usize = 32;

/// What is kept of a key. A fast hash is right for keys that are drawn at random, and wrong for words that people think of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

/// A text that is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoKeyHash;

impl KeyHash {
    /// The hash of a key.
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    pub(super) fn equals(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(...)")
    }
}

impl FromStr for KeyHash {
    type Err = NoKeyHash;

    fn from_str(text: &str) -> Result<Self, NoKeyHash> {
        let digits = text.trim().strip_prefix(SCHEME).ok_or(NoKeyHash)?;
        let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| NoKeyHash)?;
        bytes.try_into().map(Self).map_err(|_| NoKeyHash)
    }
}

/// Draws a key.
#[must_use]
pub fn new_key() -> String {
    let mut random: StdRng = rand::make_rng();
    let mut bytes = [0u8; KEY_BYTES];
    random.fill_bytes(&mut bytes);
    let digits = HEXLOWER.encode(&bytes);
    format!("{KEY_PREFIX}{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let hash = KeyHash::of("secret");
        let text = hash.to_string();
        assert_eq!(text, "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b");
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(text.to_uppercase().replace("SHA256", "sha256").parse(), Ok(hash));
        assert!(hash.equals(&KeyHash::of("secret")) && !hash.equals(&KeyHash::of("Secret")));
        assert_eq!(format!("{hash:?}"), "KeyHash(...)");
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for text in ["", "sha256:", "secret", "md5:00", "sha256:+f", &format!("sha256:{}", "0".repeat(63))] {
            assert_eq!(text.parse::<KeyHash>(), Err(NoKeyHash), "{text}");
        }
        assert_eq!(format!("sha256:{}g", "0".repeat(63)).parse::<KeyHash>(), Err(NoKeyHash));
        assert_eq!(format!("sha256:{}", "é".repeat(32)).parse::<KeyHash>(), Err(NoKeyHash));
    }

    #[test]
    fn no_key_comes_twice() {
        let (one, other) = (new_key(), new_key());
        assert_ne!(one, other);
        assert_eq!(one.len(), KEY_PREFIX.len() + 2 * KEY_BYTES);
    }
}
