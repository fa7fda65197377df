//! A recording that is read from a file or from standard input, whatever it is encoded in.

use std::path::Path;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use starling_core::audio::PcmReader;
use starling_protocol::native::{Encoding, ErrorBody};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::is_stdin;
use crate::exit::{Exit, Failure};
use crate::gateway::wav::{MAX_HEAD_BYTES, is_wav, parse_head};
use crate::media::{self, Compressed, Decompressed};

/// Read at once.
const READ_BYTES: usize = 64 * 1024;

/// By so many bytes it is known whether a recording is a WAV.
const KIND_BYTES: usize = 4;

/// Mono PCM16 of a recording, as it is read.
pub(crate) struct Recording {
    /// Frames a second.
    pub(crate) sample_rate: u32,
    /// How long it is, if its head says so.
    pub(crate) seconds: Option<f64>,
    source: Source,
    /// What was read and not yet asked for.
    ahead: Vec<u8>,
}

type Reader = Box<dyn AsyncRead + Unpin + Send>;

enum Source {
    Wav {
        source: Reader,
        samples: PcmReader,
        /// Bytes of samples to come; what follows them is metadata.
        left: u64,
    },
    Compressed {
        decompressed: Decompressed,
        samples: PcmReader,
    },
}

impl Recording {
    pub(crate) async fn open(file: &Path) -> Result<Self, Failure> {
        let mut source: Reader = if is_stdin(file) {
            Box::new(tokio::io::stdin())
        } else {
            let opened = tokio::fs::File::open(file).await.context("cannot be opened");
            Box::new(opened.map_err(|error| Failure::new(Exit::NoInput, error))?)
        };
        let mut bytes = Vec::new();
        while bytes.len() < KIND_BYTES && more(&mut source, &mut bytes).await? > 0 {}
        if is_wav(&bytes) {
            return Self::wav(source, bytes).await;
        }
        let compressed = if is_stdin(file) { arriving(source, bytes) } else { stored(file)? };
        let decompressed = media::decompress(compressed).await.map_err(damaged)?;
        let Decompressed { sample_rate, channels, .. } = decompressed;
        let source =
            Source::Compressed { decompressed, samples: PcmReader::new(Encoding::PcmS16le, channels) };
        Ok(Self { sample_rate, seconds: None, source, ahead: Vec::new() })
    }

    async fn wav(mut source: Reader, mut bytes: Vec<u8>) -> Result<Self, Failure> {
        loop {
            if let Some(head) = parse_head(&bytes).map_err(damaged)? {
                let mut left = head.data_bytes.unwrap_or(u64::MAX);
                let mut samples = head.reader();
                let first = bytes.split_off(head.data_at);
                let mut ahead = Vec::new();
                take(&first, &mut left, &mut samples, &mut ahead);
                return Ok(Self {
                    sample_rate: head.format.sample_rate,
                    seconds: head.data_bytes.map(|bytes| head.seconds(bytes)),
                    source: Source::Wav { source, samples, left },
                    ahead,
                });
            }
            if more(&mut source, &mut bytes).await? == 0 || bytes.len() > MAX_HEAD_BYTES {
                let error = anyhow!("it ends before its first sample; it must be a whole recording");
                return Err(Failure::new(Exit::Data, error));
            }
        }
    }

    /// The next `most` bytes of mono PCM16 or what is left; `None` at the end.
    pub(crate) async fn next(&mut self, most: usize) -> Result<Option<Vec<u8>>, Failure> {
        while self.ahead.len() < most {
            match &mut self.source {
                Source::Wav { left: 0, .. } => break,
                Source::Wav { source, samples, left } => {
                    let mut bytes = Vec::new();
                    if more(source, &mut bytes).await? == 0 {
                        break;
                    }
                    take(&bytes, left, samples, &mut self.ahead);
                }
                Source::Compressed { decompressed, samples } => match decompressed.next().await {
                    Some(piece) => samples.read(&piece.map_err(damaged)?, &mut self.ahead),
                    None => break,
                },
            }
        }
        let rest = self.ahead.split_off(most.min(self.ahead.len()));
        let piece = std::mem::replace(&mut self.ahead, rest);
        Ok((!piece.is_empty()).then_some(piece))
    }
}

fn take(bytes: &[u8], left: &mut u64, samples: &mut PcmReader, out: &mut Vec<u8>) {
    let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= taken as u64;
    samples.read(&bytes[..taken], out);
}

/// Reads on; 0 at the end.
async fn more(source: &mut Reader, bytes: &mut Vec<u8>) -> Result<usize, Failure> {
    bytes.reserve(READ_BYTES);
    let read = source.read_buf(bytes).await.context("cannot be read");
    read.map_err(|error| Failure::new(Exit::NoInput, error))
}

/// A recording out of a pipe.
fn arriving(mut source: Reader, first: Vec<u8>) -> Compressed {
    let (sender, compressed) = media::stream();
    tokio::spawn(async move {
        let mut bytes = first;
        while !bytes.is_empty() && sender.send(Bytes::from(std::mem::take(&mut bytes))).await.is_ok() {
            if let Err(failure) = more(&mut source, &mut bytes).await {
                eprintln!("starling: standard input {failure}");
            }
        }
    });
    compressed
}

fn stored(file: &Path) -> Result<Compressed, Failure> {
    let opened = std::fs::File::open(file)
        .context("cannot be opened")
        .map_err(|error| Failure::new(Exit::NoInput, error))?;
    Ok(Compressed::File(opened))
}

fn damaged(error: ErrorBody) -> Failure {
    Failure::new(Exit::Data, anyhow!(error.message))
}
