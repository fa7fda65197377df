//! What a model's folder has to hold before libvosk may see it.
//!
//! Owns: the checks of shape and settings. That no byte has changed is the manifest's business. Must never: change a file.
//!
//! libvosk ends the process on a missing file, a broken `splice.conf` or `disambig_tid.int`, and hangs on an empty `model.conf`.

use std::path::Path;

use crate::{LoadError, load};

/// What the checks found out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The graph was composed in advance; it can't be narrowed to phrases then.
    pub(super) composed: bool,
}

/// Checks a folder.
///
/// # Errors
/// Names the file, what is wrong with it and what would be right.
pub(super) fn check(folder: &Path) -> Result<Shape, LoadError> {
    load::require(
        folder,
        &["am/final.mdl", "conf/mfcc.conf", "conf/model.conf"],
        "a file of the Vosk model",
    )?;
    check_mfcc(folder)?;
    options(folder, "conf/model.conf", 1)?;
    let composed = folder.join("graph/HCLG.fst").is_file();
    if !composed {
        let files = ["graph/HCLr.fst", "graph/Gr.fst", "graph/disambig_tid.int"];
        load::require(folder, &files, "a file of the Vosk model")?;
        check_numbers(folder, "graph/disambig_tid.int")?;
    }
    if folder.join("ivector").is_dir() {
        let files =
            ["final.dubm", "final.ie", "final.mat", "global_cmvn.stats", "online_cmvn.conf", "splice.conf"];
        load::require(&folder.join("ivector"), &files, "a file of the Vosk model")?;
        options(folder, "ivector/splice.conf", 1)?;
        options(folder, "ivector/online_cmvn.conf", 0)?;
    }
    Ok(Shape { composed })
}

/// Dither adds random numbers to the audio: the same call would give another text on another decoder.
fn check_mfcc(folder: &Path) -> Result<(), LoadError> {
    let settings = options(folder, "conf/mfcc.conf", 1)?;
    let dither = settings.iter().rev().find_map(|line| line.strip_prefix("--dither="));
    match dither.map(str::parse::<f64>) {
        Some(Ok(0.0)) => Ok(()),
        _ => Err(wrong(
            folder,
            "conf/mfcc.conf",
            "dither is on, which makes decoding random; a prepared model has the line --dither=0.0",
        )),
    }
}

/// The lines of a Kaldi settings file, each `--name=value`; comments and empty lines are skipped.
fn options(folder: &Path, name: &str, least: usize) -> Result<Vec<String>, LoadError> {
    let text = read(folder, name)?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    let lines: Vec<String> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if lines.len() < least {
        return Err(wrong(folder, name, "the file is empty; it has settings of the form --name=value"));
    }
    let broken = lines.iter().find(|line| {
        let Some((key, value)) = line.strip_prefix("--").and_then(|rest| rest.split_once('=')) else {
            return true;
        };
        key.is_empty() || value.is_empty()
    });
    match broken {
        Some(line) => Err(wrong(folder, name, &format!("the line {line:?} is not of the form --name=value"))),
        None => Ok(lines),
    }
}

fn check_numbers(folder: &Path, name: &str) -> Result<(), LoadError> {
    let text = read(folder, name)?;
    let mut numbers = text.split_whitespace().peekable();
    if numbers.peek().is_none() {
        return Err(wrong(folder, name, "the file is empty; it has one number a line"));
    }
    match numbers.find(|field| field.parse::<i32>().is_err()) {
        Some(field) => Err(wrong(folder, name, &format!("{field:?} is no number; the file has one a line"))),
        None => Ok(()),
    }
}

fn read(folder: &Path, name: &str) -> Result<String, LoadError> {
    std::fs::read_to_string(folder.join(name))
        .map_err(|error| wrong(folder, name, &format!("the file cannot be read as text: {error}")))
}

fn wrong(folder: &Path, name: &str, problem: &str) -> LoadError {
    LoadError::Model { path: folder.join(name).display().to_string(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(change: impl Fn(&Path)) -> tempfile::TempDir {
        let made = tempfile::tempdir().expect("folder");
        let files = [
            ("am/final.mdl", "x"),
            ("conf/mfcc.conf", "--num-ceps=40\n--dither=0.0\n"),
            ("conf/model.conf", "--beam=10.0\n"),
            ("graph/HCLr.fst", "x"),
            ("graph/Gr.fst", "x"),
            ("graph/disambig_tid.int", "1\n2\n"),
            ("ivector/final.dubm", "x"),
            ("ivector/final.ie", "x"),
            ("ivector/final.mat", "x"),
            ("ivector/global_cmvn.stats", "x"),
            ("ivector/online_cmvn.conf", "# none\n"),
            ("ivector/splice.conf", "--left-context=3\n--right-context=3\n"),
        ];
        for (name, text) in files {
            let path = made.path().join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            fs::write(path, text).expect("file");
        }
        change(made.path());
        made
    }

    fn problem(name: &str, text: &str) -> String {
        let made = folder(|path| fs::write(path.join(name), text).expect("file"));
        check(made.path()).expect_err("is refused").to_string()
    }

    #[test]
    fn a_whole_folder_is_fit() {
        assert_eq!(check(folder(|_| {}).path()).expect("fit"), Shape { composed: false });
        let composed = folder(|path| fs::write(path.join("graph/HCLG.fst"), "x").expect("file"));
        assert_eq!(check(composed.path()).expect("fit"), Shape { composed: true });
    }

    #[test]
    fn what_would_end_the_process_is_refused_by_name() {
        assert!(problem("conf/mfcc.conf", "--num-ceps=40\n").contains("--dither=0.0"));
        assert!(problem("conf/mfcc.conf", "--dither=0.0\n--dither=1.0\n").contains("--dither=0.0"));
        assert!(problem("conf/model.conf", "\n# nothing\n").contains("empty"));
        assert!(problem("ivector/splice.conf", "garbage").contains("splice.conf"));
        assert!(problem("graph/disambig_tid.int", "1\nx\n").contains("\"x\""));
        assert!(problem("graph/disambig_tid.int", "").contains("empty"));
        let missing = folder(|path| fs::remove_file(path.join("am/final.mdl")).expect("removed"));
        assert!(check(missing.path()).expect_err("is refused").to_string().contains("cargo xtask setup"));
    }
}
