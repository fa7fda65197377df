//! What the oracle makes of sessions that are begun anew.

use starling_protocol::SourceOffset;
use starling_protocol::control::CopySummary;

use super::*;
use crate::net::Net;
use crate::plan::Plan;
use crate::rng::Rng;

const OWNER: HostId = 0;
const KEEPER: HostId = 1;

fn session(number: u8) -> SessionId {
    SessionId(uuid::Builder::from_random_bytes([number; 16]).into_uuid())
}

fn copy(audio_end: u64) -> KeptCopy {
    let (epoch, next_segment) = (Epoch(1), Segment(0));
    let copy = CopySummary { epoch, view: 1, next_segment, audio_end: SourceOffset(audio_end) };
    KeptCopy { session: session(1), epoch, copy: Some(copy), finals: Vec::new() }
}

fn ready(session: SessionId) -> ServerMessage {
    ServerMessage::Ready {
        node: String::new(),
        session,
        epoch: Epoch(1),
        token: String::new(),
        model: String::new(),
        have_until: SourceOffset(0),
        next_segment: Segment(0),
        resumed: false,
        durable: true,
        linger_ms: 0,
    }
}

/// Client 0 was acknowledged 100 frames, and begins anew while its keeper has this.
fn begun_anew(kept: &[KeptCopy], trouble: impl Fn(&SharedOracle)) -> Vec<String> {
    let plan = Plan::of(1, None);
    let net = Net::new(plan.nodes.len(), plan.clients.len(), Rng::new(1, 3));
    let speeches: Vec<Speech> =
        (0..).zip(&plan.clients).map(|(index, own)| Speech::of(index, own, None)).collect();
    let (reads, nodes) = (net.clone(), plan.nodes.len());
    let oracle = SharedOracle::new(Arc::new(move || reads.now()), nodes, &speeches, Duration::ZERO, false);
    let facts = |number| Some((session(number), Epoch(1), true));
    oracle.said(0, OWNER, facts(1), &ready(session(1)));
    oracle.sampled(KEEPER, &[copy(100)]);
    oracle.said(0, OWNER, facts(1), &ServerMessage::Ack { until: SourceOffset(100) });
    oracle.judge();
    net.step(Duration::from_secs(1));
    trouble(&oracle);
    net.step(Duration::from_secs(5));
    oracle.said(0, 2, facts(2), &ready(session(2)));
    oracle.delivered(0, &Event::Reconnected { gap: Duration::ZERO, restarted: true });
    assert!(oracle.has_claims());
    oracle.sampled(KEEPER, kept);
    oracle.judge();
    oracle.violations()
}

#[test]
fn no_session_is_begun_anew_that_a_node_in_peace_has_a_copy_of() {
    let found = begun_anew(&[copy(100)], |_| ());
    assert!(found.len() == 1 && found[0].starts_with("I4: client 0 began"), "{found:?}");
    // It has nothing any more.
    assert_eq!(begun_anew(&[], |_| ()), Vec::<String>::new());
    // It, or the client, may not have been reached.
    for lasts in [0, 1] {
        assert_eq!(begun_anew(&[copy(100)], |oracle| oracle.unrest(KEEPER, lasts)), Vec::<String>::new());
    }
}
