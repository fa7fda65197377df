//! A prepared entry as engines take it, and the checks that it still is what was prepared.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entry::{EngineKind, Entry, Kind, current_arch};
use super::home::Home;
use super::manifest::{MANIFEST_FILE, Manifest, ManifestError, digest_of, list_files, sha256_of};
use super::progress::{Progress, Quiet};

/// File beside the manifest that remembers a verification that passed.
const STAMP_FILE: &str = ".verified.toml";

/// A model that is ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PreparedModel {
    /// The catalogue's name for it.
    pub name: String,
    /// The engine that runs it.
    pub engine: EngineKind,
    /// BCP 47 tag of its language.
    pub language: String,
    /// The rate that it takes, in Hz.
    pub sample_rate_hz: u32,
    /// The folder with its files; does not exist for the scripted engine.
    pub dir: PathBuf,
    /// The folder with the engine's native library; `None` for the scripted engine.
    pub library_dir: Option<PathBuf>,
    /// SHA-256 of its file table, in hex: equal digests are equal models, whatever they are called.
    pub digest: String,
}

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The entry is a library, a recording or a tool.
    #[error("`{name}` is no model but a {kind}")]
    NotAModel {
        /// The entry.
        name: String,
        /// What it is.
        kind: Kind,
    },
    /// It, or the library that its engine needs, has not been fetched.
    #[error("the {kind} `{missing}` is not there (looked in {}); get it with: {}", dir.display(), remedy(*kind, missing, name))]
    Missing {
        /// The model that was asked for.
        name: String,
        /// What is missing: the model itself or its engine's library.
        missing: String,
        /// What kind of thing is missing.
        kind: Kind,
        /// Where it should be.
        dir: PathBuf,
    },
    /// The catalogue now names another source than it was fetched from.
    #[error(
        "the {kind} `{name}` was prepared from another source than the catalogue names now; get the new one with: starling models fetch {name}"
    )]
    Outdated {
        /// The entry.
        name: String,
        /// What it is.
        kind: Kind,
    },
    /// Its files are not what was prepared.
    #[error("the {kind} `{name}` is damaged: {message}; {}", repair(name, *imported))]
    Damaged {
        /// The entry.
        name: String,
        /// What it is.
        kind: Kind,
        /// What is wrong.
        message: String,
        /// Whether it was imported, so that fetching cannot repair it.
        imported: bool,
    },
}

fn remedy(kind: Kind, missing: &str, model: &str) -> String {
    match kind {
        Kind::Model | Kind::Library => format!("starling models fetch {model}"),
        Kind::Audio | Kind::Tool => format!("starling models fetch {missing}"),
    }
}

fn repair(name: &str, imported: bool) -> String {
    if imported {
        "import it again".to_owned()
    } else {
        format!("repair it with: starling models fetch {name}")
    }
}

/// Why a verification could not be carried out, as opposed to what it found.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The manifest is missing or damaged.
    #[error("`{name}`: {source}; get it with: starling models fetch {name}")]
    Manifest {
        /// The entry.
        name: String,
        /// What is wrong with the manifest.
        source: ManifestError,
    },
    /// A folder or file cannot be read.
    #[error("`{name}`: {source}")]
    Io {
        /// The entry.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// How many files were hashed.
    pub files: usize,
    /// How many bytes were hashed.
    pub bytes: u64,
    /// One sentence for each file that is missing, changed, or should not be there. Empty when all is well.
    pub faults: Vec<String>,
}

