//! Engines, recordings and scoring for tests over real models.

use std::path::{Path, PathBuf};

use starling_engine::scripted::{self, Scripted};
use starling_engine::{Engine, LoadError, moonshine::Moonshine, vosk::Vosk};

/// Samples of a step at 16 kHz.
pub(crate) const STEP: usize = 1_600;

/// An engine and what it is tried on.
pub(crate) struct Case {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) clips: Vec<(String, Vec<i16>)>,
    pub(crate) long: Vec<i16>,
}

pub(crate) fn scripted() -> Case {
    let sentence =
        |first, words: &[&str]| [scripted::encode_from(first, words), scripted::silence(6)].concat();
    let long = (0..8).flat_map(|turn| sentence(turn * 3, &["one", "two", "three"])).collect();
    let clips = vec![
        ("words".to_owned(), scripted::encode(&["a", "b", "c"])),
        ("sentences".to_owned(), [sentence(0, &["a", "b"]), sentence(2, &["c"])].concat()),
        ("without an end".to_owned(), scripted::encode(&vec!["on"; 200])),
    ];
    Case { engine: Box::new(Scripted::new()), clips, long }
}

pub(crate) fn moonshine() -> Case {
    let engine = load_moonshine(&model("moonshine-tiny-en"), 16_000).expect("moonshine loads");
    let two_cities = recording("two_cities.wav");
    let clips = vec![
        ("beckett".to_owned(), recording("beckett.wav")),
        ("two cities, begun in mid-word".to_owned(), two_cities[20_000..116_000].to_vec()),
    ];
    Case { engine: Box::new(engine), clips, long: two_cities }
}

pub(crate) fn vosk() -> Case {
    let engine = load_vosk(&model("vosk-ko-small"), 16_000).expect("vosk loads");
    let clips: Vec<_> = (1..=3)
        .map(|number| format!("ko/ko-{number}.wav"))
        .map(|name| (name.clone(), recording(&name)))
        .collect();
    // Sentences without a pause between them, and one with.
    let long = (1..=6)
        .flat_map(|number| {
            let pause = vec![0; if number % 2 == 0 { 16_000 } else { 3_200 }];
            [recording(&format!("ko/ko-{number}.wav")), pause].concat()
        })
        .collect();
    Case { engine: Box::new(engine), clips, long }
}

pub(crate) fn load_vosk(model_dir: &Path, rate: u32) -> Result<Vosk, LoadError> {
    Vosk::load(&home().join("lib/vosk"), model_dir, rate)
}

pub(crate) fn load_moonshine(model_dir: &Path, rate: u32) -> Result<Moonshine, LoadError> {
    Moonshine::load(&home().join("lib/onnxruntime"), model_dir, rate)
}

/// The home folder: `STARLING_HOME`, else `.starling` beside the workspace's `Cargo.toml`.
fn home() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.starling");
    std::env::var_os("STARLING_HOME").map_or_else(beside, PathBuf::from)
}

pub(crate) fn model(name: &str) -> PathBuf {
    needed(home().join("models").join(name))
}

fn needed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is not there: run `cargo xtask setup` first", path.display());
    path
}

/// Samples of a recording of the home folder.
pub(crate) fn recording(name: &str) -> Vec<i16> {
    let path = needed(home().join("audio").join(name));
    let mut reader = hound::WavReader::open(&path).expect("a WAV file");
    let spec = reader.spec();
    assert_eq!((spec.sample_rate, spec.channels, spec.bits_per_sample), (16_000, 1, 16), "{name}");
    reader.samples().collect::<Result<_, _>>().expect("samples")
}

/// A folder whose files are links to a model's, so that one can be replaced.
pub(crate) fn linked_copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("folder");
    link_into(folder, copy.path());
    copy
}

fn link_into(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("model folder").map(|entry| entry.expect("entry")) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).expect("folder");
            link_into(&entry.path(), &target);
        } else {
            let source = std::fs::canonicalize(entry.path()).expect("model file");
            std::os::unix::fs::symlink(source, target).expect("link");
        }
    }
}

pub(crate) fn replace(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::remove_file(&path).expect("a link to replace");
    std::fs::write(path, text).expect("file");
}

pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * rustix::param::page_size() as u64
}

/// What is said in a demo recording.
pub(crate) fn reference(name: &str) -> &'static str {
    match name {
        "two_cities" => {
            "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of \
             foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it \
             was the season of Darkness, it was the spring of hope, it was the winter of despair, we had everything \
             before us, we had nothing before us, we were all going direct to Heaven, we were all going direct the \
             other way, in short, the period was so far like the present period, that some of its noisiest authorities \
             insisted on its being received, for good or for evil, in the superlative degree of comparison only."
        }
        "beckett" => "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better.",
        other => panic!("no reference for {other}"),
    }
}

/// Word errors in per cent of the reference's words: lower case, punctuation stripped, digits spelled out.
pub(crate) fn word_error_percent(reference: &str, heard: &str) -> f64 {
    let (reference, heard) = (words(reference), words(heard));
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (index, wanted) in reference.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, word) in heard.iter().enumerate() {
            let substitution = diagonal + usize::from(wanted != word);
            diagonal = row[column + 1];
            row[column + 1] = substitution.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[heard.len()] as f64 * 100.0 / reference.len() as f64
}

fn words(text: &str) -> Vec<String> {
    const DIGITS: [&str; 10] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let mut plain = String::new();
    for letter in text.to_lowercase().replace('-', " ").chars() {
        match letter.to_digit(10) {
            Some(digit) => plain.extend([" ", DIGITS[digit as usize], " "]),
            None if letter.is_alphabetic() || letter.is_whitespace() => plain.push(letter),
            None => {}
        }
    }
    plain.split_whitespace().map(str::to_owned).collect()
}
