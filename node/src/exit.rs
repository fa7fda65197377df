//! The exit codes of `starling`, for scripts. They follow `sysexits.h` where it has a word for it.

use std::process::ExitCode;

use crate::terminal::plain;

/// Why the program ends. The number is part of the command line's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is done.
    Ok = 0,
    /// Some of several things failed, or a transcript has gaps; each was named.
    Partial = 1,
    /// The command line or the configuration is wrong; the message says what would be right.
    Usage = 64,
    /// An input is not what it should be: no WAV file, a damaged model.
    Data = 65,
    /// A file or a model is missing.
    NoInput = 66,
    /// A server or a source can't be reached.
    Unavailable = 69,
    /// A fault of the program itself.
    Software = 70,
    /// The system refused: an address in use, no more descriptors, a full disk.
    Os = 71,
    /// The server is busy; trying again later may help.
    TryAgain = 75,
    /// Ended by a second signal.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error together with the exit code it stands for.
#[derive(Debug, thiserror::Error)]
#[error("{}", plain(&format!("{error:#}")))]
pub struct Failure {
    /// The program's exit code.
    pub exit: Exit,
    /// What went wrong.
    pub error: anyhow::Error,
}

impl Failure {
    /// An error that ends the program with `exit`.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }
}
