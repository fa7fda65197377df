use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use starling_core::Timestamp;
use starling_core::replica::Tries;
use starling_core::session::LossCause;
use starling_protocol::lease::{DecodeOptions, FromHost, Priority, ToHost, TraceContext};
use starling_protocol::trace::{SegmentTimes, SpanContext, SpanId, TraceId};
use starling_protocol::{
    Attempt, CutCause, DecodeOffset, Epoch, LeaseId, NodeName, Segment, SessionId, Utterance,
};

use super::*;
use crate::clock::Clock;

const CLIENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Keeps what it is told.
#[derive(Default)]
struct Told {
    spans: Mutex<Vec<Span>>,
    samples: bool,
}

impl Tracer for Told {
    fn samples(&self, _: TraceId, parent: Option<SpanContext>) -> bool {
        parent.map_or(self.samples, |parent| parent.sampled && self.samples)
    }

    fn export(&self, span: Span) {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }
}

impl Told {
    fn that_samples(samples: bool) -> Arc<Self> {
        Arc::new(Self { samples, ..Self::default() })
    }

    fn names(&self) -> Vec<&'static str> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|span| span.name).collect()
    }

    fn one(&self, name: &str) -> Span {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named = spans.iter().filter(|span| span.name == name);
        let found = named.next().unwrap_or_else(|| panic!("no {name} among {:?}", *spans)).clone();
        assert!(named.next().is_none(), "one {name}");
        found
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp(Duration::from_secs(seconds))
}

fn node(name: &str) -> NodeName {
    NodeName::parse(name).expect("a name")
}

fn session() -> SessionId {
    SessionId::parse("6f2c1f5e-08a3-4b0e-9f0d-3f6f0f5f7a11").expect("an id")
}

fn begin(tracer: &Arc<Told>, context: Option<&TraceContext>, arrival: Option<Arrival>) -> Box<SessionTrace> {
    let begin = Begin {
        session: session(),
        tenant: "acme",
        dialect: "native",
        model: "m",
        epoch: Epoch(1),
        context,
        arrival,
    };
    SessionTrace::begin(Arc::clone(tracer) as Arc<dyn Tracer>, at(10), begin)
}

fn client() -> TraceContext {
    TraceContext { traceparent: CLIENT.into(), tracestate: "vendor=1".into() }
}

fn cut(segment: u64, node: &NodeName) -> Cut<'_> {
    let (audio, latency) = (Duration::from_secs(2), Duration::from_millis(200));
    Cut { segment: Segment(segment), cause: CutCause::Endpoint, audio, latency, more: false, node }
}

fn done(elsewhere: bool) -> End {
    End { outcome: "done", error: None, audio: Duration::from_secs(4), segments: 2, elsewhere }
}

fn value(span: &Span, name: &str) -> Value {
    let found = span.attributes.iter().find(|(key, _)| *key == name);
    found.unwrap_or_else(|| panic!("no {name} in {span:?}")).1.clone()
}

#[test]
fn a_session_is_a_child_of_its_client_and_the_parent_of_all_else() {
    let told = Told::that_samples(true);
    let mut trace = begin(&told, Some(&client()), None);
    trace.admitted(at(11), Duration::from_millis(5));
    trace.granted(at(11), Attempt(1), &node("b"));
    trace.heard(at(12));
    trace.cut(at(14), &cut(0, &node("b")));
    assert_eq!(told.names(), ["admission"], "a segment waits for its final's way out");
    trace.released(at(15), Segment(1));
    trace.ended(at(20), &done(false));
    assert_eq!(told.names(), ["admission", "commit", "segment", "session"]);

    let root = told.one("session");
    let parent = SpanContext::parse(CLIENT).expect("is one");
    assert_eq!((root.trace, root.parent, root.parent_is_remote), (parent.trace, Some(parent.span), true));
    // Nodes tell each other microseconds.
    assert_eq!((root.end - root.start).as_micros(), 10_000_000);
    assert!(root.is_served && root.error.is_none() && &*root.state == "vendor=1");
    let (admission, segment, commit) = (told.one("admission"), told.one("segment"), told.one("commit"));
    assert_eq!([admission.parent, segment.parent], [Some(root.id); 2]);
    assert_eq!(commit.parent, Some(segment.id));
    assert_eq!(segment.end - segment.start, Duration::from_secs(3));
    assert_eq!(commit.end - commit.start, Duration::from_secs(1));
    for (name, wanted) in
        [("tenant", "acme"), ("model", "m"), ("session.id", "6f2c1f5e-08a3-4b0e-9f0d-3f6f0f5f7a11")]
    {
        assert_eq!(value(&segment, name), wanted.into());
    }
}

