//! The older system's settings: read from a worker's YAML file and from Kaldi's option files, written as libvosk
//! reads them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::layout::{Layout, Part};
use super::{ImportError, UnusedKey};

/// Keys that `conf/model.conf` takes, with what their values must be. libvosk does not start on any other.
const DECODING: [(&str, Form); 8] = [
    ("max-active", Form::Count),
    ("min-active", Form::CountOrNone),
    ("beam", Form::Positive),
    ("lattice-beam", Form::Positive),
    ("acoustic-scale", Form::Positive),
    ("frame-subsampling-factor", Form::Count),
    ("frames-per-chunk", Form::Count),
    ("endpoint.silence-phones", Form::Phones),
];

/// Used where neither the YAML file nor the directory says otherwise: libvosk's own values for a model without a
/// `model.conf`, which suit chain models.
const DEFAULTS: [(&str, &str); 9] = [
    ("max-active", "7000"),
    ("min-active", "200"),
    ("beam", "13.0"),
    ("lattice-beam", "6.0"),
    ("acoustic-scale", "1.0"),
    ("frame-subsampling-factor", "3"),
    ("endpoint.rule2.min-trailing-silence", "0.5"),
    ("endpoint.rule3.min-trailing-silence", "1.0"),
    ("endpoint.rule4.min-trailing-silence", "2.0"),
];

/// Keys of the YAML file that name a part of the model.
const PATHS: [(&str, Part); 8] = [
    ("model", Part::Acoustic),
    ("fst", Part::Hclg),
    ("word-syms", Part::Words),
    ("word-boundary-file", Part::WordBoundary),
    ("mfcc-config", Part::Mfcc),
    ("online-pitch-config", Part::Pitch),
    ("lm-fst", Part::RescoreOld),
    ("big-lm-const-arpa", Part::RescoreNew),
];

/// Keys of an i-vector extractor's option file that name a part of the model.
const IVECTOR_PATHS: [(&str, Part); 6] = [
    ("ivector-extractor", Part::IvectorExtractor),
    ("diag-ubm", Part::IvectorUbm),
    ("lda-matrix", Part::IvectorLda),
    ("global-cmvn-stats", Part::IvectorCmvnStats),
    ("cmvn-config", Part::OnlineCmvn),
    ("splice-config", Part::Splice),
];

/// Keys of an i-vector extractor's option file that libvosk has fixed, with what it uses.
const IVECTOR_FIXED: [(&str, &str); 8] = [
    ("ivector-period", "10"),
    ("num-gselect", "5"),
    ("min-post", "0.025"),
    ("posterior-scale", "0.1"),
    ("max-remembered-frames", "1000"),
    ("max-count", "100"),
    ("use-most-recent-ivector", "true"),
    ("greedy-ivector-extractor", "false"),
];

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Lines for `conf/model.conf`, in order.
    pub(super) decoding: Vec<(String, String)>,
    /// Where the files say that parts lie.
    pub(super) paths: BTreeMap<Part, PathBuf>,
    pub(super) wants_pitch: bool,
    pub(super) unused: Vec<UnusedKey>,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Count,
    /// As `Count`, and 0 for no such count.
    CountOrNone,
    Positive,
    Phones,
    Boolean,
}

impl Settings {
    /// Reads the directory's own option files, then the YAML file, which wins.
    pub(super) fn read(dir: &Path, yaml: Option<&Path>) -> Result<Self, ImportError> {
        let mut settings = Self::default();
        let own = dir.join("conf").join("model.conf");
        if own.is_file() {
            for (key, value) in options(&read(&own)?) {
                settings.take_decoding(&own, &key, &value)?;
            }
        }
        let mut ivector_conf = ["conf/ivector_extractor.conf", "ivector_extractor.conf"]
            .iter()
            .map(|name| dir.join(name))
            .find(|path| path.is_file());
        if let Some(yaml) = yaml {
            for (key, value) in decoder_section(yaml)? {
                if key == "ivector-extraction-config" {
                    ivector_conf = find_end(dir, Path::new(&value)).or(ivector_conf);
                } else {
                    settings.take_yaml(yaml, &key, &value)?;
                }
            }
        }
        if let Some(path) = ivector_conf {
            settings.take_ivector_conf(&path)?;
        }
        Ok(settings)
    }

