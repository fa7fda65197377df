//! The samples of a recording that comes over HTTP, whatever it is encoded in. It is decoded as it arrives; at no time is more of it
//! held than a few pieces, but for MP4, which may have its index at its end.

use std::fs::File;
use std::io::{Read, Seek};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use futures_util::StreamExt;
use starling_core::audio::PcmReader;
use starling_protocol::gstreamer::Media;
use starling_protocol::native::{AudioFormat, Encoding, ErrorBody, ErrorCode};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;
use tokio_util::task::AbortOnDropHandle;

use super::reply::HttpError;
use super::wav::{MAX_HEAD_BYTES, is_wav, parse_head};
use crate::media::{self, Compressed, Decompressed};

/// By so many bytes a recording's kind is known.
const KIND_BYTES: usize = 12;

/// A disk that gives nothing for so long is broken.
const READING: Duration = Duration::from_secs(30);

/// A body that is read with an eye on its length and on its pace.
pub(super) struct Recording {
    body: BodyDataStream,
    left: u64,
    limit: u64,
    patience: Duration,
}

impl Recording {
    /// Of at most `limit` bytes, each part of which comes within `patience`.
    pub(super) fn new(body: Body, limit: u64, patience: Duration) -> Self {
        Self { body: body.into_data_stream(), left: limit, limit, patience }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        let Ok(next) = timeout(self.patience, self.body.next()).await else {
            let message = format!("no part of the recording came for {} s", self.patience.as_secs_f64());
            return Err(ErrorBody::new(ErrorCode::IdleTimeout, message).into());
        };
        let Some(piece) = next else {
            return Ok(None);
        };
        let piece = piece.map_err(|error| {
            ErrorBody::new(ErrorCode::BadRequest, format!("the recording broke off: {error}"))
        })?;
        self.left = self
            .left
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| too_large(format!("over {} bytes", self.limit), self.limit))?;
        Ok(Some(piece))
    }
}

/// Refuses a recording that says itself that it is too large, before any of it is read.
pub(super) fn check_length(headers: &HeaderMap, limit: u64) -> Result<(), HttpError> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    match length.and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length > limit => Err(too_large(format!("{length} bytes"), limit)),
        _ => Ok(()),
    }
}

pub(super) fn too_large(value: String, limit: u64) -> HttpError {
    let error = ErrorBody::field("body", value, format!("at most {limit} bytes"));
    HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, error)
}

