//! A narrow door for tests that feed these readers arbitrary bytes from outside this crate. No part of what a node does.

use std::fs::File;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use starling_protocol::native::ErrorBody;

mod requests;

pub use self::requests::{
    KaldiCall, added_model, drain, kaldi_call, page_policy, realtime, reference_file, transcription,
    without_key,
};
use super::audio::{Came, Channels, LiveAudio, Opening};
pub use super::audiosocket::fuzzing::{CallEvents, call_events};
use super::{access, openai, origin};
use crate::media::opus::OpusPackets;
use crate::media::{Compressed, decompress};

/// What came out of audio. A few bytes can be hours of silence: of the samples there is their number and a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Frames a second.
    pub sample_rate: u32,
    /// Channels as they came.
    pub channels: u8,
    /// Bytes of PCM16, and their SHA-256, of each stream.
    pub streams: Vec<(u64, [u8; 32])>,
}

/// The key that a request carries.
#[must_use]
pub fn key_of(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    access::key_of(uri, headers)
}

/// Whether a browser's page of this origin is this node's own at this host.
#[must_use]
pub fn is_own_page(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    origin::is_own(origin, host)
}

/// What is in a form with a recording.
#[derive(Debug)]
pub struct UploadForm {
    /// The recording.
    pub file: Option<File>,
    /// Which model is to hear it.
    pub model: Option<String>,
    /// Which language it is in.
    pub language: Option<String>,
}

/// A form that comes in pieces, whose recording has `limit` bytes at most.
///
/// # Errors
/// It is none, or says what can't be.
pub async fn upload_form(
    content_type: HeaderValue,
    pieces: Vec<Bytes>,
    limit: u64,
) -> Result<UploadForm, ErrorBody> {
    let pieces = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::convert::Infallible>));
    let mut request = Request::new(Body::from_stream(pieces));
    request.headers_mut().insert(header::CONTENT_TYPE, content_type);
    let form = Multipart::from_request(request, &()).await.map_err(|rejection| {
        ErrorBody::new(starling_protocol::native::ErrorCode::BadRequest, rejection.body_text())
    })?;
    // Nothing is waited for.
    let form = openai::read(form, Duration::MAX, limit).await.map_err(|error| *error.error)?;
    Ok(UploadForm { file: form.file, model: form.model, language: form.language })
}

/// A whole live stream in messages, each sent when it is taken.
///
/// # Errors
/// It can't be decoded to its end.
pub async fn live_audio(messages: Vec<Bytes>, apart: bool) -> Result<Heard, ErrorBody> {
    let mut messages = messages.into_iter();
    let mut opening = Opening::new(if apart { Channels::Apart } else { Channels::Mixed });
    let mut closed = false;
    let mut audio = loop {
        tokio::select! {
            biased;
            begun = opening.begun() => if let Some(audio) = begun? { break audio },
            () = std::future::ready(()), if opening.takes() && !closed => match messages.next() {
                Some(message) => opening.push(&message),
                None => {
                    opening.close();
                    closed = true;
                }
            },
        }
    };
    let mut pieces = vec![Vec::new(); audio.streams()];
    let mut hashes = vec![(0u64, Sha256::new()); audio.streams()];
    while more(&mut audio, &mut pieces, &mut messages, &mut closed).await? {
        for (piece, (length, hash)) in pieces.iter_mut().zip(&mut hashes) {
            *length += piece.len() as u64;
            hash.update(&piece);
            piece.clear();
        }
    }
    let streams = hashes.into_iter().map(|(length, hash)| (length, hash.finalize().into())).collect();
    Ok(Heard { sample_rate: audio.sample_rate, channels: audio.channels, streams })
}

async fn more(
    audio: &mut LiveAudio,
    pieces: &mut [Vec<u8>],
    messages: &mut impl Iterator<Item = Bytes>,
    closed: &mut bool,
) -> Result<bool, ErrorBody> {
    loop {
        tokio::select! {
            biased;
            more = audio.more(pieces) => return more.map(|came| came != Came::End),
            () = std::future::ready(()), if audio.takes() && !*closed => match messages.next() {
                Some(message) => audio.push(message),
                None => {
                    audio.close();
                    *closed = true;
                }
            },
        }
    }
}

/// A recording in a file.
///
/// # Errors
/// It can't be decoded to its end.
pub async fn recording(file: File) -> Result<Heard, ErrorBody> {
    let mut decompressed = decompress(Compressed::File(file)).await?;
    let (mut length, mut hash) = (0, Sha256::new());
    while let Some(piece) = decompressed.next().await {
        let piece = piece?;
        length += piece.len() as u64;
        hash.update(&piece);
    }
    let streams = vec![(length, hash.finalize().into())];
    Ok(Heard { sample_rate: decompressed.sample_rate, channels: decompressed.channels, streams })
}

/// Opus packets, one by one.
///
/// # Errors
/// The codec has no such rate or channels.
pub fn opus(
    sample_rate: u32,
    channels: u8,
    packets: &[&[u8]],
) -> Result<Vec<Result<Vec<u8>, ErrorBody>>, ErrorBody> {
    let mut opus = OpusPackets::new(sample_rate, channels)?;
    let decoded = packets.iter().map(|packet| {
        let mut pcm = Vec::new();
        opus.decode(packet, &mut pcm).map(|()| pcm)
    });
    Ok(decoded.collect())
}