impl VerifyReport {
    /// Whether everything is as it was prepared.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Hashes every file of a fetched or imported entry and compares with its manifest. Files that the manifest does
/// not name are faults in a folder of the entry's own: engines look for optional files, and would use them.
pub fn verify(home: &Home, entry: &Entry, progress: &mut dyn Progress) -> Result<VerifyReport, VerifyError> {
    if entry.is_fileless() {
        return Ok(VerifyReport::default());
    }
    let manifest = Manifest::read(&home.manifest_path(entry))
        .map_err(|source| VerifyError::Manifest { name: entry.name.clone(), source })?;
    let report = check_all(&home.entry_dir(entry), &manifest, progress)
        .map_err(|source| VerifyError::Io { name: entry.name.clone(), source })?;
    Ok(report)
}

impl Entry {
    /// Whether it needs no files at all, as the scripted engine. One that names a source has files, of no use but to tell
    /// it from others.
    #[must_use]
    pub fn is_fileless(&self) -> bool {
        self.engine == Some(EngineKind::Scripted) && self.source.is_empty()
    }
}

impl Home {
    /// The model, once its manifest has been read and its files and library found with the right sizes: quick, for
    /// listings and for settling what a session uses. Load only what [`Home::verified`] returned.
    pub fn prepared(&self, entry: &Entry) -> Result<PreparedModel, PrepareError> {
        let (Kind::Model, Some(engine)) = (entry.kind, entry.engine) else {
            return Err(PrepareError::NotAModel { name: entry.name.clone(), kind: entry.kind });
        };
        let digest = if entry.is_fileless() {
            digest_of(&[])
        } else {
            self.checked_manifest(entry, &entry.name)?.digest
        };
        let library_dir = engine.library().map(|library| self.library_dir(library));
        if let Some((library, dir)) = engine.library().zip(library_dir.as_deref()) {
            self.checked_library(library, dir, &entry.name)?;
        }
        Ok(PreparedModel {
            name: entry.name.clone(),
            engine,
            language: entry.language.clone(),
            sample_rate_hz: entry.sample_rate_hz.unwrap_or_default(),
            dir: self.entry_dir(entry),
            library_dir,
            digest,
        })
    }

    /// The model, once every one of its files and of its library's has been hashed and found right. A pass is
    /// remembered by the files' sizes, inodes and times of change, so that the next call is quick.
    pub fn verified(&self, entry: &Entry) -> Result<PreparedModel, PrepareError> {
        let model = self.prepared(entry)?;
        if !entry.is_fileless() {
            self.verify_once(&model.dir, &model.name, Kind::Model)?;
        }
        if let Some((library, dir)) = model.engine.library().zip(model.library_dir.as_deref()) {
            self.verify_once(dir, library, Kind::Library)?;
        }
        Ok(model)
    }

    /// Whether the entry has been fetched (or needs nothing), from the source that the catalogue names now.
    #[must_use]
    pub fn has(&self, entry: &Entry) -> bool {
        entry.is_fileless() || self.checked_manifest(entry, &entry.name).is_ok()
    }

    /// Whether a model or library is there, from the source that the catalogue names now, and every file hashes right.
    pub(super) fn is_intact(&self, entry: &Entry) -> bool {
        self.checked_manifest(entry, &entry.name).is_ok()
            && self.verify_once(&self.entry_dir(entry), &entry.name, entry.kind).is_ok()
    }

    /// Call it for files that have just been hashed for this manifest.
    pub(super) fn remember_verified(&self, entry: &Entry, manifest: &Manifest) {
        let dir = self.entry_dir(entry);
        if matches!(entry.kind, Kind::Model | Kind::Library)
            && let Ok(stamp) = Stamp::of(&dir, manifest)
        {
            stamp.write(&dir);
        }
    }

    fn checked_manifest(&self, entry: &Entry, asked: &str) -> Result<Manifest, PrepareError> {
        let dir = self.entry_dir(entry);
        let manifest = read_manifest(&self.manifest_path(entry), &dir, &entry.name, entry.kind, asked)?;
        if !manifest.imported && manifest.origin != entry.recipe(current_arch()) {
            return Err(PrepareError::Outdated { name: entry.name.clone(), kind: entry.kind });
        }
        quick_check(&dir, &manifest)?;
        Ok(manifest)
    }

    fn checked_library(&self, library: &str, dir: &Path, asked: &str) -> Result<(), PrepareError> {
        let manifest = read_manifest(&dir.join(MANIFEST_FILE), dir, library, Kind::Library, asked)?;
        quick_check(dir, &manifest)
    }

