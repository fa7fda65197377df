//! What the query of `/v1/listen` asks for.

use crate::limits::{ENDPOINT_SILENCE_MS, MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, OPUS_RATES};
use crate::native::{AudioFormat, Encoding, ErrorBody};
use crate::number::whole;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Listen {
    /// Of raw audio; `None` when the audio says itself what it is.
    pub format: Option<AudioFormat>,
    /// Whether each channel is to be heard for itself.
    pub multichannel: bool,
    /// A model by name.
    pub model: Option<String>,
    /// A language, for which a model is chosen.
    pub language: Option<String>,
    /// So much silence after speech ends a segment; `None` for the node's own length.
    pub endpointing_ms: Option<u32>,
    /// Whether it wants to hear of open segments.
    pub interim: bool,
    /// After how much silence it wants to hear that nobody speaks.
    pub utterance_end_ms: Option<u32>,
    /// Whether it wants to hear that somebody speaks.
    pub vad_events: bool,
    /// Options that change nothing here, by name, each once, in order.
    pub ignored: Vec<String>,
}

/// Models of theirs, by how their names begin: a client that can't leave the model out is given the default one.
const THEIR_MODELS: [&str; 6] = ["nova", "enhanced", "base", "whisper", "general", "flux"];

/// Encodings of whole recordings.
const RECORDINGS: [&str; 2] = ["ogg-opus", "flac"];

/// The shortest gap that is told apart from one between words.
const LEAST_UTTERANCE_END_MS: u32 = 1_000;

const MOST_UTTERANCE_END_MS: u32 = 5_000;

/// Reads the query's pairs, in order.
///
/// # Errors
/// An option that can't be served as it is asked for; the error names it. Options that nothing here depends on are not errors.
pub fn parse_query<N: AsRef<str>, V: AsRef<str>>(
    pairs: impl IntoIterator<Item = (N, V)>,
) -> Result<Listen, ErrorBody> {
    let mut listen = Listen::default();
    let (mut encoding, mut sample_rate, mut channels) = (None, None, 1);
    for (name, value) in pairs {
        let (name, value) = (name.as_ref(), value.as_ref());
        match name {
            // These have a head that says all of it.
            "encoding" if RECORDINGS.contains(&value) => {}
            "encoding" => encoding = Some(encoding_of(value)?),
            "sample_rate" => sample_rate = Some(whole(name, value, MIN_SAMPLE_RATE, MAX_SAMPLE_RATE)?),
            "channels" => channels = whole(name, value, 1, MAX_CHANNELS)?,
            "multichannel" => listen.multichannel = flag(name, value)?,
            "endpointing" => match value.parse() {
                // Clients ask for 10 ms, too, which is less than a step of audio.
                Ok(ms) => listen.endpointing_ms = Some(within(ms, ENDPOINT_SILENCE_MS)),
                // Segments end somewhere all the same.
                Err(_) if flag(name, value).is_ok() => {}
                Err(_) => {
                    let allowed = "a whole number of milliseconds, true or false";
                    return Err(ErrorBody::field(name, format!("{value:?}"), allowed));
                }
            },
            "detect_language" if flag(name, value)? => {
                let allowed = "false: no engine here can tell which language is spoken";
                return Err(ErrorBody::field(name, "true", allowed));
            }
            "interim_results" => listen.interim = flag(name, value)?,
            "vad_events" => listen.vad_events = flag(name, value)?,
            "utterance_end_ms" => {
                let most = MOST_UTTERANCE_END_MS;
                listen.utterance_end_ms = Some(whole(name, value, LEAST_UTTERANCE_END_MS, most)?);
            }
            "model" if !THEIR_MODELS.iter().any(|theirs| value.starts_with(theirs)) && !value.is_empty() => {
                listen.model = Some(value.to_owned());
            }
            "language" if !value.is_empty() => listen.language = Some(value.to_owned()),
            "model" | "language" | "detect_language" | "token" | "api_key" => {}
            // Among these are `keywords` and `keyterm`, which there make words likelier: no engine here can, and a phrase list
            // would leave it no others.
            _ => listen.ignored.push(name.to_owned()),
        }
    }
    listen.ignored.sort();
    listen.ignored.dedup();
    listen.format = match (encoding, sample_rate) {
        (Some(Encoding::Opus), Some(sample_rate)) if !OPUS_RATES.contains(&sample_rate) => {
            let allowed = "8000, 12000, 16000, 24000 or 48000 for Opus";
            return Err(ErrorBody::field("sample_rate", sample_rate.to_string(), allowed));
        }
        (Some(Encoding::Opus), _) if channels > 2 => {
            return Err(ErrorBody::field("channels", channels.to_string(), "1 or 2 for Opus"));
        }
        (Some(encoding), Some(sample_rate)) => Some(AudioFormat { encoding, sample_rate, channels }),
        (Some(_), None) => {
            let allowed = format!("given with encoding, from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}");
            return Err(ErrorBody::field("sample_rate", "absent", allowed));
        }
        // Without an encoding the audio's head says its rate too.
        (None, _) => None,
    };
    Ok(listen)
}

fn encoding_of(value: &str) -> Result<Encoding, ErrorBody> {
    Ok(match value {
        "linear16" => Encoding::PcmS16le,
        "linear32" => Encoding::PcmF32le,
        "mulaw" => Encoding::Mulaw,
        "alaw" => Encoding::Alaw,
        "opus" => Encoding::Opus,
        _ => {
            let allowed = "linear16, linear32, mulaw, alaw, opus, ogg-opus or flac; or absent for a recording with a head";
            return Err(ErrorBody::field("encoding", format!("{value:?}"), allowed));
        }
    })
}

fn within(value: u32, range: std::ops::RangeInclusive<u32>) -> u32 {
    value.clamp(*range.start(), *range.end())
}

fn flag(name: &str, value: &str) -> Result<bool, ErrorBody> {
    match value {
        "true" | "True" | "1" | "" => Ok(true),
        "false" | "False" | "0" => Ok(false),
        _ => Err(ErrorBody::field(name, format!("{value:?}"), "true or false")),
    }
}
