//! Builds the Dockerfile where no registry of images can be reached, and has what comes out serve a recording.
//!
//! Debian is made out of its packages, and the programs are those of the debug profile: the stage that compiles is the one thing that
//! this leaves out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{RUNTIME, build};
use crate::command::{self, output_of, root, target};
use crate::setup::{self, deploy};

/// Names of what is built here; `localhost` is where buildah looks for what was never pulled.
const DEBIAN: &str = "localhost/starling-check/debian";
const PROGRAMS: &str = "localhost/starling-check/programs";
const IMAGE: &str = "localhost/starling-check/starling";

/// The release that the Dockerfile builds on.
const RELEASE: &str = "bookworm";

/// The model that the recording is for.
const MODEL: &str = "moonshine-tiny-en";

/// What the image may hold beside Debian, the programs and models: the libraries are 48 MB, all else is less than one. Of the 200 MB that the
/// image may have without models, Debian's slim image takes 75: so this leaves 65 to the programs. Debian and programs here are others.
const ADDED_MAX_BYTES: u64 = 60_000_000;

/// What of the image is not counted as such.
const COUNTED_APART: [&str; 3] =
    ["usr/local/bin/starling", "usr/local/bin/starling-decoder", "var/lib/starling/models"];

/// Builds and tries it, or says what that would take.
pub(crate) fn check() -> Result<()> {
    if !setup::is_root() || !deploy::buildah()? {
        eprintln!("the image is not tried: that takes root and buildah");
        return Ok(());
    }
    deploy::mmdebstrap()?;
    command::build_programs()?;
    let scratch = target().join("image");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(scratch.join("out"))?;
    let base = scratch.join("base");
    trusted(&base.join("trusted"))?;
    fs::copy(debian()?, base.join("debian.tar"))?;
    from_scratch(&base, "ADD debian.tar /\nCOPY trusted/ /usr/local/share/ca-certificates/", DEBIAN)?;
    for name in ["starling", "starling-decoder"] {
        let (from, to) = (command::built(name), scratch.join("out").join(name));
        command::quiet(Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(from))?;
    }
    from_scratch(&scratch, "COPY out /out", PROGRAMS)?;
    let (debian, programs, models) =
        (format!("DEBIAN_IMAGE={DEBIAN}"), format!("PROGRAMS={PROGRAMS}"), format!("MODELS={MODEL}"));
    let mut image = build("buildah", RUNTIME.0, IMAGE);
    image.args(["--pull=never", "--build-arg", &debian, "--build-arg", &programs, "--build-arg", &models]);
    command::run(here(&mut image).arg("."))?;
    let tried = adds_little().and_then(|()| in_container());
    for name in [IMAGE, PROGRAMS, DEBIAN] {
        // What is left over costs disk and nothing else.
        let _ = output_of(here(Command::new("buildah").args(["rmi", "--force", name])));
    }
    tried
}

/// Nothing that was only needed for building is left in it.
fn adds_little() -> Result<()> {
    let debian = with_files(DEBIAN, bytes)?;
    let (whole, apart) = with_files(IMAGE, |files| {
        let apart = COUNTED_APART.iter().map(|path| bytes(&files.join(path))).sum::<Result<u64>>()?;
        Ok((bytes(files)?, apart))
    })?;
    let added = whole.saturating_sub(debian + apart);
    if added > ADDED_MAX_BYTES {
        bail!(
            "the image holds {} MB beside Debian, programs and models; it must be {} MB at most, or it is above 200 MB as a whole",
            added / 1_000_000,
            ADDED_MAX_BYTES / 1_000_000
        );
    }
    eprintln!("the image holds {} MB beside Debian, programs and models", added / 1_000_000);
    Ok(())
}

/// What a folder's files come to.
fn bytes(folder: &Path) -> Result<u64> {
    let told = command::output(Command::new("du").args(["--summarize", "--bytes"]).arg(folder))?;
    let count = told.split_whitespace().next().unwrap_or_default();
    count.parse().with_context(|| format!("du said of {}: {told}", folder.display()))
}

/// Serves from the image's files, read-only and as the user it names, and transcribes its recording with `helm test`'s own script.
fn in_container() -> Result<()> {
    with_files(IMAGE, |files| {
        let mut tried = Command::new("unshare");
        // Nothing that is started in there outlives the script.
        tried.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]);
        tried.current_dir(root()).args(["sh", "-eu", "k8s/checks/in-image.sh"]);
        command::quiet(tried.arg(files).arg("k8s/helm/starling/files/transcript.sh"))
    })
}

/// Does something with an image's files, in a container that is gone afterwards.
fn with_files<T>(image: &str, what: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let container = output_of(here(Command::new("buildah").args(["from", "--pull-never", image])));
    let container = container.with_context(|| format!("{image}, which was built, is not there"))?;
    let container = container.trim();
    let mounted = output_of(here(Command::new("buildah").args(["mount", container])));
    let done = mounted
        .context("the container's files cannot be mounted")
        .and_then(|files| what(Path::new(files.trim())));
    let _ = output_of(here(Command::new("buildah").args(["rm", container])));
    done
}

/// A Debian as an archive, made once.
fn debian() -> Result<PathBuf> {
    let folder = setup::home()?.root().join("deploy").join("debian");
    let archive = folder.join("debian.tar");
    if archive.exists() {
        return Ok(archive);
    }
    fs::create_dir_all(&folder)?;
    let part = folder.join("part.tar");
    let without =
        ["doc", "info", "locale", "man"].map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*"));
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=minbase"]).args(without);
    command::run(make.arg(RELEASE).arg(&part))?;
    fs::rename(&part, &archive)?;
    Ok(archive)
}

/// Whom this machine's owner trusts beside Debian's authorities: packages may come through a proxy.
fn trusted(to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for file in fs::read_dir("/usr/local/share/ca-certificates").into_iter().flatten().flatten() {
        if file.path().is_file() {
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(())
}

/// An image of nothing but what the lines put there.
fn from_scratch(folder: &Path, lines: &str, name: &str) -> Result<()> {
    fs::write(folder.join("Dockerfile"), format!("FROM scratch\n{lines}\n"))?;
    let mut command = Command::new("buildah");
    command::run(here(command.args(["build", "--quiet", "--tag", name]).arg(folder)))
}

/// Steps run in a changed root only: in a container there may be no right to make another.
fn here(command: &mut Command) -> &mut Command {
    command.env("BUILDAH_ISOLATION", "chroot")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_as_large_as_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let empty = bytes(folder.path()).unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        fs::write(folder.path().join("in/a"), vec![0; 70_000]).unwrap();
        let filled = bytes(folder.path()).unwrap();
        assert!((70_000..80_000).contains(&(filled - empty)), "{empty}, {filled}");
        assert!(bytes(&folder.path().join("absent")).is_err());
    }
}
