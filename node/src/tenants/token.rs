//! JSON Web Tokens (RFC 7519) that another service signs for those it knows.
//!
//! Owns: the public keys that tokens are signed with, and what a token has to say. Must never: take a token that says itself that it
//! need not be signed, or one that is signed with a secret that this node would have to know.

use std::fmt;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use crate::config::JwtSettings;

/// Clocks of two machines that are looked after differ by less; longer would let a token outlive its end for no good.
const LEEWAY_SECONDS: u64 = 30;

/// Whose token is looked at.
pub struct TokenVerifier {
    keys: Vec<VerifyingKey>,
    issuer: Option<String>,
    audience: Option<String>,
    tenant_claim: String,
}

struct VerifyingKey {
    /// What a token's head calls it.
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Why a token is not taken, as its owner is told. Nothing of the token is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has ended.
    #[error("the token has expired")]
    Expired,
    /// It has not begun.
    #[error("the token is not valid yet")]
    NotYet,
    /// It is another service's.
    #[error("the token's issuer (iss) is not the one that is trusted here")]
    Issuer,
    /// It is meant for another service.
    #[error("the token's audience (aud) is not this service")]
    Audience,
    /// It lacks a claim that it needs.
    #[error(
        "the token lacks a claim that is needed: exp, iss and aud where they are asked for, and the tenant's name"
    )]
    Claim,
    /// It is signed by nobody who is trusted, or is no token at all.
    #[error("the token is not signed by a key that is trusted here")]
    Signature,
}

impl TokenVerifier {
    /// Of the settings and the text of the key set (RFC 7517) that they name.
    ///
    /// # Errors
    /// What is wrong with the set, to follow "which".
    pub fn new(settings: &JwtSettings, jwks: &str) -> Result<Self, String> {
        let set: JwkSet =
            serde_json::from_str(jwks).map_err(|error| format!("is no JSON Web Key Set: {error}"))?;
        // Keys that data is encrypted with are nothing to sign with.
        let signing =
            set.keys.iter().filter(|key| key.common.public_key_use != Some(PublicKeyUse::Encryption));
        let keys: Vec<VerifyingKey> = signing.filter_map(verifying).collect();
        if keys.is_empty() {
            return Err(
                "has no key to verify signatures with: it takes RSA, EC (P-256, P-384) or OKP (Ed25519) keys"
                    .to_owned(),
            );
        }
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Ok(Self {
            keys,
            issuer: given(&settings.issuer),
            audience: given(&settings.audience),
            tenant_claim: settings.tenant_claim.clone(),
        })
    }

    /// The tenant that a token names.
    ///
    /// # Errors
    /// The token is not to be trusted, or not any more.
    pub fn tenant_of(&self, token: &str) -> Result<String, TokenError> {
        let head = decode_header(token).map_err(|_| TokenError::Signature)?;
        let named = |key: &&VerifyingKey| head.kid.is_none() || key.id.is_none() || key.id == head.kid;
        let candidates = self.keys.iter().filter(|key| key.algorithms.contains(&head.alg)).filter(named);
        let mut refused = TokenError::Signature;
        for key in candidates {
            match decode::<Map<String, Value>>(token, &key.key, &self.validation(head.alg)) {
                Ok(token) => {
                    let tenant = token.claims.get(&self.tenant_claim).and_then(Value::as_str);
                    return tenant.map(str::to_owned).ok_or(TokenError::Claim);
                }
                Err(error) => refused = refusal(error.kind(), refused),
            }
        }
        Err(refused)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        match &self.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            None => validation.validate_aud = false,
        }
        validation
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// Whether a key that was shown looks like a token: three parts, of which the first is JSON in base64url.
#[must_use]
pub(super) fn is_token(key: &str) -> bool {
    key.starts_with("eyJ") && key.matches('.').count() == 2
}

/// What a key can verify; `None` for a shared secret, and for kinds that there is no use for.
fn verifying(jwk: &Jwk) -> Option<VerifyingKey> {
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let all: &[Algorithm] = match key.family() {
        AlgorithmFamily::Rsa => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmFamily::Ec => &[Algorithm::ES256, Algorithm::ES384],
        AlgorithmFamily::Ed => &[Algorithm::EdDSA],
        AlgorithmFamily::Hmac => return None,
    };
    let said = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
    let fits = |algorithm: &&Algorithm| said.as_ref().is_none_or(|said| *said == format!("{algorithm:?}"));
    let algorithms = all.iter().filter(fits).copied().collect();
    Some(VerifyingKey { id: jwk.common.key_id.clone(), algorithms, key })
}

/// What is told of several keys' refusals: a signature that fits says more than one that doesn't.
const fn refusal(kind: &ErrorKind, before: TokenError) -> TokenError {
    match kind {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYet,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => TokenError::Claim,
        _ => before,
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    struct Issuer {
        signing: EncodingKey,
        jwk: Value,
    }

    fn issuer(id: &str) -> Issuer {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key pair");
        let public = data_encoding::BASE64URL_NOPAD.encode(pair.public_key_raw());
        Issuer {
            signing: EncodingKey::from_ed_der(&pair.serialize_der()),
            jwk: json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "alg": "EdDSA", "use": "sig", "x": public }),
        }
    }

