use super::*;

/// What came from elsewhere, by the package and the file in it, and its SHA-256 there.
const VENDORED: [(&str, &str, &str); 4] = [
    (
        "vendor/preact.mjs",
        "preact 11.2.0, dist/preact.mjs",
        "bdcbd9abdf2c77c5c45326eab42191e949222d479d0d5f69467387a77040cb55",
    ),
    (
        "vendor/preact.LICENSE",
        "preact 11.2.0, LICENSE",
        "1fe6958409c8c257a70c587a18b6f7f412b179b456630790d30b2ec9a8e4b7d4",
    ),
    (
        "vendor/htm.mjs",
        "htm 3.1.1, dist/htm.mjs",
        "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4",
    ),
    (
        "vendor/htm.LICENSE",
        "htm 3.1.1, LICENSE",
        "740725f7252e750af735d0028cc534970772f513331e9f68150fede8fb3ce00f",
    ),
];

fn text(path: &str) -> String {
    let file = Files::get(path).unwrap_or_else(|| panic!("{path} is there"));
    String::from_utf8(file.data.into_owned()).expect("text")
}

#[test]
fn what_came_from_elsewhere_is_as_it_came() {
    use sha2::Digest;
    let vendored = Files::iter().filter(|path| path.starts_with("vendor/"));
    assert_eq!(vendored.count(), VENDORED.len());
    for (path, source, sum) in VENDORED {
        let file = Files::get(path).unwrap_or_else(|| panic!("{path} is there"));
        let found = data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(&file.data));
        assert_eq!(found, sum, "{path} is {source}");
    }
}

#[test]
fn whatever_a_module_imports_is_served() {
    let modules: Vec<_> = Files::iter().filter(|path| path.ends_with(".mjs")).collect();
    assert!(modules.len() > 5, "{modules:?}");
    for module in modules.iter().filter(|path| !path.starts_with("vendor/")) {
        for line in
            text(module).lines().filter(|line| line.starts_with("import ") || line.starts_with("export "))
        {
            let Some((_, from)) = line.rsplit_once(" from '") else { continue };
            let from = from.trim_end_matches("';").trim_start_matches("./");
            assert!(found(from, &HeaderMap::new()).is_some(), "{module}: {line}");
        }
    }
}

#[test]
fn the_policy_lets_nothing_run_that_did_not_come_from_here() {
    let index = text("index.html");
    for banned in ["<style", "style=", " onclick", "javascript:", "//cdn", "https://"] {
        assert!(!index.contains(banned), "{banned}");
    }
    for tag in index.split("<script").skip(1) {
        assert!(tag.trim_start().starts_with("type=\"module\" src=\"page/"), "{tag}");
    }
    let response = found("index.html", &HeaderMap::new()).expect("is there");
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
    assert!(!policy.contains("unsafe"), "{policy}");
}

#[test]
fn over_tls_a_page_speaks_with_its_own_node_alone() {
    let connects = |host: &str, webtransport| {
        let policy = policy_at(host, webtransport)?;
        let policy = policy.to_str().expect("text");
        Some(policy.split_once("connect-src ")?.1.split_once(';')?.0.to_owned())
    };
    assert!(POLICY.contains(ANY_NODE));
    for (host, webtransport, expected) in [
        ("node.example:8443", None, "'self' wss://node.example:8443"),
        ("node.example", Some(4433), "'self' wss://node.example:443 https://node.example:4433"),
        ("10.0.0.7:8443", Some(4433), "'self' wss://10.0.0.7:8443 https://10.0.0.7:4433"),
    ] {
        assert_eq!(connects(host, webtransport).as_deref(), Some(expected));
    }
    for wrong in ["", ":8443", "[::1]:8443", "a b", "a;script-src *", "a,b", "a:b", "a:99999", "*"] {
        assert_eq!(connects(wrong, None), None, "{wrong}");
    }
}

#[test]
fn a_file_that_the_browser_has_is_not_sent_again() {
    let first = found("index.html", &HeaderMap::new()).expect("is there");
    assert_eq!(first.status(), StatusCode::OK);
    let mut asked = HeaderMap::new();
    asked.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
    assert_eq!(found("index.html", &asked).expect("is there").status(), StatusCode::NOT_MODIFIED);
    assert!(found("../../Cargo.toml", &HeaderMap::new()).is_none());
    assert!(found("nothing.mjs", &HeaderMap::new()).is_none());
}