    fn verify_once(&self, dir: &Path, name: &str, kind: Kind) -> Result<(), PrepareError> {
        let manifest = read_manifest(&dir.join(MANIFEST_FILE), dir, name, kind, name)?;
        let damaged = |message: String| PrepareError::Damaged {
            name: name.to_owned(),
            kind,
            message,
            imported: manifest.imported,
        };
        let stamp = Stamp::of(dir, &manifest).map_err(|error| damaged(error.to_string()))?;
        if Stamp::read(dir).as_ref() == Some(&stamp) {
            return Ok(());
        }
        let report = check_all(dir, &manifest, &mut Quiet).map_err(|error| damaged(error.to_string()))?;
        match report.faults.first() {
            Some(first) => Err(damaged(first.clone())),
            None => {
                stamp.write(dir);
                Ok(())
            }
        }
    }
}

fn read_manifest(
    path: &Path,
    dir: &Path,
    name: &str,
    kind: Kind,
    asked: &str,
) -> Result<Manifest, PrepareError> {
    match Manifest::read(path) {
        Ok(manifest) => Ok(manifest),
        Err(ManifestError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(PrepareError::Missing {
                name: asked.to_owned(),
                missing: name.to_owned(),
                kind,
                dir: dir.to_owned(),
            })
        }
        Err(error) => Err(PrepareError::Damaged {
            name: name.to_owned(),
            kind,
            message: error.to_string(),
            imported: false,
        }),
    }
}

fn quick_check(dir: &Path, manifest: &Manifest) -> Result<(), PrepareError> {
    let fault = manifest.files.iter().find_map(|file| match std::fs::metadata(dir.join(&file.path)) {
        Ok(meta) if meta.len() == file.size_bytes => None,
        Ok(meta) => {
            Some(format!("{} has {} bytes, but must have {}", file.path, meta.len(), file.size_bytes))
        }
        Err(error) => Some(format!("{}: {error}", file.path)),
    });
    match fault {
        None => Ok(()),
        Some(message) => Err(PrepareError::Damaged {
            name: manifest.name.clone(),
            kind: manifest.kind,
            message,
            imported: manifest.imported,
        }),
    }
}

fn check_all(dir: &Path, manifest: &Manifest, progress: &mut dyn Progress) -> io::Result<VerifyReport> {
    let total = manifest.files.iter().map(|file| file.size_bytes).sum();
    progress.step(&format!("verify {}", manifest.name), Some(total));
    let mut report = VerifyReport { files: manifest.files.len(), ..VerifyReport::default() };
    for file in &manifest.files {
        let done = report.bytes;
        match sha256_of(&dir.join(&file.path), &mut |bytes| progress.at(done + bytes)) {
            Ok(sha256) if sha256 == file.sha256 => {}
            Ok(sha256) => report
                .faults
                .push(format!("{} has the SHA-256 {sha256}, but must have {}", file.path, file.sha256)),
            Err(error) => report.faults.push(format!("{}: {error}", file.path)),
        }
        report.bytes += file.size_bytes;
    }
    if matches!(manifest.kind, Kind::Model | Kind::Library) {
        report.faults.extend(strangers(dir, manifest)?.map(|path| format!("{path} does not belong there")));
    }
    Ok(report)
}

fn strangers(dir: &Path, manifest: &Manifest) -> io::Result<impl Iterator<Item = String>> {
    let known: std::collections::HashSet<String> =
        manifest.files.iter().map(|file| file.path.clone()).collect();
    let own = |path: &String| path == MANIFEST_FILE || path == STAMP_FILE;
    Ok(list_files(dir)?.into_iter().filter(move |path| !own(path) && !known.contains(path)))
}

/// What the files looked like when they were last hashed and found right.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    digest: String,
    /// By path: size in bytes, inode, seconds and nanoseconds of the last change of content and of status.
    files: BTreeMap<String, [i64; 6]>,
}

impl Stamp {
    fn of(dir: &Path, manifest: &Manifest) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for path in list_files(dir)?.into_iter().filter(|path| path != STAMP_FILE) {
            let meta = std::fs::metadata(dir.join(&path))?;
            let marks = [
                meta.size().cast_signed(),
                meta.ino().cast_signed(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.ctime(),
                meta.ctime_nsec(),
            ];
            files.insert(path, marks);
        }
        Ok(Self { digest: manifest.digest.clone(), files })
    }

    fn read(dir: &Path) -> Option<Self> {
        toml::from_str(&std::fs::read_to_string(dir.join(STAMP_FILE)).ok()?).ok()
    }

    /// A folder that cannot be written to, as in a container's image, only costs the next start its speed.
    fn write(&self, dir: &Path) {
        let written = toml::to_string(self)
            .map_err(io::Error::other)
            .and_then(|text| std::fs::write(dir.join(STAMP_FILE), text));
        if let Err(error) = written {
            tracing::debug!(%error, dir = %dir.display(), "verification is not remembered");
        }
    }
}
