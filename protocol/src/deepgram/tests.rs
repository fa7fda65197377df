use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::native::{AudioFormat, Encoding};
use crate::{CutCause, Segment, SourceOffset};

fn answerer() -> Answerer {
    Answerer {
        request_id: "request".into(),
        model: "m".into(),
        model_uuid: "uuid".into(),
        version: "1.2.3".into(),
    }
}

fn listen(query: &str) -> Result<Listen, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    parse_query(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))).map_err(|error| error.message)
}

fn word(word: &str, start: f64, end: f64) -> TimedWord {
    TimedWord { word: word.into(), start, end, confidence: Some(0.9) }
}

fn a_final(from: u64, to: u64, cause: CutCause, words: Vec<TimedWord>) -> Final {
    let texts: Vec<&str> = words.iter().map(|word| word.word.as_str()).collect();
    Final {
        segment: Segment(0),
        from: SourceOffset(from),
        to: SourceOffset(to),
        start: 0.0,
        end: 0.0,
        cause,
        text: texts.join(" "),
        words,
        confidence: Some(0.75),
        alternatives: Vec::new(),
        error: None,
    }
}

fn teller(query: &str) -> Teller {
    Teller::new(answerer(), [0, 1], 8_000, &listen(query).expect("fine"))
}

/// What is told, as JSON.
fn told(act: impl FnOnce(&mut Vec<String>)) -> Vec<Value> {
    let mut out = Vec::new();
    act(&mut out);
    out.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
}

#[test]
fn a_query_of_a_live_client_is_read() {
    let query = "model=nova-3&language=en-US&smart_format=true&encoding=linear16&channels=2&sample_rate=16000\
                 &interim_results=true&utterance_end_ms=1000&vad_events=true&keywords=Starling:2&keyterm=byte%20for&keywords=";
    let format = AudioFormat { encoding: Encoding::PcmS16le, sample_rate: 16_000, channels: 2 };
    let wanted = Listen {
        format: Some(format),
        multichannel: false,
        endpointing_ms: None,
        model: None,
        language: Some("en-US".into()),
        interim: true,
        utterance_end_ms: Some(1_000),
        vad_events: true,
        // Boosted there, and boosted by no engine here: what is said otherwise is heard all the same.
        ignored: vec!["keyterm".into(), "keywords".into(), "smart_format".into()],
    };
    assert_eq!(listen(query), Ok(wanted));
    assert_eq!(listen(""), Ok(Listen::default()));
    assert_eq!(listen("model=moonshine-tiny-en").expect("fine").model.as_deref(), Some("moonshine-tiny-en"));
}

#[test]
fn an_endpoint_is_what_can_be() {
    for (query, endpointing_ms) in [
        ("endpointing=500", Some(500)),
        ("endpointing=10", Some(100)),
        ("endpointing=true", None),
        ("", None),
    ] {
        assert_eq!(listen(query).expect("fine").endpointing_ms, endpointing_ms, "{query}");
    }
}

#[test]
fn a_recording_says_itself_what_it_is() {
    for query in ["encoding=ogg-opus&sample_rate=48000", "encoding=flac", "sample_rate=16000", "channels=2"] {
        assert_eq!(listen(query).expect("fine").format, None, "{query}");
    }
    let opus = listen("encoding=opus&sample_rate=48000&channels=2&multichannel=true").expect("fine");
    let format = AudioFormat { encoding: Encoding::Opus, sample_rate: 48_000, channels: 2 };
    assert_eq!((opus.format, opus.multichannel), (Some(format), true));
}

#[test]
fn what_cannot_be_served_is_named() {
    for (query, message) in [
        (
            "encoding=speex&sample_rate=48000",
            "encoding is \"speex\"; it must be linear16, linear32, mulaw, alaw, opus, ogg-opus or flac; or absent for a \
             recording with a head",
        ),
        ("encoding=linear16", "sample_rate is absent; it must be given with encoding, from 8000 to 48000"),
        (
            "encoding=mulaw&sample_rate=4000",
            "sample_rate is \"4000\"; it must be a whole number from 8000 to 48000",
        ),
        ("channels=0", "channels is \"0\"; it must be a whole number from 1 to 8"),
        (
            "detect_language=true",
            "detect_language is true; it must be false: no engine here can tell which language is spoken",
        ),
        (
            "endpointing=soon",
            "endpointing is \"soon\"; it must be a whole number of milliseconds, true or false",
        ),
        ("multichannel=perhaps", "multichannel is \"perhaps\"; it must be true or false"),
        (
            "encoding=opus&sample_rate=44100",
            "sample_rate is 44100; it must be 8000, 12000, 16000, 24000 or 48000 for Opus",
        ),
        ("encoding=opus&sample_rate=48000&channels=3", "channels is 3; it must be 1 or 2 for Opus"),
        ("interim_results=maybe", "interim_results is \"maybe\"; it must be true or false"),
        ("utterance_end_ms=20", "utterance_end_ms is \"20\"; it must be a whole number from 1000 to 5000"),
    ] {
        assert_eq!(listen(query), Err(message.to_owned()), "{query}");
    }
}