fn unprocessable(error: ErrorBody) -> HttpError {
    let status = match error.code {
        ErrorCode::Busy => StatusCode::SERVICE_UNAVAILABLE,
        // Of audio that is, not of bytes.
        ErrorCode::SessionTooLong => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    HttpError::new(status, error)
}

/// PCM16 that comes in pieces.
pub(super) struct Samples {
    /// Frames a second.
    pub(super) sample_rate: u32,
    /// Interleaved in the recording.
    pub(super) channels: u8,
    reader: PcmReader,
    source: Source,
}

/// What hands a recording on to its decoder. Ends with the samples.
type Feeding = AbortOnDropHandle<Result<(), HttpError>>;

enum Source {
    Plain {
        recording: Recording,
        /// Samples that came with the head.
        first: Option<Bytes>,
        /// Bytes of samples to come; what follows them is metadata.
        left: u64,
    },
    Decompressed {
        decompressed: Decompressed,
        feeding: Option<Feeding>,
    },
}

impl Samples {
    /// Reads up to the first samples.
    ///
    /// # Errors
    /// The recording is of no kind that is taken, too large, or too slow.
    pub(super) async fn open(mut recording: Recording, media: Media) -> Result<Self, HttpError> {
        if let Media::Raw(format) = media {
            if format.encoding == Encoding::Opus {
                let allowed = "Opus in Ogg: in a body there is nothing that tells one packet from the next";
                return Err(ErrorBody::field("encoding", "opus", allowed).into());
            }
            let reader = PcmReader::new(format.encoding, format.channels);
            let source = Source::Plain { recording, first: None, left: u64::MAX };
            return Ok(Self { sample_rate: format.sample_rate, channels: format.channels, reader, source });
        }
        let mut bytes = Vec::new();
        while bytes.len() < KIND_BYTES
            && let Some(piece) = recording.next().await?
        {
            bytes.extend_from_slice(&piece);
        }
        if is_wav(&bytes) || bytes.len() < KIND_BYTES {
            return Self::wav(recording, bytes).await;
        }
        let is_mp4 = bytes[4..].starts_with(b"ftyp");
        if is_mp4 {
            let mut stored = Stored::new()?;
            stored.add(&bytes).await?;
            while let Some(piece) = recording.next().await? {
                stored.add(&piece).await?;
            }
            return Self::stored(stored.finish().await?).await;
        }
        Self::streamed(recording, bytes).await
    }

    /// Of a recording that is stored. The file is read to its end.
    ///
    /// # Errors
    /// See [`open`](Self::open).
    pub(super) async fn stored(mut file: File) -> Result<Self, HttpError> {
        let mut kind = [0; 4];
        let read = file.rewind().and_then(|()| file.read(&mut kind)).and_then(|_| file.rewind());
        read.map_err(unstored)?;
        if is_wav(&kind) {
            let body = Body::from_stream(ReaderStream::new(tokio::fs::File::from_std(file)));
            return Self::wav(Recording::new(body, u64::MAX, READING), Vec::new()).await;
        }
        let decompressed = media::decompress(Compressed::File(file)).await.map_err(unprocessable)?;
        Ok(Self::decompressed(decompressed, None))
    }

    fn decompressed(decompressed: Decompressed, feeding: Option<Feeding>) -> Self {
        let Decompressed { sample_rate, channels, .. } = decompressed;
        let reader = PcmReader::new(Encoding::PcmS16le, channels);
        Self { sample_rate, channels, reader, source: Source::Decompressed { decompressed, feeding } }
    }

    async fn wav(mut recording: Recording, mut bytes: Vec<u8>) -> Result<Self, HttpError> {
        loop {
            if let Some(head) = parse_head(&bytes).map_err(unprocessable)? {
                let first = Some(Bytes::from(bytes).slice(head.data_at..));
                let left = head.data_bytes.unwrap_or(u64::MAX);
                let AudioFormat { sample_rate, channels, .. } = head.format;
                let source = Source::Plain { recording, first, left };
                return Ok(Self { sample_rate, channels, reader: head.reader(), source });
            }
            match recording.next().await? {
                Some(piece) if bytes.len() <= MAX_HEAD_BYTES => bytes.extend_from_slice(&piece),
                _ => {
                    let value = format!("{} bytes without samples", bytes.len());
                    return Err(unprocessable(ErrorBody::field("body", value, "a whole WAV recording")));
                }
            }
        }
    }

    async fn streamed(mut recording: Recording, first: Vec<u8>) -> Result<Self, HttpError> {
        let (sender, source) = media::stream();
        let feeding = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut next = Some(Bytes::from(first));
            while let Some(piece) = next {
                // An empty one would be a mark.
                if !piece.is_empty() && sender.send(piece).await.is_err() {
                    // The decoder has said why it takes no more.
                    return Ok(());
                }
                next = recording.next().await?;
            }
            Ok(())
        }));
        match media::decompress(source).await {
            Ok(decompressed) => Ok(Self::decompressed(decompressed, Some(feeding))),
            Err(error) => Err(why(Some(feeding), error).await),
        }
    }

    /// The next piece with all channels mixed to one; `None` at the end.
    ///
    /// # Errors
    /// The recording is damaged, too large, or too slow.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        let Some(piece) = self.piece().await? else { return Ok(None) };
        let mut mono = Vec::new();
        self.reader.read(&piece, &mut mono);
        Ok(Some(mono))
    }

    /// The next piece of each channel; `None` at the end.
    ///
    /// # Errors
    /// See [`next`](Self::next).
    pub(super) async fn next_apart(&mut self) -> Result<Option<Vec<Vec<u8>>>, HttpError> {
        let Some(piece) = self.piece().await? else { return Ok(None) };
        let mut apart = vec![Vec::new(); usize::from(self.channels)];
        self.reader.read_apart(&piece, &mut apart);
        Ok(Some(apart))
    }

    /// The next bytes as they are in the recording.
    async fn piece(&mut self) -> Result<Option<Bytes>, HttpError> {
        match &mut self.source {
            Source::Plain { recording, first, left } => {
                let piece = match first.take() {
                    Some(first) => Some(first),
                    None => recording.next().await?,
                };
                Ok(piece.map(|piece| {
                    let samples = piece.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= samples as u64;
                    piece.slice(..samples)
                }))
            }
            Source::Decompressed { decompressed, feeding } => match decompressed.next().await {
                Some(Ok(piece)) => Ok(Some(Bytes::from(piece))),
                Some(Err(error)) => Err(why(feeding.take(), error).await),
                None => {
                    // A recording that broke off ends early, but not well.
                    if let Some(feeding) = feeding.take()
                        && let Ok(fed) = feeding.await
                    {
                        fed?;
                    }
                    Ok(None)
                }
            },
        }
    }
}

/// What broke off may look like no recording, or like a damaged one.
async fn why(feeding: Option<Feeding>, error: ErrorBody) -> HttpError {
    let Some(feeding) = feeding else { return unprocessable(error) };
    feeding.abort();
    match feeding.await {
        Ok(Err(broken)) => broken,
        _ => unprocessable(error),
    }
}

/// A recording on its way into a file that has no name, and is gone with its last descriptor.
pub(super) struct Stored(tokio::fs::File);

impl Stored {
    pub(super) fn new() -> Result<Self, HttpError> {
        Ok(Self(tokio::fs::File::from_std(tempfile::tempfile().map_err(unstored)?)))
    }

    pub(super) async fn add(&mut self, piece: &[u8]) -> Result<(), HttpError> {
        self.0.write_all(piece).await.map_err(unstored)
    }

    pub(super) async fn finish(mut self) -> Result<File, HttpError> {
        self.0.flush().await.map_err(unstored)?;
        Ok(self.0.into_std().await)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unstored(error: std::io::Error) -> HttpError {
    tracing::error!(%error, "a recording could not be stored");
    ErrorBody::new(ErrorCode::Internal, "the recording could not be stored").into()
}