#[test]
fn a_session_that_is_begun_again_has_the_same_trace() {
    let told = Told::that_samples(true);
    let context = |trace: Box<SessionTrace>| SpanContext::of(&trace.context()).expect("is one");
    let (first, again) = (context(begin(&told, None, None)), context(begin(&told, None, None)));
    assert_eq!(first, again);
    let of_client = context(begin(&told, Some(&client()), None));
    assert!(of_client.trace != first.trace && of_client.span != first.span);
}

#[test]
fn who_takes_a_session_over_tells_of_the_same_root() {
    let told = Told::that_samples(true);
    let mut first = begin(&told, Some(&client()), None);
    first.heard(at(11));
    first.cut(at(12), &cut(0, &node("b")));
    let (context, root) = (first.context(), first.root());
    let recent: Vec<SegmentTimes> = first.recent().into();
    first.ended(at(13), &done(true));
    assert_eq!(
        told.names(),
        [""; 0],
        "an owner that is passed over tells of no root and of no segment that is not out"
    );

    let arrival =
        Arrival { root: Some(root), recent, since: at(9), from: Some(node("c")), parting: Parting::Lost };
    let mut second = begin(&told, Some(&context), Some(arrival));
    assert_eq!(second.context(), context);
    assert_eq!(told.one("segment").parent, SpanContext::of(&context).map(|own| own.span), "told again");
    second.came_with(at(10), Duration::from_secs(3));
    second.attached(at(11), Epoch(2), true);
    second.granted(at(12), Attempt(2), &node("d"));
    second.caught_up(at(13), Duration::from_secs(3));
    second.ended(at(20), &End { segments: 1, ..done(false) });
    let root_span = told.one("session");
    assert_eq!(Some(root_span.id), SpanContext::of(&context).map(|own| own.span));
    assert_eq!(root_span.start, Duration::from_micros(root.started_us));
    let failover = told.one("failover");
    assert_eq!(
        (value(&failover, "cause"), value(&failover, "buffered_s")),
        ("owner_lost".into(), 3.0.into())
    );
    assert_eq!(failover.end - failover.start, Duration::from_secs(4), "since its client came");
    assert_eq!(value(&told.one("resume"), "from_node"), "c".into());
}

#[test]
fn a_session_whose_owner_lives_has_lost_nothing() {
    for (parting, cause) in
        [(Parting::HandedOver, "handed_over"), (Parting::Left { owner: node("a") }, "client_moved")]
    {
        for sampled in [false, true] {
            let told = Told::that_samples(sampled);
            let mut first = begin(&told, None, None);
            first.heard(at(8));
            first.cut(at(9), &cut(0, &node("b")));
            let copy = if cause == "handed_over" { "a" } else { "c" };
            let arrival = Arrival {
                root: Some(first.root()),
                recent: first.recent().into(),
                since: at(10),
                from: Some(node(copy)),
                parting: parting.clone(),
            };
            let mut second = begin(&told, Some(&first.context()), Some(arrival));
            second.came_with(at(11), Duration::from_secs(1));
            second.attached(at(11), Epoch(2), true);
            second.caught_up(at(12), Duration::ZERO);
            second.ended(at(13), &done(false));
            if !sampled {
                assert_eq!(told.names(), [""; 0], "there was no fault: {cause}");
                continue;
            }
            let moved = told.one("move");
            for (name, wanted) in [("what", "session"), ("cause", cause), ("from_node", "a")] {
                assert_eq!(value(&moved, name), wanted.into(), "{name}");
            }
            assert_eq!(moved.end - moved.start, Duration::from_secs(2), "since its client came");
            let resume = told.one("resume");
            assert_eq!(value(&resume, "from_node"), copy.into(), "whose copy it is");
            assert_eq!(value(&resume, "handed_over"), Value::Flag(cause == "handed_over"));
            assert!(!told.names().contains(&"failover"), "{:?}", told.names());
        }
    }
}

