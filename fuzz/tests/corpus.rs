//! Every file of every reader's corpus, and what a few random changes make of it, read in an ordinary test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_fuzz::{TARGETS, Target};

/// The committed files are to stay small.
const MOST_BYTES: u64 = 200 << 10;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let named =
        entries.map(|path| path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned());
    named.collect()
}

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(root().join("corpus").join(target.name)).expect("a corpus");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    // What is made of them must not depend on the order in which a disk has them.
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).expect("is read"))).collect()
}

/// Says which bytes it was when a reader panics.
struct Told<'a>(&'a str, &'a [u8]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} panicked at these bytes:\n{}", self.0, self.1.escape_ascii());
        }
    }
}

fn read(target: &Target, data: &[u8]) {
    let _told = Told(target.name, data);
    (target.run)(data);
}

/// A file with a few changes: bits, bytes, numbers at their ends, pieces of itself and of others, and less of it.
fn changed(data: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    const TOKENS: [&[u8]; 12] = [
        b"",
        b"\0",
        b"\xFF\xFF\xFF\xFF",
        b"-1",
        b"0",
        b"18446744073709551615",
        b"1e999",
        b"null",
        b"{",
        b"\"",
        b"\xED\xA0\x80",
        b"\n",
    ];
    let mut data = data.to_vec();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=data.len());
        let span = random.random_range(0..=8.min(data.len() - at));
        match random.random_range(0..7) {
            0 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
            1 if at < data.len() => data[at] = random.random(),
            2 => data.truncate(at),
            3 => {
                let token = TOKENS[random.random_range(0..TOKENS.len())];
                drop(data.splice(at..at + span, token.iter().copied()));
            }
            4 => drop(data.drain(at..at + span)),
            5 => {
                let piece = data[at..at + span].to_vec();
                let to = random.random_range(0..=data.len());
                drop(data.splice(to..to, piece));
            }
            _ => {
                let from = random.random_range(0..=other.len());
                let to = from + random.random_range(0..=32.min(other.len() - from));
                drop(data.splice(at..at + span, other[from..to].iter().copied()));
            }
        }
    }
    data
}

fn run(named: &str) {
    let target = TARGETS.iter().find(|target| target.name == named).expect("a target");
    let files = corpus(target);
    assert!(!files.is_empty(), "{named} has no corpus");
    read(target, b"");
    for (_, data) in &files {
        read(target, data);
    }
    let mut random = StdRng::seed_from_u64(7);
    for (_, data) in files.iter().cycle().take(target.tries as usize) {
        let other = &files[random.random_range(0..files.len())].1;
        read(target, &changed(data, other, &mut random));
    }
}

macro_rules! readers {
    ($($name:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*
    };
}

readers! {
    api_key api_server archive audiosocket catalogue client_machine client_upgrade config control data_frames deepgram gossip
    graph gstreamer jwt key_list lease_frames live_audio manifest membership model_import native_frames native_message
    native_server openai_model opus origin pcm peer_identity realtime recording replica_frames request_headers request_query
    resume_token server_address server_answers session_machine trace_variables traceparent transcript upload_form vocabulary
    vosk vosk_model wav_head wyoming
}

#[test]
fn every_reader_has_a_test_a_corpus_and_a_program() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let tested: BTreeSet<String> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(tested, targets);
    assert_eq!(names(&root().join("corpus")), targets);
    assert_eq!(names(&root().join("targets/src")), targets);
    let manifest = fs::read_to_string(root().join("targets/Cargo.toml")).expect("a manifest");
    for name in targets {
        assert!(
            manifest.contains(&format!("path = \"src/{name}.rs\"")),
            "{name} is not in targets/Cargo.toml"
        );
        // The programs are built where libFuzzer is; here it is enough that there is nothing in them that could be wrong.
        let program = fs::read_to_string(root().join(format!("targets/src/{name}.rs"))).expect("a program");
        let call = format!("libfuzzer_sys::fuzz_target!(|data: &[u8]| starling_fuzz::{name}(data));");
        assert_eq!(program, format!("#![no_main]\n\n{call}\n"));
    }
}

#[test]
fn the_corpora_are_small() {
    let files = TARGETS.iter().flat_map(corpus);
    let bytes: u64 = files.map(|(_, data)| data.len() as u64).sum();
    assert!(bytes <= MOST_BYTES, "{bytes} bytes, of {MOST_BYTES}");
}
