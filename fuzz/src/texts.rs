//! JSON and other texts, of every dialect.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use starling_protocol::limits::{MAX_CHANNELS, MAX_PHRASES, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use starling_protocol::native::{AudioFormat, ClientMessage, Encoding, ErrorBody, ServerMessage};
use starling_protocol::realtime::{ClientEvent, Config, MAX_AUDIO_BYTES};
use starling_protocol::trace::{SpanContext, SpanId, TraceId};
use starling_protocol::{gstreamer as kaldi, native, openai, realtime as openai_live};

/// A refusal says what is wrong, and is no echo: it may repeat a word that came, and not much more than that.
pub(super) fn checked(error: &ErrorBody, came: usize) {
    assert!(!error.message.is_empty(), "a refusal without a reason");
    // A word of the client's is escaped once in the value and once in the message, `\u{10ffff}` for four bytes at worst.
    let most = 2_000 + 12 * came;
    let fields =
        [&error.field, &error.value, &error.allowed].map(|part| part.as_ref().map_or(0, String::len));
    assert!(error.message.len() + fields.iter().sum::<usize>() <= 2 * most, "a refusal that grows");
    let written = serde_json::to_string(error).expect("an error is written");
    let read: ErrorBody = serde_json::from_str(&written).expect("an error is read");
    assert_eq!(&read, error);
}

pub(super) fn in_range(format: AudioFormat) {
    assert!((MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&format.sample_rate), "{format:?}");
    assert!((1..=MAX_CHANNELS).contains(&format.channels), "{format:?}");
    if format.encoding == Encoding::Opus {
        assert!(format.channels <= 2, "{format:?}");
    }
}

/// What is read from a text is the same when it is read from how it is written. Compared as texts: a number may be none.
fn again<M: Serialize + DeserializeOwned>(message: &M) {
    let written = serde_json::to_string(message).expect("is written");
    let read: M = serde_json::from_str(&written).expect("is read again");
    assert_eq!(serde_json::to_string(&read).expect("is written again"), written);
}

/// A native client's text message.
pub fn native_message(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match native::parse_client(text) {
        Ok(message) => {
            if let ClientMessage::Hello(hello) = &message {
                in_range(hello.format);
                assert!(hello.options.phrases.len() <= MAX_PHRASES);
            }
            let written = serde_json::to_string(&message).expect("is written");
            assert_eq!(native::parse_client(&written).expect("is read again"), message);
        }
        Err(error) => checked(&error.0, text.len()),
    }
}

/// A native server's text message, as clients read it.
pub fn native_server(data: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<ServerMessage>(data) {
        again(&message);
    }
}

/// A vosk-server client's text message.
pub fn vosk(data: &[u8]) {
    use starling_protocol::vosk::{VoskMessage, parse_message, partial_reply};
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let VoskMessage::Config(config) = parse_message(text) {
        let phrases = config.phrase_list.unwrap_or_default();
        assert!(phrases.iter().map(String::len).sum::<usize>() <= text.len());
        assert!(config.model.is_none_or(|name| !name.is_empty()));
    }
    #[derive(Deserialize)]
    struct Partial {
        partial: String,
    }
    let reply: Partial = serde_json::from_str(&partial_reply(text)).expect("a reply is JSON");
    assert_eq!(reply.partial, text);
}

/// A content type of kaldi-gstreamer-server's clients, and one of their text messages.
pub fn gstreamer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match kaldi::parse_content_type(Some(text)) {
        Ok(kaldi::Media::Raw(format)) => in_range(format),
        Ok(kaldi::Media::Container) => {}
        Err(error) => checked(&error, text.len()),
    }
    if let kaldi::TextMessage::AdaptationState(state) = kaldi::parse_text(text) {
        let told = kaldi::adaptation_event("id", Some(&state), "2000-01-01T00:00:00");
        let told: Value = serde_json::from_str(&told).expect("an event is JSON");
        let given = state.get("value");
        assert!(given.is_none_or(|given| told["adaptation_state"]["value"] == *given));
    }
}

/// A query of Deepgram's clients, and one of their text messages.
pub fn deepgram(data: &[u8]) {
    use starling_protocol::deepgram::{error_event, parse_message, parse_query};
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = parse_message(text) {
        checked(&error, text.len());
        serde_json::from_str::<Value>(&error_event(&error)).expect("an event is JSON");
    }
    let pairs = text.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    match parse_query(pairs) {
        Ok(listen) => {
            listen.format.into_iter().for_each(in_range);
            assert!(listen.ignored.is_sorted_by(|one, next| one < next), "an option that is named twice");
        }
        Err(error) => checked(&error, text.len()),
    }
}

/// Events of a client of `OpenAI`'s Realtime interface, one a line, as they change a session's settings.
pub fn realtime(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut config = Config::default();
    for (begun, line) in text.lines().enumerate() {
        match openai_live::parse_event(line).event {
            Ok(ClientEvent::Append(audio)) => {
                assert!(audio.len() <= MAX_AUDIO_BYTES.min(line.len()));
            }
            Ok(ClientEvent::Update(update)) => match config.with(&update, begun > 0) {
                Ok(next) => {
                    in_range(next.format);
                    config = next;
                }
                Err(error) => checked(&error, line.len()),
            },
            Ok(ClientEvent::Commit | ClientEvent::Clear) => {}
            Err(error) => checked(&error, line.len()),
        }
    }
    let mut told = Vec::new();
    openai_live::Teller::new("s", config, text.len() % 2 == 1).created(&mut told);
    for event in told {
        serde_json::from_str::<Value>(&event).expect("an event is JSON");
    }
}

/// The name of a model, as clients of `OpenAI`'s interfaces give it.
pub fn openai_model(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if openai::is_theirs(text) {
        assert!(text.is_ascii(), "{text}");
        assert!(
            openai::is_theirs(&format!("{text}-2025-12-15")) || text.ends_with(|c: char| c.is_ascii_digit())
        );
    }
}

/// Which trace a client says that it belongs to, as a `traceparent`.
pub fn traceparent(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(read) = SpanContext::parse(text) {
        assert!(read.trace != TraceId(0) && read.span != SpanId(0), "ids of zeros are none");
        assert_eq!(SpanContext::parse(&read.to_string()), Some(read));
        // Of a later version more may follow, and of the flags one is known.
        assert_eq!(read.to_string()[3..52], text[3..52]);
    }
}
