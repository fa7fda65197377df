//! What callers show to be let in.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use data_encoding::BASE64URL_NOPAD;
use starling_node::config::JwtSettings;
use starling_node::gateway::fuzzing;
use starling_node::tenants::{KeyHash, TokenVerifier};

/// Where a request may carry a key: its address, `Authorization` and subprotocols, one a line. And the hash of a key.
pub fn api_key(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let uri = lines.next().and_then(|line| Uri::try_from(line).ok()).unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, line) in [header::AUTHORIZATION, header::SEC_WEBSOCKET_PROTOCOL].into_iter().zip(lines) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.insert(name, value);
        }
    }
    if let Some(key) = fuzzing::key_of(&uri, &headers) {
        assert!(!key.is_empty() && key.len() <= 3 * data.len());
    }
    left_out(&uri);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(hash) = text.parse::<KeyHash>()
    {
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string(), text.trim().to_ascii_lowercase());
    }
}

/// No handler sees a key that an address has in its query, and each sees all the rest of it.
fn left_out(uri: &Uri) {
    let bare = HeaderMap::new();
    let Some(left) = fuzzing::without_key(uri) else {
        assert_eq!(fuzzing::key_of(uri, &bare), None, "{uri}");
        return;
    };
    assert_eq!(fuzzing::key_of(&left, &bare), None, "{uri}");
    let others = |uri: &Uri| -> Vec<(String, String)> {
        let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned();
        pairs.filter(|(name, _)| !["token", "api_key"].contains(&name.as_str())).collect()
    };
    assert_eq!((left.path(), others(&left)), (uri.path(), others(uri)), "{uri}");
}

/// A browser's page: its origin and the host it asks, one a line.
pub fn origin(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n').map(HeaderValue::from_bytes);
    let (Some(Ok(origin)), host) = (lines.next(), lines.next().and_then(Result::ok)) else { return };
    if !fuzzing::is_own_page(&origin, host.as_ref()) {
        return;
    }
    // Only an address is this node's own, or this very machine; a name may be anybody's.
    let (_, place) = origin.to_str().ok().and_then(|origin| origin.split_once("://")).expect("has a scheme");
    let here = ["localhost", "127.0.0.1", "[::1]"];
    let is_here = here.into_iter().any(|name| match place.strip_prefix(name) {
        Some(port) => {
            port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
        }
        None => false,
    });
    let host = host.as_ref().map_or(b"".as_slice(), HeaderValue::as_bytes);
    let starts = |text: &[u8]| {
        text.first().is_some_and(|byte| byte.is_ascii_hexdigit() || *byte == b'[' || *byte == b':')
    };
    assert!(is_here || (host.eq_ignore_ascii_case(place.as_bytes()) && starts(host)), "{origin:?}, {host:?}");
}

/// RFC 8037's example of a public key, whose private half signs nothing here.
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","alg":"EdDSA","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

static VERIFIER: LazyLock<TokenVerifier> =
    LazyLock::new(|| TokenVerifier::new(&JwtSettings::default(), KEYS).expect("a key set"));

/// A token, as it came and with the seed for its head and claims; and a key set.
pub fn jwt(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    VERIFIER.tenant_of(&text).expect_err("nobody signed it");
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let encoded = |part: Option<&[u8]>| BASE64URL_NOPAD.encode(part.unwrap_or_default());
    let (head, claims) = (encoded(parts.next()), encoded(parts.next()));
    for signature in [String::new(), BASE64URL_NOPAD.encode(&[1; 64])] {
        VERIFIER.tenant_of(&format!("{head}.{claims}.{signature}")).expect_err("nobody signed it");
    }
    if let Err(problem) = TokenVerifier::new(&JwtSettings::default(), &text) {
        assert!(problem.starts_with("is ") || problem.starts_with("has "), "{problem}");
    }
}
