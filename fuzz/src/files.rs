//! Files that an operator writes, or that were fetched.

use std::path::Path;

use starling_engine::catalogue::import::{ImportRequest, import};
use starling_engine::catalogue::{Catalogue, Home, MANIFEST_FILE, Manifest, Quiet, fuzzing};
use starling_node::config::load;
use tempfile::TempDir;

/// A folder of this thread's, with these bytes in a file of this name.
fn with_file(name: &str, data: &[u8], work: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDER: TempDir = TempDir::new().expect("a folder");
    }
    FOLDER.with(|folder| {
        let path = folder.path().join(name);
        std::fs::write(&path, data).expect("is written");
        work(&path);
    });
}

/// The settings' file; what a node can be started with can be printed and read again.
pub fn config(data: &[u8]) {
    // Other files that it may name are not looked at: what stands in them is no part of this.
    if ["_file", "_dir"].iter().any(|name| data.windows(name.len()).any(|window| window == name.as_bytes())) {
        return;
    }
    with_file("cluster.toml", data, |path| match load(Some(path), [], &[], true) {
        Ok(loaded) => {
            let written = toml::to_string(&loaded.settings).expect("is written");
            with_file("again.toml", written.as_bytes(), |path| {
                let again =
                    load(Some(path), [], &[], true).unwrap_or_else(|error| panic!("{error}\n{written}"));
                assert_eq!(again.settings, loaded.settings);
            });
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    });
}

/// A home's manifest of a model, by itself and as one that was imported.
pub fn manifest(data: &[u8]) {
    thread_local! {
        static HOME: TempDir = TempDir::new().expect("a folder");
    }
    HOME.with(|root| {
        let model = root.path().join("models/a");
        std::fs::create_dir_all(&model).expect("a folder");
        let path = model.join(MANIFEST_FILE);
        std::fs::write(&path, data).expect("is written");
        let home = Home::at(root.path()).expect("a home");
        let catalogue = Catalogue::load(&home).expect("what is built in can be read");
        if let Ok(manifest) = Manifest::read(&path) {
            for file in &manifest.files {
                let path = Path::new(&file.path);
                assert!(path.is_relative() && !path.components().any(|part| part.as_os_str() == ".."));
            }
            assert!(!manifest.name.contains('/') && !manifest.name.starts_with('.'), "{}", manifest.name);
            assert!(!manifest.imported || catalogue.get(&manifest.name).is_ok());
        }
    });
}

/// A catalogue of models.
pub fn catalogue(data: &[u8]) {
    with_file("models.toml", data, |path| {
        let home = Home::at(Path::new("/nonexistent/home")).expect("a home");
        match Catalogue::load_with(&home, &[path.to_owned()]) {
            Ok(catalogue) => assert!(catalogue.entries().all(|entry| !entry.name.is_empty())),
            Err(error) => assert!(error.to_string().contains("models.toml"), "{error}"),
        }
    });
}

/// The two halves of a decoding graph: the first behind its length in two bytes, then the second.
pub fn graph(data: &[u8]) {
    thread_local! {
        static FOLDER: TempDir = TempDir::new().expect("a folder");
    }
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let (lexicon, grammar) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    FOLDER.with(|folder| {
        let folder = folder.path();
        let files =
            [("HCLr.fst", lexicon), ("Gr.fst", grammar), ("disambig_tid.int", b"9\n"), ("words.txt", b"")];
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes).expect("is written");
        }
        let composed = fuzzing::compose(folder);
        let left = std::fs::read_dir(folder).expect("a folder").count();
        match composed {
            Ok((states, arcs)) => {
                let written = std::fs::metadata(folder.join("HCLG.fst")).expect("is there").len();
                assert!(
                    written >= 20 * states + 16 * arcs,
                    "{written} bytes for {states} states, {arcs} arcs"
                );
                assert_eq!(left, 5);
                std::fs::remove_file(folder.join("HCLG.fst")).expect("is removed");
            }
            Err(problem) => {
                assert!(problem.contains(".fst") || problem.contains("arcs"), "{problem}");
                assert_eq!(left, 4, "something half done is left: {problem}");
            }
        }
    });
}