#[test]
fn messages_are_read_and_others_named() {
    assert_eq!(parse_message(r#"{"type":"KeepAlive"}"#), Ok(ListenMessage::KeepAlive));
    assert_eq!(parse_message(r#"{ "type": "Finalize", "channel": [0] }"#), Ok(ListenMessage::Finalize));
    assert_eq!(parse_message(r#"{"type":"CloseStream"}"#), Ok(ListenMessage::CloseStream));
    let error = |text| parse_message(text).expect_err("none").message;
    let allowed = "it must be KeepAlive, Finalize or CloseStream, in a JSON object";
    assert_eq!(error(r#"{"type":"Close"}"#), format!("type is \"Close\"; {allowed}"));
    assert_eq!(error("hello"), format!("type is \"hello\"; {allowed}"));
}

#[test]
fn a_partial_is_told_only_to_who_wants_it() {
    let of =
        |query| told(|out| teller(query).partial(SourceOffset(8_000), SourceOffset(20_000), "so far", out));
    assert_eq!(of(""), [Value::Null; 0]);
    let results = of("interim_results=true");
    assert_eq!(results.len(), 1);
    let result = &results[0];
    assert_eq!(
        (&result["type"], &result["is_final"], &result["speech_final"]),
        (&"Results".into(), &false.into(), &false.into())
    );
    assert_eq!((&result["start"], &result["duration"]), (&1.0.into(), &1.5.into()));
    assert_eq!(result["channel"]["alternatives"][0]["transcript"], "so far");
    assert_eq!(result["metadata"]["request_id"], "request");
}

#[test]
fn a_final_has_its_words_and_says_why_it_ended() {
    let words = vec![word("Hello,", 0.1, 0.5), word("World.", 0.6, 1.0)];
    for (cause, speech, finalize) in [
        (CutCause::Endpoint, true, false),
        (CutCause::Pause, true, false),
        (CutCause::Length, false, false),
        (CutCause::Finalize, true, true),
        (CutCause::End, true, false),
    ] {
        let results = told(|out| teller("").last(&a_final(0, 9_600, cause, words.clone()), out));
        let result = &results[0];
        assert_eq!(
            ["is_final", "speech_final", "from_finalize"].map(|name| result[name].as_bool()),
            [true, speech, finalize].map(Some),
            "{cause:?}"
        );
        let alternative = &result["channel"]["alternatives"][0];
        assert_eq!(
            (&alternative["transcript"], &alternative["confidence"]),
            (&"Hello, World.".into(), &0.75.into())
        );
        assert_eq!(alternative["words"][0]["word"], "hello");
        assert_eq!(alternative["words"][0]["punctuated_word"], "Hello,");
        assert_eq!(
            (&alternative["words"][1]["end"], &alternative["words"][1]["confidence"]),
            (&1.0.into(), &0.9.into())
        );
    }
}

#[test]
fn that_somebody_speaks_is_told_once_a_segment_and_that_nobody_does_once_after_words() {
    let mut teller = teller("vad_events=true&utterance_end_ms=1000");
    let kinds = |values: Vec<Value>| -> Vec<String> {
        values.iter().map(|value| value["type"].as_str().expect("a type").to_owned()).collect()
    };
    let (zero, some) = (SourceOffset(0), SourceOffset(4_000));
    assert_eq!(kinds(told(|out| teller.partial(zero, some, "", out))), [""; 0]);
    assert_eq!(kinds(told(|out| teller.partial(zero, some, "one", out))), ["SpeechStarted"]);
    assert_eq!(kinds(told(|out| teller.partial(zero, some, "one two", out))), [""; 0]);
    let last = a_final(0, 8_000, CutCause::Endpoint, vec![word("one", 0.1, 0.4)]);
    assert_eq!(kinds(told(|out| teller.last(&last, out))), ["Results"]);
    assert_eq!(
        told(|out| teller.partial(SourceOffset(8_000), SourceOffset(11_100), "", out)),
        [Value::Null; 0]
    );
    let mut talking = teller.clone();
    let goes_on = told(|out| talking.partial(SourceOffset(8_000), SourceOffset(16_000), "and", out));
    assert_eq!(kinds(goes_on), ["SpeechStarted"], "who goes on has not ended");
    let ended = told(|out| teller.partial(SourceOffset(8_000), SourceOffset(11_200), "", out));
    assert_eq!(
        (kinds(ended.clone()), &ended[0]["last_word_end"]),
        (vec!["UtteranceEnd".to_owned()], &0.4.into())
    );
    assert_eq!(
        told(|out| teller.partial(SourceOffset(8_000), SourceOffset(80_000), "", out)),
        [Value::Null; 0]
    );
    let quiet = a_final(8_000, 48_000, CutCause::NoSpeech, Vec::new());
    assert_eq!(kinds(told(|out| teller.last(&quiet, out))), ["Results"]);
}

#[test]
fn a_stream_ends_with_what_was_heard_and_a_recording_begins_with_it() {
    let heard =
        Heard { sha256: "00".into(), created: "2026-01-01T00:00:00Z".into(), duration: 1.5, channels: 1 };
    let ending = metadata(&answerer(), &heard);
    assert_eq!((&ending["type"], &ending["duration"]), (&"Metadata".into(), &1.5.into()));
    assert_eq!(ending["model_info"]["uuid"]["name"], "m");
    let finals = [
        a_final(0, 8_000, CutCause::Pause, vec![word("One", 0.1, 0.4)]),
        a_final(8_000, 9_000, CutCause::NoSpeech, Vec::new()),
        a_final(9_000, 12_000, CutCause::End, vec![word("two", 1.2, 1.4)]),
    ];
    let answer = transcript(&answerer(), &heard, &[&finals]);
    assert_eq!(answer["metadata"]["type"], Value::Null);
    let alternative = &answer["results"]["channels"][0]["alternatives"][0];
    assert_eq!(
        (&alternative["transcript"], alternative["words"].as_array().map(Vec::len)),
        (&"One two".into(), Some(2))
    );
}

#[test]
fn errors_have_this_dialects_codes() {
    let error = ErrorBody::new(ErrorCode::OverQuota, "too much");
    let wanted = json!({ "err_code": "TOO_MANY_REQUESTS", "err_msg": "too much", "request_id": "r" });
    assert_eq!(error_body(&error, "r"), wanted);
    let event: Value = serde_json::from_str(&error_event(&error)).expect("JSON");
    assert_eq!((&event["type"], &event["variant"]), (&"Error".into(), &"TOO_MANY_REQUESTS".into()));
}

proptest! {
    #[test]
    fn no_text_and_no_query_is_a_panic(text in ".{0,80}", pairs in proptest::collection::vec((".{0,20}", ".{0,20}"), 0..8)) {
        let _ = parse_message(&text);
        let _ = parse_query(pairs);
    }

    #[test]
    fn whatever_happens_finals_adjoin_and_everything_is_json(
        moves in proptest::collection::vec((0u8..3, 0u64..40_000, any::<bool>()), 0..60),
    ) {
        let mut teller = teller("interim_results=true&vad_events=true&utterance_end_ms=1000");
        let (mut end, mut results_end, mut out) = (0u64, 0.0f64, Vec::new());
        for (kind, ahead, words) in moves {
            let text = if words { "word" } else { "" };
            match kind {
                0 => teller.partial(SourceOffset(end), SourceOffset(end + ahead), text, &mut out),
                1 => teller.partial(SourceOffset(end), SourceOffset(end + ahead), "", &mut out),
                _ => {
                    let at = end as f64 / 8_000.0;
                    let spoken = if words { vec![word("word", at, at)] } else { Vec::new() };
                    teller.last(&a_final(end, end + ahead, CutCause::Pause, spoken), &mut out);
                    end += ahead;
                }
            }
            for text in out.drain(..) {
                let value: Value = serde_json::from_str(&text).expect("JSON");
                if value["is_final"] == true {
                    prop_assert_eq!(value["start"].as_f64().expect("a number"), results_end);
                    results_end = (end as f64 / 8_000.0 * 1_000.0).round() / 1_000.0;
                }
            }
        }
    }
}
