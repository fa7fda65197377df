//! Certificates made of the cluster's secret.
//!
//! Owns: the authority, which every node derives alike and none stores, and the node's own certificate. Must never: need a
//! clock. The certificates are valid whenever a clock may think it is: a node that is let in is one that knows the secret,
//! and to keep it out the secret is changed.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SerialNumber, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::PrivatePkcs8KeyDer;
use starling_protocol::NodeName;
use zeroize::Zeroizing;

use super::{ClusterSecret, NAME_SUFFIX, Trust, TrustError};

/// PKCS 8 around an Ed25519 seed (RFC 8410, section 7); the seed follows.
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

pub(super) fn trust(secret: &ClusterSecret, name: &NodeName) -> Result<Trust, TrustError> {
    let authority_key = authority_key(secret)?;
    let authority_params = authority_params();
    let authority = authority_params.self_signed(&authority_key)?;

    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let issuer = Issuer::from_params(&authority_params, authority_key);
    let leaf = leaf_params(name)?.signed_by(&key, &issuer)?;

    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone())?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    Trust::new(roots, vec![leaf.der().clone()], key.into())
}

fn authority_key(secret: &ClusterSecret) -> Result<KeyPair, TrustError> {
    let seed = secret.authority_seed();
    let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_ED25519.len() + seed.len()));
    der.extend_from_slice(&PKCS8_ED25519);
    der.extend_from_slice(&*seed);
    let der = PrivatePkcs8KeyDer::from(der.as_slice());
    Ok(KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)?)
}

/// The same at every node, so that one node's root is another's.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(1));
    params.distinguished_name.push(DnType::CommonName, "Starling cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    always(&mut params);
    params
}

fn leaf_params(name: &NodeName) -> Result<CertificateParams, TrustError> {
    let mut params = CertificateParams::new([format!("{name}{NAME_SUFFIX}")])?;
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A node dials some peers and is dialled by others, with the same certificate.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    always(&mut params);
    Ok(params)
}

/// A clock that was never set says 1970, and one that is wrong the other way is not wrong by centuries.
fn always(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(2999, 12, 31);
}