    fn verifier(settings: &JwtSettings, issuers: &[&Issuer]) -> TokenVerifier {
        let keys: Vec<&Value> = issuers.iter().map(|issuer| &issuer.jwk).collect();
        TokenVerifier::new(settings, &json!({ "keys": keys }).to_string()).expect("a key set")
    }

    fn signed(issuer: &Issuer, id: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
        encode(&header, claims, &issuer.signing).expect("signs")
    }

    /// So many seconds from now.
    fn at(seconds: i64) -> i64 {
        i64::try_from(starling_actors::unix_now().as_secs()).expect("fits") + seconds
    }

    fn settings() -> JwtSettings {
        JwtSettings {
            issuer: "https://id.example".into(),
            audience: "starling".into(),
            ..JwtSettings::default()
        }
    }

    #[test]
    fn a_token_says_whose_it_is() {
        let (ours, older) = (issuer("1"), issuer("0"));
        let verifier = verifier(&settings(), &[&older, &ours]);
        let claims = json!({ "tenant": "acme", "iss": "https://id.example", "aud": ["other", "starling"], "exp": at(60) });
        for token in [
            signed(&ours, Some("1"), &claims),
            signed(&ours, None, &claims),
            signed(&older, Some("0"), &claims),
        ] {
            assert!(is_token(&token));
            assert_eq!(verifier.tenant_of(&token).as_deref(), Ok("acme"));
        }
    }

    #[test]
    fn what_is_not_to_be_trusted_is_refused_with_its_reason() {
        let (ours, theirs) = (issuer("1"), issuer("1"));
        let verifier = verifier(&settings(), &[&ours]);
        let fine = json!({ "tenant": "acme", "iss": "https://id.example", "aud": "starling", "exp": at(60) });
        let but = |name: &str, value: Value| {
            let mut claims = fine.clone();
            claims[name] = value;
            verifier.tenant_of(&signed(&ours, Some("1"), &claims))
        };
        let without = |name: &str| {
            let mut claims = fine.clone();
            claims.as_object_mut().expect("an object").remove(name);
            verifier.tenant_of(&signed(&ours, Some("1"), &claims))
        };
        assert_eq!(but("exp", at(-3_600).into()), Err(TokenError::Expired));
        assert_eq!(but("nbf", at(3_600).into()), Err(TokenError::NotYet));
        assert_eq!(but("iss", "https://evil.example".into()), Err(TokenError::Issuer));
        assert_eq!(but("aud", "other".into()), Err(TokenError::Audience));
        assert_eq!(but("tenant", 7.into()), Err(TokenError::Claim));
        for claim in ["exp", "iss", "aud", "tenant"] {
            assert_eq!(without(claim), Err(TokenError::Claim), "{claim}");
        }
        assert_eq!(verifier.tenant_of(&signed(&theirs, Some("1"), &fine)), Err(TokenError::Signature));
        assert_eq!(verifier.tenant_of(&signed(&ours, Some("2"), &fine)), Err(TokenError::Signature));
        let token = signed(&ours, Some("1"), &fine);
        let (rest, signature) = token.rsplit_once('.').expect("three parts");
        assert_eq!(verifier.tenant_of(&format!("{rest}.")), Err(TokenError::Signature));
        // Whoever signs with the public key as a secret, or not at all.
        let head = |alg: &str| {
            data_encoding::BASE64URL_NOPAD.encode(json!({ "alg": alg, "typ": "JWT" }).to_string().as_bytes())
        };
        let body = rest.split_once('.').expect("two parts").1;
        for alg in ["none", "HS256"] {
            let forged = format!("{}.{body}.{signature}", head(alg));
            assert_eq!(verifier.tenant_of(&forged), Err(TokenError::Signature), "{alg}");
        }
        for nothing in ["", "eyJ..", "a.b.c"] {
            assert_eq!(verifier.tenant_of(nothing), Err(TokenError::Signature), "{nothing:?}");
        }
    }

    #[test]
    fn a_set_without_a_key_that_helps_is_named() {
        let refused = |text: &str| TokenVerifier::new(&settings(), text).expect_err("refused");
        assert!(refused("[]").starts_with("is no JSON Web Key Set"));
        assert!(refused(r#"{"keys":[]}"#).starts_with("has no key"));
        let secret = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }] }).to_string();
        assert!(refused(&secret).starts_with("has no key"));
    }
}
