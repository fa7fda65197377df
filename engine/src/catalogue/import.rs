//! Turns a Kaldi nnet3 directory into a prepared Vosk model.
//!
//! Older systems kept such directories in several layouts and their settings in a worker's YAML file. What can be
//! carried over is; what cannot is named in the report, because a setting dropped in silence shows only as worse text.

mod layout;
mod settings;

use std::io;
use std::path::{Path, PathBuf};

use super::Catalogue;
use super::disk::{HomeLock, is_full};
use super::entry::{EngineKind, Entry, Kind, NAME_RULE, is_valid_name};
use super::fetch::{fresh_scratch, place};
use super::home::Home;
use super::manifest::{Manifest, record_files};
use super::progress::Progress;
use super::vosk_overlay::{settle_graph, without_dither};
use layout::{Layout, Part};
use settings::Settings;

/// What to import, and what to call it.
#[derive(Debug, Clone)]
pub struct ImportRequest<'a> {
    /// The folder with the model; it is only read.
    pub dir: &'a Path,
    /// The worker's YAML file, if there is one; its paths need not be right any more.
    pub engine_yaml: Option<&'a Path>,
    /// The new model's name.
    pub name: &'a str,
    /// BCP 47 tag of its language.
    pub language: &'a str,
    /// SPDX expression of its licence, as far as it is known.
    pub licence: &'a str,
}

/// What became of the import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportReport {
    /// The new model's name.
    pub name: String,
    /// Where it is.
    pub dir: PathBuf,
    /// The digest of its files.
    pub digest: String,
    /// The rate that it takes, in Hz, as its feature configuration says.
    pub sample_rate_hz: u32,
    /// The settings that were carried over, as `conf/model.conf` has them.
    pub settings: Vec<(String, String)>,
    /// The settings that could not be used.
    pub unused: Vec<UnusedKey>,
    /// What was assumed or left out, one sentence each.
    pub notes: Vec<String>,
}

/// A setting of the older system that has no effect here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedKey {
    /// The file it stands in.
    pub file: PathBuf,
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Why it has no effect.
    pub why: &'static str,
}

