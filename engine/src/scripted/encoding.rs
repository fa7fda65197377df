//! How text is written into samples, and what blocks that do harm do.
//!
//! A block is [`BLOCK_SAMPLES`] samples, one step at 16 kHz: two magic samples, the kind, the block's number (low, high
//! half), an argument, the length of the text in bytes, one sample for each byte of it, and a filler that depends on number
//! and place, so that one wrong sample shows. Blocks are found by their magic, on any grid.
#![allow(unsafe_code)] // Real signals are raised, so that a host dies as a native library would make it die.

use std::fs::OpenOptions;

use crate::DecodeError;

/// The rate of the encoding, in Hz.
pub const SAMPLE_RATE: u32 = 16_000;

/// Samples of one block: one step of 100 ms.
pub const BLOCK_SAMPLES: usize = 1_600;

/// Longest text of a block in bytes: a path fits.
const MAX_TEXT: usize = 1_024;

const MAGIC: [i16; 2] = [0x5354, 0x4152];
const HEADER: usize = 7;
const WORD: i16 = 0;

/// What a block can do to the process it is decoded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Die of SIGABRT, as Kaldi's asserts do.
    Abort,
    /// Die of SIGSEGV.
    Segfault,
    /// Exit with this code.
    Exit(u8),
    /// Never return.
    Hang,
    /// Take this long, in milliseconds.
    Slow(u16),
    /// Answer with an error.
    Fail,
}

impl Harm {
    const fn code(self) -> (i16, u16) {
        match self {
            Self::Abort => (1, 0),
            Self::Segfault => (2, 0),
            Self::Exit(code) => (3, code as u16),
            Self::Hang => (4, 0),
            Self::Slow(ms) => (5, ms),
            Self::Fail => (6, 0),
        }
    }

    const fn read(kind: i16, argument: u16) -> Option<Self> {
        Some(match kind {
            1 => Self::Abort,
            2 => Self::Segfault,
            3 => Self::Exit(argument as u8),
            4 => Self::Hang,
            5 => Self::Slow(argument),
            6 => Self::Fail,
            _ => return None,
        })
    }
}

/// One block for each word, numbered from 0.
#[must_use]
pub fn encode<S: AsRef<str>>(words: &[S]) -> Vec<i16> {
    encode_from(0, words)
}

/// One block for each word, numbered from `first`.
///
/// # Panics
/// A word is longer than a block can hold.
#[must_use]
pub fn encode_from<S: AsRef<str>>(first: u32, words: &[S]) -> Vec<i16> {
    let numbered = words.iter().zip(first..);
    numbered.flat_map(|(word, number)| block(WORD, number, 0, word.as_ref())).collect()
}

/// `blocks` steps of silence.
#[must_use]
pub fn silence(blocks: usize) -> Vec<i16> {
    vec![0; blocks * BLOCK_SAMPLES]
}

/// A block that does harm when its last sample is decoded. With `once`, a path, it does so only for the first decoder that
/// comes by and makes the file; every other reads it as a word, as a replay after a chance crash would.
///
/// # Panics
/// The path is longer than a block can hold.
#[must_use]
pub fn harm(number: u32, harm: Harm, once: Option<&str>) -> Vec<i16> {
    let (kind, argument) = harm.code();
    block(kind, number, argument, once.unwrap_or(""))
}

fn block(kind: i16, number: u32, argument: u16, text: &str) -> Vec<i16> {
    assert!(text.len() <= MAX_TEXT, "{} bytes do not fit into a block's {MAX_TEXT}", text.len());
    let mut samples = Vec::with_capacity(BLOCK_SAMPLES);
    samples.extend(MAGIC);
    samples.extend([kind, number as i16, (number >> 16) as i16, argument as i16, text.len() as i16]);
    samples.extend(text.bytes().map(i16::from));
    samples.extend((samples.len()..BLOCK_SAMPLES).map(|place| filler(number, place)));
    samples
}

/// Never zero, and different at neighbouring places and numbers.
const fn filler(number: u32, place: usize) -> i16 {
    ((number.wrapping_mul(2_654_435_761).wrapping_add(place as u32 * 40_503) >> 8) as i16) | 1
}

