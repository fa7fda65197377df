//! Resume tokens: what a client shows to go on with its session, sealed so that any node of the cluster can read it without
//! a look-up and nobody else can.
//!
//! ```text
//! 0   format, 1
//! 1   key id   u32 LE    which key seals it, so that keys can be changed one node at a time
//! 5   nonce    24 bytes  drawn for each token
//! 29  the body, MessagePack, sealed with XChaCha20-Poly1305, and its tag of 16 bytes
//! ```
//!
//! On the wire it is base64url without padding (RFC 4648, section 5). All that comes before the body is authenticated with it.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::replica::View;
use crate::{NodeName, SessionId};

/// Longest token that is looked at. One with the longest names and three nodes has half of that.
pub const MAX_TOKEN_BYTES: usize = 2_048;

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 29;
const NONCE_BYTES: usize = 24;

/// Random bytes for one token.
pub type TokenNonce = [u8; NONCE_BYTES];

/// A key that tokens are sealed with.
#[derive(Clone)]
pub struct TokenKey {
    /// Tells it from other keys; not secret.
    pub id: u32,
    /// The key.
    pub bytes: [u8; 32],
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKey {{ id: {:08x} }}", self.id)
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBody {
    /// The session.
    #[serde(rename = "s")]
    pub session: SessionId,
    /// Whose it is; empty where nobody has a name.
    #[serde(rename = "t", default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Its model.
    #[serde(rename = "m")]
    pub model: String,
    /// Digest of the model's files.
    #[serde(rename = "d")]
    pub digest: String,
    /// Which set of copies.
    #[serde(rename = "v")]
    pub view: View,
    /// The node that the session lives on.
    #[serde(rename = "o")]
    pub owner: NodeName,
    /// Nodes that hold a copy.
    #[serde(rename = "k", default)]
    pub keepers: Vec<NodeName>,
    /// Not good any more from then on, in seconds since 1970.
    #[serde(rename = "e")]
    pub expires_unix_s: u64,
}

/// A token can't be read. All of it looks the same to whoever showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It is no token of this cluster's.
    #[error("not a token of this cluster")]
    Foreign,
    /// It was good once.
    #[error("the token has expired")]
    Expired,
}

/// Seals a token. `nonce` must be random.
///
/// # Errors
/// The body has no MessagePack form, which one of this type always has.
pub fn seal(key: &TokenKey, nonce: &TokenNonce, body: &TokenBody) -> Result<String, TokenError> {
    let plain = rmp_serde::to_vec_named(body).map_err(|_| TokenError::Foreign)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + plain.len() + 16);
    bytes.push(FORMAT);
    bytes.extend(key.id.to_le_bytes());
    bytes.extend(nonce);
    let sealing = Payload { msg: &plain, aad: &bytes };
    let sealed = cipher(key).encrypt(&XNonce::from(*nonce), sealing).map_err(|_| TokenError::Foreign)?;
    bytes.extend(sealed);
    Ok(BASE64URL_NOPAD.encode(&bytes))
}

/// Reads a token that one of `keys` sealed, if it is still good at `now_unix_s`.
///
/// # Errors
/// See [`TokenError`].
pub fn open(keys: &[TokenKey], text: &str, now_unix_s: u64) -> Result<TokenBody, TokenError> {
    if text.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Foreign);
    }
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| TokenError::Foreign)?;
    let (head, sealed) = bytes.split_at_checked(HEAD_BYTES).ok_or(TokenError::Foreign)?;
    let (format, rest) = head.split_first().ok_or(TokenError::Foreign)?;
    let (id, nonce) = rest.split_first_chunk::<4>().ok_or(TokenError::Foreign)?;
    let nonce: TokenNonce = nonce.try_into().map_err(|_| TokenError::Foreign)?;
    let id = u32::from_le_bytes(*id);
    let key = keys.iter().find(|key| key.id == id && *format == FORMAT).ok_or(TokenError::Foreign)?;
    let opening = Payload { msg: sealed, aad: head };
    let plain = cipher(key).decrypt(&XNonce::from(nonce), opening).map_err(|_| TokenError::Foreign)?;
    let body: TokenBody = rmp_serde::from_slice(&plain).map_err(|_| TokenError::Foreign)?;
    if body.expires_unix_s <= now_unix_s {
        return Err(TokenError::Expired);
    }
    Ok(body)
}

fn cipher(key: &TokenKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&key.bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u32) -> TokenKey {
        TokenKey { id, bytes: [id as u8; 32] }
    }

    fn body() -> TokenBody {
        let name = |text: &str| NodeName::parse(text).expect("a name");
        TokenBody {
            session: SessionId::random(),
            tenant: String::new(),
            model: "moonshine-tiny-en".into(),
            digest: "ab".repeat(32),
            view: View(3),
            owner: name(&"a".repeat(63)),
            keepers: vec![name(&"b".repeat(63)), name(&"c".repeat(63))],
            expires_unix_s: 1_000,
        }
    }

    #[test]
    fn a_token_is_read_by_whoever_has_the_key() {
        let body = body();
        let token = seal(&key(1), &[7; NONCE_BYTES], &body).expect("seals");
        assert!(token.len() < MAX_TOKEN_BYTES / 2, "{} bytes", token.len());
        assert_eq!(open(&[key(2), key(1)], &token, 999), Ok(body));
        assert_eq!(open(&[key(1)], &token, 1_000), Err(TokenError::Expired));
        assert_eq!(open(&[key(2)], &token, 0), Err(TokenError::Foreign));
    }

    #[test]
    fn a_token_that_was_touched_is_none() {
        let token = seal(&key(1), &[7; NONCE_BYTES], &body()).expect("seals");
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).expect("base64");
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            let text = BASE64URL_NOPAD.encode(&forged);
            assert_eq!(open(&[key(1)], &text, 0), Err(TokenError::Foreign), "byte {at}");
            let short = BASE64URL_NOPAD.encode(&bytes[..at]);
            assert_eq!(open(&[key(1)], &short, 0), Err(TokenError::Foreign), "{at} bytes");
        }
        assert_eq!(open(&[key(1)], "no token", 0), Err(TokenError::Foreign));
        assert_eq!(open(&[key(1)], &"A".repeat(MAX_TOKEN_BYTES + 1), 0), Err(TokenError::Foreign));
    }
}