#[test]
fn what_leaves_without_a_loss_is_told_of_as_a_move() {
    let told = Told::that_samples(true);
    let mut trace = begin(&told, None, None);
    let root = SpanContext::of(&trace.context()).expect("is one");
    trace.granted(at(11), Attempt(1), &node("b"));
    trace.leaving(at(12), &node("b"));
    // Told twice, as a host and its node both go.
    trace.leaving(at(13), &node("b"));
    assert_eq!(told.names(), [""; 0], "there is no other decoder yet");
    trace.granted(at(15), Attempt(2), &node("c"));
    let moved = told.one("move");
    assert_eq!((moved.parent, moved.error), (Some(root.span), None));
    assert_eq!(moved.end - moved.start, Duration::from_secs(3), "from the first word to the next decoder");
    for (name, wanted) in [("what", "decoder"), ("from_node", "b"), ("to_node", "c")] {
        assert_eq!(value(&moved, name), wanted.into(), "{name}");
    }
    assert_eq!(value(&moved, "attempt"), Value::Count(2));
    // One that finds no other.
    trace.leaving(at(16), &node("c"));
    trace.ended(at(17), &done(false));
    let moves = || told.spans.lock().unwrap_or_else(PoisonError::into_inner).clone().into_iter();
    let errors: Vec<_> = moves().filter(|span| span.name == "move").map(|span| span.error).collect();
    assert_eq!(errors, [None, Some("session_ended")]);
    assert!(told.names().iter().all(|name| *name != "failover"), "nothing was lost");
}

#[test]
fn a_session_whose_actor_failed_is_kept_and_told_of_once() {
    let told = Told::that_samples(false);
    let mut trace = begin(&told, None, None);
    trace.admitted(at(11), Duration::ZERO);
    trace.heard(at(12));
    assert!(told.names().is_empty());
    trace.broke();
    assert_eq!(told.names(), ["admission"], "at once, though it may go on elsewhere");
    let crashed = End { outcome: "crashed", error: Some("internal"), ..done(false) };
    trace.ended(at(14), &crashed);
    assert_eq!(told.names(), ["admission", "segment", "session"]);
    assert_eq!(
        (told.one("session").error, value(&told.one("session"), "outcome")),
        (Some("internal"), "crashed".into())
    );
    // One that had told of its end before has no other.
    trace.ended(at(15), &crashed);
    assert_eq!(told.names().len(), 3);
}

#[test]
fn a_fault_brings_out_what_came_before_it() {
    let told = Told::that_samples(false);
    let mut trace = begin(&told, None, None);
    trace.admitted(at(11), Duration::ZERO);
    trace.copying(at(11), Tries(1), node("c"));
    trace.copied(at(12), true, 1, &[node("c")]);
    trace.decoder_spoke(at(13));
    assert!(told.names().is_empty());
    let buffered = Duration::from_secs(2);
    let b = node("b");
    trace.lost(at(14), &Lost { attempt: Attempt(1), cause: "silent", node: &b, buffered, owed: true });
    assert_eq!(told.names(), ["admission", "replication"]);
    assert!(SpanContext::of(&trace.context()).expect("is one").sampled, "the next decoder is told");
    trace.granted(at(15), Attempt(2), &node("d"));
    trace.caught_up(at(16), Duration::from_secs(2));
    let failover = told.one("failover");
    assert_eq!(failover.end - failover.start, Duration::from_secs(3), "under suspicion since its last word");
    let events: Vec<_> = failover.events.iter().map(|event| event.name).collect();
    assert_eq!(events, ["decoder.lost", "decoder.granted"]);
    for (name, wanted) in
        [("attempt", Value::Count(2)), ("lost_attempt", Value::Count(1)), ("lost_node", "b".into())]
    {
        assert_eq!(value(&failover, name), wanted);
    }
}

