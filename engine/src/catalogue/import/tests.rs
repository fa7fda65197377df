use std::fs;
use std::os::unix::fs::symlink;

use super::super::progress::Quiet;
use super::*;

struct Kaldi {
    dir: tempfile::TempDir,
}

impl Kaldi {
    /// A directory as `prepare_online_decoding.sh` and `mkgraph.sh` leave it, with files too small to run.
    fn new() -> Self {
        let kaldi = Self { dir: tempfile::tempdir().unwrap() };
        for name in [
            "model/final.mdl",
            "graph/HCLG.fst",
            "ivector_extractor/final.ie",
            "ivector_extractor/final.dubm",
        ] {
            kaldi.put(name, name);
        }
        kaldi.put("ivector_extractor/final.mat", "lda");
        kaldi.put("ivector_extractor/global_cmvn.stats", "stats");
        kaldi.put("ivector_extractor/splice_opts", "--left-context=3 --right-context=3\n");
        kaldi.put("graph/words.txt", "<eps> 0\n");
        kaldi.put("graph/phones/word_boundary.int", "1 nonword\n2 begin\n3 end\n7 nonword\n");
        kaldi.put("conf/mfcc.conf", "--sample-frequency=8000\n");
        kaldi.put("conf/mfcc_hires.conf", "--num-ceps=40 # hires\n--sample-frequency=8000\n--dither=1\n");
        kaldi.put("frame_subsampling_factor", "3\n");
        kaldi
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("kaldi")
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn take(&self, name: &str) {
        fs::remove_file(self.path().join(name)).unwrap();
    }

    fn home(&self) -> Home {
        Home::at(&self.dir.path().join("home")).unwrap()
    }

    fn import(&self, yaml: Option<&str>) -> Result<ImportReport, ImportError> {
        let path = self.dir.path().join("engine.yaml");
        fs::write(&path, yaml.unwrap_or_default()).unwrap();
        let request = ImportRequest {
            dir: &self.path(),
            engine_yaml: yaml.map(|_| path.as_path()),
            name: "older",
            language: "zh",
            licence: "LicenseRef-own",
        };
        let home = self.home();
        import(&home, &Catalogue::load(&home).unwrap(), &request, &mut Quiet)
    }

    fn imported(&self, name: &str) -> String {
        fs::read_to_string(self.home().model_dir("older").join(name)).unwrap()
    }
}

const YAML: &str = "use-nnet2: True
decoder:
  nnet-mode: 3
  use-threaded-decoder: True
  model: /srv/old/model/final.mdl
  word-syms: test/models/chinese/graph/words.txt
  fst: test/models/chinese/graph/HCLG.fst
  mfcc-config: /srv/old/conf/mfcc_hires.conf
  max-active: 10000
  beam: 11.5
  lattice-beam: 5
  acoustic-scale: 1.0
  frame-subsampling-factor: 3
  do-endpointing: true
  endpoint-silence-phones: 1:2:3:4:5
  endpoint-rule2-min-trailing-silence: 0.7
  chunk-length-in-secs: 0.25
  num-nbest: 10
  mystery: on
out-dir: tmp
";

#[test]
fn a_kaldi_directory_becomes_a_vosk_model() {
    let kaldi = Kaldi::new();
    let report = kaldi.import(Some(YAML)).unwrap();
    assert_eq!(report.sample_rate_hz, 8000);
    assert_eq!(
        super::super::manifest::list_files(&report.dir)
            .map(|mut files| {
                files.sort();
                files
            })
            .unwrap(),
        [
            ".verified.toml",
            "am/final.mdl",
            "conf/mfcc.conf",
            "conf/model.conf",
            "graph/HCLG.fst",
            "graph/phones/word_boundary.int",
            "graph/words.txt",
            "ivector/final.dubm",
            "ivector/final.ie",
            "ivector/final.mat",
            "ivector/global_cmvn.stats",
            "ivector/online_cmvn.conf",
            "ivector/splice.conf",
            "manifest.toml",
        ]
    );
    assert_eq!(kaldi.imported("ivector/splice.conf"), "--left-context=3\n--right-context=3\n");
    assert_eq!(kaldi.imported("ivector/final.mat"), "lda");
    assert!(kaldi.imported("conf/mfcc.conf").contains("--num-ceps=40"));
    assert!(kaldi.imported("conf/mfcc.conf").ends_with("--dither=0.0\n"));
    let conf = kaldi.imported("conf/model.conf");
    for line in [
        "--max-active=10000",
        "--min-active=200",
        "--beam=11.5",
        "--lattice-beam=5",
        "--acoustic-scale=1.0",
        "--frame-subsampling-factor=3",
        "--endpoint.silence-phones=1:2:3:4:5",
        "--endpoint.rule2.min-trailing-silence=0.7",
        "--endpoint.rule3.min-trailing-silence=1.0",
    ] {
        assert!(conf.lines().any(|found| found == line), "no {line} in:\n{conf}");
    }
    let unused: Vec<&str> = report.unused.iter().map(|unused| unused.key.as_str()).collect();
    assert_eq!(unused.len(), 4, "{unused:?}");
    for key in ["use-threaded-decoder", "chunk-length-in-secs", "num-nbest", "mystery"] {
        assert!(unused.contains(&key), "{key}");
    }
}

#[test]
fn an_import_is_found_by_name_and_can_be_replaced() {
    let kaldi = Kaldi::new();
    let first = kaldi.import(None).unwrap();
    let home = kaldi.home();
    let entry = Catalogue::load(&home).unwrap().get("older").unwrap().clone();
    assert_eq!(
        (entry.engine, entry.sample_rate_hz, entry.language.as_str()),
        (Some(EngineKind::Vosk), Some(8000), "zh")
    );
    assert!(home.has(&entry));
    kaldi.put("graph/words.txt", "<eps> 0\nword 1\n");
    let second = kaldi.import(None).unwrap();
    assert_ne!(first.digest, second.digest);
}

#[test]
fn without_settings_the_directory_and_known_defaults_are_used_and_noted() {
    let kaldi = Kaldi::new();
    let report = kaldi.import(None).unwrap();
    assert!(kaldi.imported("conf/model.conf").contains("--endpoint.silence-phones=1:7\n"));
    assert!(report.notes.iter().any(|note| note.contains("acoustic-scale")), "{:?}", report.notes);
    assert!(!report.notes.iter().any(|note| note.contains("frame-subsampling")), "{:?}", report.notes);

    kaldi.put("graph/phones/silence.csl", "1:2:3\n");
    kaldi.import(None).unwrap();
    assert!(kaldi.imported("conf/model.conf").contains("--endpoint.silence-phones=1:2:3\n"));
}

#[test]
fn an_extractors_own_settings_are_followed_or_named() {
    let kaldi = Kaldi::new();
    kaldi.put("extra/my.stats", "mine");
    let conf = "--splice-config=/srv/ivector_extractor/splice_opts\n--global-cmvn-stats=/srv/old/extra/my.stats\n\
                --num-gselect=5\n--min-post=0.0250\n--max-count=50\n--ivector-period=10\n";
    kaldi.put("conf/ivector_extractor.conf", conf);
    let report = kaldi.import(None).unwrap();
    assert_eq!(kaldi.imported("ivector/global_cmvn.stats"), "mine");
    let unused: Vec<_> =
        report.unused.iter().map(|unused| (unused.key.as_str(), unused.value.as_str())).collect();
    assert_eq!(unused, [("max-count", "50")]);
}

#[test]
fn what_a_model_cannot_do_without_is_asked_for() {
    for (name, wants) in [
        ("model/final.mdl", "final.mdl"),
        ("graph/HCLG.fst", "HCLr.fst"),
        ("graph/words.txt", "words.txt"),
        ("ivector_extractor/final.dubm", "final.dubm"),
        ("ivector_extractor/splice_opts", "splice"),
    ] {
        let kaldi = Kaldi::new();
        kaldi.take(name);
        let error = kaldi.import(None).unwrap_err();
        assert!(
            matches!(error, ImportError::Missing { .. }) && error.to_string().contains(wants),
            "{name}: {error}"
        );
        assert!(!kaldi.home().models_dir().exists(), "{name}");
    }
}

#[test]
fn values_that_cannot_be_are_refused_before_anything_is_written() {
    for (from, to, wants) in [
        ("beam: 11.5", "beam: wide", "beam is `wide`"),
        ("max-active: 10000", "max-active: 0", "a whole number above 0"),
        ("nnet-mode: 3", "nnet-mode: 2", "only nnet3"),
        ("silence-phones: 1:2:3:4:5", "silence-phones: \"SIL\"", "phones' numbers"),
        ("decoder:", "decoder: [", "engine.yaml"),
    ] {
        let kaldi = Kaldi::new();
        let error = kaldi.import(Some(&YAML.replace(from, to))).unwrap_err().to_string();
        assert!(error.contains(wants) && error.contains("engine.yaml"), "wanted {wants:?} in: {error}");
        assert!(!kaldi.home().models_dir().exists());
    }
    let kaldi = Kaldi::new();
    kaldi.put("ivector_extractor/splice_opts", "--left-context=3 garbage\n");
    assert!(kaldi.import(None).unwrap_err().to_string().contains("--left-context or --right-context"));
}

#[test]
fn names_of_the_catalogue_are_taken() {
    let kaldi = Kaldi::new();
    let home = kaldi.home();
    let catalogue = Catalogue::load(&home).unwrap();
    for name in ["vosk-ko-small", "../x", ""] {
        let request =
            ImportRequest { dir: &kaldi.path(), engine_yaml: None, name, language: "ko", licence: "MIT" };
        let error = import(&home, &catalogue, &request, &mut Quiet).unwrap_err();
        assert!(matches!(error, ImportError::Name { .. }), "{name}: {error}");
    }
}

/// The real Korean model, its parts strewn as a Kaldi directory has them, comes back as what it was.
#[test]
fn a_real_model_survives_the_round_trip() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.starling/models/vosk-ko-small");
    let real = fs::canonicalize(&root).expect("the Korean model is not there; run: cargo xtask setup");
    let kaldi = Kaldi { dir: tempfile::tempdir().unwrap() };
    for (from, to) in [
        ("am/final.mdl", "exp/chain/tdnn/final.mdl"),
        ("phrases/graph/HCLr.fst", "exp/chain/tree/graph_tgsmall/HCLr.fst"),
        ("phrases/graph/Gr.fst", "exp/chain/tree/graph_tgsmall/Gr.fst"),
        ("phrases/graph/disambig_tid.int", "exp/chain/tree/graph_tgsmall/disambig_tid.int"),
        ("graph/phones.txt", "exp/chain/tree/graph_tgsmall/phones.txt"),
        ("graph/phones/word_boundary.int", "exp/chain/tree/graph_tgsmall/phones/word_boundary.int"),
        ("conf/mfcc.conf", "conf/mfcc_hires.conf"),
        ("ivector/final.ie", "exp/nnet3/extractor/final.ie"),
        ("ivector/final.dubm", "exp/nnet3/extractor/final.dubm"),
        ("ivector/final.mat", "exp/nnet3/extractor/final.mat"),
        ("ivector/global_cmvn.stats", "exp/nnet3/extractor/global_cmvn.stats"),
        ("ivector/online_cmvn.conf", "exp/nnet3/extractor/online_cmvn.conf"),
        ("ivector/splice.conf", "exp/nnet3/extractor/splice_opts"),
    ] {
        let target = kaldi.path().join(to);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        symlink(real.join(from), target).unwrap();
    }
    let yaml = "decoder:\n  nnet-mode: 3\n  beam: 10.0\n  lattice-beam: 2.0\n  max-active: 3000\n  min-active: 200\n  acoustic-scale: 1.0\n  \
                frame-subsampling-factor: 3\n  endpoint-silence-phones: '1:2:3:4:5:6:7:8:9:10'\n";
    let report = kaldi.import(Some(yaml)).unwrap();
    assert!(report.unused.is_empty(), "{:?}", report.unused);

