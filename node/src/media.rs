//! Compressed recordings, decoded as they arrive: bytes of a FLAC, MP3, AAC, MP4, WebM or Ogg stream go in, PCM comes out.
//!
//! Owns: a thread for each stream, which waits on both sides. Must never: hold more than a few pieces on either, or know whose
//! recording it is. The work is symphonia's.

mod measure;
pub(crate) mod opus;

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use starling_protocol::limits::{MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use starling_protocol::native::{ErrorBody, ErrorCode};
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, ReadOnlySource};
use symphonia::core::meta::MetadataOptions;
use tokio::sync::{mpsc, oneshot};

use self::measure::Measure;

/// Pieces that wait on either side: what is in a network's buffers anyway.
const WAITING: usize = 4;

/// Damaged packets in a row after which a stream is given up. A break in a transfer costs a few.
const MOST_DAMAGED: usize = 100;

/// What is said of a recording of no kind that is known.
pub(crate) const KNOWN: &str =
    "a recording in WAV, FLAC, MP3, AAC, MP4 (M4A), WebM, or Vorbis or Opus in Ogg";

/// Where a stream's bytes come from.
pub(crate) enum Compressed {
    /// Over the network; ends when its sender is dropped. An empty piece is a mark: it comes out, as an empty piece again, behind all
    /// samples of what went in before it.
    Stream(mpsc::Receiver<Bytes>),
    /// A file that can be read back and forth, which MP4 may need: its index can be at its end.
    File(File),
}

/// What comes out of a stream.
pub(crate) struct Decompressed {
    /// Frames a second.
    pub(crate) sample_rate: u32,
    /// Interleaved in each piece.
    pub(crate) channels: u8,
    pieces: mpsc::Receiver<Result<Vec<u8>, ErrorBody>>,
    /// Told when the end of the pieces is the recording's.
    ended: Option<oneshot::Receiver<()>>,
}

impl Decompressed {
    /// The next piece, whole frames of PCM16, or a mark; `None` at the recording's end. May be cancelled without losing any.
    ///
    /// # Errors
    /// There is no more, and why.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<u8>, ErrorBody>> {
        if let Some(piece) = self.pieces.recv().await {
            return Some(piece);
        }
        // A thread that fell over tells nobody.
        let fell = self.ended.take().is_some_and(|mut ended| ended.try_recv().is_err());
        fell.then(|| Err(fell_over()))
    }
}

pub(crate) fn fell_over() -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, "the recording can't be decoded")
}

/// The way for bytes into [`Compressed::Stream`].
pub(crate) fn stream() -> (mpsc::Sender<Bytes>, Compressed) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (sender, Compressed::Stream(receiver))
}

/// Decodes a recording in a thread of its own. Returns when its head has been read. Ends with an error when more comes out than any
/// encoder of speech puts into so few bytes.
///
/// # Errors
/// It is of no kind that is known, or damaged from its beginning; the error names the part.
pub(crate) async fn decompress(source: Compressed) -> Result<Decompressed, ErrorBody> {
    let (pieces, mut decoded) = mpsc::channel(WAITING);
    let (head, begun) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let work = move || {
        let (source, measure) = source.opened(&pieces);
        // Whoever asked may have gone.
        match decode(source, measure, &pieces, head) {
            Ok(()) => {
                let _ = end.send(());
            }
            Err(Stop::Failed(error)) => {
                let _ = end.send(());
                let _ = pieces.blocking_send(Err(error));
            }
            Err(Stop::Unwanted) => {}
        }
    };
    let spawned = std::thread::Builder::new().name("media".to_owned()).spawn(work);
    spawned.map_err(|error| {
        tracing::warn!(%error, "a recording cannot be decoded now");
        ErrorBody::new(ErrorCode::Busy, "too many recordings are being decoded")
    })?;
    match begun.await {
        Ok(Head { sample_rate, channels }) => {
            Ok(Decompressed { sample_rate, channels, pieces: decoded, ended: Some(ended) })
        }
        // The thread has said why, if it could.
        Err(_) => Err(decoded.recv().await.and_then(Result::err).unwrap_or_else(fell_over)),
    }
}

impl Compressed {
    /// As something to be read, with what its bytes may hold.
    fn opened(self, pieces: &mpsc::Sender<Result<Vec<u8>, ErrorBody>>) -> (Box<dyn MediaSource>, Measure) {
        match self {
            Self::Stream(receiver) => {
                let arrived = Arc::new(AtomicU64::new(0));
                let measure = Measure::new(Arc::clone(&arrived));
                let arriving = Arriving { receiver, piece: Bytes::new(), pieces: pieces.clone(), arrived };
                (Box::new(ReadOnlySource::new(arriving)), measure)
            }
            Self::File(file) => {
                // It is read back and forth, and an index may point at the same bytes again and again.
                let bytes = file.metadata().map_or(0, |metadata| metadata.len());
                (Box::new(file), Measure::new(Arc::new(AtomicU64::new(bytes))))
            }
        }
    }
}

