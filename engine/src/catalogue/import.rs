//! Kaldi import: being written.
