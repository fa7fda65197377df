//! Opus, packet by packet and as a track of a recording (RFC 6716; in Ogg RFC 7845).
//!
//! Owns: the seam to the codec, which is the reference's in fixed-point arithmetic: the same samples on every machine. Must never:
//! take one packet for two, or guess at one that is damaged.

use ropus::{DecodeMode, Decoder, DecoderInitError};
use starling_protocol::limits::OPUS_RATES;
use starling_protocol::native::{ErrorBody, ErrorCode};
use symphonia::core::audio::{
    AsGenericAudioBufferRef, AudioBuffer, AudioMut, AudioSpec, Channels, GenericAudioBufferRef, layouts,
};
use symphonia::core::codecs::CodecInfo;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{
    AudioCodecParameters, AudioDecoder, AudioDecoderOptions, FinalizeResult,
};
use symphonia::core::codecs::registry::{RegisterableAudioDecoder, SupportedAudioCodec};
use symphonia::core::errors::{Error, Result, unsupported_error};
use symphonia::core::packet::PacketRef;

/// A packet holds 120 ms at most (RFC 6716, section 3.2.5): an eighth of a second has room for it.
const PACKETS_A_SECOND: u32 = 8;

/// The rate that recordings are decoded at: that of their time stamps.
const TRACK_RATE: u32 = 48_000;

/// Packets that come one by one.
pub(crate) struct OpusPackets {
    decoder: Decoder,
    channels: usize,
    samples: Vec<i16>,
}

impl OpusPackets {
    /// For packets that are decoded to this rate and so many channels.
    ///
    /// # Errors
    /// The codec has no such rate or channels; the error names the field.
    pub(crate) fn new(sample_rate: u32, channels: u8) -> std::result::Result<Self, ErrorBody> {
        if !OPUS_RATES.contains(&sample_rate) {
            let allowed = "8000, 12000, 16000, 24000 or 48000 for Opus";
            return Err(ErrorBody::field("format.sample_rate", sample_rate.to_string(), allowed));
        }
        let channels = usize::from(channels);
        let decoder = decoder(sample_rate, channels)
            .map_err(|_| ErrorBody::field("format.channels", channels.to_string(), "1 or 2 for Opus"))?;
        Ok(Self { decoder, channels, samples: vec![0; most_samples(sample_rate, channels)] })
    }

    /// Appends a packet's frames, interleaved PCM16. An empty one, which is sent where nothing was said, has none.
    ///
    /// # Errors
    /// It is no packet. The next one can be decoded all the same.
    pub(crate) fn decode(&mut self, packet: &[u8], out: &mut Vec<u8>) -> std::result::Result<(), ErrorBody> {
        if packet.is_empty() {
            return Ok(());
        }
        let frames = self.decoder.decode(packet, &mut self.samples, DecodeMode::Normal).map_err(|error| {
            let value = format!("a message of {} bytes ({error})", packet.len());
            ErrorBody { code: ErrorCode::BadMessage, ..ErrorBody::field("audio", value, "one Opus packet") }
        })?;
        out.extend(self.samples[..frames * self.channels].iter().flat_map(|sample| sample.to_le_bytes()));
        Ok(())
    }
}

/// A stream's channels are one, or two that are coupled; more are several streams, which are not taken.
fn decoder(sample_rate: u32, channels: usize) -> std::result::Result<Decoder, DecoderInitError> {
    let layout = match channels {
        1 => ropus::Channels::Mono,
        2 => ropus::Channels::Stereo,
        _ => return Err(DecoderInitError::BadArg),
    };
    Decoder::new(sample_rate, layout)
}

fn most_samples(sample_rate: u32, channels: usize) -> usize {
    (sample_rate / PACKETS_A_SECOND) as usize * channels
}

/// The track of a recording.
pub(super) struct OpusTrack {
    parameters: AudioCodecParameters,
    decoder: Decoder,
    channels: usize,
    samples: Vec<i16>,
    buffer: AudioBuffer<i16>,
    /// Frames at the beginning that are the encoder's delay, as far as they are still to come.
    to_skip: usize,
}

impl OpusTrack {
    fn new(parameters: &AudioCodecParameters) -> Result<Self> {
        let channels = parameters.channels.as_ref().map_or(1, Channels::count);
        let layout = match channels {
            1 => layouts::CHANNEL_LAYOUT_MONO,
            2 => layouts::CHANNEL_LAYOUT_STEREO,
            _ => return unsupported_error("opus: more than two channels"),
        };
        let decoder = decoder(TRACK_RATE, channels).map_err(|_| Error::Unsupported("opus: such a track"))?;
        let most = most_samples(TRACK_RATE, channels);
        Ok(Self {
            parameters: parameters.clone(),
            decoder,
            channels,
            samples: vec![0; most],
            buffer: AudioBuffer::new(AudioSpec::new(TRACK_RATE, layout), most / channels),
            to_skip: parameters.extra_data.as_deref().map_or(0, delay_of),
        })
    }
}

