//! Model folders that are in use while others take their place.
//!
//! Owns: who holds a folder, and where a held one goes when it is replaced or removed. Must never: delete one that is held.
//!
//! Whoever serves a model may have to load it again at any time, long after another was fetched under its name. It holds the
//! folder by a shared lock on the manifest, which ends with its process. A folder that is held is set aside under `replaced/`,
//! and deleted by whoever next finds it unheld.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::entry::{Entry, Kind};
use super::home::Home;
use super::manifest::{MANIFEST_FILE, Manifest};
use super::prepared::{PrepareError, PreparedModel};

/// Folder in the home folder for what was replaced and is still held.
const REPLACED: &str = "replaced";

/// How often a manifest is opened anew that was replaced meanwhile, or is about to be deleted: neither takes long.
const TRIES: u32 = 20;

/// Wait between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// A hold on a model's folder. The folder stays on the disk, whatever takes its place, until all holds on it are dropped.
#[derive(Debug)]
pub struct ModelHold {
    _manifest: File,
}

impl Home {
    /// Like [`Home::verified`], with a hold on what was found right. There is none for a model without files, nor where the
    /// file system has no locks.
    ///
    /// # Errors
    /// See [`PrepareError`].
    pub fn held(&self, entry: &Entry) -> Result<(PreparedModel, Option<ModelHold>), PrepareError> {
        if entry.is_fileless() {
            return Ok((self.verified(entry)?, None));
        }
        let path = self.manifest_path(entry);
        for _ in 0..TRIES {
            let Ok(manifest) = File::open(&path) else { break };
            match manifest.try_lock_shared() {
                Ok(()) => {
                    let model = self.verified(entry)?;
                    if is_at(&manifest, &path) {
                        return Ok((model, Some(ModelHold { _manifest: manifest })));
                    }
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    tracing::warn!(%error, model = entry.name, "the model's files cannot be held; do not replace them while it is served");
                    break;
                }
            }
            std::thread::sleep(PAUSE);
        }
        // What is wrong with it is said here, if anything is.
        Ok((self.verified(entry)?, None))
    }

    /// Deletes what was replaced and is not held any more.
    pub fn delete_unheld(&self) {
        let Ok(folders) = std::fs::read_dir(self.replaced_dir()) else { return };
        for folder in folders.flatten().map(|folder| folder.path()) {
            let deleted = match unheld(&folder) {
                Ok(Some(_lock)) => std::fs::remove_dir_all(&folder),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            if let Err(error) = deleted {
                tracing::warn!(%error, folder = %folder.display(), "a replaced model cannot be deleted");
            }
        }
    }

    /// Where a folder goes that is about to be replaced, if somebody holds it. To be asked with the home folder locked.
    pub(super) fn place_aside(&self, entry: &Entry) -> io::Result<Option<PathBuf>> {
        let dir = self.entry_dir(entry);
        if entry.kind != Kind::Model || !dir.is_dir() || unheld(&dir)?.is_some() {
            return Ok(None);
        }
        let replaced = self.replaced_dir();
        std::fs::create_dir_all(&replaced)?;
        // A folder takes the place of an empty one.
        let place = tempfile::Builder::new().prefix(&format!("{}-", entry.name)).tempdir_in(replaced)?;
        Ok(Some(place.keep()))
    }

    fn replaced_dir(&self) -> PathBuf {
        self.root().join(REPLACED)
    }
}

/// The folder that has the files with this digest: `model_dir`, or where they were set aside when others came.
pub(crate) fn locate(model_dir: &Path, digest: &str) -> Option<PathBuf> {
    let has = |folder: &Path| {
        Manifest::read(&folder.join(MANIFEST_FILE)).is_ok_and(|manifest| manifest.digest == digest)
    };
    if has(model_dir) {
        return Some(model_dir.to_owned());
    }
    let home = model_dir.parent()?.parent()?;
    let folders = std::fs::read_dir(home.join(REPLACED)).ok()?;
    folders.flatten().map(|folder| folder.path()).find(|folder| has(folder))
}

/// A lock that keeps others from holding the folder; `None` while somebody does.
fn unheld(folder: &Path) -> io::Result<Option<Option<File>>> {
    let manifest = match File::open(folder.join(MANIFEST_FILE)) {
        Ok(manifest) => manifest,
        // Nobody can hold what has none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(None)),
        Err(error) => return Err(error),
    };
    match manifest.try_lock() {
        Ok(()) => Ok(Some(Some(manifest))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "nobody holds what cannot be locked");
            Ok(Some(Some(manifest)))
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(file), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    (file.dev(), file.ino()) == (there.dev(), there.ino())
}