/// What one more sample led to. `start` is the symbol's first sample, counted from the segment's first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Symbol {
    Silence,
    /// A block has begun, or goes on.
    Started,
    Word {
        start: u32,
        number: u32,
        word: String,
    },
    Damaged {
        start: u32,
        number: u32,
    },
    Stray {
        start: u32,
    },
    Harm {
        start: u32,
        number: u32,
        harm: Harm,
        once: String,
    },
}

/// Finds blocks in a stream of samples.
#[derive(Debug, Default)]
pub(super) struct Parser {
    block: Vec<i16>,
    position: u32,
    stray: bool,
}

impl Parser {
    /// Samples taken so far.
    pub(super) const fn position(&self) -> u32 {
        self.position
    }

    pub(super) fn push(&mut self, sample: i16) -> Option<Symbol> {
        self.position += 1;
        if self.block.is_empty() && sample != MAGIC[0] {
            if sample == 0 {
                self.stray = false;
                return Some(Symbol::Silence);
            }
            return self.stray_from(self.position - 1);
        }
        self.block.push(sample);
        if self.block.len() == 2 && sample != MAGIC[1] {
            self.block.clear();
            return self.stray_from(self.position - 2);
        }
        if self.block.len() < BLOCK_SAMPLES {
            return Some(Symbol::Started);
        }
        self.stray = false;
        let start = self.position - BLOCK_SAMPLES as u32;
        Some(self.read(start))
    }

    /// What the unfinished block amounts to when the segment ends within it.
    pub(super) fn finish(&mut self) -> Option<Symbol> {
        let length = self.block.len();
        self.block.clear();
        if length == 0 { None } else { self.stray_from(self.position - length as u32) }
    }

    /// A run of stray samples is said once.
    fn stray_from(&mut self, start: u32) -> Option<Symbol> {
        if std::mem::replace(&mut self.stray, true) {
            Some(Symbol::Started)
        } else {
            Some(Symbol::Stray { start })
        }
    }

    fn read(&mut self, start: u32) -> Symbol {
        let block = std::mem::take(&mut self.block);
        let number = u32::from(block[3] as u16) | u32::from(block[4] as u16) << 16;
        let length = block[6] as u16 as usize;
        let damaged = Symbol::Damaged { start, number };
        let Some(text) = block.get(HEADER..HEADER + length).filter(|_| length <= MAX_TEXT) else {
            return damaged;
        };
        let whole = (HEADER + length..BLOCK_SAMPLES).all(|place| block[place] == filler(number, place));
        let bytes: Option<Vec<u8>> = text.iter().map(|sample| u8::try_from(*sample).ok()).collect();
        let Some(text) = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|_| whole) else {
            return damaged;
        };
        let (kind, argument) = (block[2], block[5] as u16);
        match Harm::read(kind, argument) {
            Some(harm) => Symbol::Harm { start, number, harm, once: text },
            None if (kind, argument) == (WORD, 0) => Symbol::Word { start, number, word: text },
            None => damaged,
        }
    }
}

/// Does it, and says what it was if it is survived.
pub(super) fn inflict(harm: Harm, once: &str) -> Result<&'static str, DecodeError> {
    if !once.is_empty() && OpenOptions::new().write(true).create_new(true).open(once).is_err() {
        return Ok("survived");
    }
    match harm {
        Harm::Slow(ms) => {
            std::thread::sleep(std::time::Duration::from_millis(u64::from(ms)));
            Ok("slow")
        }
        Harm::Fail => {
            Err(DecodeError::Engine { engine: "scripted", problem: "the block says so".to_owned() })
        }
        Harm::Hang => loop {
            std::thread::park();
        },
        Harm::Abort => std::process::abort(),
        Harm::Segfault => {
            // SAFETY: raise has no preconditions; the default action of SIGSEGV ends the process, Rust's handler for stack
            // overflows re-raises it for any other address.
            unsafe {
                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                libc::raise(libc::SIGSEGV);
            }
            std::process::abort()
        }
        // SAFETY: _exit has no preconditions; it skips destructors, as a library's fatal exit does.
        Harm::Exit(code) => unsafe { libc::_exit(i32::from(code)) },
    }
}