/// A model of Kaldi's, with the settings that an older system had for it: texts with a line of `%` between them.
pub fn model_import(data: &[u8]) {
    const TEXTS: [&str; 5] = [
        "conf/model.conf",
        "conf/mfcc_hires.conf",
        "conf/ivector_extractor.conf",
        "ivector/splice_opts",
        "graph/phones/word_boundary.int",
    ];
    const OTHERS: [&str; 7] = [
        "final.mdl",
        "graph/HCLG.fst",
        "graph/words.txt",
        "ivector/final.ie",
        "ivector/final.dubm",
        "ivector/final.mat",
        "ivector/global_cmvn.stats",
    ];
    thread_local! {
        static FOLDER: TempDir = TempDir::new().expect("a folder");
    }
    let text = String::from_utf8_lossy(data);
    // Files that it may name are not looked at: what stands in them is no part of this.
    if text.contains(": /") || text.contains("=/") {
        return;
    }
    let mut texts = text.split("\n%\n");
    FOLDER.with(|folder| {
        let (dir, yaml) = (folder.path().join("kaldi"), folder.path().join("engine.yaml"));
        let put = |path: &Path, text: &str| {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("is written");
        };
        put(&yaml, texts.next().unwrap_or_default());
        TEXTS.iter().for_each(|name| put(&dir.join(name), texts.next().unwrap_or_default()));
        OTHERS.iter().for_each(|name| put(&dir.join(name), name));
        let home = Home::at(&folder.path().join("home")).expect("a home");
        let catalogue = Catalogue::load(&home).expect("what is built in can be read");
        let engine_yaml = Some(yaml.as_path());
        let request = ImportRequest { dir: &dir, engine_yaml, name: "m", language: "en", licence: "MIT" };
        match import(&home, &catalogue, &request, &mut Quiet) {
            Ok(report) => {
                assert!((8_000..=48_000).contains(&report.sample_rate_hz));
                let manifest = Manifest::read(&report.dir.join(MANIFEST_FILE)).expect("is read again");
                assert_eq!(manifest.digest, report.digest);
                // libvosk does not start on a line that it does not know.
                let conf = std::fs::read_to_string(report.dir.join("conf/model.conf")).expect("is there");
                assert!(conf.lines().all(|line| line.starts_with("--") && line.contains('=')), "{conf:?}");
                assert_eq!(conf.lines().count(), report.settings.len());
            }
            Err(error) => {
                assert!(error.to_string().contains(folder.path().to_str().expect("a path")), "{error}");
            }
        }
    });
}

/// A file is plain, and where a folder's file of that name may be.
fn is_within(folder: &Path, path: &Path) -> bool {
    path.starts_with(folder) && path.components().all(|part| part.as_os_str() != "..")
}

/// An archive with a model, which is unpacked by rules of each kind that a catalogue can have.
pub fn archive(data: &[u8]) {
    const RULES: [(&str, &str); 4] = [("m/", ""), ("m-*/a.txt", "in/"), ("*.so", "lib.so"), ("m/", "twice/")];
    let root = TempDir::new().expect("a folder");
    let (path, folder) = (root.path().join("a.zip"), root.path().join("out/inner"));
    std::fs::write(&path, data).expect("is written");
    for rules in [&RULES[..1], &RULES[..]] {
        std::fs::create_dir_all(&folder).expect("a folder");
        if let Err(problem) = fuzzing::unpack(&path, rules, &folder) {
            assert!(!problem.is_empty() && problem.len() <= 1_000 + 4 * data.len(), "{problem}");
        }
        let mut folders = vec![root.path().to_owned()];
        let (mut bytes, mut files) = (0, 0);
        while let Some(one) = folders.pop() {
            for entry in std::fs::read_dir(one).expect("a folder").map(|entry| entry.expect("an entry")) {
                let (kind, path) = (entry.file_type().expect("a kind"), entry.path());
                assert!(!kind.is_symlink(), "{}", path.display());
                match path.strip_prefix(root.path()).expect("below").to_str() {
                    Some("a.zip") => continue,
                    Some("out" | "out/inner") => {}
                    _ => assert!(is_within(&folder, &path), "{} is outside", path.display()),
                }
                if kind.is_dir() {
                    folders.push(path);
                } else {
                    files += 1;
                    bytes += entry.metadata().expect("its size").len();
                }
            }
        }
        // A file has 46 bytes in the archive's directory, and two rules may take the same. Deflate makes of a byte a thousand at most
        // (RFC 1951, by its longest match).
        assert!(46 * files <= 2 * data.len() as u64, "{files} files of {} bytes", data.len());
        assert!(bytes <= files * 1_100 * data.len() as u64, "{bytes} bytes of {}", data.len());
        std::fs::remove_dir_all(root.path().join("out")).expect("is removed");
    }
}

