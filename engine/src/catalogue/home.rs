//! The home folder: where it is, and what lies where in it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::entry::{Entry, Kind};
use super::manifest::{MANIFEST_FILE, Manifest};

/// Name of the folder that is looked for from the current folder upwards.
const FOLDER_NAME: &str = ".starling";

/// Environment variable that names the home folder.
const HOME_VARIABLE: &str = "STARLING_HOME";

/// The folder that models, libraries, recordings and tools live in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

/// Why no home folder could be settled on.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Nothing says where it should be.
    #[error("no home folder: give --home, or set {HOME_VARIABLE}, XDG_DATA_HOME or HOME")]
    NoPlace,
    /// The current folder is gone or unreadable.
    #[error("cannot tell the current folder: {0}")]
    CurrentDir(#[from] std::io::Error),
}

/// What the process was started with, as far as it decides on the home folder.
#[derive(Debug, Default)]
struct Surroundings {
    starling_home: Option<OsString>,
    xdg_data_home: Option<OsString>,
    home: Option<OsString>,
    current_dir: PathBuf,
}

impl Home {
    /// The home folder: `explicit`, else `$STARLING_HOME`, else the nearest `.starling` from the current folder
    /// upwards, else `$XDG_DATA_HOME/starling`, else `~/.local/share/starling`. It need not exist yet.
    pub fn discover(explicit: Option<&Path>) -> Result<Self, HomeError> {
        let surroundings = Surroundings {
            starling_home: std::env::var_os(HOME_VARIABLE),
            xdg_data_home: std::env::var_os("XDG_DATA_HOME"),
            home: std::env::var_os("HOME"),
            current_dir: std::env::current_dir()?,
        };
        Self::decide(explicit, &surroundings)
    }

    /// The home folder at `root`, made absolute.
    pub fn at(root: &Path) -> Result<Self, HomeError> {
        Ok(Self { root: std::path::absolute(root)? })
    }

    fn decide(explicit: Option<&Path>, around: &Surroundings) -> Result<Self, HomeError> {
        let set =
            |value: &Option<OsString>| value.as_ref().filter(|value| !value.is_empty()).map(PathBuf::from);
        let chosen = explicit.map(Path::to_owned).or_else(|| set(&around.starling_home));
        if let Some(root) = chosen {
            return Ok(Self { root: around.current_dir.join(root) });
        }
        let nearest =
            around.current_dir.ancestors().map(|dir| dir.join(FOLDER_NAME)).find(|dir| dir.is_dir());
        if let Some(root) = nearest {
            return Ok(Self { root });
        }
        set(&around.xdg_data_home)
            .or_else(|| set(&around.home).map(|home| home.join(".local").join("share")))
            .map(|data| Self { root: data.join("starling") })
            .ok_or(HomeError::NoPlace)
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Archives as they were fetched.
    #[must_use]
    pub fn downloads_dir(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// Sample recordings, 16 kHz mono PCM16.
    #[must_use]
    pub fn audio_dir(&self) -> PathBuf {
        self.root.join("audio")
    }

    /// Programs fetched for development.
    #[must_use]
    pub fn tools_dir(&self) -> PathBuf {
        self.root.join("tools")
    }

    /// All models' folder.
    #[must_use]
    pub fn models_dir(&self) -> PathBuf {
        self.root.join("models")
    }

    /// A model's folder.
    #[must_use]
    pub fn model_dir(&self, name: &str) -> PathBuf {
        self.models_dir().join(name)
    }

    /// A native library's folder.
    #[must_use]
    pub fn library_dir(&self, name: &str) -> PathBuf {
        self.root.join("lib").join(name)
    }

    /// The folder that the entry's files lie in; recordings and tools share theirs with others.
    #[must_use]
    pub fn entry_dir(&self, entry: &Entry) -> PathBuf {
        match entry.kind {
            Kind::Model => self.model_dir(&entry.name),
            Kind::Library => self.library_dir(&entry.name),
            Kind::Audio => self.audio_dir(),
            Kind::Tool => self.tools_dir(),
        }
    }

    /// Where the entry's manifest is.
    #[must_use]
    pub fn manifest_path(&self, entry: &Entry) -> PathBuf {
        let dir = self.entry_dir(entry);
        match entry.kind {
            Kind::Model | Kind::Library => dir.join(MANIFEST_FILE),
            Kind::Audio | Kind::Tool => dir.join(format!(".{}.{MANIFEST_FILE}", entry.name)),
        }
    }

    /// Where work in progress lies: on the same disk as everything else, so that it can be renamed into place.
    pub(super) fn scratch_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// The models that were imported rather than fetched, as entries. A manifest that cannot be read is skipped
    /// here: asking for its model by name says what is wrong with it.
    pub(super) fn imported(&self) -> Vec<Entry> {
        let Ok(dirs) = std::fs::read_dir(self.models_dir()) else { return Vec::new() };
        let mut entries: Vec<Entry> = dirs
            .filter_map(|dir| Manifest::read(&dir.ok()?.path().join(MANIFEST_FILE)).ok())
            .filter_map(|manifest| manifest.into_imported_entry())
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(current_dir: &Path) -> Surroundings {
        Surroundings {
            starling_home: None,
            xdg_data_home: Some("/data".into()),
            home: Some("/home/u".into()),
            current_dir: current_dir.to_owned(),
        }
    }

    #[test]
    fn each_way_of_naming_the_home_wins_over_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir(dir.path().join(FOLDER_NAME)).unwrap();

        let mut around = around(&deep);
        around.starling_home = Some("/set".into());
        let root =
            |explicit: Option<&Path>, around: &Surroundings| Home::decide(explicit, around).unwrap().root;
        assert_eq!(root(Some(Path::new("/given")), &around), Path::new("/given"));
        assert_eq!(root(Some(Path::new("given")), &around), deep.join("given"));
        assert_eq!(root(None, &around), Path::new("/set"));
        around.starling_home = Some(OsString::new());
        assert_eq!(root(None, &around), dir.path().join(FOLDER_NAME));
    }

    #[test]
    fn without_a_folder_the_data_folder_is_taken() {
        let mut around = around(Path::new("/no/such/place"));
        assert_eq!(Home::decide(None, &around).unwrap().root, Path::new("/data/starling"));
        around.xdg_data_home = None;
        assert_eq!(Home::decide(None, &around).unwrap().root, Path::new("/home/u/.local/share/starling"));
        around.home = None;
        assert!(Home::decide(None, &around).unwrap_err().to_string().contains("--home"));
    }
}
