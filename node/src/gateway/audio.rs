//! The audio of a live client, whatever it is encoded in: messages go in as they come, PCM16 comes out.
//!
//! Owns: what the first bytes of a stream say it is, and the decoder behind it. Must never: hold more than one message that its
//! decoder has not taken, or know which dialect it came in.

use std::future::pending;

use bytes::Bytes;
use starling_core::audio::PcmReader;
use starling_protocol::native::{AudioFormat, Encoding, ErrorBody};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::wav::{MAX_HEAD_BYTES, is_wav, parse_head};
use crate::media::opus::OpusPackets;
use crate::media::{self, Decompressed};

/// By so many bytes the kind of a recording is known.
const KIND_BYTES: usize = 12;

/// What becomes of several channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Channels {
    /// They are mixed to one.
    #[default]
    Mixed,
    /// Each is a stream of its own.
    Apart,
}

/// A stream's bytes as samples. [`push`](Self::push) while it [`takes`](Self::takes) them, and ask for [`more`](Self::more) all the
/// time.
pub(super) struct LiveAudio {
    /// Frames a second.
    pub(super) sample_rate: u32,
    /// Channels as they come.
    pub(super) channels: u8,
    kept: Channels,
    source: Source,
    /// What waits to be decoded.
    waiting: Option<Bytes>,
    /// Whether a mark waits behind it.
    marked: bool,
    /// Marks that are on their way through the decoder.
    passing: usize,
    closed: bool,
    /// Whether the recording has ended, which its stream need not.
    ended: bool,
}

/// What has come of a stream's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// Samples, or room for a message.
    More,
    /// All samples of what came before a mark.
    Mark,
    /// There will be no more.
    End,
}

enum Source {
    Plain {
        reader: PcmReader,
        /// Bytes of samples to come; what follows them is metadata.
        left: u64,
    },
    Packets {
        packets: Box<OpusPackets>,
        reader: PcmReader,
    },
    Compressed {
        /// `None` once all was handed on.
        feed: Option<mpsc::Sender<Bytes>>,
        decompressed: Decompressed,
        reader: PcmReader,
    },
}

impl LiveAudio {
    /// Of audio whose format was said beforehand.
    ///
    /// # Errors
    /// There is no such audio; the error names the field.
    pub(super) fn described(format: AudioFormat, kept: Channels) -> Result<Self, ErrorBody> {
        let AudioFormat { encoding, sample_rate, channels } = format;
        let source = if encoding == Encoding::Opus {
            let packets = Box::new(OpusPackets::new(sample_rate, channels)?);
            Source::Packets { packets, reader: PcmReader::new(Encoding::PcmS16le, channels) }
        } else {
            Source::Plain { reader: PcmReader::new(encoding, channels), left: u64::MAX }
        };
        Ok(Self::begin((sample_rate, channels), kept, source, None, false))
    }

    fn begin(
        (sample_rate, channels): (u32, u8),
        kept: Channels,
        source: Source,
        waiting: Option<Bytes>,
        closed: bool,
    ) -> Self {
        let (marked, passing, ended) = (false, 0, false);
        Self { sample_rate, channels, kept, source, waiting, marked, passing, closed, ended }
    }

    /// How many streams come out.
    pub(super) fn streams(&self) -> usize {
        match self.kept {
            Channels::Mixed => 1,
            Channels::Apart => usize::from(self.channels.max(1)),
        }
    }

    /// Whether a message can be taken.
    pub(super) const fn takes(&self) -> bool {
        self.waiting.is_none() && !self.marked
    }

    /// Asks for a [`Came::Mark`] behind the samples of all that came so far.
    pub(super) const fn mark(&mut self) {
        self.marked = true;
    }