    /// Fills in what no file said, from the directory or from defaults; returns a note for each that matters.
    pub(super) fn complete(&mut self, dir: &Path, layout: &Layout) -> Result<Vec<String>, ImportError> {
        let mut notes = Vec::new();
        let factor = dir.join("frame_subsampling_factor");
        if self.value("frame-subsampling-factor").is_none() && factor.is_file() {
            self.take_decoding(&factor, "frame-subsampling-factor", read(&factor)?.trim())?;
        }
        for key in ["acoustic-scale", "frame-subsampling-factor"] {
            if self.value(key).is_none() {
                notes.push(format!("nothing says {key}; the model is taken to be a chain model"));
            }
        }
        for (key, value) in DEFAULTS {
            if self.value(key).is_none() {
                self.set(key, value);
            }
        }
        if self.value("endpoint.silence-phones").is_none() {
            let phones = silence_phones(dir, layout)?;
            notes.push(format!("nothing says the silence phones; taken from the phone tables: {phones}"));
            self.set("endpoint.silence-phones", &phones);
        }
        Ok(notes)
    }

    pub(super) fn model_conf(&self) -> String {
        self.decoding.iter().map(|(key, value)| format!("--{key}={value}\n")).collect()
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.decoding.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, key: &str, value: &str) {
        match self.decoding.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => value.clone_into(known),
            None => self.decoding.push((key.to_owned(), value.to_owned())),
        }
    }

    fn unused(&mut self, file: &Path, key: &str, value: &str, why: &'static str) {
        let (file, key, value) = (file.to_owned(), key.to_owned(), value.to_owned());
        self.unused.push(UnusedKey { file, key, value, why });
    }

    fn take_decoding(&mut self, file: &Path, key: &str, value: &str) -> Result<(), ImportError> {
        match form_of(key) {
            Some(form) => {
                form.check(file, key, value)?;
                self.set(key, value);
            }
            None => self.unused(file, key, value, "libvosk has no such setting"),
        }
        Ok(())
    }

    fn take_yaml(&mut self, file: &Path, key: &str, value: &str) -> Result<(), ImportError> {
        let refuse = |allowed| {
            let (key, value) = (key.to_owned(), value.to_owned());
            Err(ImportError::Value { file: file.to_owned(), key, value, allowed })
        };
        if let Some((_, feature)) = PATHS.iter().find(|(known, _)| *known == key) {
            self.paths.insert(*feature, PathBuf::from(value));
            return Ok(());
        }
        match (key, value) {
            ("nnet-mode", "3") | ("feature-type", "mfcc") | ("do-endpointing", "true") => Ok(()),
            ("nnet-mode", _) => refuse("3: only nnet3 models can be imported"),
            ("feature-type", _) => refuse("mfcc: other features are not imported"),
            ("add-pitch", _) => {
                Form::Boolean.check(file, key, value)?;
                self.wants_pitch = value == "true";
                Ok(())
            }
            _ if form_of(&key.replacen("endpoint-", "endpoint.", 1)).is_some() => {
                self.take_decoding(file, &key.replacen("endpoint-", "endpoint.", 1), value)
            }
            _ if endpoint_rule(key).is_some() => {
                self.take_decoding(file, &endpoint_rule(key).unwrap_or_default(), value)
            }
            _ => {
                self.unused(file, key, value, why_unused(key));
                Ok(())
            }
        }
    }

    fn take_ivector_conf(&mut self, path: &Path) -> Result<(), ImportError> {
        for (key, value) in options(&read(path)?) {
            if let Some((_, feature)) = IVECTOR_PATHS.iter().find(|(known, _)| *known == key) {
                self.paths.insert(*feature, PathBuf::from(value));
                continue;
            }
            match IVECTOR_FIXED.iter().find(|(known, _)| *known == key) {
                Some((_, fixed)) if is_same(fixed, &value) => {}
                Some(_) => self.unused(path, &key, &value, "libvosk has another value built in"),
                None => self.unused(path, &key, &value, "libvosk has no such setting"),
            }
        }
        Ok(())
    }
}

