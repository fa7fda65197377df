//! What a model can be asked for, as its files say: before it is loaded, for those who list models, and by the engine that loads it.
//!
//! Owns: that decision, once. Must never: open a file of the model.

use std::path::Path;

use super::entry::EngineKind;
use super::prepared::PreparedModel;
use super::vosk_overlay::PHRASES_FOLDER;
use crate::Capabilities;

impl PreparedModel {
    /// What it can be asked for.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        capabilities(self.engine, &self.dir)
    }
}

/// What a model in this folder can be asked for.
pub(crate) fn capabilities(engine: EngineKind, dir: &Path) -> Capabilities {
    let nothing = Capabilities {
        words: false,
        confidences: false,
        alternatives: false,
        phrases: false,
        punctuation: false,
    };
    match engine {
        EngineKind::Vosk => Capabilities {
            words: true,
            confidences: true,
            alternatives: true,
            phrases: takes_phrases(dir),
            ..nothing
        },
        EngineKind::Moonshine => Capabilities { punctuation: true, ..nothing },
        EngineKind::Scripted => Capabilities { words: true, confidences: true, ..nothing },
    }
}

/// A graph that was composed in advance can't be narrowed to phrases; its halves beside it can.
fn takes_phrases(dir: &Path) -> bool {
    !dir.join("graph/HCLG.fst").is_file() || dir.join(PHRASES_FOLDER).is_dir()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_whole_graph_takes_no_phrases_but_for_its_halves_beside_it() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let phrases = || capabilities(EngineKind::Vosk, folder.path()).phrases;
        let graph = folder.path().join("graph");
        fs::create_dir(&graph).expect("made");
        for half in ["HCLr.fst", "Gr.fst"] {
            fs::write(graph.join(half), "x").expect("written");
        }
        assert!(phrases(), "it is composed while it decodes");
        fs::write(graph.join("HCLG.fst"), "x").expect("written");
        assert!(!phrases(), "it was composed elsewhere");
        fs::create_dir(folder.path().join(PHRASES_FOLDER)).expect("made");
        assert!(phrases(), "it was composed here");
    }
}
