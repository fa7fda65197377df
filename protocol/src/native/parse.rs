//! From a client's text to a message, with an error that names the field, the value and what would be right.

use serde_json::Value;
use thiserror::Error;

use super::{AudioFormat, ClientMessage, Encoding, ErrorBody, ErrorCode, Hello, NATIVE_PROTOCOL, Resume};
use crate::Epoch;
use crate::limits::{
    MAX_ALTERNATIVES, MAX_CHANNELS, MAX_PHRASE_BYTES, MAX_PHRASES, MAX_POSITION, MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE, OPUS_RATES,
};

/// A client's text is no message. Nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .0.message)]
pub struct ParseError(pub ErrorBody);

/// Reads one text message of a client and checks its ranges.
///
/// # Errors
/// The text is no JSON, no message of this protocol, or a value is out of its range.
pub fn parse_client(text: &str) -> Result<ClientMessage, ParseError> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| bad(format!("text message is not JSON: {error}")))?;
    from_value(value)
}

/// The same of a message that was read already, whatever it was written in.
pub(super) fn from_value(value: Value) -> Result<ClientMessage, ParseError> {
    let kind = value.get("type").and_then(Value::as_str);
    let Some(kind) = kind else {
        return Err(bad("message has no \"type\"; it must be one of hello, confirm, finalize, end".into()));
    };
    if !["hello", "confirm", "finalize", "end"].contains(&kind) {
        let mut body = ErrorBody::field("type", format!("{kind:?}"), "one of hello, confirm, finalize, end");
        body.code = ErrorCode::BadMessage;
        return Err(ParseError(body));
    }
    let is_hello = kind == "hello";
    let message: ClientMessage = serde_json::from_value(value).map_err(|error| {
        let code = if is_hello { ErrorCode::BadRequest } else { ErrorCode::BadMessage };
        ParseError(ErrorBody::new(code, error.to_string()))
    })?;
    if let ClientMessage::Hello(hello) = &message {
        check(hello).map_err(ParseError)?;
    }
    Ok(message)
}

pub(super) fn bad(message: String) -> ParseError {
    ParseError(ErrorBody::new(ErrorCode::BadMessage, message))
}

fn check(hello: &Hello) -> Result<(), ErrorBody> {
    if hello.protocol == 0 || hello.protocol > NATIVE_PROTOCOL {
        return Err(ErrorBody::field(
            "protocol",
            hello.protocol.to_string(),
            format!("1 to {NATIVE_PROTOCOL}"),
        ));
    }
    let rate = hello.format.sample_rate;
    if !(MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&rate) {
        let allowed = format!("a whole number from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}");
        return Err(ErrorBody::field("format.sample_rate", rate.to_string(), allowed));
    }
    if hello.format.encoding == Encoding::Opus {
        check_opus(&hello.format)?;
    }
    if !(1..=MAX_CHANNELS).contains(&hello.format.channels) {
        let allowed = format!("1 to {MAX_CHANNELS}");
        return Err(ErrorBody::field("format.channels", hello.format.channels.to_string(), allowed));
    }
    if let Some(resume) = &hello.resume {
        check_resume(resume)?;
    }
    let epochs = [("epoch", hello.epoch), ("resume.epoch", hello.resume.as_ref().map(|resume| resume.epoch))];
    for (field, epoch) in epochs {
        if let Some(Epoch(number)) = epoch.filter(|epoch| !(1..=MAX_POSITION).contains(&epoch.0)) {
            return Err(ErrorBody::field(field, number.to_string(), format!("1 to {MAX_POSITION}")));
        }
    }
    check_options(&hello.options)
}

fn check_resume(resume: &Resume) -> Result<(), ErrorBody> {
    let named = [
        ("resume.have_from", Some(resume.have_from.0)),
        ("resume.final_to", resume.final_to.map(|to| to.0)),
        // There are no more segments than frames.
        ("resume.last_final", resume.last_final.map(|segment| segment.0)),
    ];
    for (field, number) in named {
        if let Some(number) = number.filter(|number| *number > MAX_POSITION) {
            return Err(ErrorBody::field(field, number.to_string(), format!("0 to {MAX_POSITION}")));
        }
    }
    Ok(())
}

fn check_opus(format: &AudioFormat) -> Result<(), ErrorBody> {
    if !OPUS_RATES.contains(&format.sample_rate) {
        let allowed = "8000, 12000, 16000, 24000 or 48000 for Opus";
        return Err(ErrorBody::field("format.sample_rate", format.sample_rate.to_string(), allowed));
    }
    if format.channels > 2 {
        return Err(ErrorBody::field("format.channels", format.channels.to_string(), "1 or 2 for Opus"));
    }
    Ok(())
}

fn check_options(options: &super::SessionOptions) -> Result<(), ErrorBody> {
    if options.alternatives > MAX_ALTERNATIVES {
        let allowed = format!("0 to {MAX_ALTERNATIVES}");
        return Err(ErrorBody::field("options.alternatives", options.alternatives.to_string(), allowed));
    }
    if options.phrases.len() > MAX_PHRASES {
        let allowed = format!("at most {MAX_PHRASES} phrases");
        return Err(ErrorBody::field(
            "options.phrases",
            format!("{} phrases", options.phrases.len()),
            allowed,
        ));
    }
    for (index, phrase) in options.phrases.iter().enumerate() {
        if phrase.trim().is_empty() || phrase.len() > MAX_PHRASE_BYTES {
            let field = format!("options.phrases[{index}]");
            let allowed = format!("1 to {MAX_PHRASE_BYTES} bytes of words");
            return Err(ErrorBody::field(&field, format!("{} bytes", phrase.len()), allowed));
        }
    }
    options.endpointing.check("options.endpointing.")?;
    if options.partial_interval_ms < 100 || options.partial_interval_ms > 60_000 {
        let value = options.partial_interval_ms.to_string();
        return Err(ErrorBody::field("options.partial_interval_ms", value, "100 to 60000"));
    }
    Ok(())
}
