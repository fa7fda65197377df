//! One catalogue entry: what it is, where it comes from, and what of it goes where.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CatalogueError;

/// Something that can be fetched into the home folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is called, everywhere.
    pub name: String,
    /// What it is; follows from the table it stands in (`[[model]]`, `[[library]]`, `[[audio]]`, `[[tool]]`).
    #[serde(skip)]
    pub kind: Kind,
    /// The engine that runs it. Models have one, nothing else does.
    pub engine: Option<EngineKind>,
    /// BCP 47 tag of the language; `und` where there is none.
    #[serde(default = "undetermined")]
    pub language: String,
    /// The rate that the model takes, in Hz. Models have one, nothing else does.
    pub sample_rate_hz: Option<u32>,
    /// SPDX expression of the licence.
    pub licence: String,
    /// About how much disk it takes once fetched, in bytes.
    pub size_bytes: u64,
    /// What an operator should know about it.
    #[serde(default)]
    pub notes: String,
    /// Other entries without which it is of no use; they are fetched with it.
    #[serde(default)]
    pub requires: Vec<String>,
    /// Where it comes from. Empty for what needs no files, and for imported models.
    #[serde(default)]
    pub source: Vec<Source>,
}

/// What an entry is, and with that where it lives in the home folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A model: `models/<name>/`.
    #[default]
    Model,
    /// A native library: `lib/<name>/`.
    Library,
    /// Sample recordings: `audio/`.
    Audio,
    /// A program: `tools/`.
    Tool,
}

/// The engine that runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Kaldi models through libvosk.
    Vosk,
    /// Moonshine with Silero VAD through ONNX Runtime.
    Moonshine,
    /// The test engine, which has no files.
    Scripted,
}

impl EngineKind {
    /// The name of the library entry that the engine loads, if it loads one.
    #[must_use]
    pub fn library(self) -> Option<&'static str> {
        match self {
            Self::Vosk => Some("vosk"),
            Self::Moonshine => Some("onnxruntime"),
            Self::Scripted => None,
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vosk => "vosk",
            Self::Moonshine => "moonshine",
            Self::Scripted => "scripted",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Library => "library",
            Self::Audio => "audio",
            Self::Tool => "tool",
        })
    }
}

/// One archive and what is taken out of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawSource")]
pub struct Source {
    /// Where the archive comes from.
    pub origin: Origin,
    /// What the archive must hash to.
    pub sha256: Checksums,
    /// The archive's size in bytes, for progress bars and the check for room.
    pub download_bytes: Option<u64>,
    /// What goes where. What no rule names is left out.
    pub files: Vec<FileRule>,
}

/// Where an archive comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A package, as `name==version`, fetched by pip from wherever pip is set up to look.
    Pip(String),
    /// A ZIP archive at an address: needs the internet.
    Url(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pip(requirement) => f.write_str(requirement),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// The SHA-256 that an archive must have, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Checksums {
    /// The same archive everywhere.
    Any(String),
    /// Another archive for each processor architecture, by the name that Rust gives it.
    ByArch(BTreeMap<String, String>),
    /// None is known: what comes is what is taken, and its manifest holds it to that from then on.
    Unpinned,
}

/// One thing taken out of an archive.
///
/// `from` ending in `/` takes the whole folder to the folder `to`; a `*` stands for any run of characters
/// within one path component, and then `to` ending in `/`, or empty, keeps the file's own name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRule {
    /// Path in the archive.
    pub from: String,
    /// Path in the entry's folder.
    pub to: String,
}

/// The architecture this binary was built for, as checksums name it.
#[must_use]
pub fn current_arch() -> &'static str {
    std::env::consts::ARCH
}

impl Source {
    /// The checksum for `arch`: `None` when the source has no build for it, `Some(None)` when none is pinned.
    #[must_use]
    pub fn sha256_for(&self, arch: &str) -> Option<Option<&str>> {
        match &self.sha256 {
            Checksums::Any(sha256) => Some(Some(sha256)),
            Checksums::ByArch(by_arch) => by_arch.get(arch).map(|sha256| Some(sha256.as_str())),
            Checksums::Unpinned => Some(None),
        }
    }
}

impl Source {
    /// The architectures that the source has builds for.
    pub(super) fn architectures(&self) -> Vec<String> {
        match &self.sha256 {
            Checksums::ByArch(by_arch) => by_arch.keys().cloned().collect(),
            Checksums::Any(_) | Checksums::Unpinned => vec!["every processor".to_owned()],
        }
    }
}

