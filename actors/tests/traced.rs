//! What nodes tell of sessions' traces, on paused time: which trace it is, and the end of those that nobody came back to.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use starling_actors::{
    Attachment, CopyArguments, NodeArguments, NodeHandle, Observation, Observer, OpenRequest, ProcessEnd,
    ResumeRequest, SessionEvent, SessionLimits, Span, Tracer, Value,
};
use starling_protocol::lease::TraceContext;
use starling_protocol::native::Resume;
use starling_protocol::{Epoch, SessionId, SourceOffset};
use support::client::{bytes, request, scripted_model, speech, start};
use support::fake_host::FakeLauncher;
use support::keepers::{Cluster, Told};
use support::lines::Lines;
use support::memory_link::name;
use tokio::time::sleep;

const CLIENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

/// How long sessions wait for their clients.
const LINGER: Duration = Duration::from_secs(2);

/// Longer than copies are kept whose owner is gone: half a minute beyond that.
const LONG: Duration = Duration::from_secs(40);

/// Nodes of which the first has a session with a copy on each of the others, and what its client would come back with.
async fn spoken(cluster: &Cluster, sampled: bool) -> (SessionId, String) {
    let flags = if sampled { "01" } else { "00" };
    let trace = TraceContext { traceparent: format!("{CLIENT}-{flags}"), tracestate: String::new() };
    let request = OpenRequest { trace: Some(trace), linger: LINGER, ..request() };
    let session = request.session;
    let Attachment { ready, mut input, mut output } =
        cluster.node("a").open(request).await.expect("is admitted");
    let mut token = ready.token;
    for step in bytes(&speech(2, 12)).chunks(3_200) {
        input.audio(step).await.expect("is open");
        sleep(Duration::from_millis(100)).await;
        while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, output.next()).await {
            if let SessionEvent::View { token: newer, .. } = event {
                token = newer;
            }
        }
    }
    (session, token)
}

/// The owner is gone for the others, and ends by itself: what it does cut off is no matter here.
async fn kill_owner(cluster: &Cluster) {
    let owner = cluster.node("a");
    cluster.kill("a");
    owner.drain(Duration::ZERO).await;
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start(&[]).await;
    for node in ["a", "b", "c"] {
        cluster.join(node, 2, FakeLauncher::default()).await;
    }
    cluster
}

#[tokio::test(start_paused = true)]
async fn a_session_is_known_by_its_trace_once_that_is_kept() {
    for (flags, kept) in [(None, true), (Some("01"), true), (Some("00"), false)] {
        let cluster = Cluster::start(&["a", "b"]).await;
        let trace = flags.map(|flags| TraceContext {
            traceparent: format!("{CLIENT}-{flags}"),
            tracestate: String::new(),
        });
        let request = OpenRequest { trace, ..request() };
        let attachment = cluster.node("a").open(request).await.expect("is admitted");
        let reports = cluster.node("a").session_reports(1).await;
        let told = reports[0].trace_id.clone();
        assert_eq!(told.is_some(), kept, "{flags:?}");
        if flags.is_some_and(|_| kept) {
            assert_eq!(told.as_deref(), Some(&CLIENT[3..35]));
        }
        attachment.input.abandon().await;
        sleep(Duration::from_secs(1)).await;
        let spans = cluster.told("a").spans("session");
        let [(_, over)] = &cluster.told("a").ended()[..] else { panic!("one has ended") };
        assert_eq!(over.trace_id, told);
        assert_eq!(spans.first().map(|root| root.trace.to_string()), told, "what the link leads to");
    }
}

fn value(span: &Span, name: &str) -> Option<Value> {
    span.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
}