/// What the head says of the encoder's delay (RFC 7845, section 5.1), which Matroska and MP4 have too.
fn delay_of(head: &[u8]) -> usize {
    match head {
        [b'O', b'p', b'u', b's', b'H', b'e', b'a', b'd', _version, _channels, low, high, ..] => {
            usize::from(u16::from_le_bytes([*low, *high]))
        }
        _ => 0,
    }
}

impl AudioDecoder for OpusTrack {
    fn reset(&mut self) {
        if let Ok(decoder) = decoder(TRACK_RATE, self.channels) {
            self.decoder = decoder;
        }
    }

    fn codec_info(&self) -> &CodecInfo {
        &SUPPORTED[0].info
    }

    fn codec_params(&self) -> &AudioCodecParameters {
        &self.parameters
    }

    fn decode_ref(&mut self, packet: &PacketRef<'_>) -> Result<GenericAudioBufferRef<'_>> {
        self.buffer.clear();
        let frames = self.decoder.decode(packet.data, &mut self.samples, DecodeMode::Normal);
        let frames = frames.map_err(|_| Error::DecodeError("opus: damaged packet"))?;
        self.buffer.render_uninit(Some(frames));
        self.buffer.copy_from_slice_interleaved(&&self.samples[..frames * self.channels]);
        let skipped = self.to_skip.min(frames);
        self.to_skip -= skipped;
        let end = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX).min(frames - skipped);
        self.buffer.trim(skipped, end);
        Ok(self.buffer.as_generic_audio_buffer_ref())
    }

    fn finalize(&mut self) -> FinalizeResult {
        FinalizeResult::default()
    }

    fn last_decoded(&self) -> GenericAudioBufferRef<'_> {
        self.buffer.as_generic_audio_buffer_ref()
    }
}

const SUPPORTED: &[SupportedAudioCodec] = &[SupportedAudioCodec {
    id: CODEC_ID_OPUS,
    info: CodecInfo { short_name: "opus", long_name: "Opus", profiles: &[] },
}];

impl RegisterableAudioDecoder for OpusTrack {
    fn try_registry_new(
        parameters: &AudioCodecParameters,
        _options: &AudioDecoderOptions,
    ) -> Result<Box<dyn AudioDecoder>> {
        Ok(Box::new(Self::new(parameters)?))
    }

    fn supported_codecs() -> &'static [SupportedAudioCodec] {
        SUPPORTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDING: &[u8] = include_bytes!("../../tests/recordings/sweep.opus");

    /// The packets of an Ogg stream (RFC 3533), its two heads left out.
    fn packets(mut ogg: &[u8]) -> Vec<Vec<u8>> {
        let (mut packets, mut open) = (Vec::new(), Vec::new());
        while let [b'O', b'g', b'g', b'S', ..] = ogg {
            let count = usize::from(ogg[26]);
            let (lengths, mut body) = ogg[27..].split_at(count);
            for length in lengths {
                let (part, rest) = body.split_at(usize::from(*length));
                open.extend_from_slice(part);
                body = rest;
                if *length < 255 {
                    packets.push(std::mem::take(&mut open));
                }
            }
            ogg = body;
        }
        packets.split_off(2)
    }

    #[test]
    fn packets_are_decoded_at_any_rate_and_damaged_ones_cost_themselves() {
        for sample_rate in OPUS_RATES {
            for channels in [1, 2] {
                let mut opus = OpusPackets::new(sample_rate, channels).expect("such audio");
                let mut out = Vec::new();
                for packet in packets(RECORDING) {
                    opus.decode(&packet, &mut out).expect("a packet");
                    let error = opus.decode(&[0xFF; 3], &mut out).expect_err("none");
                    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::BadMessage, Some("audio")));
                    opus.decode(&[], &mut out).expect("silence");
                }
                let frames = out.len() / 2 / usize::from(channels);
                let second = sample_rate as usize;
                assert!((second..second * 11 / 10).contains(&frames), "{sample_rate} Hz: {frames} frames");
                let loud = out.chunks_exact(2).any(|sample| sample[1].cast_signed().unsigned_abs() > 20);
                assert!(loud, "at {sample_rate} Hz on {channels} channels");
            }
        }
    }

    #[test]
    fn audio_that_the_codec_has_not_is_named() {
        let error = |rate, channels| OpusPackets::new(rate, channels).err().expect("none").message;
        assert!(error(44_100, 1).starts_with("format.sample_rate is 44100"), "{}", error(44_100, 1));
        assert!(error(48_000, 3).starts_with("format.channels is 3"), "{}", error(48_000, 3));
    }

    #[test]
    fn an_encoders_delay_is_read_off_its_head() {
        assert_eq!(delay_of(b"OpusHead\x01\x02\x38\x01\x80\xBB\0\0"), 312);
        assert_eq!(delay_of(b"OpusHead"), 0);
        assert_eq!(delay_of(b"something else"), 0);
    }
}
