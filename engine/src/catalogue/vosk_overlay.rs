//! What a Vosk model's settings need before it may serve: nothing in them may make equal audio decode differently.

use std::io;
use std::path::{Path, PathBuf};

/// Kaldi adds random dither to the samples before it computes features, so that the same audio decodes differently
/// from run to run. Replay after a failure relies on equal audio giving equal text, so dither is off.
const NO_DITHER: &str = "--dither=0.0";

/// Kaldi prunes by count while it walks its tokens in the order of a hash over graph states. Where the graph is composed as
/// it is used (`HCLr.fst` with `Gr.fst`), states are numbered as they are met, so that the order depends on what the
/// recognizer heard before. Wherever a count decides, so does that history: at 200 and 3,000, confidences of a replay on
/// another recognizer were off by up to 0.05 in 2 of 5 recordings, and without counts in none. The beam alone has to prune
/// then; the upper count stays far above what the beam leaves of speech, as a bound for noise. Costs about an eighth more CPU.
const COUNTS: [(&str, &str); 2] = [("--min-active", "0"), ("--max-active", "20000")];

/// Makes the prepared model decode equal audio equally.
pub(super) fn make_repeatable(model: &Path) -> io::Result<()> {
    switch_dither_off(model)?;
    let conf = model.join("conf").join("model.conf");
    if model.join("graph").join("HCLr.fst").is_file() && conf.is_file() {
        let text = std::fs::read_to_string(&conf)?;
        std::fs::write(&conf, without_counts(&text))?;
    }
    Ok(())
}

fn without_counts(conf: &str) -> String {
    let is_count = |line: &str| COUNTS.iter().any(|(key, _)| line.trim_start().starts_with(key));
    let kept = conf.lines().filter(|line| !is_count(line)).map(str::to_owned);
    let lines: Vec<String> = kept.chain(COUNTS.iter().map(|(key, value)| format!("{key}={value}"))).collect();
    lines.join("\n") + "\n"
}

/// Sets dither to 0 in the model's feature configuration, wherever its layout keeps it.
fn switch_dither_off(model: &Path) -> io::Result<()> {
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
    fn no_count_prunes_a_graph_that_is_composed_as_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["conf", "graph"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("conf/mfcc.conf"), "").unwrap();
        let conf = dir.path().join("conf/model.conf");
        let read = || std::fs::read_to_string(&conf).unwrap();
        std::fs::write(&conf, "--min-active=200\n--max-active=3000\n--beam=10.0\n").unwrap();
        make_repeatable(dir.path()).unwrap();
        assert_eq!(
            read(),
            "--min-active=200\n--max-active=3000\n--beam=10.0\n",
            "a fixed graph needs no change"
        );
        std::fs::write(dir.path().join("graph/HCLr.fst"), "").unwrap();
        make_repeatable(dir.path()).unwrap();
        assert_eq!(read(), "--beam=10.0\n--min-active=0\n--max-active=20000\n");
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
