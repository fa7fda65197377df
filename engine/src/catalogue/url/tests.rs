use super::super::progress::Quiet;
use super::super::tests::server::{Behaviour, Server};
use super::*;
use sha2::{Digest, Sha256};

fn content() -> Vec<u8> {
    (0..200_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_broken_transfer_goes_on_from_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        Server::start(content(), Behaviour { drop_first_after: Some(300_000), ..Behaviour::default() });
    let path = obtain(&server.url("model.zip"), Some(&sha256(&content())), dir.path(), &mut Quiet).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), content());
    let ranges = server.ranges();
    assert_eq!((ranges.len(), ranges[0].as_deref()), (2, None));
    let from: usize = ranges[1]
        .as_deref()
        .unwrap()
        .strip_prefix("bytes=")
        .unwrap()
        .strip_suffix('-')
        .unwrap()
        .parse()
        .unwrap();
    assert!(from > 0 && from <= 300_000, "{from}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no part is left");
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(content(), Behaviour::default());
    for pin in [None, Some(sha256(&content()))] {
        obtain(&server.url("model.zip"), pin.as_deref(), dir.path(), &mut Quiet).unwrap();
    }
    assert_eq!(server.ranges().len(), 1);
}

#[test]
fn a_part_left_by_an_earlier_process_is_used_only_if_it_belongs() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(content(), Behaviour::default());
    let url = server.url("model.zip");
    let part = dir.path().join(file_name(&url) + ".part");

    std::fs::write(&part, &content()[..1000]).unwrap();
    obtain(&url, None, dir.path(), &mut Quiet).unwrap();
    assert_eq!(server.ranges(), [None], "no tag and no checksum: from the beginning");

    std::fs::remove_file(dir.path().join(file_name(&url))).unwrap();
    std::fs::write(&part, b"of another version").unwrap();
    std::fs::write(dir.path().join(file_name(&url) + ".part.tag"), "\"older\"").unwrap();
    let path = obtain(&url, None, dir.path(), &mut Quiet).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content(), "another tag: the server sends all of it");

    std::fs::remove_file(dir.path().join(file_name(&url))).unwrap();
    std::fs::write(&part, vec![0; content().len() + 10]).unwrap();
    let path = obtain(&url, Some(&sha256(&content())), dir.path(), &mut Quiet).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), content(), "a part that is too long is thrown away");
}

#[test]
fn a_corrupted_archive_is_refused_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(content(), Behaviour::default());
    let wrong = sha256(b"something else");
    let error = obtain(&server.url("model.zip"), Some(&wrong), dir.path(), &mut Quiet).unwrap_err();
    assert!(matches!(&error, UrlError::Checksum { expected, .. } if *expected == wrong), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

    let path = dir.path().join(file_name(&server.url("model.zip")));
    std::fs::write(&path, b"damaged since").unwrap();
    obtain(&server.url("model.zip"), Some(&sha256(&content())), dir.path(), &mut Quiet).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), content(), "a damaged archive is fetched anew");
}

#[test]
fn a_server_that_refuses_or_keeps_failing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let server =
        Server::start(content(), Behaviour { status: Some("404 Not Found"), ..Behaviour::default() });
    let error = obtain(&server.url("model.zip"), None, dir.path(), &mut Quiet).unwrap_err().to_string();
    assert!(
        error.contains("404") && error.contains("needs the internet") && error.contains(&server.url("")),
        "{error}"
    );
    assert_eq!(server.ranges().len(), 1, "a refusal is final");

    let server = Server::start(content(), Behaviour { status: Some("503 Busy"), ..Behaviour::default() });
    let error = obtain(&server.url("model.zip"), None, dir.path(), &mut Quiet).unwrap_err().to_string();
    assert!(error.contains("503") && server.ranges().len() > 1, "{error}");
}

#[test]
fn a_length_that_nothing_has_is_a_broken_transfer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(content(), Behaviour { said_bytes: Some(u64::MAX), ..Behaviour::default() });
    let url = server.url("model.zip");
    std::fs::write(dir.path().join(file_name(&url) + ".part"), &content()[..1_000]).unwrap();
    let error = obtain(&url, Some(&sha256(&content())), dir.path(), &mut Quiet).unwrap_err();
    assert!(matches!(&error, UrlError::Http { .. }), "{error}");
    assert_eq!(server.ranges()[0].as_deref(), Some("bytes=1000-"));
}

#[test]
fn file_names_tell_addresses_apart() {
    let name = file_name("https://a.example/x/model.zip?token=1#y");
    assert!(name.ends_with("-model.zip"), "{name}");
    assert_ne!(name, file_name("https://b.example/x/model.zip"));
    assert!(!file_name("https://a.example/../..").contains('/'));
}