    /// A message of the client's.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if !self.closed && !self.ended && !bytes.is_empty() {
            self.waiting = Some(bytes);
        }
    }

    /// No more will come.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Waits for samples and appends them, one buffer a stream. Returns with none when it takes a message again. May be cancelled
    /// without losing any.
    ///
    /// # Errors
    /// What came can't be decoded. Of packets that come one by one the next one may be better, which the code says.
    pub(super) async fn more(&mut self, out: &mut [Vec<u8>]) -> Result<Came, ErrorBody> {
        let kept = self.kept;
        match &mut self.source {
            Source::Plain { reader, left } => {
                if let Some(bytes) = self.waiting.take() {
                    let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left = left.saturating_sub(taken as u64);
                    read(reader, kept, &bytes[..taken], out);
                    return Ok(Came::More);
                }
            }
            Source::Packets { packets, reader } => {
                if let Some(packet) = self.waiting.take() {
                    let mut interleaved = Vec::new();
                    packets.decode(&packet, &mut interleaved)?;
                    read(reader, kept, &interleaved, out);
                    return Ok(Came::More);
                }
            }
            Source::Compressed { feed, decompressed, reader } => {
                if self.waiting.is_none() && self.marked && feed.is_some() {
                    // It goes through the decoder, behind what the decoder was given.
                    (self.waiting, self.marked) = (Some(Bytes::new()), false);
                    self.passing += 1;
                }
                if self.waiting.is_none() && self.closed {
                    *feed = None;
                }
                let piece = tokio::select! {
                    biased;
                    piece = decompressed.next() => piece,
                    gone = hand_on(feed.as_ref(), &mut self.waiting) => {
                        if gone {
                            *feed = None;
                        }
                        return Ok(Came::More);
                    }
                };
                match piece.transpose()? {
                    Some(mark) if mark.is_empty() => {
                        self.passing = self.passing.saturating_sub(1);
                        return Ok(Came::Mark);
                    }
                    Some(piece) => {
                        read(reader, kept, &piece, out);
                        return Ok(Came::More);
                    }
                    None => {}
                }
            }
        }
        // A recording may end before its stream does; what still comes is none of it.
        self.ended = matches!(self.source, Source::Compressed { .. });
        self.waiting = None;
        // Those that its decoder did not come to are behind all samples, too.
        self.passing += usize::from(std::mem::take(&mut self.marked));
        if let Some(fewer) = self.passing.checked_sub(1) {
            self.passing = fewer;
            return Ok(Came::Mark);
        }
        if self.closed { Ok(Came::End) } else { pending().await }
    }
}

fn read(reader: &mut PcmReader, kept: Channels, bytes: &[u8], out: &mut [Vec<u8>]) {
    match (kept, out) {
        (Channels::Mixed, [out, ..]) => reader.read(bytes, out),
        (_, out) => reader.read_apart(bytes, out),
    }
}

/// Hands on what waits. Returns whether nobody takes any more; waits for ever when there is nothing to be handed on.
async fn hand_on(feed: Option<&mpsc::Sender<Bytes>>, waiting: &mut Option<Bytes>) -> bool {
    let (Some(feed), true) = (feed, waiting.is_some()) else {
        return pending().await;
    };
    let Ok(room) = feed.reserve().await else {
        // The decoder has said why, or has all that it wants.
        *waiting = None;
        return true;
    };
    if let Some(bytes) = waiting.take() {
        room.send(bytes);
    }
    false
}

/// Whether these are the first bytes of what can be decoded: Ogg, FLAC, MP3 with and without a head, AAC, MP4, or WebM. The decoder
/// would wait for more and search all of it; samples without a head are to be told at once that they need a description.
fn is_compressed(bytes: &[u8]) -> bool {
    match bytes {
        // A frame of MPEG audio or ADTS begins with eleven ones.
        [b'O', b'g', b'g', b'S', ..]
        | [b'f', b'L', b'a', b'C', ..]
        | [b'I', b'D', b'3', ..]
        | [0xFF, 0xE0..=0xFF, ..]
        | [_, _, _, _, b'f', b't', b'y', b'p', ..]
        | [0x1A, 0x45, 0xDF, 0xA3, ..] => true,
        _ => false,
    }
}

