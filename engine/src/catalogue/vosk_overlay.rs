//! The one change that a Vosk model needs before it may serve: dither off.

use std::io;
use std::path::{Path, PathBuf};

/// Kaldi adds random dither to the samples before it computes features, so that the same audio decodes differently
/// from run to run. Replay after a failure relies on equal audio giving equal text, so dither is off.
const NO_DITHER: &str = "--dither=0.0";

/// Sets dither to 0 in the model's feature configuration, wherever its layout keeps it.
pub(super) fn switch_dither_off(model: &Path) -> io::Result<()> {
    let path = feature_conf(model).ok_or_else(|| {
        let message =
            "there is neither conf/mfcc.conf nor mfcc.conf: this is no Vosk model with MFCC features";
        io::Error::new(io::ErrorKind::NotFound, message)
    })?;
    let text = std::fs::read_to_string(&path)?;
    std::fs::write(&path, without_dither(&text))
}

/// The newer layout keeps its configuration in `conf/`, the older one beside the acoustic model.
fn feature_conf(model: &Path) -> Option<PathBuf> {
    [model.join("conf").join("mfcc.conf"), model.join("mfcc.conf")].into_iter().find(|path| path.is_file())
}

pub(super) fn without_dither(conf: &str) -> String {
    let is_dither = |line: &str| line.trim_start().starts_with("--dither");
    let mut lines: Vec<&str> = conf.lines().filter(|line| !is_dither(line)).collect();
    lines.push(NO_DITHER);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dither_is_set_once_whatever_was_there() {
        assert_eq!(without_dither("--num-ceps=40\n"), "--num-ceps=40\n--dither=0.0\n");
        assert_eq!(without_dither("--a=1"), "--a=1\n--dither=0.0\n");
        assert_eq!(without_dither("--dither=1\n--a=1\n --dither=0.5\n"), "--a=1\n--dither=0.0\n");
    }

    #[test]
    fn both_layouts_are_found_and_none_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(switch_dither_off(dir.path()).unwrap_err().to_string().contains("mfcc.conf"));
        std::fs::write(dir.path().join("mfcc.conf"), "--a=1\n").unwrap();
        switch_dither_off(dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("mfcc.conf")).unwrap(), "--a=1\n--dither=0.0\n");
    }
}
