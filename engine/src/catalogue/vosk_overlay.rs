//! What a Vosk model needs before it may serve: nothing in it may make equal audio decode differently, and its graph is
//! composed once, here.

use std::io;
use std::path::{Path, PathBuf};

use super::graph::{self, ComposeError};
use super::progress::Progress;

/// Kaldi adds random dither to the samples before it computes features, so that the same audio decodes differently
/// from run to run. Replay after a failure relies on equal audio giving equal text, so dither is off.
const NO_DITHER: &str = "--dither=0.0";

/// Kaldi prunes by count while it walks its tokens in the order of a hash over graph states. Where the graph is composed as
/// it is used (`HCLr.fst` with `Gr.fst`), states are numbered as they are met, so that the order depends on what the
/// recognizer heard before. Wherever a count decides, so does that history: at 200 and 3,000, confidences of a replay on
/// another recognizer were off by up to 0.05 in 2 of 5 recordings, and without counts in none. The beam alone has to prune
/// then; the upper count stays far above what the beam leaves of speech, as a bound for noise.
const COUNTS: [(&str, &str); 2] = [("--min-active", "0"), ("--max-active", "20000")];

/// Folder in a prepared model: the same model with its graph in two halves, which is what a list of phrases needs.
pub(crate) const PHRASES_FOLDER: &str = "phrases";

/// What the two halves consist of.
const HALVES: [&str; 3] = ["HCLr.fst", "Gr.fst", "disambig_tid.int"];

/// Makes the prepared model decode equal audio equally, and composes its graph if it comes in two halves.
pub(super) fn prepare(model: &Path, progress: &mut dyn Progress) -> io::Result<()> {
    switch_dither_off(model)?;
    settle_graph(model, progress)
}

/// Composes a graph that comes in two halves. One that can't be composed stays as it is, with the reason noted.
pub(super) fn settle_graph(model: &Path, progress: &mut dyn Progress) -> io::Result<()> {
    let graph = model.join("graph");
    if graph.join("HCLG.fst").is_file() || HALVES.iter().any(|half| !graph.join(half).is_file()) {
        return Ok(());
    }
    match graph::compose(&graph, progress) {
        Ok(composed) => {
            let [states, arcs] = [composed.states, composed.arcs].map(|count| count as f64 / 1e6);
            progress.note(&format!("composed its graph: {states:.1} million states, {arcs:.1} million arcs"));
            set_halves_apart(model)
        }
        Err(ComposeError::Io(error)) => Err(error),
        Err(error) => {
            progress.note(&format!("its graph is composed while it decodes, which is slower: {error}"));
            without_counts(&model.join("conf").join("model.conf"))
        }
    }
}

/// Moves the halves into the folder for phrases, with all else that a model needs linked or copied.
fn set_halves_apart(model: &Path) -> io::Result<()> {
    let phrases = model.join(PHRASES_FOLDER);
    let graph = phrases.join("graph");
    std::fs::create_dir_all(&graph)?;
    for half in HALVES {
        std::fs::rename(model.join("graph").join(half), graph.join(half))?;
    }
    for item in std::fs::read_dir(model.join("graph"))? {
        let name = item?.file_name();
        if name != "HCLG.fst" && name != "words.txt" {
            std::os::unix::fs::symlink(Path::new("../../graph").join(&name), graph.join(&name))?;
        }
    }
    for folder in ["am", "ivector"] {
        if model.join(folder).is_dir() {
            std::os::unix::fs::symlink(Path::new("..").join(folder), phrases.join(folder))?;
        }
    }
    let conf = phrases.join("conf");
    std::fs::create_dir_all(&conf)?;
    for item in std::fs::read_dir(model.join("conf"))? {
        let item = item?;
        std::fs::copy(item.path(), conf.join(item.file_name()))?;
    }
    without_counts(&conf.join("model.conf"))
}

fn without_counts(model_conf: &Path) -> io::Result<()> {
    if !model_conf.is_file() {
        return Ok(());
    }
    let text = std::fs::read_to_string(model_conf)?;
    let is_count = |line: &str| COUNTS.iter().any(|(key, _)| line.trim_start().starts_with(key));
    let kept = text.lines().filter(|line| !is_count(line)).map(str::to_owned);
    let lines: Vec<String> = kept.chain(COUNTS.iter().map(|(key, value)| format!("{key}={value}"))).collect();
    std::fs::write(model_conf, lines.join("\n") + "\n")
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
    use crate::catalogue::progress::Quiet;

    #[test]
    fn dither_is_set_once_whatever_was_there() {
        assert_eq!(without_dither("--num-ceps=40\n"), "--num-ceps=40\n--dither=0.0\n");
        assert_eq!(without_dither("--a=1"), "--a=1\n--dither=0.0\n");
        assert_eq!(without_dither("--dither=1\n--a=1\n --dither=0.5\n"), "--a=1\n--dither=0.0\n");
    }

    #[test]
    fn halves_that_are_none_stay_and_are_pruned_by_beam_alone() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["conf", "graph"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("conf/mfcc.conf"), "").unwrap();
        let conf = dir.path().join("conf/model.conf");
        let read = || std::fs::read_to_string(&conf).unwrap();
        let given = "--min-active=200\n--max-active=3000\n--beam=10.0\n";
        std::fs::write(&conf, given).unwrap();
        prepare(dir.path(), &mut Quiet).unwrap();
        assert_eq!(read(), given, "a graph with fixed numbers needs no change");
        for half in HALVES {
            std::fs::write(dir.path().join("graph").join(half), "").unwrap();
        }
        prepare(dir.path(), &mut Quiet).unwrap();
        assert_eq!(read(), "--beam=10.0\n--min-active=0\n--max-active=20000\n");
        assert!(dir.path().join("graph/HCLr.fst").is_file());
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