impl Form {
    fn check(self, file: &Path, key: &str, value: &str) -> Result<(), ImportError> {
        let (is_right, allowed) = match self {
            Self::Count => (value.parse().is_ok_and(|n: u32| n > 0), "a whole number above 0"),
            Self::CountOrNone => (value.parse::<u32>().is_ok(), "a whole number"),
            Self::Positive => {
                (value.parse().is_ok_and(|n: f64| n.is_finite() && n >= 0.0), "a number of 0 or more")
            }
            Self::Phones => (
                value.split([':', ',']).all(|id| id.parse::<u32>().is_ok()),
                "phones' numbers with `:` between them",
            ),
            Self::Boolean => (matches!(value, "true" | "false"), "true or false"),
        };
        if is_right {
            return Ok(());
        }
        let (key, value) = (key.to_owned(), value.to_owned());
        Err(ImportError::Value { file: file.to_owned(), key, value, allowed })
    }
}

/// The rate that a feature configuration says, in Hz; Kaldi's own default is 16 kHz.
pub(super) fn sample_rate_hz(mfcc_conf: &str, file: &Path) -> Result<u32, ImportError> {
    const DEFAULT_HZ: u32 = 16_000;
    let Some((key, value)) = options(mfcc_conf).find(|(key, _)| key == "sample-frequency") else {
        return Ok(DEFAULT_HZ);
    };
    let rate =
        value.parse::<f64>().ok().filter(|rate| rate.fract() == 0.0 && (8000.0..=48_000.0).contains(rate));
    let allowed = "a whole number from 8000 to 48000";
    rate.map(|rate| rate as u32).ok_or(ImportError::Value { file: file.to_owned(), key, value, allowed })
}

/// Splicing options one to a line, as libvosk reads them; Kaldi's training scripts leave them on one line. Anything
/// else in this file kills the process that loads it.
pub(super) fn splice_conf(text: &str, file: &Path) -> Result<String, ImportError> {
    let mut lines = String::new();
    for (key, value) in options(&text.split_whitespace().collect::<Vec<_>>().join("\n")) {
        let is_right =
            matches!(key.as_str(), "left-context" | "right-context") && value.parse::<u32>().is_ok();
        if !is_right {
            let allowed = "--left-context or --right-context with a whole number";
            return Err(ImportError::Value { file: file.to_owned(), key, value, allowed });
        }
        lines += &format!("--{key}={value}\n");
    }
    Ok(lines)
}

fn form_of(key: &str) -> Option<Form> {
    if let Some((_, form)) = DECODING.iter().find(|(known, _)| *known == key) {
        return Some(*form);
    }
    let (rule, setting) = key.strip_prefix("endpoint.rule")?.split_once('.')?;
    if !matches!(rule, "1" | "2" | "3" | "4" | "5") {
        return None;
    }
    match setting {
        "must-contain-nonsilence" => Some(Form::Boolean),
        "min-trailing-silence" | "max-relative-cost" | "min-utterance-length" => Some(Form::Positive),
        _ => None,
    }
}

/// `endpoint-rule2-min-trailing-silence` as libvosk spells it.
fn endpoint_rule(key: &str) -> Option<String> {
    let (number, setting) = key.strip_prefix("endpoint-rule")?.split_once('-')?;
    let key = format!("endpoint.rule{number}.{setting}");
    form_of(&key).map(|_| key)
}

