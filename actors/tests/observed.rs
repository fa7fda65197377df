//! What a node tells whoever counts, on paused time: each thing once, and nothing left when all have gone.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use starling_actors::{
    Attachment, CopyArguments, NodeArguments, NodeHandle, Observation, Observer, OpenRequest, ProcessEnd,
    SessionLimits, SessionPhase,
};
use support::client::{Heard, bytes, listen, request, scripted_model, send, speech};
use support::cluster::until;
use support::fake_host::FakeLauncher;
use support::memory_link::name;
use tokio::time::sleep;

const REAL_TIME: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Counts(Mutex<Counted>);

#[derive(Debug, Clone, Default)]
struct Counted {
    requested: usize,
    admitted: usize,
    refused: usize,
    ended: Vec<&'static str>,
    /// Sessions by how they stand, and those that lack a copy.
    phases: BTreeMap<&'static str, i32>,
    /// The phases that sessions came to, in order.
    came_to: Vec<&'static str>,
    committed: usize,
    since_speech: Vec<Duration>,
    released: Vec<Duration>,
    failovers: Vec<&'static str>,
    words_lost: usize,
}

impl Observer for Counts {
    fn observe(&self, observation: &Observation<'_>) {
        let mut counted = self.0.lock().expect("no panic");
        match *observation {
            Observation::SessionRequested { .. } => counted.requested += 1,
            Observation::SessionAdmitted { .. } => counted.admitted += 1,
            Observation::SessionRefused { .. } => counted.refused += 1,
            Observation::SessionEnded { outcome, .. } => counted.ended.push(outcome),
            Observation::SessionChanged { was, is, .. } => {
                if let Some(was) = was {
                    *counted.phases.entry(was.phase.label()).or_default() -= 1;
                }
                if let Some(is) = is {
                    assert!(!is.lacks_copy, "a node on its own makes no copies");
                    *counted.phases.entry(is.phase.label()).or_default() += 1;
                    counted.came_to.push(is.phase.label());
                }
            }
            Observation::FinalCommitted { since_speech, latency, live, .. } => {
                assert!(live);
                counted.committed += 1;
                counted.since_speech.extend(since_speech);
                assert!(since_speech.is_none_or(|since| since >= latency));
            }
            Observation::FinalReleased { took, .. } => counted.released.push(took),
            Observation::Replayed { cause, .. } => counted.failovers.push(cause),
            Observation::WordsLost { words, .. } => counted.words_lost += words,
            _ => {}
        }
    }
}

impl Counts {
    fn counted(&self) -> Counted {
        self.0.lock().expect("no panic").clone()
    }
}

async fn node(launcher: &FakeLauncher) -> (NodeHandle, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let arguments = NodeArguments {
        tracing: Default::default(),
        models: vec![scripted_model(2, 4)],
        launcher: Arc::new(launcher.clone()),
        limits: SessionLimits::default(),
        observer: Arc::clone(&counts) as Arc<dyn Observer>,
        peers: None,
        copies: CopyArguments::alone(name("alone")),
    };
    (NodeHandle::start(arguments).await.expect("starts"), counts)
}

#[tokio::test(start_paused = true)]
async fn a_session_that_waits_for_a_filter_was_asked_for_once() {
    let (node, counts) = node(&FakeLauncher::default()).await;
    let odd = |hz| OpenRequest { sample_rate: hz, ..request() };
    // The first of each rate has a filter worked out; the next finds it.
    for (opened, hz) in [(1, 11_025), (2, 22_050), (3, 11_025)] {
        let hello = odd(hz);
        let _held = node.open(hello.clone()).await.expect("is admitted");
        let counted = counts.counted();
        assert_eq!((counted.requested, counted.admitted, counted.refused), (opened, opened, 0), "{hz} Hz");
        // It is the same session still.
        let _again = node.open(hello).await.expect("is the same session");
        assert_eq!((counts.counted().requested, counts.counted().admitted), (opened, opened), "{hz} Hz");
    }
    let unknown = OpenRequest { model: Some("none such".to_owned()), ..request() };
    assert!(node.open(unknown).await.is_err());
    assert_eq!((counts.counted().requested, counts.counted().refused), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_counted_as_it_stands_and_not_at_all_in_the_end() {
    let launcher = FakeLauncher::default();
    let (node, counts) = node(&launcher).await;
    let Attachment { input, output, .. } = node.open(request()).await.expect("is admitted");
    let stands = |phase: SessionPhase| counts.counted().phases.get(phase.label()) == Some(&1);
    assert!(stands(SessionPhase::Connected));
    let sending = tokio::spawn(send(input, bytes(&speech(6, 6)), REAL_TIME));
    let hearing = tokio::spawn(listen(output, Heard::default()));
    sleep(Duration::from_secs(2)).await;
    launcher.alive().iter().for_each(|host| host.die(ProcessEnd::Signal(9)));
    until("it has no decoder", async || stands(SessionPhase::Recovering)).await;
    until("it has one again", async || stands(SessionPhase::Connected)).await;
    let heard = hearing.await.expect("no panic");
    sending.abort();
    until("it is over", async || node.status().await.sessions == 0).await;
    let counted = counts.counted();
    assert_eq!(counted.came_to, ["opening", "connected", "recovering", "connected", "away"]);
    assert!(counted.phases.values().all(|count| *count == 0), "{:?}", counted.phases);
    assert_eq!((counted.ended, counted.failovers), (vec!["done"], vec!["killed"]));
    assert_eq!((counted.committed, counted.words_lost), (heard.finals.len(), 0));
    assert_eq!(counted.released.len(), counted.committed, "each may be told once");
    // Its words have times, and each utterance ends with silence; the last final has none.
    let spoken = heard.finals.iter().filter(|last| !last.words.is_empty()).count();
    assert_eq!(counted.since_speech.len(), spoken);
    assert!(
        counted.since_speech.iter().any(|since| *since >= Duration::from_millis(400)),
        "{counted:?}",
        counted = counts.counted()
    );
}

#[tokio::test(start_paused = true)]
async fn words_that_a_client_did_not_confirm_before_the_node_stopped_are_lost() {
    let (node, counts) = node(&FakeLauncher::default()).await;
    let Attachment { mut input, mut output, .. } = node.open(request()).await.expect("is admitted");
    input.audio(&bytes(&speech(1, 5))).await.expect("is taken");
    let mut heard = Heard::default();
    while heard.finals.is_empty() {
        heard.take(output.next().await.expect("goes on"));
    }
    drop((input, output));
    until("it is away", async || counts.counted().phases.get("away") == Some(&1)).await;
    node.drain(Duration::from_secs(1)).await;
    let counted = counts.counted();
    assert_eq!((counted.ended, counted.words_lost), (vec!["shut_down"], 5));
}