/// A recording that arrives in pieces, as something to be read.
struct Arriving {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
    /// Where marks come out. Whoever reads here has handed on all that it could make of what it read before.
    pieces: mpsc::Sender<Result<Vec<u8>, ErrorBody>>,
    /// Bytes that have come.
    arrived: Arc<AtomicU64>,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                // Whoever wants no more is noticed at the next piece.
                Some(mark) if mark.is_empty() => drop(self.pieces.blocking_send(Ok(Vec::new()))),
                Some(piece) => {
                    self.arrived.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    self.piece = piece;
                }
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// What is known by the first samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    sample_rate: u32,
    channels: u8,
}

/// symphonia's decoders, and that of Opus which it has none of.
static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut codecs = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut codecs);
    codecs.register_audio_decoder::<opus::OpusTrack>();
    codecs
});

/// Why a thread ends before its recording does.
enum Stop {
    Failed(ErrorBody),
    /// Nobody wants the rest.
    Unwanted,
}

fn decode(
    source: Box<dyn MediaSource>,
    mut measure: Measure,
    pieces: &mpsc::Sender<Result<Vec<u8>, ErrorBody>>,
    head: oneshot::Sender<Head>,
) -> Result<(), Stop> {
    let failed = |error: Error| Stop::Failed(unknown(&error.to_string()));
    let stream = MediaSourceStream::new(source, Default::default());
    let (options, metadata) = (FormatOptions::default(), MetadataOptions::default());
    let probed = symphonia::default::get_probe().probe(&Hint::new(), stream, options, metadata);
    let mut format = probed.map_err(|error| match error {
        Error::Unsupported(_) => Stop::Failed(unknown("of no kind that is known")),
        error => failed(error),
    })?;
    let track = format.default_track(TrackType::Audio);
    let (id, parameters) = track
        .and_then(|track| Some((track.id, track.codec_params.as_ref()?.audio()?.clone())))
        .ok_or_else(|| Stop::Failed(unknown("a recording without audio")))?;
    let options = AudioDecoderOptions::default();
    let mut decoder = CODECS.make_audio_decoder(&parameters, &options).map_err(failed)?;
    let mut head = Some(head);
    let mut begun = None;
    let mut damaged = 0;
    let mut samples: Vec<i16> = Vec::new();
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            // A transfer that broke off ends where it did.
            Err(Error::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(failed(error)),
        };
        if packet.track_id != id {
            continue;
        }
        let decoded = match decoder.decode(&packet) {
            Ok(decoded) => decoded,
            // What it reads is in memory: an error of reading is one of the packet, too.
            Err(Error::DecodeError(_) | Error::IoError(_)) if damaged < MOST_DAMAGED => {
                damaged += 1;
                continue;
            }
            Err(error) => return Err(failed(error)),
        };
        damaged = 0;
        if decoded.frames() == 0 {
            continue;
        }
        let found = Head {
            channels: checked_channels(decoded.num_planes())?,
            sample_rate: checked_rate(decoded.spec().rate())?,
        };
        let begun = *begun.get_or_insert(found);
        if found != begun {
            return Err(Stop::Failed(changed(begun, found)));
        }
        if let Some(head) = head.take() {
            head.send(begun).map_err(|_| Stop::Unwanted)?;
        }
        measure.hear(decoded.frames(), begun.sample_rate).map_err(Stop::Failed)?;
        decoded.copy_to_vec_interleaved(&mut samples);
        let bytes = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        pieces.blocking_send(Ok(bytes)).map_err(|_| Stop::Unwanted)?;
    }
    match head {
        Some(_) => Err(Stop::Failed(unknown("a recording without samples"))),
        None => Ok(()),
    }
}

fn changed(begun: Head, found: Head) -> ErrorBody {
    if found.sample_rate != begun.sample_rate {
        let allowed = format!("{} to the end, as it began", begun.sample_rate);
        return ErrorBody::field("sample_rate", found.sample_rate.to_string(), allowed);
    }
    let allowed = format!("{} to the end, as it began", begun.channels);
    ErrorBody::field("channels", found.channels.to_string(), allowed)
}

fn checked_channels(channels: usize) -> Result<u8, Stop> {
    let found = u8::try_from(channels).ok().filter(|count| (1..=MAX_CHANNELS).contains(count));
    found.ok_or_else(|| {
        Stop::Failed(ErrorBody::field("channels", channels.to_string(), format!("1 to {MAX_CHANNELS}")))
    })
}

fn checked_rate(rate: u32) -> Result<u32, Stop> {
    if (MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&rate) {
        return Ok(rate);
    }
    let allowed = format!("a whole number from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}");
    Err(Stop::Failed(ErrorBody::field("sample_rate", rate.to_string(), allowed)))
}

fn unknown(problem: &str) -> ErrorBody {
    ErrorBody::field("body", problem.to_owned(), KNOWN)
}

#[cfg(test)]
mod tests;