#[test]
fn what_waits_for_a_fault_is_bounded() {
    let told = Told::that_samples(false);
    let mut trace = begin(&told, None, None);
    for segment in 0..200 {
        trace.cut(at(20), &cut(segment, &node("b")));
        trace.released(at(20), Segment(segment + 1));
    }
    let error = Some("decoders_fail");
    trace.ended(at(30), &End { outcome: "failed", error, ..done(false) });
    assert_eq!(told.names().len(), 65);
    let root = told.one("session");
    assert_eq!((root.error, value(&root, "spans_passed_over")), (error, Value::Count(2 * 200 - 64)));
}

fn opened(told: &Arc<Told>, own: SpanContext) -> DecodeTrace {
    let tracer = Arc::clone(told) as Arc<dyn Tracer>;
    let of = LeaseTrace { session: session(), epoch: Epoch(1), standby: false };
    let mut trace = DecodeTrace::new(tracer, Clock::start(), of, "m".into(), 16_000);
    trace.told(&ToHost::Open {
        lease: LeaseId(1),
        attempt: Attempt(2),
        options: DecodeOptions::default(),
        segment: Segment(3),
        from: DecodeOffset(0),
        priority: Priority::Live,
        window: 20,
        partial_interval_ms: 0,
        trace: Some(TraceContext { traceparent: own.to_string(), tracestate: String::new() }),
        decoded_interval_ms: 0,
    });
    trace
}

fn feed(trace: &mut DecodeTrace, from: u64, to: u64) {
    let pcm = vec![0; (to - from) as usize * 2];
    trace.told(&ToHost::Feed { lease: LeaseId(1), at: DecodeOffset(from), pcm });
}

fn heard_cut(trace: &mut DecodeTrace, segment: u64, from: u64, to: u64) {
    let (from, to) = (DecodeOffset(from), DecodeOffset(to));
    let (lease, segment, cause) = (LeaseId(1), Segment(segment), CutCause::Endpoint);
    let (utterance, busy_us) = (Utterance::default(), 500_000);
    trace.heard(&FromHost::Cut { lease, segment, from, to, cause, utterance, busy_us });
}

#[tokio::test(start_paused = true)]
async fn decoding_is_told_of_by_segments_below_those_of_the_owner() {
    let (owners, told) = (Told::that_samples(true), Told::that_samples(true));
    let mut owner = begin(&owners, None, None);
    let own = SpanContext::of(&owner.context()).expect("is one");
    let mut decoder = opened(&told, own);
    feed(&mut decoder, 0, 16_000);
    feed(&mut decoder, 16_000, 40_000);
    heard_cut(&mut decoder, 3, 0, 32_000);
    let first = told.one("decode");
    owner.cut(at(20), &cut(3, &node("b")));
    owner.released(at(20), Segment(4));
    assert_eq!(first.parent, Some(owners.one("segment").id));
    assert_eq!((value(&first, "rtf"), value(&first, "audio_s")), (0.25.into(), 2.0.into()));
    assert_eq!((value(&first, "attempt"), value(&first, "segment")), (Value::Count(2), Value::Count(3)));
    // Nothing is left for a segment that ends where it began.
    heard_cut(&mut decoder, 4, 32_000, 32_000);
    assert_eq!(told.names().len(), 1);
    decoder.lost(LossCause::Killed);
    assert_eq!(told.names().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn decoding_that_nobody_samples_is_told_of_when_it_fails() {
    let told = Told::that_samples(false);
    let own = SpanContext { trace: TraceId(7), span: SpanId(9), sampled: false };
    let mut decoder = opened(&told, own);
    feed(&mut decoder, 0, 1_600);
    heard_cut(&mut decoder, 3, 0, 1_600);
    decoder.closed();
    assert!(told.names().is_empty());

    let mut decoder = opened(&told, own);
    feed(&mut decoder, 0, 1_600);
    heard_cut(&mut decoder, 3, 0, 1_600);
    feed(&mut decoder, 1_600, 3_200);
    decoder.lost(LossCause::Silent);
    let spans = told.spans.lock().unwrap_or_else(PoisonError::into_inner);
    let errors: Vec<_> = spans.iter().map(|span| span.error).collect();
    assert_eq!(errors, [None, Some("silent")]);
    assert!(
        spans.iter().all(|span| span.parent == Some(SpanId(9))),
        "an owner that makes no spans has no segments"
    );
}
