use super::*;

fn parse_error(text: &str) -> ErrorBody {
    parse_client(text).expect_err("must be refused").0
}

#[test]
fn the_smallest_hello_has_every_default() {
    let message = parse_client(r#"{"type":"hello"}"#).expect("is a hello");
    let ClientMessage::Hello(hello) = message else { panic!("no hello: {message:?}") };
    assert_eq!(hello.format, AudioFormat::default());
    assert_eq!(hello.options, SessionOptions::default());
    assert_eq!((hello.session, hello.resume), (None, None));
}

#[test]
fn errors_name_the_field_the_value_and_what_is_allowed() {
    let body = parse_error(r#"{"type":"hello","format":{"sample_rate":4000}}"#);
    assert_eq!(body.code, ErrorCode::BadRequest);
    assert_eq!(body.field.as_deref(), Some("format.sample_rate"));
    assert_eq!(body.value.as_deref(), Some("4000"));
    assert_eq!(body.allowed.as_deref(), Some("a whole number from 8000 to 48000"));

    assert!(parse_error(r#"{"type":"hello","format":{"sample_rate":16000.5}}"#).message.contains("16000.5"));
    assert!(parse_error(r#"{"type":"hello","formt":{}}"#).message.contains("formt"));
    assert_eq!(parse_error(r#"{"type":"helo"}"#).value.as_deref(), Some("\"helo\""));
    assert_eq!(parse_error("nonsense").code, ErrorCode::BadMessage);
    assert_eq!(
        parse_error(r#"{"type":"hello","options":{"phrases":["yes"," "]}}"#).field.as_deref(),
        Some("options.phrases[1]")
    );
    for (name, value, allowed) in
        [("silence_ms", 50, "100 to 10000"), ("max_segment_ms", 30_001, "1000 to 30000")]
    {
        let hello = format!(r#"{{"type":"hello","options":{{"endpointing":{{"{name}":{value}}}}}}}"#);
        let body = parse_error(&hello);
        assert_eq!(body.field, Some(format!("options.endpointing.{name}")));
        assert_eq!(body.allowed.as_deref(), Some(allowed));
    }
}

#[test]
fn positions_that_no_session_reaches_are_refused() {
    let hello = |fields: &str| {
        let session = "00000000-0000-4000-8000-000000000001";
        format!(r#"{{"type":"hello","session":"{session}","resume":{{"token":"t","epoch":2,{fields}}}}}"#)
    };
    let most = crate::limits::MAX_POSITION;
    for field in ["have_from", "final_to", "last_final"] {
        parse_client(&hello(&format!(r#""{field}":{most}"#))).expect("the highest");
        for beyond in [most + 1, u64::MAX] {
            let body = parse_error(&hello(&format!(r#""{field}":{beyond}"#)));
            assert_eq!(body.field.as_deref(), Some(format!("resume.{field}").as_str()));
            assert_eq!(body.value, Some(beyond.to_string()));
        }
    }
}

#[test]
fn epochs_that_no_connection_has_are_refused() {
    let most = crate::limits::MAX_POSITION;
    let opening = |epoch: u64| format!(r#"{{"type":"hello","epoch":{epoch}}}"#);
    let resuming = |epoch: u64| {
        let resume = format!(r#"{{"token":"t","epoch":{epoch},"have_from":0}}"#);
        format!(r#"{{"type":"hello","session":"00000000-0000-4000-8000-000000000001","resume":{resume}}}"#)
    };
    let hellos: [(&str, &dyn Fn(u64) -> String); 2] = [("epoch", &opening), ("resume.epoch", &resuming)];
    for (field, hello) in hellos {
        for epoch in [1, most] {
            parse_client(&hello(epoch)).expect("is one");
        }
        for epoch in [0, most + 1, u64::MAX] {
            let body = parse_error(&hello(epoch));
            assert_eq!((body.field.as_deref(), body.value), (Some(field), Some(epoch.to_string())));
        }
    }
}

#[test]
fn messages_look_on_the_wire_as_documented() {
    let session = SessionId::parse("00000000-0000-4000-8000-000000000001").expect("is a UUID");
    let ready = ServerMessage::Ready {
        session,
        epoch: Epoch(1),
        token: "t".into(),
        model: "m".into(),
        have_until: SourceOffset(0),
        next_segment: Segment(0),
        resumed: false,
        durable: false,
        linger_ms: 60_000,
        node: String::new(),
    };
    let last = ServerMessage::Final(Final {
        segment: Segment(0),
        from: SourceOffset(0),
        to: SourceOffset(1_600),
        start: 0.0,
        end: 0.1,
        cause: CutCause::Endpoint,
        text: "hello".into(),
        words: vec![TimedWord { word: "hello".into(), start: 0.0, end: 0.1, confidence: Some(1.0) }],
        confidence: None,
        alternatives: Vec::new(),
        error: None,
    });
    insta::assert_json_snapshot!([ready, last], @r#"
    [
      {
        "type": "ready",
        "session": "00000000-0000-4000-8000-000000000001",
        "epoch": 1,
        "token": "t",
        "model": "m",
        "have_until": 0,
        "next_segment": 0,
        "resumed": false,
        "durable": false,
        "linger_ms": 60000
      },
      {
        "type": "final",
        "segment": 0,
        "from": 0,
        "to": 1600,
        "start": 0.0,
        "end": 0.1,
        "cause": "endpoint",
        "text": "hello",
        "words": [
          {
            "word": "hello",
            "start": 0.0,
            "end": 0.1,
            "confidence": 1.0
          }
        ]
      }
    ]
    "#);
}

#[test]
fn every_client_message_survives_the_round_trip() {
    let messages = [
        ClientMessage::Hello(Box::new(Hello::new(SessionId::random()))),
        ClientMessage::Confirm { segment: Segment(4) },
        ClientMessage::Finalize {},
        ClientMessage::End {},
    ];
    for message in messages {
        let text = serde_json::to_string(&message).expect("encodes");
        assert_eq!(parse_client(&text).expect("parses"), message, "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        let _ = parse_client(&text);
    }
}