/// A decoder that looks at the head.
type Decoding = AbortOnDropHandle<Result<Decompressed, ErrorBody>>;

/// A stream that says itself what it is, until it has said so. [`push`](Self::push) while it [`takes`](Self::takes) messages.
pub(super) struct Opening {
    kept: Channels,
    /// What came, until its kind is known.
    bytes: Vec<u8>,
    compressed: Option<(mpsc::Sender<Bytes>, Decoding)>,
    waiting: Option<Bytes>,
    closed: bool,
}

impl Opening {
    pub(super) const fn new(kept: Channels) -> Self {
        Self { kept, bytes: Vec::new(), compressed: None, waiting: None, closed: false }
    }

    /// Whether a message can be taken.
    pub(super) const fn takes(&self) -> bool {
        self.waiting.is_none()
    }

    /// A message of the client's.
    pub(super) fn push(&mut self, bytes: &Bytes) {
        if self.compressed.is_some() {
            self.waiting = Some(bytes.clone());
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// No more will come.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Waits until it is known what the stream is; `None` when it takes a message again. May be cancelled.
    ///
    /// # Errors
    /// It is of no kind that is known, or has ended before its first sample.
    pub(super) async fn begun(&mut self) -> Result<Option<LiveAudio>, ErrorBody> {
        if self.compressed.is_none()
            && let Some(audio) = self.look()?
        {
            return Ok(Some(audio));
        }
        let Some((feed, decoding)) = &mut self.compressed else {
            return pending().await;
        };
        if self.closed && self.waiting.is_none() {
            // A recording that is shorter than what its decoder wants to see.
            (*feed, _) = mpsc::channel(1);
        }
        let decompressed = tokio::select! {
            biased;
            decompressed = &mut *decoding => decompressed,
            gone = hand_on(Some(&*feed), &mut self.waiting) => {
                self.closed |= gone;
                return Ok(None);
            }
        };
        let decompressed = decompressed.map_err(|_| media::fell_over())??;
        let Decompressed { sample_rate, channels, .. } = decompressed;
        let reader = PcmReader::new(Encoding::PcmS16le, channels);
        let feed = self.compressed.take().map(|(feed, _)| feed);
        let (source, waiting) = (Source::Compressed { feed, decompressed, reader }, self.waiting.take());
        Ok(Some(LiveAudio::begin((sample_rate, channels), self.kept, source, waiting, self.closed)))
    }

    /// What it is by the bytes that came.
    fn look(&mut self) -> Result<Option<LiveAudio>, ErrorBody> {
        if self.bytes.len() >= KIND_BYTES && !is_wav(&self.bytes) {
            if !is_compressed(&self.bytes) {
                let value = format!("bytes that begin with {:02x?}", &self.bytes[..4]);
                return Err(ErrorBody::field("audio", value, media::KNOWN));
            }
            let (sender, source) = media::stream();
            let decoding = AbortOnDropHandle::new(tokio::spawn(media::decompress(source)));
            self.compressed = Some((sender, decoding));
            self.waiting = Some(Bytes::from(std::mem::take(&mut self.bytes)));
            return Ok(None);
        }
        if self.bytes.len() >= KIND_BYTES
            && let Some(head) = parse_head(&self.bytes)?
        {
            let first = Bytes::from(std::mem::take(&mut self.bytes)).slice(head.data_at..);
            let AudioFormat { sample_rate, channels, .. } = head.format;
            let left = head.data_bytes.unwrap_or(u64::MAX);
            let source = Source::Plain { reader: head.reader(), left };
            let waiting = Some(first).filter(|first| !first.is_empty());
            let format = (sample_rate, channels);
            return Ok(Some(LiveAudio::begin(format, self.kept, source, waiting, self.closed)));
        }
        if self.closed || self.bytes.len() > MAX_HEAD_BYTES {
            let value = format!("{} bytes without samples", self.bytes.len());
            return Err(ErrorBody::field("audio", value, media::KNOWN));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
