//! Composes a model's decoding graph once, when the model is prepared, so that no recognizer has to while somebody speaks.
//!
//! Models come with two halves: `HCLr.fst` (sounds to words) and `Gr.fst` (which word follows which). libvosk composes them
//! state by state as speech leads there, in every recognizer anew: that is most of what decoding costs, it makes first words
//! slow, and it grows with what is heard. Composed in advance, the graph is loaded once for all recognizers of a process. Its
//! states have fixed numbers too, so that nothing depends on what a recognizer heard before.
//!
//! Owns: reading the two halves ([`lexicon`], [`grammar`]), the composition ([`compose`]), writing `HCLG.fst` and `words.txt`.
//! Must never: change a path's weight, or leave a half-written graph where a model is loaded from.
//!
//! The composition is the one that libvosk asks OpenFst for (`fst/lookahead-filter.h`: label look-ahead with weights and
//! single words pushed forward), so that a search meets the same scores at the same places.

mod compose;
mod grammar;
mod lexicon;
mod openfst;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

use super::progress::Progress;
use compose::Composer;
use grammar::Grammar;
use lexicon::Lexicon;
use openfst::{ConstFstWriter, Source};

/// Beyond this the graph stays in two halves: 100 million arcs are 2 GB in every decoder process. The small Korean model's
/// graph has 45 million.
const MAX_ARCS: u64 = 100_000_000;

/// Why a graph was not composed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ComposeError {
    /// The graph would be too large to be held by every decoder process.
    #[error("composed, its graph would have more than {MAX_ARCS} arcs")]
    TooLarge,
    /// One of the halves is of a form that is not known here.
    #[error("{file}: {problem}")]
    Form {
        /// Which half.
        file: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What was composed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Composed {
    pub(super) states: u64,
    pub(super) arcs: u64,
}

/// Composes the halves in `folder` into its `HCLG.fst`, and lists the words in `words.txt`.
///
/// # Errors
/// See [`ComposeError`]; there is no `HCLG.fst` then.
pub(super) fn compose(folder: &Path, progress: &mut dyn Progress) -> Result<Composed, ComposeError> {
    let lexicon = read("HCLr.fst", folder, Lexicon::read)?;
    let grammar = read("Gr.fst", folder, Grammar::read)?;
    if grammar.words.is_none() && !folder.join("words.txt").is_file() {
        let problem = "it has no table of its words, and there is no words.txt beside it".to_owned();
        return Err(ComposeError::Form { file: "Gr.fst", problem });
    }
    let silent = numbers(&folder.join("disambig_tid.int"))?;
    let scratch = tempfile::Builder::new().prefix("graph-").tempdir_in(folder)?;
    let mut writer = ConstFstWriter::new(scratch.path())?;
    let composed = Composer::new(&lexicon, &grammar, silent).run(&mut writer, MAX_ARCS, progress)?;
    let graph = scratch.path().join("HCLG.fst");
    writer.finish(&graph)?;
    // libvosk takes a half's own table before a file, so it is the one that counts.
    if let Some(words) = &grammar.words {
        let list = scratch.path().join("words.txt");
        write_words(&list, words)?;
        std::fs::rename(&list, folder.join("words.txt"))?;
    }
    std::fs::rename(&graph, folder.join("HCLG.fst"))?;
    Ok(composed)
}

fn read<T>(
    file: &'static str,
    folder: &Path,
    parse: impl FnOnce(&mut Source<BufReader<File>>) -> Result<T, ComposeError>,
) -> Result<T, ComposeError> {
    let mut source = Source::new(BufReader::with_capacity(1 << 20, File::open(folder.join(file))?));
    parse(&mut source).map_err(|error| match error {
        ComposeError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            ComposeError::Form { file, problem: "it ends too early".to_owned() }
        }
        ComposeError::Form { problem, .. } => ComposeError::Form { file, problem },
        other => other,
    })
}

/// What a half holds that can't be: `read` puts the file's name in.
fn malformed(problem: impl Into<String>) -> ComposeError {
    ComposeError::Form { file: "", problem: problem.into() }
}

fn numbers(path: &Path) -> Result<Vec<u32>, ComposeError> {
    let text = std::fs::read_to_string(path)?;
    let parsed = text.split_whitespace().map(|field| {
        field.parse().map_err(|_| ComposeError::Form {
            file: "disambig_tid.int",
            problem: format!("{field:?} is no number"),
        })
    });
    parsed.collect()
}

/// Kaldi's form: a word and its number on each line.
fn write_words(path: &Path, words: &[(String, i64)]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for (word, number) in words {
        writeln!(file, "{word} {number}")?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

#[cfg(test)]
mod tests;
