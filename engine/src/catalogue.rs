//! Owns what can be fetched and what has been: the catalogue of models, native libraries, sample recordings and
//! tools, the home folder they live in, and the manifests that say what a prepared model consists of.
//!
//! Must never load a model or call an engine's library: it deals in files alone. It never leaves half a model
//! behind, and never trusts a file whose checksum it has not seen to be right.
//!
//! ```no_run
//! use starling_engine::catalogue::{Catalogue, Home, Quiet, fetch};
//!
//! let home = Home::discover(None)?;
//! let catalogue = Catalogue::load(&home)?;
//! let entry = catalogue.get("moonshine-tiny-en")?;
//! fetch(&home, &catalogue, entry, &mut Quiet)?;
//! let model = home.verified(entry)?;
//! println!("{} is in {}", model.name, model.dir.display());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod audio;
mod capable;
mod disk;
mod entry;
mod fetch;
pub mod fuzzing;
mod graph;
mod held;
mod home;
pub mod import;
mod manifest;
mod pip;
mod prepared;
mod progress;
mod unpack;
mod url;
mod vosk_overlay;

use std::path::{Path, PathBuf};

pub use audio::{WavError, convert_wav, resample};
pub(crate) use capable::capabilities;
pub use entry::{Checksums, EngineKind, Entry, FileRule, Kind, Origin, Source, current_arch};
pub use fetch::{FetchError, Fetched, RemoveError, fetch, remove, remove_downloads};
pub use held::ModelHold;
pub(crate) use held::locate;
pub use home::{Home, HomeError};
pub use manifest::{FileRecord, MANIFEST_FILE, Manifest, ManifestError};
pub use prepared::{PrepareError, PreparedModel, VerifyError, VerifyReport, verify};
pub use progress::{Progress, Quiet};
#[cfg(feature = "vosk")]
pub(crate) use vosk_overlay::PHRASES_FOLDER;

use entry::CatalogueFile;

const BUILT_IN: &str = include_str!("../models.toml");

/// Name of the file in the home folder that adds to the built-in catalogue.
pub const USER_CATALOGUE: &str = "models.toml";

/// Everything that can be fetched or has been imported, by name.
#[derive(Debug, Clone)]
pub struct Catalogue {
    entries: Vec<Entry>,
}

/// Why a catalogue could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// A catalogue file exists and cannot be read.
    #[error("cannot read the catalogue {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A catalogue file is not of the right form; the message has the line.
    #[error("{}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// An entry has a value that cannot be.
    #[error("{}: entry `{name}`: {field} is {value}, but must be {allowed}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The entry's name.
        name: String,
        /// The field at fault.
        field: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        allowed: &'static str,
    },
}

/// No entry has the name that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("no model, library or recording is called `{name}`; there are: {}", known.join(", "))]
pub struct UnknownEntry {
    /// The name that was asked for.
    pub name: String,
    /// The names there are.
    pub known: Vec<String>,
}

impl Catalogue {
    /// The built-in catalogue, with the home folder's own [`USER_CATALOGUE`] and its imported models added.
    pub fn load(home: &Home) -> Result<Self, CatalogueError> {
        Self::load_with(home, &[])
    }

    /// Like [`Catalogue::load`], with further catalogue files. On equal names the later file wins; the order is
    /// built-in, home folder, `extra` in turn, imported models.
    pub fn load_with(home: &Home, extra: &[PathBuf]) -> Result<Self, CatalogueError> {
        let mut catalogue = Self { entries: Vec::new() };
        catalogue.add_text(BUILT_IN, Path::new("built-in models.toml"))?;
        let own = home.root().join(USER_CATALOGUE);
        if own.exists() {
            catalogue.add_file(&own)?;
        }
        for path in extra {
            catalogue.add_file(path)?;
        }
        for entry in home.imported() {
            catalogue.add(entry);
        }
        Ok(catalogue)
    }

    /// The entry called `name`.
    pub fn get(&self, name: &str) -> Result<&Entry, UnknownEntry> {
        self.entries.iter().find(|entry| entry.name == name).ok_or_else(|| UnknownEntry {
            name: name.to_owned(),
            known: self.entries.iter().map(|entry| entry.name.clone()).collect(),
        })
    }

    /// All entries, in the catalogue's order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The entries of one kind, in the catalogue's order.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.kind == kind)
    }

    fn add_file(&mut self, path: &Path) -> Result<(), CatalogueError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| CatalogueError::Read { path: path.to_owned(), source })?;
        self.add_text(&text, path)
    }

    fn add_text(&mut self, text: &str, path: &Path) -> Result<(), CatalogueError> {
        let file: CatalogueFile = toml::from_str(text)
            .map_err(|error| CatalogueError::Parse { path: path.to_owned(), message: error.to_string() })?;
        for entry in file.into_entries() {
            entry.check(path)?;
            self.add(entry);
        }
        Ok(())
    }

    fn add(&mut self, entry: Entry) {
        match self.entries.iter_mut().find(|known| known.name == entry.name) {
            Some(known) => *known = entry,
            None => self.entries.push(entry),
        }
    }
}

#[cfg(test)]
mod tests;
