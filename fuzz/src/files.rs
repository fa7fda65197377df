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
