//! What a prepared entry consists of: every file with its size and SHA-256, and the digest that names the whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::entry::{EngineKind, Entry, Kind, NAME_RULE, is_valid_name};
use super::progress::Progress;

/// Name of the manifest in a model's or library's folder.
pub const MANIFEST_FILE: &str = "manifest.toml";

/// Version of the manifest's form; another one is refused, and fetching again writes this one.
const VERSION: u32 = 2;

/// Files are hashed in pieces of this size: large enough that calls do not show, small enough for any stack of work.
const HASH_CHUNK_BYTES: usize = 256 * 1024;

/// What a prepared entry consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    /// The entry's name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The engine that runs it, for a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineKind>,
    /// BCP 47 tag of the language.
    pub language: String,
    /// The rate that the model takes, in Hz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate_hz: Option<u32>,
    /// SPDX expression of the licence.
    pub licence: String,
    /// Where it came from: archives, checksums and rules on one line, or the imported folder.
    pub origin: String,
    /// Whether it was imported from a folder rather than fetched.
    #[serde(default)]
    pub imported: bool,
    /// SHA-256 of the file table: names the content, whatever it is called.
    pub digest: String,
    /// Its files, in order of their paths.
    #[serde(default, rename = "file")]
    pub files: Vec<FileRecord>,
}

/// One file of a prepared entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Path in the entry's folder, with `/` between components.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is none, or it cannot be opened.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The manifest.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not of the right form, or its digest is not that of its table.
    #[error("{} is damaged: {message}", path.display())]
    Damaged {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl Manifest {
    pub(super) fn new(entry: &Entry, origin: String, imported: bool, files: Vec<FileRecord>) -> Self {
        Self {
            version: VERSION,
            name: entry.name.clone(),
            kind: entry.kind,
            engine: entry.engine,
            language: entry.language.clone(),
            sample_rate_hz: entry.sample_rate_hz,
            licence: entry.licence.clone(),
            origin,
            imported,
            digest: digest_of(&files),
            files,
        }
    }

    /// Reads and checks a manifest.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ManifestError::Read { path: path.to_owned(), source })?;
        let damaged = |message: String| ManifestError::Damaged { path: path.to_owned(), message };
        let manifest: Self = toml::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if manifest.version != VERSION {
            return Err(damaged(format!("version is {}, but must be {VERSION}", manifest.version)));
        }
        // It is a folder's name, in which files are written and removed.
        if !is_valid_name(&manifest.name) {
            return Err(damaged(format!("name is {:?}, but must be {NAME_RULE}", manifest.name)));
        }
        let digest = digest_of(&manifest.files);
        if manifest.digest != digest {
            return Err(damaged(format!("digest is {}, but the file table gives {digest}", manifest.digest)));
        }
        if let Some(file) = manifest.files.iter().find(|file| !is_plain_path(&file.path)) {
            return Err(damaged(format!("path `{}` leaves the folder", file.path)));
        }
        Ok(manifest)
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        std::fs::write(path, text)
    }

    /// The entry that an imported model stands for; `None` for what was fetched.
    pub(super) fn into_imported_entry(self) -> Option<Entry> {
        self.imported.then(|| Entry {
            name: self.name,
            kind: self.kind,
            engine: self.engine,
            language: self.language,
            sample_rate_hz: self.sample_rate_hz,
            licence: self.licence,
            size_bytes: self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size_bytes)),
            notes: format!("Imported from {}.", self.origin),
            requires: self.engine.and_then(EngineKind::library).map(str::to_owned).into_iter().collect(),
            source: Vec::new(),
        })
    }
}

/// SHA-256 over one line for each file, `sha256  size  path`, in order of the paths.
pub(super) fn digest_of(files: &[FileRecord]) -> String {
    let by_path: BTreeMap<&str, &FileRecord> = files.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut hasher = Sha256::new();
    for (path, file) in by_path {
        hasher.update(format!("{}  {}  {path}\n", file.sha256, file.size_bytes));
    }
    hex(&hasher.finalize())
}

/// The record of every file below `dir`, in order of their paths, hashing each.
pub(super) fn record_files(dir: &Path, progress: &mut dyn Progress) -> io::Result<Vec<FileRecord>> {
    let mut paths = list_files(dir)?;
    paths.sort();
    let mut total = 0;
    for path in &paths {
        total += std::fs::metadata(dir.join(path))?.len();
    }
    progress.step("checksums", Some(total));
    let mut done = 0;
    let mut records = Vec::with_capacity(paths.len());
    for path in paths {
        let full = dir.join(&path);
        let sha256 = sha256_of(&full, &mut |bytes| progress.at(done + bytes))?;
        let size_bytes = std::fs::metadata(&full)?.len();
        done += size_bytes;
        records.push(FileRecord { path, size_bytes, sha256 });
    }
    Ok(records)
}

/// The paths of all files below `dir`, relative to it, in no order.
pub(super) fn list_files(dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(prefix) = pending.pop() {
        for item in std::fs::read_dir(dir.join(&prefix))? {
            let item = item?;
            let name = item.file_name().into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("the name {name:?} is not UTF-8"))
            })?;
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if item.path().is_dir() {
                pending.push(path);
            } else {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The SHA-256 of a file in lower-case hex; `seen` is told the bytes so far.
pub(super) fn sha256_of(path: &Path, seen: &mut dyn FnMut(u64)) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; HASH_CHUNK_BYTES];
    let mut total = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
        total += count as u64;
        seen(total);
    }
}

/// Whether a path stays below the folder that it is joined to.
pub(super) fn is_plain_path(path: &str) -> bool {
    use std::path::Component;
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
