//! `[jwt]`: whose tokens are taken for keys.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[jwt]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtSettings {
    /// File with the public keys, a JSON Web Key Set (RFC 7517); empty when no tokens are taken.
    pub jwks_file: PathBuf,
    /// Who has to have issued a token; empty for anybody who signs with these keys.
    pub issuer: String,
    /// Whom a token has to be meant for; empty for anybody.
    pub audience: String,
    /// The claim that names the tenant.
    pub tenant_claim: String,
}

impl Default for JwtSettings {
    fn default() -> Self {
        Self {
            jwks_file: PathBuf::new(),
            issuer: String::new(),
            audience: String::new(),
            tenant_claim: "tenant".to_owned(),
        }
    }
}

impl JwtSettings {
    /// Whether tokens are taken.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.jwks_file.as_os_str().is_empty()
    }
}
