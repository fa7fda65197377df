//! What `OpenAI`'s interfaces have in common, over HTTP and live: the names of their models, and the shape of an error.
//!
//! Source: `OpenAI`'s API reference, and the types of its Python library.

mod language;

use serde_json::{Value, json};

use crate::native::{ErrorBody, ErrorCode};

pub use language::language_name;

/// Models that clients of `OpenAI` name because they have to name one. Here they mean the node's own choice.
const THEIR_MODELS: [&str; 7] = [
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-transcribe-diarize",
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
];

/// Whether a name is one of `OpenAI`'s own models for transcription, with or without the date of a version.
#[must_use]
pub fn is_theirs(model: &str) -> bool {
    let dated = |rest: &str| {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let parts = rest.strip_prefix('-').map(|date| date.split('-').collect::<Vec<_>>());
        parts.is_some_and(|parts| parts.len() == 3 && parts.into_iter().all(digits))
    };
    let mut rests = THEIR_MODELS.iter().filter_map(|theirs| model.strip_prefix(theirs));
    rests.any(|rest| rest.is_empty() || dated(rest))
}

/// What stands under `error`.
#[must_use]
pub fn error_object(error: &ErrorBody) -> Value {
    let kind = match error.code {
        ErrorCode::Busy | ErrorCode::ShuttingDown | ErrorCode::OverQuota => "rate_limit_error",
        ErrorCode::Unauthorized => "authentication_error",
        ErrorCode::Forbidden => "permission_error",
        ErrorCode::Internal | ErrorCode::BadToken | ErrorCode::Superseded | ErrorCode::Gap => "server_error",
        _ => "invalid_request_error",
    };
    let code = match error.code {
        ErrorCode::UnknownModel => Some("model_not_found"),
        ErrorCode::Unauthorized => Some("invalid_api_key"),
        ErrorCode::OverQuota => Some("rate_limit_exceeded"),
        _ => None,
    };
    json!({ "message": error.message, "type": kind, "param": error.field, "code": code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn their_models_are_known_with_and_without_a_date() {
        for theirs in
            ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe-2025-12-15", "gpt-realtime-whisper"]
        {
            assert!(is_theirs(theirs), "{theirs}");
        }
        for other in
            ["", "whisper", "whisper-1-large", "gpt-4o-transcribe-2025", "gpt-realtime", "moonshine-tiny-en"]
        {
            assert!(!is_theirs(other), "{other}");
        }
    }

    #[test]
    fn an_error_has_their_kind_and_code() {
        let shown = error_object(&ErrorBody::field("model", "\"x\"", "one that there is"));
        let wanted = json!({
            "message": "model is \"x\"; it must be one that there is",
            "type": "invalid_request_error",
            "param": "model",
            "code": null,
        });
        assert_eq!(shown, wanted);
        for (code, kind, theirs) in [
            (ErrorCode::Unauthorized, "authentication_error", Some("invalid_api_key")),
            (ErrorCode::Forbidden, "permission_error", None),
            (ErrorCode::OverQuota, "rate_limit_error", Some("rate_limit_exceeded")),
            (ErrorCode::Busy, "rate_limit_error", None),
            (ErrorCode::Internal, "server_error", None),
            (ErrorCode::UnknownModel, "invalid_request_error", Some("model_not_found")),
        ] {
            let shown = error_object(&ErrorBody::new(code, ""));
            assert_eq!((&shown["type"], shown["code"].as_str()), (&kind.into(), theirs), "{code:?}");
        }
    }
}
