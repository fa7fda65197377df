//! Recordings whose words are known.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Beside a checkout there may be more recordings than setup fetches.
const BESIDE: &str = "../../shared/audio/en";

/// Lists the recordings of a folder: name without `.wav`, transcript, and whatever else, in columns; the first line names them.
const LIST: &str = "transcripts.tsv";

/// What setup fetches: the opening of "A Tale of Two Cities", and a line of "Worstward Ho".
const FETCHED: [(&str, &str); 2] = [
    (
        "two_cities.wav",
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it \
         was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of \
         Darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing \
         before us, we were all going direct to Heaven, we were all going direct the other way, in short, the period was \
         so far like the present period, that some of its noisiest authorities insisted on its being received, for good \
         or for evil, in the superlative degree of comparison only.",
    ),
    ("beckett.wav", "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."),
];

#[derive(Debug, Clone)]
pub(crate) struct Recording {
    pub(crate) path: PathBuf,
    pub(crate) transcript: String,
}

/// English.
pub(crate) struct Speech(pub(crate) Vec<Recording>);

impl Speech {
    /// The recordings of `folder`, else those beside the checkout, else those that setup fetches.
    pub(crate) fn find(folder: Option<&Path>, home: &Path) -> Result<Self> {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(BESIDE);
        let recordings = match folder {
            Some(folder) => list(folder, 1)?,
            None if beside.join(LIST).exists() => list(&beside, 1)?,
            None => FETCHED
                .iter()
                .map(|(name, transcript)| Recording {
                    path: home.join("audio").join(name),
                    transcript: (*transcript).to_owned(),
                })
                .collect(),
        };
        ensure!(!recordings.is_empty(), "{LIST} lists no recording");
        Ok(Self(recordings))
    }
}

/// The recordings that a folder's list names, behind so many lines of head.
pub(crate) fn list(folder: &Path, head: usize) -> Result<Vec<Recording>> {
    let list = folder.join(LIST);
    let text = std::fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    let lines = text.lines().skip(head).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut columns = line.split('\t');
            let name = columns.next().unwrap_or_default().trim_end_matches(".wav");
            let transcript =
                columns.next().with_context(|| format!("{}: no transcript in {line:?}", list.display()))?;
            Ok(Recording { path: folder.join(format!("{name}.wav")), transcript: transcript.to_owned() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_by_its_first_columns() {
        let folder = tempfile::tempdir().unwrap();
        let text = "clip\ttranscript\tlicence\na\tOne two.\tMIT\nb.wav\tThree\n";
        std::fs::write(folder.path().join(LIST), text).unwrap();
        let speech = Speech::find(Some(folder.path()), Path::new("/nowhere")).unwrap().0;
        let named: Vec<_> = speech
            .iter()
            .map(|one| (one.path.file_name().unwrap().to_str().unwrap(), &*one.transcript))
            .collect();
        assert_eq!(named, [("a.wav", "One two."), ("b.wav", "Three")]);
        std::fs::write(folder.path().join(LIST), "clip\na\n").unwrap();
        assert!(list(folder.path(), 1).is_err());
    }
}
