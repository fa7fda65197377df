//! Nodes of two versions work side by side during an upgrade: what they write to each other on leases' and copies' streams, and what
//! a token is, must stay as it is here, byte for byte. What is added shows as a line more, and nothing else may change.

use starling_protocol::data::{LeaseReply, StreamHeader};
use starling_protocol::frame::{FrameReader, encode};
use starling_protocol::lease::{DecodeOptions, FromHost, Priority, ToHost, TraceContext};
use starling_protocol::native::{Final, SessionOptions};
use starling_protocol::replica::{
    Commit, CopyHeader, CopyStart, EntryKind, FetchHeader, FromReplica, SessionFacts, ToReplica, View,
};
use starling_protocol::token::{TokenBody, TokenKey};
use starling_protocol::{
    Attempt, CutCause, DecodeOffset, Epoch, LeaseId, NodeName, Segment, SessionId, SourceOffset, Utterance,
    Word, token,
};

/// Far above any of these.
const LIMIT: usize = 64 * 1024;

const LEASE: LeaseId = LeaseId(7);

fn session() -> SessionId {
    SessionId::parse("6b1f2f0e-4f8a-4d2c-9d35-0a4f7f6f2c11").expect("an id")
}

fn trace() -> Option<TraceContext> {
    Some(TraceContext { traceparent: "00-0af7-b7ad-01".to_owned(), tracestate: String::new() })
}