impl Entry {
    /// Whether any of it comes from an address on the internet rather than from a package index.
    #[must_use]
    pub fn needs_internet(&self) -> bool {
        self.source.iter().any(|source| matches!(source.origin, Origin::Url(_)))
    }

    /// One line that changes whenever what would be fetched changes; kept in the manifest.
    pub(super) fn recipe(&self, arch: &str) -> String {
        let parts: Vec<String> = self
            .source
            .iter()
            .map(|source| {
                let sha256 = source.sha256_for(arch).flatten().unwrap_or("unpinned");
                let rules: Vec<String> =
                    source.files.iter().map(|rule| format!("{}>{}", rule.from, rule.to)).collect();
                format!("{} {sha256} {}", source.origin, rules.join(" "))
            })
            .collect();
        parts.join("; ")
    }

    pub(super) fn check(&self, path: &Path) -> Result<(), CatalogueError> {
        let invalid = |field, value: &dyn fmt::Display, allowed| CatalogueError::Invalid {
            path: path.to_owned(),
            name: self.name.clone(),
            field,
            value: format!("`{value}`"),
            allowed,
        };
        if !is_valid_name(&self.name) {
            return Err(invalid("name", &self.name, NAME_RULE));
        }
        let is_model = self.kind == Kind::Model;
        if is_model && self.engine.is_none() {
            return Err(invalid("engine", &"missing", "vosk, moonshine or scripted"));
        }
        match self.sample_rate_hz {
            Some(rate) if !(8000..=48_000).contains(&rate) => {
                return Err(invalid("sample_rate_hz", &rate, "from 8000 to 48000"));
            }
            None if is_model => return Err(invalid("sample_rate_hz", &"missing", "from 8000 to 48000")),
            _ => {}
        }
        if self.source.is_empty() && self.engine != Some(EngineKind::Scripted) {
            return Err(invalid("source", &"missing", "at least one [[….source]] with pip or url"));
        }
        for source in &self.source {
            if source.files.is_empty() {
                return Err(invalid("file", &"empty", "a list of { from = …, to = … }"));
            }
            let sums: Vec<&String> = match &source.sha256 {
                Checksums::Any(sha256) => vec![sha256],
                Checksums::ByArch(by_arch) => by_arch.values().collect(),
                Checksums::Unpinned if matches!(source.origin, Origin::Pip(_)) => {
                    return Err(invalid("sha256", &"missing", "given for what comes by pip"));
                }
                Checksums::Unpinned => vec![],
            };
            if let Some(bad) = sums.iter().find(|sum| !is_sha256(sum)) {
                return Err(invalid("sha256", bad, "64 lower-case hex digits"));
            }
        }
        Ok(())
    }
}

pub(super) const NAME_RULE: &str = "1 to 64 of a-z, 0-9, `-`, `_` and `.`, beginning with a letter or digit";

/// Names become folder names, so they can neither climb nor hide.
pub(super) fn is_valid_name(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    name.len() <= 64
        && name.chars().all(rest)
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn undetermined() -> String {
    "und".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CatalogueFile {
    #[serde(default)]
    model: Vec<Entry>,
    #[serde(default)]
    library: Vec<Entry>,
    #[serde(default)]
    audio: Vec<Entry>,
    #[serde(default)]
    tool: Vec<Entry>,
}

impl CatalogueFile {
    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        [
            (Kind::Model, self.model),
            (Kind::Library, self.library),
            (Kind::Audio, self.audio),
            (Kind::Tool, self.tool),
        ]
        .into_iter()
        .flat_map(|(kind, entries)| entries.into_iter().map(move |entry| Entry { kind, ..entry }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    pip: Option<String>,
    url: Option<String>,
    sha256: Option<Checksums>,
    download_bytes: Option<u64>,
    file: Vec<FileRule>,
}

impl TryFrom<RawSource> for Source {
    type Error = String;

    fn try_from(raw: RawSource) -> Result<Self, String> {
        let origin = match (raw.pip, raw.url) {
            (Some(requirement), None) => match requirement.split_once("==") {
                Some((name, version)) if !name.is_empty() && !version.is_empty() => Origin::Pip(requirement),
                _ => return Err(format!("pip is `{requirement}`, but must be `name==version`")),
            },
            (None, Some(url)) if url.starts_with("https://") || url.starts_with("http://") => {
                Origin::Url(url)
            }
            (None, Some(url)) => {
                return Err(format!("url is `{url}`, but must begin with https:// or http://"));
            }
            _ => return Err("a source has either `pip` or `url`".to_owned()),
        };
        Ok(Self {
            origin,
            sha256: raw.sha256.unwrap_or(Checksums::Unpinned),
            download_bytes: raw.download_bytes,
            files: raw.file,
        })
    }
}