/// A vocabulary of Moonshine's: the first byte says of how many tokens.
pub fn vocabulary(data: &[u8]) {
    let (wanted, rest) = super::split(data);
    match starling_engine::moonshine::fuzzing::vocabulary(rest, usize::from(wanted)) {
        Ok(text) => {
            // A byte that is no text becomes three, and no more.
            assert!(text.len() <= 3 * rest.len(), "{} bytes of {}", text.len(), rest.len());
            assert_eq!(text, text.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        Err(problem) => assert!(problem.contains("token") && problem.len() <= 200, "{problem}"),
    }
}

/// The texts of a Vosk model, with a line of `%` between them, and an answer of libvosk's behind them.
pub fn vosk_model(data: &[u8]) {
    const TEXTS: [&str; 5] = [
        "conf/mfcc.conf",
        "conf/model.conf",
        "graph/disambig_tid.int",
        "ivector/splice.conf",
        "ivector/online_cmvn.conf",
    ];
    const OTHERS: [&str; 7] = [
        "am/final.mdl",
        "graph/HCLr.fst",
        "graph/Gr.fst",
        "ivector/final.dubm",
        "ivector/final.ie",
        "ivector/final.mat",
        "ivector/global_cmvn.stats",
    ];
    thread_local! {
        static FOLDER: TempDir = TempDir::new().expect("a folder");
    }
    let mut parts = data.split(|byte| *byte == b'%').map(<[u8]>::trim_ascii);
    FOLDER.with(|folder| {
        let folder = folder.path();
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, bytes).expect("is written");
        };
        OTHERS.iter().for_each(|name| put(name, b"x"));
        let texts: Vec<&[u8]> = TEXTS.iter().map(|_| parts.next().unwrap_or_default()).collect();
        TEXTS.iter().zip(&texts).for_each(|(name, bytes)| put(name, bytes));
        match starling_engine::vosk::fuzzing::check(folder) {
            Ok(composed) => {
                assert!(!composed);
                // On anything else libvosk ends its process, or decodes by chance.
                assert!(texts.iter().all(|text| std::str::from_utf8(text).is_ok()));
                assert!(texts[0].windows(9).any(|window| window == b"--dither="));
                assert!(
                    texts[2].iter().all(|byte| byte.is_ascii_digit()
                        || !byte.is_ascii_graphic()
                        || b"+-".contains(byte))
                );
            }
            Err(problem) => assert!(TEXTS.iter().any(|name| problem.contains(name)), "{problem}"),
        }
    });
    let Some(Ok(json)) = parts.next().map(std::str::from_utf8) else { return };
    for base_s in [0.0, 3_600.25] {
        match starling_engine::vosk::fuzzing::utterance(json, base_s, 16_000, 16_000) {
            Ok(said) => {
                assert!(
                    said.words.iter().all(|word| word.start <= word.end && word.end <= 16_000),
                    "{said:?}"
                );
                assert_eq!(said.text, said.text.split_whitespace().collect::<Vec<_>>().join(" "));
            }
            Err(problem) => assert!(problem.contains("vosk"), "{problem}"),
        }
    }
}
