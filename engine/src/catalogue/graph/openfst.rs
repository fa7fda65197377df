//! OpenFst's files: `fst/fst.h` (header), `fst/symbol-table.h`, `fst/const-fst.h`. Little-endian, as on every machine that
//! Vosk runs on.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{ComposeError, malformed};

const FST_MAGIC: i32 = 2_125_659_606;
const SYMBOLS_MAGIC: i32 = 2_125_658_996;

const HAS_INPUT_SYMBOLS: i32 = 1;
const HAS_OUTPUT_SYMBOLS: i32 = 2;
const IS_ALIGNED: i32 = 4;
/// Of `const`: the version whose arrays are aligned, whatever the flags say.
const CONST_ALIGNED_VERSION: i32 = 1;
/// `MappedFile::kArchAlignment`.
const ALIGNMENT: u64 = 16;

/// Longer names or words than these are no names or words, but a file read wrongly.
const STRING_MAX_BYTES: i32 = 64 * 1024;

/// A weight that means "not at all".
pub(super) const NEVER: f32 = f32::INFINITY;

/// A transition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Arc {
    pub(super) input: u32,
    pub(super) output: u32,
    pub(super) weight: f32,
    pub(super) next: u32,
}

/// What is read from, with its position: arrays are aligned to it.
pub(super) struct Source<R> {
    inner: R,
    position: u64,
}

impl<R: Read> Source<R> {
    pub(super) const fn new(inner: R) -> Self {
        Self { inner, position: 0 }
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.position += N as u64;
        Ok(bytes)
    }

    pub(super) fn flag(&mut self) -> io::Result<bool> {
        Ok(self.bytes::<1>()?[0] != 0)
    }

