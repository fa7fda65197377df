//! The folder that a host's model lies in.
//!
//! Owns: the check that it has the files the node asked for, and a path to it that stays right. A model may be exchanged on the
//! disk at any time: while this process starts, while it loads, and before it loads the rest for the first list of phrases.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use starling_protocol::lease::{EngineKind, HostSpec};

use crate::catalogue::locate;

/// A model's folder that is held open.
pub(super) struct Folder {
    /// As the node named it, or where it was set aside.
    named: PathBuf,
    /// The way to the folder itself, whatever it is called by now; the name where the system has no such way.
    open: PathBuf,
    _descriptor: Option<OwnedFd>,
}

impl Folder {
    /// The folder for `spec`, whose path in it is replaced by one that stays right.
    pub(super) fn settle(spec: &mut HostSpec) -> Result<Self, String> {
        let named = PathBuf::from(&spec.model_dir);
        let fileless = spec.engine == EngineKind::Scripted && !named.exists();
        if spec.digest.is_empty() || fileless {
            return Ok(Self { open: named.clone(), named, _descriptor: None });
        }
        // Twice: it may be exchanged between being found and being opened.
        let found = (0..2).find_map(|_| Self::open(&locate(&named, &spec.digest)?, &spec.digest));
        let folder = found.ok_or_else(|| {
            format!(
                "the files in {} are not those that the node was started with (digest {}): the model was exchanged, and nothing \
                 keeps the old one",
                named.display(),
                spec.digest
            )
        })?;
        spec.model_dir = folder.open.to_string_lossy().into_owned();
        Ok(folder)
    }

    fn open(named: &Path, digest: &str) -> Option<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let descriptor = openat(CWD, named, flags, Mode::empty()).ok()?;
        let open = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        let open = if File::open(&open).is_ok() { open } else { named.to_owned() };
        (locate(&open, digest)? == open).then(|| Self {
            named: named.to_owned(),
            open,
            _descriptor: Some(descriptor),
        })
    }

    /// A message with the folder by its name.
    pub(super) fn name_in(&self, message: &str) -> String {
        message.replace(&*self.open.to_string_lossy(), &self.named.to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use starling_protocol::lease::LEASE_PROTOCOL;

    use super::*;

    const FILE: &str = "[[file]]\npath = \"words\"\nsize_bytes = 1\n";

    /// A model of one file; the digest is that of its table.
    fn model(dir: &Path, sha256: char) -> String {
        use sha2::{Digest, Sha256};
        let sha256 = sha256.to_string().repeat(64);
        let digest = Sha256::digest(format!("{sha256}  1  words\n"));
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let head = "version = 2\nname = \"m\"\nkind = \"model\"\nengine = \"scripted\"\nlanguage = \"und\"\n";
        let head = format!("{head}licence = \"MIT\"\norigin = \"here\"\ndigest = \"{digest}\"\n");
        fs::create_dir_all(dir).expect("made");
        fs::write(dir.join("manifest.toml"), format!("{head}{FILE}sha256 = \"{sha256}\"\n"))
            .expect("written");
        fs::write(dir.join("words"), &sha256[..1]).expect("written");
        digest
    }

    fn spec(model_dir: &Path, digest: &str) -> HostSpec {
        HostSpec {
            protocol: LEASE_PROTOCOL,
            engine: EngineKind::Scripted,
            model: "m".into(),
            model_dir: model_dir.display().to_string(),
            library_dir: String::new(),
            sample_rate: 16_000,
            threads: 1,
            slots: 1,
            prewarm: 0,
            recognizer_audio_budget_s: 0,
            memory_budget_bytes: 0,
            nice: 0,
            digest: digest.to_owned(),
        }
    }

    #[test]
    fn the_files_that_were_asked_for_are_found_wherever_they_go() {
        let home = tempfile::tempdir().expect("a folder");
        let dir = home.path().join("models/m");
        let old = model(&dir, 'a');
        let words =
            |spec: &HostSpec| fs::read_to_string(Path::new(&spec.model_dir).join("words")).expect("there");
        let mut before = spec(&dir, &old);
        let folder = Folder::settle(&mut before).expect("is there");
        assert_eq!(words(&before), "a");
        let message = format!("{}/words is damaged", before.model_dir);
        assert_eq!(folder.name_in(&message), format!("{}/words is damaged", dir.display()));

        // Another takes its place.
        let aside = home.path().join("replaced/m-1");
        fs::create_dir_all(aside.parent().expect("a parent")).expect("made");
        fs::rename(&dir, &aside).expect("moved");
        let new = model(&dir, 'b');
        assert_eq!(words(&before), "a", "what is open stays what it was");
        for (digest, wanted) in [(&old, "a"), (&new, "b")] {
            let mut after = spec(&dir, digest);
            let _folder = Folder::settle(&mut after).expect("is there");
            assert_eq!(words(&after), wanted);
        }
        fs::remove_dir_all(&aside).expect("removed");
        let refused = Folder::settle(&mut spec(&dir, &old)).err().expect("is gone");
        assert!(refused.contains(&old) && refused.contains("exchanged"), "{refused}");
    }

    #[test]
    fn what_has_no_digest_or_no_files_is_taken_as_it_is() {
        for (dir, digest) in [("/nowhere/m", ""), ("/nowhere/m", "ab"), ("", "ab")] {
            let mut spec = spec(Path::new(dir), digest);
            Folder::settle(&mut spec).expect("is taken");
            assert_eq!(spec.model_dir, dir);
        }
    }
}
