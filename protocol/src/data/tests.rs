use super::*;
use crate::frame::{FrameReader, encode};
use crate::{CutCause, Segment, Utterance};

fn header() -> LeaseHeader {
    LeaseHeader {
        version: DATA_PROTOCOL,
        lease: LeaseId(7),
        session: SessionId::parse("6b1f2f0e-4f8a-4d2c-9d35-0a4f7f6f2c11").expect("an id"),
        epoch: Epoch(2),
        attempt: Attempt(3),
        model: "vosk-ko-small".into(),
        digest: "ab12".into(),
        purpose: LeasePurpose::Continue,
        start: DecodeOffset(48_000),
        patience_ms: 2_000,
        reservation: None,
        trace: Some(TraceContext { traceparent: "00-0af7-b7ad-01".into(), tracestate: String::new() }),
    }
}

fn round_trip<M: Serialize + serde::de::DeserializeOwned>(message: &M) -> M {
    let mut bytes = Vec::new();
    encode(message, MAX_HEADER_BYTES, &mut bytes).expect("fits");
    let mut reader = FrameReader::new(MAX_HEADER_BYTES);
    reader.push(&bytes);
    reader.next().expect("decodes").expect("whole")
}

fn replies() -> Vec<LeaseReply> {
    let lease = LeaseId(7);
    vec![
        LeaseReply::Granted { waited_ms: 12, determinism: "vosk-0.3.45/avx2".into() },
        LeaseReply::Host(FromHost::Decoded { lease, until: DecodeOffset(1_600) }),
        LeaseReply::Host(FromHost::Cut {
            lease,
            segment: Segment(4),
            from: DecodeOffset(0),
            to: DecodeOffset(1_600),
            cause: CutCause::Endpoint,
            utterance: Utterance::default(),
            busy_us: 0,
        }),
        LeaseReply::Retiring,
        LeaseReply::Lost { cause: LeaseLost::Crashed { suspect: true } },
        LeaseReply::Lost { cause: LeaseLost::Stuck { suspect: false } },
        LeaseReply::Lost { cause: LeaseLost::NodeLost },
    ]
}

fn refusals() -> Vec<StreamRefusal> {
    let model = || "m".to_owned();
    vec![
        StreamRefusal::Version { offered: 2, spoken: 1 },
        StreamRefusal::Unreadable { message: "unknown variant".into() },
        StreamRefusal::UnknownModel { model: model() },
        StreamRefusal::WrongDigest { model: model(), offered: "a".into(), served: "b".into() },
        StreamRefusal::Busy,
        StreamRefusal::BusyFor { retry_after_ms: 1_500 },
        StreamRefusal::Draining,
    ]
}

#[test]
fn every_message_survives_the_round_trip() {
    let wanted = StreamHeader::Lease(header());
    assert_eq!(round_trip(&wanted), wanted);
    assert_eq!(round_trip(&HeaderReply::Accepted), HeaderReply::Accepted);
    for reason in refusals() {
        let refused = HeaderReply::Refused { reason };
        assert_eq!(round_trip(&refused), refused);
    }
    for reply in replies() {
        assert_eq!(round_trip(&reply), reply);
    }
}

#[test]
fn a_lease_header_is_written_like_this() {
    insta::assert_json_snapshot!(StreamHeader::Lease(header()), @r#"
    {
      "Lease": {
        "version": 1,
        "lease": 7,
        "session": "6b1f2f0e-4f8a-4d2c-9d35-0a4f7f6f2c11",
        "epoch": 2,
        "attempt": 3,
        "model": "vosk-ko-small",
        "digest": "ab12",
        "purpose": "continue",
        "start": 48000,
        "patience_ms": 2000,
        "reservation": null,
        "trace": {
          "traceparent": "00-0af7-b7ad-01",
          "tracestate": ""
        }
      }
    }
    "#);
}

#[test]
fn replies_are_written_like_this() {
    insta::assert_json_snapshot!(replies(), @r#"
    [
      {
        "Granted": {
          "waited_ms": 12,
          "determinism": "vosk-0.3.45/avx2"
        }
      },
      {
        "Host": {
          "Decoded": {
            "lease": 7,
            "until": 1600
          }
        }
      },
      {
        "Host": {
          "Cut": {
            "lease": 7,
            "segment": 4,
            "from": 0,
            "to": 1600,
            "cause": "endpoint",
            "utterance": {
              "text": "",
              "words": [],
              "confidence": null,
              "alternatives": []
            }
          }
        }
      },
      "Retiring",
      {
        "Lost": {
          "cause": {
            "Crashed": {
              "suspect": true
            }
          }
        }
      },
      {
        "Lost": {
          "cause": {
            "Stuck": {
              "suspect": false
            }
          }
        }
      },
      {
        "Lost": {
          "cause": "NodeLost"
        }
      }
    ]
    "#);
}

#[test]
fn refusals_say_why() {
    let sentences: Vec<String> = refusals().iter().map(ToString::to_string).collect();
    insta::assert_json_snapshot!(sentences, @r#"
    [
      "this node speaks version 1 of the data plane, not 2",
      "the stream's header can't be read: unknown variant",
      "no model \"m\" is served here",
      "model \"m\" has the digest b here, not a",
      "no decoder is free",
      "no decoder is free; one may be in 1500 ms",
      "the node is stopping"
    ]
    "#);
}

#[test]
fn a_header_of_a_newer_kind_is_an_error_and_one_with_newer_fields_is_not() {
    #[derive(Serialize)]
    enum Newer {
        Replay { of: u64 },
    }
    let mut bytes = Vec::new();
    encode(&Newer::Replay { of: 1 }, MAX_HEADER_BYTES, &mut bytes).expect("fits");
    let mut reader = FrameReader::new(MAX_HEADER_BYTES);
    reader.push(&bytes);
    assert!(reader.next::<StreamHeader>().is_err());

    let mut newer = serde_json::to_value(StreamHeader::Lease(header())).expect("is written");
    newer["Lease"]["hurry"] = true.into();
    assert_eq!(
        serde_json::from_value::<StreamHeader>(newer).expect("is read"),
        StreamHeader::Lease(header())
    );
}

#[test]
fn each_close_has_its_own_number() {
    use ConnectionClose as Close;
    let all = [Close::Stopping, Close::Superseded, Close::PeerLost, Close::Silent, Close::WrongPeer];
    assert_eq!(all.map(Close::code), [0, 1, 2, 3, 4]);
    assert!(all.iter().all(|close| !close.reason().is_empty()));
}