/// One frame a line, readable as far as it is text.
fn written<M: serde::Serialize>(messages: &[M]) -> String {
    let line = |message: &M| {
        let mut bytes = Vec::new();
        encode(message, LIMIT, &mut bytes).expect("fits");
        bytes.escape_ascii().to_string()
    };
    messages.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn last() -> Final {
    Final {
        segment: Segment(2),
        from: SourceOffset(32_000),
        to: SourceOffset(48_000),
        start: 2.0,
        end: 3.0,
        cause: CutCause::Endpoint,
        text: "so it is".to_owned(),
        words: Vec::new(),
        confidence: Some(0.5),
        alternatives: Vec::new(),
        error: None,
    }
}

#[test]
fn what_is_written_to_a_decoder_stays_as_it_is() {
    let options = DecodeOptions { phrases: vec!["so it is".to_owned()], ..DecodeOptions::default() };
    let open = ToHost::Open {
        lease: LEASE,
        attempt: Attempt(3),
        options,
        segment: Segment(2),
        from: DecodeOffset(32_000),
        priority: Priority::Live,
        window: 20,
        partial_interval_ms: 200,
        trace: trace(),
        decoded_interval_ms: 400,
    };
    let feed = ToHost::Feed { lease: LEASE, at: DecodeOffset(32_000), pcm: vec![1, 2, 3, 4] };
    let flush = ToHost::Flush { lease: LEASE, at: DecodeOffset(32_002), cause: CutCause::Finalize };
    let partials = ToHost::Partials { lease: LEASE, interval_ms: 0, decoded_interval_ms: 100 };
    insta::assert_snapshot!(
        "to_decoder",
        written(&[open, feed, flush, partials, ToHost::Close { lease: LEASE }])
    );
}

#[test]
fn what_a_decoder_writes_stays_as_it_is() {
    let word = Word { text: "so".to_owned(), start: 0, end: 1_600, confidence: Some(0.5) };
    let utterance = Utterance {
        text: "so it is".to_owned(),
        words: vec![word],
        confidence: None,
        alternatives: Vec::new(),
    };
    let cut = FromHost::Cut {
        lease: LEASE,
        segment: Segment(2),
        from: DecodeOffset(32_000),
        to: DecodeOffset(48_000),
        cause: CutCause::Endpoint,
        utterance,
        busy_us: 1_500,
    };
    let until = DecodeOffset(33_600);
    let messages = [
        FromHost::Opened { lease: LEASE, warm: true },
        FromHost::Refused { lease: LEASE, message: "why".to_owned() },
        FromHost::Decoded { lease: LEASE, until },
        FromHost::Partial { lease: LEASE, segment: Segment(2), until, text: "so".to_owned() },
        cut,
        FromHost::Failed { lease: LEASE, message: "why".to_owned() },
        FromHost::Closed { lease: LEASE },
    ];
    insta::assert_snapshot!("from_decoder", written(&messages.map(LeaseReply::Host)));
}

#[test]
fn what_is_written_to_a_keeper_stays_as_it_is() {
    let copy = CopyHeader { version: 1, session: session(), epoch: Epoch(2), trace: trace() };
    let fetch = FetchHeader { version: 1, session: session(), epoch: Epoch(3), trace: None };
    let facts = SessionFacts {
        session: session(),
        dialect: "native".to_owned(),
        model: "vosk-ko-small".to_owned(),
        digest: "ab12".to_owned(),
        class: "vosk-0.3.45/avx2".to_owned(),
        source_hz: 16_000,
        decode_hz: 16_000,
        options: SessionOptions::default(),
        decode: DecodeOptions::default(),
        linger_ms: 60_000,
        trace: trace(),
        tenant: "somebody".to_owned(),
        root: None,
        opened_unix_ms: 0,
    };
    let start = CopyStart {
        facts,
        epoch: Epoch(2),
        view: View(3),
        confirmed: Segment(1),
        next_segment: Segment(2),
        final_end: SourceOffset(32_000),
        committed: DecodeOffset(32_000),
        audio_from: SourceOffset(31_900),
        ended: false,
        recent: Vec::new(),
        attempt: Attempt(0),
    };
    let commit = Commit {
        last: last(),
        to: DecodeOffset(48_000),
        answered: true,
        needed_from: SourceOffset(47_900),
        times: None,
        attempt: Attempt(0),
    };
    let headers = written(&[StreamHeader::Copy(copy), StreamHeader::Fetch(fetch)]);
    // What was added later, in lines of its own below: older nodes say nothing of it, and pass it over.
    let mut later = start.clone();
    (later.facts.opened_unix_ms, later.attempt) = (1_700_000_000_000, Attempt(4));
    let last_attempt = Commit { attempt: Attempt(5), ..commit.clone() };
    let messages = [
        ToReplica::Begin(Box::new(start)),
        ToReplica::Kept(Box::new(last())),
        ToReplica::Audio { from: SourceOffset(31_900), pcm: vec![1, 2, 3, 4], attempt: Attempt(0) },
        ToReplica::Entry { at: DecodeOffset(48_000), kind: EntryKind::Finalize },
        ToReplica::Entry { at: DecodeOffset(48_000), kind: EntryKind::End },
        ToReplica::Whole,
        ToReplica::Commit(Box::new(commit)),
        ToReplica::Confirmed { through: Segment(2) },
        ToReplica::Epoch { epoch: Epoch(3) },
        ToReplica::View { view: View(4) },
        ToReplica::Over,
        ToReplica::Begin(Box::new(later)),
        ToReplica::Audio { from: SourceOffset(31_902), pcm: vec![5, 6], attempt: Attempt(5) },
        ToReplica::Commit(Box::new(last_attempt)),
    ];
    for message in &messages {
        let (mut frame, mut reader) = (Vec::new(), FrameReader::new(LIMIT));
        encode(message, LIMIT, &mut frame).expect("fits");
        reader.push(&frame);
        let read: ToReplica = reader.next().expect("is one").expect("is whole");
        assert_eq!(read, *message, "what is left out reads as what it stands for");
    }
    insta::assert_snapshot!("to_keeper", format!("{headers}\n{}", written(&messages)));
}

#[test]
fn what_a_keeper_writes_stays_as_it_is() {
    let messages = [
        FromReplica::Applied { count: 12 },
        FromReplica::Fenced { epoch: Epoch(3) },
        FromReplica::Full,
        FromReplica::Unfit,
    ];
    insta::assert_snapshot!("from_keeper", written(&messages));
}

/// A token that an older node gave is shown to a newer one, and the other way round.
#[test]
fn a_token_stays_as_it_is() {
    let name = |text: &str| NodeName::parse(text).expect("a name");
    let body = TokenBody {
        session: session(),
        tenant: "somebody".to_owned(),
        model: "vosk-ko-small".to_owned(),
        digest: "ab12".to_owned(),
        view: View(3),
        owner: name("a"),
        keepers: vec![name("b")],
        expires_unix_s: 1_000,
    };
    let key = TokenKey { id: 1, bytes: [1; 32] };
    let sealed = token::seal(&key, &[7; 24], &body).expect("seals");
    assert_eq!(token::open(&[key], &sealed, 999), Ok(body));
    insta::assert_snapshot!("token", sealed);
}