/// Why a directory could not be imported. The home folder is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The name cannot be used.
    #[error("the name is `{name}`, but must be {allowed}")]
    Name {
        /// The name that was asked for.
        name: String,
        /// What would be right.
        allowed: &'static str,
    },
    /// Something that the model cannot do without is not there.
    #[error("{} has no {what}; {remedy}", dir.display())]
    Missing {
        /// The folder that was searched.
        dir: PathBuf,
        /// What is missing.
        what: &'static str,
        /// What would help.
        remedy: &'static str,
    },
    /// A setting asks for something that cannot be done, or is no such value.
    #[error("{}: {key} is `{value}`, but must be {allowed}", file.display())]
    Value {
        /// The file it stands in.
        file: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What would be right.
        allowed: &'static str,
    },
    /// The YAML file is not of the right form.
    #[error("{}: {message}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// Another process kept the home folder to itself.
    #[error("another fetch or import has been holding {} for a quarter of an hour; end it or wait for it", .0.display())]
    Locked(PathBuf),
    /// There is no room.
    #[error("the disk that holds {} is full; nothing half done was left. Make room or choose another home with --home", .0.display())]
    DiskFull(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Imports a Kaldi nnet3 directory as a Vosk model into the home folder, replacing an earlier import of that name.
/// It is found by name from then on, like a fetched one.
pub fn import(
    home: &Home,
    catalogue: &Catalogue,
    request: &ImportRequest<'_>,
    progress: &mut dyn Progress,
) -> Result<ImportReport, ImportError> {
    check_name(home, catalogue, request.name)?;
    let settings = Settings::read(request.dir, request.engine_yaml)?;
    let layout = Layout::find(request.dir, &settings)?;
    let plan = Plan::new(request.dir, settings, &layout)?;

    let io = |path: &Path, source| io_error(home, path, source);
    let root = home.root();
    let lock = HomeLock::take(home, progress).map_err(|error| io(root, error))?;
    let _lock = lock.ok_or_else(|| ImportError::Locked(root.to_owned()))?;
    let scratch = fresh_scratch(home).map_err(|error| io(root, error))?;
    let work = scratch.path().join("work");
    progress.step("copy", Some(plan.copy_bytes()));
    plan.carry_out(&work, progress).map_err(|(path, error)| io(&path, error))?;
    settle_graph(&work, progress).map_err(|error| io(&work, error))?;

    let entry = Entry {
        name: request.name.to_owned(),
        kind: Kind::Model,
        engine: Some(EngineKind::Vosk),
        language: request.language.to_owned(),
        sample_rate_hz: Some(plan.sample_rate_hz),
        licence: request.licence.to_owned(),
        size_bytes: plan.copy_bytes(),
        notes: String::new(),
        requires: Vec::new(),
        source: Vec::new(),
    };
    let files = record_files(&work, progress).map_err(|error| io(&work, error))?;
    let manifest = Manifest::new(&entry, request.dir.display().to_string(), true, files);
    let dir = home.entry_dir(&entry);
    place(home, &entry, &work, &manifest, scratch.path()).map_err(|error| io(&dir, error))?;
    home.remember_verified(&entry, &manifest);
    Ok(ImportReport {
        name: entry.name,
        dir,
        digest: manifest.digest,
        sample_rate_hz: plan.sample_rate_hz,
        settings: plan.settings.decoding,
        unused: plan.settings.unused,
        notes: plan.notes,
    })
}

fn check_name(home: &Home, catalogue: &Catalogue, name: &str) -> Result<(), ImportError> {
    if !is_valid_name(name) {
        return Err(ImportError::Name { name: name.to_owned(), allowed: NAME_RULE });
    }
    let is_free = catalogue.get(name).is_err() || home.imported().iter().any(|entry| entry.name == name);
    if !is_free {
        let allowed = "one that the catalogue does not use for something else";
        return Err(ImportError::Name { name: name.to_owned(), allowed });
    }
    Ok(())
}

fn io_error(home: &Home, path: &Path, source: io::Error) -> ImportError {
    if is_full(&source) {
        return ImportError::DiskFull(home.root().to_owned());
    }
    ImportError::Io { path: path.to_owned(), source }
}

/// Everything that will be in the new model: settled before anything is written.
struct Plan {
    /// From where to where in the model.
    copies: Vec<(PathBuf, &'static str)>,
    /// Content and where in the model.
    texts: Vec<(String, &'static str)>,
    settings: Settings,
    sample_rate_hz: u32,
    notes: Vec<String>,
}

impl Plan {
    fn new(dir: &Path, mut settings: Settings, layout: &Layout) -> Result<Self, ImportError> {
        let mut notes = settings.complete(dir, layout)?;
        notes.extend(layout.notes());
        let features = layout.read(Part::Mfcc)?;
        let sample_rate_hz = settings::sample_rate_hz(&features, layout.path(Part::Mfcc))?;
        let mut texts =
            vec![(without_dither(&features), "conf/mfcc.conf"), (settings.model_conf(), "conf/model.conf")];
        if layout.has_ivectors() {
            let splice = layout.read(Part::Splice)?;
            texts.push((settings::splice_conf(&splice, layout.path(Part::Splice))?, "ivector/splice.conf"));
            // libvosk opens this one in any case; Kaldi's own scripts leave it empty but for a comment.
            let cmvn = layout.read_or(Part::OnlineCmvn, "# nothing differs from the defaults\n")?;
            texts.push((cmvn, "ivector/online_cmvn.conf"));
        }
        Ok(Self { copies: layout.copies(), texts, settings, sample_rate_hz, notes })
    }

    fn copy_bytes(&self) -> u64 {
        self.copies.iter().filter_map(|(from, _)| std::fs::metadata(from).ok()).map(|meta| meta.len()).sum()
    }

    fn carry_out(&self, work: &Path, progress: &mut dyn Progress) -> Result<(), (PathBuf, io::Error)> {
        let target = |name: &str| -> Result<PathBuf, (PathBuf, io::Error)> {
            let path = work.join(name);
            let parent = path.parent().unwrap_or(work);
            std::fs::create_dir_all(parent).map_err(|error| (parent.to_owned(), error))?;
            Ok(path)
        };
        let mut done = 0;
        for (from, name) in &self.copies {
            done += std::fs::copy(from, target(name)?).map_err(|error| (from.clone(), error))?;
            progress.at(done);
        }
        for (text, name) in &self.texts {
            let path = target(name)?;
            std::fs::write(&path, text).map_err(|error| (path, error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