    pub(super) fn i32(&mut self) -> io::Result<i32> {
        self.bytes().map(i32::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> io::Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> io::Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub(super) fn f32(&mut self) -> io::Result<f32> {
        self.bytes().map(f32::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> io::Result<i64> {
        self.bytes().map(i64::from_le_bytes)
    }

    /// A count of things that are held in memory and numbered with 32 bits.
    pub(super) fn count(&mut self) -> Result<u32, ComposeError> {
        let count = self.i64()?;
        u32::try_from(count).map_err(|_| malformed(format!("{count} is no sensible count")))
    }

    pub(super) fn string(&mut self) -> Result<String, ComposeError> {
        let length = self.i32()?;
        if !(0..=STRING_MAX_BYTES).contains(&length) {
            return Err(malformed(format!("a text of {length} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.inner.read_exact(&mut bytes)?;
        self.position += bytes.len() as u64;
        String::from_utf8(bytes).map_err(|_| malformed("a text that is not UTF-8"))
    }

    fn align(&mut self) -> io::Result<()> {
        while !self.position.is_multiple_of(ALIGNMENT) {
            self.bytes::<1>()?;
        }
        Ok(())
    }
}

/// What each FST's file begins with.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: String,
    version: i32,
    flags: i32,
    pub(super) start: i64,
    states: i64,
    arcs: i64,
    /// The words that output labels stand for.
    pub(super) symbols: Option<Vec<(String, i64)>>,
}

impl Header {
    pub(super) fn read<R: Read>(source: &mut Source<R>) -> Result<Self, ComposeError> {
        if source.i32()? != FST_MAGIC {
            return Err(malformed("it is no file of OpenFst's"));
        }
        let kind = source.string()?;
        let arc_type = source.string()?;
        if arc_type != "standard" {
            return Err(malformed(format!("its arcs are of type {arc_type:?}, not \"standard\"")));
        }
        let (version, flags) = (source.i32()?, source.i32()?);
        let _properties = source.u64()?;
        let (start, states, arcs) = (source.i64()?, source.i64()?, source.i64()?);
        let mut header = Self { kind, version, flags, start, states, arcs, symbols: None };
        if flags & HAS_INPUT_SYMBOLS != 0 {
            header.symbols = Some(symbols(source)?);
        }
        if flags & HAS_OUTPUT_SYMBOLS != 0 {
            header.symbols = Some(symbols(source)?);
        }
        Ok(header)
    }
}

fn symbols<R: Read>(source: &mut Source<R>) -> Result<Vec<(String, i64)>, ComposeError> {
    if source.i32()? != SYMBOLS_MAGIC {
        return Err(malformed("its table of symbols is none"));
    }
    let _name = source.string()?;
    let _next_free = source.i64()?;
    let count = source.count()?;
    (0..count).map(|_| Ok((source.string()?, source.i64()?))).collect()
}

/// An FST of type `const`, whole in memory.
#[derive(Debug)]
pub(super) struct ConstFst {
    pub(super) start: u32,
    pub(super) finals: Vec<f32>,
    /// Where each state's arcs begin, and the end of the last.
    first_arc: Vec<u32>,
    arcs: Vec<Arc>,
}

impl ConstFst {
    pub(super) fn read<R: Read>(source: &mut Source<R>, header: &Header) -> Result<Self, ComposeError> {
        let count = |count: i64| {
            u32::try_from(count).map_err(|_| malformed(format!("its header counts {count} states or arcs")))
        };
        let (states, arcs) = (count(header.states)?, count(header.arcs)?);
        let start = u32::try_from(header.start).ok().filter(|start| *start < states);
        let start = start.ok_or_else(|| malformed("it has no state to start in"))?;
        let aligned = header.flags & IS_ALIGNED != 0 || header.version == CONST_ALIGNED_VERSION;
        if aligned {
            source.align()?;
        }
        let mut finals = Vec::new();
        let mut first_arc = Vec::new();
        let mut expected = 0;
        for _ in 0..states {
            let (weight, position, count) = (source.f32()?, source.u32()?, source.u32()?);
            let _epsilons = source.u64()?;
            if position != expected && count != 0 {
                return Err(malformed("the arcs of its states do not follow one another"));
            }
            finals.push(weight);
            first_arc.push(expected);
            expected = expected.checked_add(count).ok_or_else(|| malformed("its arcs do not add up"))?;
        }
        first_arc.push(expected);
        if expected != arcs {
            return Err(malformed(format!("its states have {expected} arcs, its header says {arcs}")));
        }
        if aligned {
            source.align()?;
        }
        let mut list = Vec::new();
        for _ in 0..arcs {
            let arc = Arc {
                input: source.u32()?,
                output: source.u32()?,
                weight: source.f32()?,
                next: source.u32()?,
            };
            if arc.next >= states {
                return Err(malformed(format!("an arc leads to state {} of {states}", arc.next)));
            }
            list.push(arc);
        }
        Ok(Self { start, finals, first_arc, arcs: list })
    }

    pub(super) fn arcs(&self, state: u32) -> &[Arc] {
        let state = state as usize;
        &self.arcs[self.first_arc[state] as usize..self.first_arc[state + 1] as usize]
    }
}

/// Writes an FST of type `const`, state by state, without holding it in memory.
pub(super) struct ConstFstWriter {
    states: BufWriter<File>,
    arcs: BufWriter<File>,
    state_count: u64,
    arc_count: u64,
}

impl ConstFstWriter {
    /// The states' size in the file, and an arc's.
    const STATE_BYTES: usize = 20;
    const ARC_BYTES: usize = 16;
    /// `const`, not aligned.
    const VERSION: i32 = 2;
    /// `kExpanded`: nothing else is claimed, and readers work out what they need.
    const PROPERTIES: u64 = 1;

    pub(super) fn new(scratch: &Path) -> io::Result<Self> {
        let open = |name: &str| -> io::Result<BufWriter<File>> {
            let path: PathBuf = scratch.join(name);
            let file = File::options().read(true).write(true).create_new(true).open(path)?;
            Ok(BufWriter::with_capacity(1 << 20, file))
        };
        Ok(Self { states: open("states")?, arcs: open("arcs")?, state_count: 0, arc_count: 0 })
    }

    pub(super) const fn arc_count(&self) -> u64 {
        self.arc_count
    }

    pub(super) const fn state_count(&self) -> u64 {
        self.state_count
    }

    /// The next state: its final weight ([`NEVER`] when it is none) and its arcs.
    pub(super) fn state(&mut self, final_weight: f32, arcs: &[Arc]) -> io::Result<()> {
        let epsilons = |label: fn(&Arc) -> u32| arcs.iter().filter(|arc| label(arc) == 0).count() as u32;
        let mut bytes = [0; Self::STATE_BYTES];
        bytes[..4].copy_from_slice(&final_weight.to_le_bytes());
        bytes[4..8].copy_from_slice(&(self.arc_count as u32).to_le_bytes());
        bytes[8..12].copy_from_slice(&(arcs.len() as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&epsilons(|arc| arc.input).to_le_bytes());
        bytes[16..].copy_from_slice(&epsilons(|arc| arc.output).to_le_bytes());
        self.states.write_all(&bytes)?;
        for arc in arcs {
            let mut bytes = [0; Self::ARC_BYTES];
            bytes[..4].copy_from_slice(&arc.input.to_le_bytes());
            bytes[4..8].copy_from_slice(&arc.output.to_le_bytes());
            bytes[8..12].copy_from_slice(&arc.weight.to_le_bytes());
            bytes[12..].copy_from_slice(&arc.next.to_le_bytes());
            self.arcs.write_all(&bytes)?;
        }
        self.state_count += 1;
        self.arc_count += arcs.len() as u64;
        Ok(())
    }

    /// Puts the file together. State 0 is the start.
    pub(super) fn finish(self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&FST_MAGIC.to_le_bytes())?;
        for text in ["const", "standard"] {
            file.write_all(&(text.len() as i32).to_le_bytes())?;
            file.write_all(text.as_bytes())?;
        }
        file.write_all(&Self::VERSION.to_le_bytes())?;
        file.write_all(&0_i32.to_le_bytes())?;
        file.write_all(&Self::PROPERTIES.to_le_bytes())?;
        for count in [0, self.state_count, self.arc_count] {
            file.write_all(&count.to_le_bytes())?;
        }
        for part in [self.states, self.arcs] {
            let mut part = part.into_inner().map_err(io::IntoInnerError::into_error)?;
            part.seek(SeekFrom::Start(0))?;
            io::copy(&mut part, &mut file)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}