#[tokio::test(start_paused = true)]
async fn of_two_that_had_copies_one_tells_that_nobody_came_back() {
    for sampled in [true, false] {
        let cluster = cluster().await;
        let (session, _) = spoken(&cluster, sampled).await;
        let lost = tokio::time::Instant::now();
        kill_owner(&cluster).await;
        sleep(LONG).await;
        assert!(lost.elapsed() >= LONG);
        let told: Vec<_> = ["b", "c"].into_iter().map(|node| cluster.told(node)).collect();
        let ended: Vec<_> = told.iter().flat_map(|told| told.ended()).collect();
        let [(outcome, report)] = &ended[..] else { panic!("{ended:?}") };
        assert_eq!((*outcome, report.session), ("owner_lost", session));
        assert_eq!(report.trace_id.as_deref(), Some(&CLIENT[3..35]), "the loss is a fault: it is kept");

        let roots: Vec<_> = told.iter().flat_map(|told| told.spans("session")).collect();
        let [root] = &roots[..] else { panic!("{roots:?}") };
        assert_eq!(root.error, Some("owner_lost"));
        assert_eq!(root.parent.map(|parent| parent.to_string()).as_deref(), Some(&CLIENT[36..]));
        assert_eq!(value(root, "outcome"), Some("owner_lost".into()));
        assert_eq!(root.events.iter().map(|event| event.name).collect::<Vec<_>>(), ["owner.lost"]);
        // What was open when the owner was lost, and below which decoders have told of themselves.
        let segments: Vec<_> = told.iter().flat_map(|told| told.spans("segment")).collect();
        assert!(!segments.is_empty() && segments.iter().all(|segment| segment.parent == Some(root.id)));
        if sampled {
            let open =
                cluster.told("a").spans("segment").iter().map(|segment| segment.id).collect::<Vec<_>>();
            let again = segments.iter().filter(|segment| value(segment, "told_again").is_some());
            assert!(again.map(|segment| segment.id).all(|id| open.contains(&id)), "the same ones");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_session_that_goes_on_or_is_over_only_its_owner_tells() {
    let cluster = cluster().await;
    let (session, token) = spoken(&cluster, true).await;
    kill_owner(&cluster).await;
    let resume =
        Resume { token, epoch: Epoch(2), last_final: None, final_to: None, have_from: SourceOffset(0) };
    let request = ResumeRequest { session, tenant: String::new(), resume, trace: None };
    let attachment = cluster.node("b").resume(request).await.expect("goes on");
    attachment.input.abandon().await;
    sleep(2 * LONG).await;
    let ended =
        |node: &str| cluster.told(node).ended().iter().map(|(outcome, _)| *outcome).collect::<Vec<_>>();
    assert_eq!((ended("b"), ended("c")), (vec!["abandoned"], vec![]));
    assert_eq!((cluster.told("b").spans("session").len(), cluster.told("c").spans("session").len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn of_a_session_whose_owner_is_only_out_of_reach_of_a_keeper_nobody_tells() {
    let cluster = Cluster::start(&["a", "b"]).await;
    let (_, _) = spoken(&cluster, true).await;
    // The two don't reach each other, but both are members.
    cluster.net.cut("a", "b");
    sleep(LONG).await;
    assert_eq!(cluster.told("b").ended().len(), 0);
    assert_eq!(cluster.told("b").spans("session").len(), 0);
}

/// Panics in a session's actor, as only a fault of the node's own does: at the second piece of audio.
#[derive(Default)]
struct Panicking {
    pieces: AtomicUsize,
    told: Arc<Told>,
    crashed: Mutex<Vec<&'static str>>,
}

impl Observer for Panicking {
    fn observe(&self, observation: &Observation<'_>) {
        self.told.observe(observation);
        match observation {
            Observation::AudioReceived { .. } => {
                let before = self.pieces.fetch_add(1, Ordering::Relaxed);
                assert!(before != 1, "a session's actor is to fail");
            }
            Observation::SessionEnded { outcome, .. } => {
                self.crashed.lock().expect("no panic").push(outcome);
            }
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_actor_fails_is_told_of_by_its_node() {
    for own in [true, false] {
        let lines = Lines::default();
        let _gathering = lines.gather();
        let observer = Arc::<Panicking>::default();
        let told = Arc::clone(&observer.told);
        let arguments = NodeArguments {
            tracing: own.then(|| Arc::clone(&told) as Arc<dyn Tracer>),
            models: vec![scripted_model(1, 4)],
            launcher: Arc::new(FakeLauncher::default()),
            limits: SessionLimits::default(),
            observer: Arc::clone(&observer) as Arc<dyn Observer>,
            peers: None,
            copies: CopyArguments::alone(name("alone")),
        };
        let node = NodeHandle::start(arguments).await.expect("starts");
        // Its client wants no trace: a fault is kept all the same.
        let trace = TraceContext { traceparent: format!("{CLIENT}-00"), tracestate: String::new() };
        let request = OpenRequest { trace: Some(trace), ..request() };
        let session = request.session;
        let Attachment { mut input, .. } = node.open(request).await.expect("is admitted");
        let audio = bytes(&speech(1, 1));
        for piece in audio.chunks(3_200).take(2) {
            input.audio(piece).await.expect("is open");
            sleep(Duration::from_secs(1)).await;
        }
        let found = lines.containing("a session's actor failed; the session is over");
        let [line] = &found[..] else { panic!("{found:?}") };
        assert_eq!(line["span"]["id"], session.to_string(), "{line}");
        assert_eq!(line["span"]["trace_id"], &CLIENT[3..35], "{line}");
        assert_eq!(node.status().await.sessions, 0);

        assert_eq!(*observer.crashed.lock().expect("no panic"), ["crashed"]);
        let [(outcome, report)] = &told.ended()[..] else { panic!("one has ended") };
        assert_eq!((*outcome, report.session, report.model.as_str()), ("crashed", session, "scripted"));
        assert_eq!((report.audio_ms, report.attempt), (100, 1), "as it was last seen");
        assert!(report.age_ms >= 1_000, "{report:?}");
        assert_eq!(report.trace_id.as_deref(), own.then_some(&CLIENT[3..35]));
        let roots = told.spans("session");
        assert_eq!(roots.len(), usize::from(own));
        for root in roots {
            assert_eq!((root.error, value(&root, "outcome")), (Some("internal"), Some("crashed".into())));
            assert_eq!(value(&root, "audio_s"), Some(0.1.into()));
            assert_eq!(root.parent.map(|parent| parent.to_string()).as_deref(), Some(&CLIENT[36..]));
            let below: Vec<_> =
                ["admission", "segment"].into_iter().flat_map(|name| told.spans(name)).collect();
            assert_eq!(below.len(), 2, "what came before is kept");
            assert!(below.iter().all(|span| span.parent == Some(root.id)));
        }
    }
}

/// Nodes of which the first fails at a session's second piece of audio, once that has copies.
async fn crashed(linger: Duration) -> (Cluster, Arc<Panicking>, SessionId, String) {
    let (cluster, observer) = (Cluster::start(&[]).await, Arc::<Panicking>::default());
    let failing = Arc::clone(&observer) as Arc<dyn Observer>;
    cluster.join_with("a", 1, FakeLauncher::default(), failing, Arc::clone(&observer.told)).await;
    cluster.join("b", 1, FakeLauncher::default()).await;
    let request = OpenRequest { linger, ..request() };
    let session = request.session;
    let Attachment { ready, mut input, mut output } =
        cluster.node("a").open(request).await.expect("is admitted");
    let mut token = ready.token;
    for piece in bytes(&speech(1, 1)).chunks(3_200).take(2) {
        input.audio(piece).await.expect("is open");
        sleep(Duration::from_secs(1)).await;
        while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, output.next()).await {
            if let SessionEvent::View { token: newer, durable: true, .. } = event {
                token = newer;
            }
        }
    }
    (cluster, observer, session, token)
}

#[tokio::test(start_paused = true)]
async fn of_a_session_whose_actor_failed_the_root_is_told_by_whoever_goes_on_with_it() {
    for comes_back in [false, true] {
        let (cluster, observer, session, token) = crashed(LINGER).await;
        let outcomes: Vec<_> = observer.told.ended().iter().map(|(outcome, _)| *outcome).collect();
        assert_eq!(outcomes, ["crashed"], "at once");
        assert_eq!(observer.told.spans("session").len(), 0, "it has a copy, with which it may go on");
        if comes_back {
            let resume = Resume {
                token,
                epoch: Epoch(2),
                last_final: None,
                final_to: None,
                have_from: SourceOffset(0),
            };
            let request = ResumeRequest { session, tenant: String::new(), resume, trace: None };
            let attachment = cluster.node("b").resume(request).await.expect("goes on");
            sleep(Duration::from_secs(1)).await;
            attachment.input.abandon().await;
        }
        sleep(2 * LONG).await;
        let told = [Arc::clone(&observer.told), cluster.told("b")];
        let roots: Vec<_> = told.iter().flat_map(|told| told.spans("session")).collect();
        let [root] = &roots[..] else { panic!("{roots:?}") };
        let outcome = if comes_back { "abandoned" } else { "crashed" };
        assert_eq!(value(root, "outcome"), Some(outcome.into()));
        assert_eq!(cluster.told("b").ended().len(), usize::from(comes_back));
        assert!(root.end - root.start < LONG, "it ended when its actor failed: {root:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_its_owner_gives_away_is_told_of_as_a_move() {
    // Nobody has a copy: all depends on the owner.
    let cluster = Cluster::start(&["b"]).await;
    cluster.join("a", 0, FakeLauncher::default()).await;
    let (session, token) = spoken(&cluster, true).await;
    let resume =
        Resume { token, epoch: Epoch(2), last_final: None, final_to: None, have_from: SourceOffset(0) };
    let request = ResumeRequest { session, tenant: String::new(), resume, trace: None };
    let attachment = cluster.node("b").resume(request).await.expect("goes on");
    sleep(Duration::from_secs(2)).await;
    let moves = cluster.told("b").spans("move");
    let [moved] = &moves[..] else { panic!("{moves:?}") };
    assert_eq!(moved.trace.to_string(), CLIENT[3..35]);
    assert_eq!((value(moved, "what"), moved.error), (Some("session".into()), None));
    assert_eq!(value(moved, "from_node"), Some("a".into()));
    assert_eq!(value(moved, "cause"), Some("handed_over".into()));
    assert_eq!(cluster.told("a").spans("hand_over").len(), 1);
    assert_eq!(cluster.told("b").spans("failover").len(), 0, "nothing was lost");
    attachment.input.abandon().await;
    sleep(Duration::from_secs(1)).await;
    let [root] = &cluster.told("b").spans("session")[..] else { panic!("one root") };
    assert_eq!(moved.parent, Some(root.id));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_its_client_takes_elsewhere_is_told_of_as_a_move_while_its_owner_lives() {
    for lives in [true, false] {
        let cluster = cluster().await;
        let (session, token) = spoken(&cluster, true).await;
        if !lives {
            kill_owner(&cluster).await;
        }
        let resume =
            Resume { token, epoch: Epoch(2), last_final: None, final_to: None, have_from: SourceOffset(0) };
        let request = ResumeRequest { session, tenant: String::new(), resume, trace: None };
        let attachment = cluster.node("b").resume(request).await.expect("goes on");
        sleep(Duration::from_secs(2)).await;
        let told = |name: &str| {
            let spans = cluster.told("b").spans(name).into_iter();
            spans.map(|span| (value(&span, "cause"), value(&span, "from_node"))).collect::<Vec<_>>()
        };
        let (moved, lost) =
            (vec![(Some("client_moved".into()), Some("a".into()))], vec![(Some("owner_lost".into()), None)]);
        let wanted = if lives { (moved, vec![]) } else { (vec![], lost) };
        assert_eq!((told("move"), told("failover")), wanted);
        attachment.input.abandon().await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_start_of_a_decoder_host_is_told_with_its_cause_and_its_end() {
    let (lines, launcher) = (Lines::default(), FakeLauncher::default());
    let _gathering = lines.gather();
    let _node = start(launcher.clone(), scripted_model(1, 4), SessionLimits::default()).await;
    sleep(Duration::from_secs(1)).await;
    let cause = |number: usize| lines.spans("host_start").get(number).map(|span| span["cause"].clone());
    assert_eq!((cause(0), cause(1)), (Some("start".into()), None));
    launcher.alive().iter().for_each(|host| host.die(ProcessEnd::Signal(9)));
    sleep(Duration::from_secs(10)).await;
    assert_eq!((cause(1), cause(2)), (Some("respawn".into()), None));
    for span in lines.spans("host_start") {
        assert_eq!(span["model"], "scripted", "{span}");
        assert!(span["load_s"].is_number() && span["prewarm_s"].is_number(), "{span}");
        assert!(span["error.type"].is_null(), "{span}");
    }
}
