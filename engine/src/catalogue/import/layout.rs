//! Where the parts of a model lie in a Kaldi directory, whichever script or hand laid it out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::ImportError;
use super::settings::Settings;

/// How deep a directory is searched. Kaldi's own trees go five levels down; links may go round in circles.
const SEARCH_DEPTH: usize = 6;

/// First bytes of every OpenFst file.
const FST_MAGIC: u32 = 2_125_659_606;
/// Flag in an OpenFst header: output symbols are inside.
const FST_HAS_OUTPUT_SYMBOLS: u32 = 2;

/// A part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Part {
    Acoustic,
    Hclg,
    Hclr,
    Gr,
    Disambig,
    Words,
    Phones,
    WordBoundary,
    Mfcc,
    Pitch,
    IvectorExtractor,
    IvectorUbm,
    IvectorLda,
    IvectorCmvnStats,
    OnlineCmvn,
    Splice,
    RescoreOld,
    RescoreNew,
}

/// One row: the part, where libvosk looks for it (empty where it is rewritten instead of copied), and the names it
/// goes by, the surest first. A name with a folder must match with that folder.
type Row = (Part, &'static str, &'static [&'static str]);

const ROWS: [Row; 18] = [
    (Part::Acoustic, "am/final.mdl", &["am/final.mdl", "final.mdl"]),
    (Part::Hclg, "graph/HCLG.fst", &["graph/HCLG.fst", "HCLG.fst"]),
    (Part::Hclr, "graph/HCLr.fst", &["graph/HCLr.fst", "HCLr.fst"]),
    (Part::Gr, "graph/Gr.fst", &["graph/Gr.fst", "Gr.fst"]),
    (Part::Disambig, "graph/disambig_tid.int", &["graph/disambig_tid.int", "disambig_tid.int"]),
    (Part::Words, "graph/words.txt", &["graph/words.txt", "words.txt"]),
    (Part::Phones, "graph/phones.txt", &["graph/phones.txt", "phones.txt"]),
    (
        Part::WordBoundary,
        "graph/phones/word_boundary.int",
        &["graph/phones/word_boundary.int", "phones/word_boundary.int", "word_boundary.int"],
    ),
    // Networks are trained on the high-resolution features; a plain mfcc.conf beside them is that of an earlier step.
    (Part::Mfcc, "", &["mfcc_hires.conf", "conf/mfcc.conf", "mfcc.conf"]),
    (Part::Pitch, "conf/pitch.conf", &[]),
    (Part::IvectorExtractor, "ivector/final.ie", &["final.ie"]),
    (Part::IvectorUbm, "ivector/final.dubm", &["final.dubm"]),
    (
        Part::IvectorLda,
        "ivector/final.mat",
        &["ivector/final.mat", "ivector_extractor/final.mat", "extractor/final.mat", "final.mat"],
    ),
    (
        Part::IvectorCmvnStats,
        "ivector/global_cmvn.stats",
        &[
            "ivector/global_cmvn.stats",
            "ivector_extractor/global_cmvn.stats",
            "extractor/global_cmvn.stats",
            "global_cmvn.stats",
        ],
    ),
    (Part::OnlineCmvn, "", &["online_cmvn.conf"]),
    (Part::Splice, "", &["splice.conf", "splice_opts"]),
    (Part::RescoreOld, "rescore/G.fst", &["rescore/G.fst"]),
    (Part::RescoreNew, "rescore/G.carpa", &["rescore/G.carpa"]),
];

/// The parts that were found.
#[derive(Debug)]
pub(super) struct Layout {
    found: BTreeMap<Part, PathBuf>,
    notes: Vec<String>,
}

impl Layout {
    /// Finds the parts: where the settings say, or under their usual names. Fails when the model could not run.
    pub(super) fn find(dir: &Path, settings: &Settings) -> Result<Self, ImportError> {
        let files = Files::below(dir).map_err(|source| ImportError::Io { path: dir.to_owned(), source })?;
        let mut found = BTreeMap::new();
        for (feature, _, names) in ROWS {
            let named = settings.paths.get(&feature).and_then(|named| files.resolve(named));
            if let Some(path) = named.or_else(|| names.iter().find_map(|name| files.ending_in(name))) {
                found.insert(feature, path);
            }
        }
        let mut layout = Self { found, notes: Vec::new() };
        layout.settle(dir, settings)?;
        Ok(layout)
    }

    /// The file of a part that was found, for messages; empty for one that was not.
    pub(super) fn path(&self, feature: Part) -> &Path {
        self.found.get(&feature).map_or(Path::new(""), PathBuf::as_path)
    }

    pub(super) fn has_ivectors(&self) -> bool {
        self.found.contains_key(&Part::IvectorExtractor)
    }

    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.notes.iter().cloned()
    }

    /// What is copied as it is, and where to in the model.
    pub(super) fn copies(&self) -> Vec<(PathBuf, &'static str)> {
        ROWS.iter()
            .filter(|(_, target, _)| !target.is_empty())
            .filter_map(|(feature, target, _)| Some((self.found.get(feature)?.clone(), *target)))
            .collect()
    }

    pub(super) fn read(&self, feature: Part) -> Result<String, ImportError> {
        let path = self.path(feature);
        std::fs::read_to_string(path).map_err(|source| ImportError::Io { path: path.to_owned(), source })
    }

    pub(super) fn read_or(&self, feature: Part, default: &str) -> Result<String, ImportError> {
        if self.found.contains_key(&feature) { self.read(feature) } else { Ok(default.to_owned()) }
    }

    /// Drops what makes no sense without its counterpart, and insists on what a model cannot do without.
    fn settle(&mut self, dir: &Path, settings: &Settings) -> Result<(), ImportError> {
        let missing = |what, remedy| ImportError::Missing { dir: dir.to_owned(), what, remedy };
        let has = |layout: &Self, feature| layout.found.contains_key(&feature);
        if !has(self, Part::Acoustic) {
            return Err(missing("final.mdl", "give the folder that holds the acoustic model"));
        }
        if has(self, Part::Hclg) {
            for part in [Part::Hclr, Part::Gr, Part::Disambig] {
                self.found.remove(&part);
            }
        } else if !(has(self, Part::Hclr) && has(self, Part::Gr)) {
            return Err(missing(
                "HCLG.fst, and no HCLr.fst with Gr.fst",
                "build the decoding graph with Kaldi's utils/mkgraph.sh or mkgraph_lookahead.sh",
            ));
        } else if !has(self, Part::Disambig) {
            return Err(missing(
                "disambig_tid.int, which goes with HCLr.fst",
                "copy it from the folder that mkgraph_lookahead.sh wrote",
            ));
        }
        if !has(self, Part::Words) && !self.has_symbols_inside() {
            return Err(missing("words.txt", "copy it from the folder that the graph was built in"));
        }
        if !has(self, Part::Mfcc) {
            return Err(missing(
                "mfcc.conf or mfcc_hires.conf",
                "copy the one that the network was trained with",
            ));
        }
        if !has(self, Part::WordBoundary) {
            self.notes.push("there is no word_boundary.int, so words have less exact times".to_owned());
        }
        self.settle_ivectors(dir)?;
        if has(self, Part::RescoreOld) != has(self, Part::RescoreNew) {
            self.found.remove(&Part::RescoreOld);
            self.found.remove(&Part::RescoreNew);
            self.notes
                .push("rescoring needs both the old and the new language model; it is left out".to_owned());
        }
        if settings.wants_pitch && !has(self, Part::Pitch) {
            return Err(missing(
                "pitch configuration, but its features have pitch",
                "name it as online-pitch-config in the YAML file",
            ));
        }
        Ok(())
    }

    fn settle_ivectors(&mut self, dir: &Path) -> Result<(), ImportError> {
        let parts = [
            (Part::IvectorUbm, "final.dubm beside final.ie"),
            (Part::IvectorLda, "final.mat beside final.ie"),
            (Part::IvectorCmvnStats, "global_cmvn.stats beside final.ie"),
            (Part::Splice, "splice.conf or splice_opts for final.ie"),
        ];
        if self.has_ivectors() {
            if let Some((_, what)) = parts.iter().find(|(part, _)| !self.found.contains_key(part)) {
                let remedy = "copy the whole folder of the i-vector extractor";
                return Err(ImportError::Missing { dir: dir.to_owned(), what, remedy });
            }
            return Ok(());
        }
        for (part, _) in parts {
            self.found.remove(&part);
        }
        self.notes.push(
            "there is no i-vector extractor (final.ie), so the network is taken to need none".to_owned(),
        );
        Ok(())
    }

    fn has_symbols_inside(&self) -> bool {
        [Part::Hclg, Part::Gr]
            .iter()
            .filter_map(|graph| self.found.get(graph))
            .any(|path| fst_flags(path).is_ok_and(|flags| flags & FST_HAS_OUTPUT_SYMBOLS != 0))
    }
}

/// The flags in an OpenFst header: magic, two strings with their lengths before them, version, flags.
fn fst_flags(path: &Path) -> io::Result<u32> {
    /// Names of graph types are words such as `const8_olabel_lookahead`.
    const LONGEST_NAME: u32 = 256;
    let no_fst = || io::Error::new(io::ErrorKind::InvalidData, "no OpenFst header");
    let mut file = File::open(path)?;
    if next_u32(&mut file)? != FST_MAGIC {
        return Err(no_fst());
    }
    for _ in ["type of the graph", "type of its arcs"] {
        let length = next_u32(&mut file)?;
        if length > LONGEST_NAME {
            return Err(no_fst());
        }
        io::copy(&mut Read::by_ref(&mut file).take(length.into()), &mut io::sink())?;
    }
    let _version = next_u32(&mut file)?;
    next_u32(&mut file)
}

fn next_u32(file: &mut File) -> io::Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// All files of a directory, those nearest to its top first.
struct Files<'a> {
    dir: &'a Path,
    paths: Vec<PathBuf>,
}