fn why_unused(key: &str) -> &'static str {
    match key {
        "use-threaded-decoder" | "silent" | "chunk-length-in-secs" | "traceback-period-in-secs" => {
            "audio is decoded in fixed steps of 100 ms, in threads of the host's own"
        }
        "do-endpointing" => "an utterance always ends at an endpoint here",
        "num-nbest" => "a session asks for alternatives itself",
        "phone-syms" | "do-phone-alignment" | "num-phone-alignment" => "phones are not reported",
        "lmwt-scale" | "inverse-scale" => "libvosk has its own weighting in rescoring",
        "adaptation-state" => "every utterance begins from the model's own state, so that it can be replayed",
        "plp-config" | "fbank-config" => "the model has MFCC features",
        "arpa" | "rnnlm" => "this kind of rescoring is not imported",
        _ => "there is no such setting here",
    }
}

/// The decoder's settings in a worker's YAML file; a file without that section is taken to be the section.
fn decoder_section(path: &Path) -> Result<Vec<(String, String)>, ImportError> {
    let yaml = |message: String| ImportError::Yaml { path: path.to_owned(), message };
    let value: Value = serde_saphyr::from_str(&read(path)?).map_err(|error| yaml(error.to_string()))?;
    let section = value.get("decoder").unwrap_or(&value);
    let map = section.as_object().ok_or_else(|| yaml("it has no settings under `decoder:`".to_owned()))?;
    let pairs = map.iter().filter_map(|(key, value)| {
        let value = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Null => return None,
            other => other.to_string(),
        };
        // Python, which read these files, writes its booleans with a capital.
        let value = if matches!(value.as_str(), "True" | "False") { value.to_lowercase() } else { value };
        Some((key.clone(), value))
    });
    Ok(pairs.collect())
}

/// The options of a Kaldi option file: `--key=value` lines, with comments after `#`.
fn options(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let (key, value) = line.split_once('=').unwrap_or((line, "true"));
        let key = key.trim().trim_start_matches("--");
        (!key.is_empty()).then(|| (key.to_owned(), value.trim().to_owned()))
    })
}

/// Silence phones from Kaldi's phone tables: its own list, else all that are parts of no word.
fn silence_phones(dir: &Path, layout: &Layout) -> Result<String, ImportError> {
    let beside = layout.path(Part::WordBoundary).with_file_name("silence.csl");
    for list in [beside, dir.join("phones").join("silence.csl"), dir.join("graph/phones/silence.csl")] {
        if list.is_file() {
            let text = read(&list)?.trim().to_owned();
            Form::Phones.check(&list, "silence phones", &text)?;
            return Ok(text);
        }
    }
    let table = layout.read_or(Part::WordBoundary, "")?;
    let nonwords: Vec<&str> =
        table.lines().filter_map(|line| line.trim().strip_suffix(" nonword")).map(str::trim).collect();
    if nonwords.is_empty() {
        return Err(ImportError::Missing {
            dir: dir.to_owned(),
            what: "list of silence phones",
            remedy: "give endpoint-silence-phones in the YAML file, or copy phones/silence.csl",
        });
    }
    Ok(nonwords.join(":"))
}

/// The longest end of `path` that is a file in `dir`.
fn find_end(dir: &Path, path: &Path) -> Option<PathBuf> {
    if path.is_absolute() && path.is_file() {
        return Some(path.to_owned());
    }
    let parts: Vec<_> = path.components().collect();
    (0..parts.len())
        .map(|skip| dir.join(parts[skip..].iter().collect::<PathBuf>()))
        .find(|path| path.is_file())
}

fn is_same(a: &str, b: &str) -> bool {
    a == b || a.parse::<f64>().is_ok_and(|a| b.parse() == Ok(a))
}

fn read(path: &Path) -> Result<String, ImportError> {
    std::fs::read_to_string(path).map_err(|source| ImportError::Io { path: path.to_owned(), source })
}
