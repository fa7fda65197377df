//! Sealing resume tokens: the key, the randomness and the time that `starling_protocol::token` is handed.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use starling_protocol::token::{self, TokenBody, TokenError, TokenKey, TokenNonce};
use tracing::error;

use crate::clock::unix_now;
use crate::trust::DerivedKey;

/// How long a token is good: longer than any call, and short enough that a leaked one is worth little. Each view and each
/// `ready` brings a new one.
const GOOD_FOR: Duration = Duration::from_secs(24 * 3_600);

/// Seals and reads resume tokens with one key.
pub struct TokenSealer {
    keys: [TokenKey; 1],
}

impl TokenSealer {
    /// With the key that all nodes of a cluster derive from their secret.
    #[must_use]
    pub fn shared(key: &DerivedKey) -> Self {
        Self { keys: [TokenKey { id: 1, bytes: **key }] }
    }

    /// With a key that goes with this process.
    #[must_use]
    pub fn random() -> Self {
        Self { keys: [TokenKey { id: 0, bytes: drawn() }] }
    }

    pub(crate) fn seal(&self, mut body: TokenBody) -> String {
        body.expires_unix_s = (unix_now() + GOOD_FOR).as_secs();
        let nonce: TokenNonce = drawn();
        // A body of these types always has a form; a client without a token begins anew instead of coming back.
        token::seal(&self.keys[0], &nonce, &body).unwrap_or_else(|problem| {
            error!(%problem, "a resume token could not be sealed");
            String::new()
        })
    }

    pub(crate) fn open(&self, text: &str) -> Result<TokenBody, TokenError> {
        token::open(&self.keys, text, unix_now().as_secs())
    }
}

fn drawn<const N: usize>() -> [u8; N] {
    let mut random: StdRng = rand::make_rng();
    let mut bytes = [0; N];
    random.fill_bytes(&mut bytes);
    bytes
}