    let fetched = Manifest::read(&root.join("manifest.toml")).unwrap();
    let imported = Manifest::read(&report.dir.join("manifest.toml")).unwrap();
    for file in
        fetched.files.iter().filter(|file| file.path != "README" && !file.path.ends_with("conf/model.conf"))
    {
        assert!(imported.files.contains(file), "{} is another", file.path);
    }
    let lines = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for conf in ["conf/model.conf", "phrases/conf/model.conf"] {
        let fetched = fs::read_to_string(real.join(conf)).unwrap();
        assert_eq!(lines(kaldi.imported(conf)), lines(fetched), "{conf}");
    }

    #[cfg(feature = "vosk")]
    {
        let clip = real.join("../../audio/ko/ko-1.wav");
        let text = spoken(&real, &clip);
        assert!(!text.is_empty());
        assert_eq!(spoken(&report.dir, &clip), text, "it loads, and says the same");
    }
}

/// What the Vosk model in `dir` makes of a recording.
#[cfg(feature = "vosk")]
fn spoken(dir: &Path, clip: &Path) -> String {
    use crate::{Engine, Step};

    const STEP_SAMPLES: usize = 1600;
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.starling/lib/vosk");
    let model = crate::vosk::Vosk::load(&library, dir, 16_000).unwrap();
    let mut recognizer = model.open(&Default::default()).unwrap();
    let wav = hound::WavReader::open(clip).expect("the recording is not there; run: cargo xtask setup");
    let samples: Vec<i16> = wav.into_samples().map(Result::unwrap).collect();
    let mut texts = Vec::new();
    for step in samples.chunks(STEP_SAMPLES) {
        if let Step::Endpoint(_) = recognizer.accept(step).unwrap() {
            texts.push(recognizer.finish().unwrap().text);
        }
    }
    texts.push(recognizer.finish().unwrap().text);
    texts.join(" ").trim().to_owned()
}
