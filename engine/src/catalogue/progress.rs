//! How long work reports on itself.

/// Told of the progress of a fetch, a verification or an import; a CLI draws it.
pub trait Progress {
    /// A new step begins; any earlier one is over. `total_bytes` is known for most.
    fn step(&mut self, what: &str, total_bytes: Option<u64>);
    /// The step has come this far, in bytes from its beginning. May step back when a transfer starts over.
    fn at(&mut self, bytes: u64);
    /// Something worth a line of its own.
    fn note(&mut self, text: &str);
}

/// Reports nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {
    fn step(&mut self, _what: &str, _total_bytes: Option<u64>) {}
    fn at(&mut self, _bytes: u64) {}
    fn note(&mut self, _text: &str) {}
}