impl<'a> Files<'a> {
    fn below(dir: &'a Path) -> io::Result<Self> {
        let mut paths = Vec::new();
        let mut level = vec![dir.to_owned()];
        for _ in 0..SEARCH_DEPTH {
            let mut next = Vec::new();
            for folder in level {
                let mut items = std::fs::read_dir(&folder)?
                    .map(|item| item.map(|item| item.path()))
                    .collect::<io::Result<Vec<_>>>()?;
                items.sort();
                let (folders, files): (Vec<_>, Vec<_>) = items.into_iter().partition(|path| path.is_dir());
                paths.extend(files.into_iter().filter(|path| path.is_file()));
                next.extend(folders);
            }
            level = next;
        }
        Ok(Self { dir, paths })
    }

    /// The file nearest to the top whose path ends in `name`, whole components compared.
    fn ending_in(&self, name: &str) -> Option<PathBuf> {
        self.paths
            .iter()
            .find(|path| path.strip_prefix(self.dir).is_ok_and(|inner| inner.ends_with(name)))
            .cloned()
    }

    /// The file that a path in an old configuration means: the path itself, or its longest end that is in the
    /// directory, since directories are moved and configurations stay as they are.
    fn resolve(&self, named: &Path) -> Option<PathBuf> {
        if named.is_absolute() && named.is_file() {
            return Some(named.to_owned());
        }
        let parts: Vec<_> = named.components().collect();
        (0..parts.len()).find_map(|skip| {
            let end: PathBuf = parts[skip..].iter().collect();
            self.ending_in(end.to_str()?)
        })
    }
}
