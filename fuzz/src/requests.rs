//! What clients ask for in a request's address and headers, before its body.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use starling_node::gateway::fuzzing;
use starling_protocol::SessionId;
use starling_protocol::gstreamer::Media;
use starling_protocol::limits::MAX_ALTERNATIVES;

use super::texts::{checked, in_range};

/// Headers, one a line: `name: value`.
fn headers(lines: &[u8]) -> HeaderMap {
    let pair = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b':')?;
        let value = line[at + 1..].trim_ascii();
        Some((HeaderName::from_bytes(&line[..at]).ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    lines.split(|byte| *byte == b'\n').filter_map(pair).collect()
}

/// An address in the first line, then headers: as each path reads them that has something in its query.
pub fn request_query(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let Some(uri) = parts.next().and_then(|line| Uri::try_from(line).ok()) else { return };
    let headers = headers(parts.next().unwrap_or_default());
    let came = data.len();
    match fuzzing::transcription(&uri) {
        Ok((model, language, options)) => {
            assert!(options.batch && !options.partials && options.alternatives <= MAX_ALTERNATIVES);
            options.endpointing.check("").expect("was looked at");
            assert!([model, language].into_iter().flatten().map(|text| text.len()).sum::<usize>() <= came);
        }
        Err(error) => checked(&error, came),
    }
    match fuzzing::drain(&uri, Duration::from_secs(1)) {
        Ok((node, deadline, stay)) => {
            let longest = Duration::from_secs(24 * 3_600);
            assert!(node.len() <= came && deadline <= longest && stay.unwrap_or_default() <= longest);
        }
        Err(error) => checked(&error, came),
    }
    match fuzzing::added_model(&uri) {
        Ok(name) => assert!(name.len() <= came),
        Err(error) => checked(&error, came),
    }
    match fuzzing::realtime(&uri, &headers) {
        Ok((config, _)) => {
            in_range(config.format);
            assert!(config.model.is_none_or(|name| !name.is_empty()));
        }
        Err(error) => checked(&error, came),
    }
    kaldi_call(&uri, &headers, came);
}

fn kaldi_call(uri: &Uri, headers: &HeaderMap, came: usize) {
    let of = |tenant| fuzzing::kaldi_call(uri, headers, tenant);
    let (call, same, others) = match (of("a"), of("a"), of("b")) {
        (Ok(call), Ok(same), Ok(others)) => (call, same, others),
        (Err(error), ..) => return checked(&error, came),
        (Ok(_), ..) => panic!("depends on whose it is"),
    };
    match &call.media {
        Ok(Media::Raw(format)) => in_range(*format),
        Ok(Media::Container) => {}
        Err(error) => checked(error, came),
    }
    // Else it would get round the limits on new sessions, or be held up by them though it goes on.
    assert_eq!(call.named, call.may_go_on, "{uri}");
    // The same everywhere, and nobody else's.
    assert_eq!(call.named, call.session == same.session);
    assert_ne!(call.session, others.session);
    assert!(call.logged.iter().all(|text| text.chars().count() <= 128), "{call:?}");
}

/// Headers that are read by hand, and what a UUID in a path is.
pub fn request_headers(data: &[u8]) {
    let headers = headers(data);
    reference_file(&headers);
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(read) = text("last-event-id").and_then(|id| fuzzing::call_events(20, id)) {
        // As it is written it says the same.
        assert_eq!(fuzzing::call_events(20, &read.after), Some(read.clone()), "{read:?}");
        // Nothing is told again, and the end is told to whoever has not had it.
        let (_, number) = read.after.split_once('-').expect("a number");
        assert_eq!(read.first, number.parse::<u64>().expect("a number").saturating_add(1));
        let left = 21_u64.saturating_sub(read.first);
        assert_eq!((read.events as u64, read.last), (left.min(16), left <= 16), "{read:?}");
    }
    if let Some(id) = text("uuid").and_then(|text| SessionId::parse(text).ok()) {
        assert_eq!(SessionId::parse(&id.to_string()), Ok(id));
    }
    if let Some(host) = text("host") {
        page_policy(host);
    }
}

/// A text is kept as one file in its folder, and no two of them in the same.
fn reference_file(headers: &HeaderMap) {
    let folder = Path::new("/references/acme");
    match fuzzing::reference_file(folder, headers) {
        Ok(file) => {
            assert_eq!(file.parent(), Some(folder), "leads out of the folder");
            let name = file.file_name().and_then(OsStr::to_str).expect("a name");
            assert!(name.len() <= 255 && name.is_ascii() && !name.starts_with('.'), "{name}");
            let name = name.strip_suffix(".json").expect("its ending");
            let read: String = form_urlencoded::parse(name.as_bytes()).map(|(name, _)| name).collect();
            assert_eq!(headers["content-id"].as_bytes(), read.as_bytes(), "another id has the same file");
        }
        Err(problem) => assert!(problem.starts_with("No Content-Id") || problem.contains("at most 80")),
    }
}

/// A page may connect to the host that it came from and to no other, whatever host it says that it came from.
fn page_policy(host: &str) {
    let Some(policy) = fuzzing::page_policy(host, Some(8_443)) else { return };
    let policy = policy.to_str().expect("is text");
    let other = fuzzing::page_policy("other:8080", Some(8_443)).expect("a policy");
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "443"));
    let places =
        other.to_str().expect("is text").replace("other:8080", &format!("\0:{port}")).replace("other", "\0");
    assert_eq!(policy, places.replace('\0', name), "{host}");
    assert!(!name.contains([';', ',', ' ', '*', '\'']), "{host}");
}
