//! Sessions with a second decoder on paused time: the loss of either, and slots that the cluster needs itself.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use starling_actors::{
    Attachment, CopyArguments, ModelArguments, NodeArguments, NodeHandle, Observation, Observer, Peers,
    ProcessEnd, ResumeRequest, SessionEvent, SessionLimits, StandbyPolicy, TokenSealer,
};
use starling_engine::scripted;
use starling_protocol::control::SessionReport;
use starling_protocol::native::Resume;
use starling_protocol::{CutCause, SourceOffset};
use support::client::{Heard, bytes, request, scripted_model, send, speak, speech};
use support::cluster::{busy, decoder, until};
use support::fake_host::FakeLauncher;
use support::memory_link::{Handles, MemoryCopies, Net, candidate, name};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const REAL_TIME: Duration = Duration::from_millis(100);
const KILLED: ProcessEnd = ProcessEnd::Signal(9);
const IDLE: StandbyPolicy = StandbyPolicy::Idle { keep: 5 };

/// What was observed of standbys.
#[derive(Default)]
struct Counts(Mutex<Counted>);

#[derive(Debug, Clone, Default)]
struct Counted {
    promoted: usize,
    standbys_lost: Vec<&'static str>,
    replayed: Vec<Duration>,
}

impl Observer for Counts {
    fn observe(&self, observation: &Observation<'_>) {
        let mut counted = self.0.lock().expect("no panic");
        match *observation {
            Observation::StandbyPromoted { .. } => counted.promoted += 1,
            Observation::StandbyLost { cause, .. } => counted.standbys_lost.push(cause),
            Observation::Replayed { audio, .. } => counted.replayed.push(audio),
            _ => {}
        }
    }
}

impl Counts {
    fn counted(&self) -> Counted {
        self.0.lock().expect("no panic").clone()
    }
}

struct Node {
    handle: NodeHandle,
    counts: Arc<Counts>,
}

impl Node {
    async fn start(
        standby: StandbyPolicy,
        launcher: FakeLauncher,
        model: ModelArguments,
        peers: Option<Arc<dyn Peers>>,
        copies: CopyArguments,
    ) -> Self {
        let counts = Arc::new(Counts::default());
        let arguments = NodeArguments {
            models: vec![model],
            launcher: Arc::new(launcher),
            limits: SessionLimits { standby, ..SessionLimits::default() },
            observer: Arc::clone(&counts) as Arc<dyn Observer>,
            tracing: None,
            peers,
            copies,
        };
        Self { handle: NodeHandle::start(arguments).await.expect("starts"), counts }
    }

    /// A node that has sessions and no hosts.
    async fn gateway(net: &Net, standby: StandbyPolicy) -> Self {
        let (link, _) = net.join("gateway");
        let (model, peers) = (scripted_model(0, 4), Some(net.peers(&link)));
        let copies = CopyArguments::alone(name("gateway"));
        Self::start(standby, FakeLauncher::default(), model, peers, copies).await
    }

    /// A node on its own.
    async fn alone(standby: StandbyPolicy, launcher: &FakeLauncher, hosts: u16, slots: u16) -> Self {
        let copies = CopyArguments::alone(name("alone"));
        let node = Self::start(standby, launcher.clone(), scripted_model(hosts, slots), None, copies).await;
        let ready = async || node.handle.status().await.models[0].hosts_ready == usize::from(hosts);
        until("its hosts are ready", ready).await;
        node
    }

    /// Its only session.
    async fn report(&self) -> SessionReport {
        self.handle.session_reports(1).await.remove(0)
    }

    /// Where its only session is decoded, and where it could go on, once there are both.
    async fn places(&self) -> (String, String) {
        let places = async || {
            let report = self.handle.session_reports(1).await.into_iter().next()?;
            Some((report.decoder?.to_string(), report.standby?.to_string()))
        };
        until("there is a standby", async || places().await.is_some()).await;
        places().await.expect("there is one")
    }

    fn speak(&self, audio: Vec<i16>) -> JoinHandle<Spoken> {
        let node = self.handle.clone();
        tokio::spawn(async move {
            let Attachment { input, mut output, .. } = node.open(request()).await.expect("is admitted");
            let sending = tokio::spawn(send(input, bytes(&audio), REAL_TIME));
            let mut spoken = Spoken::default();
            while let Some(event) = output.next().await {
                if matches!(event, SessionEvent::Partial { .. }) {
                    spoken.partials.push(Instant::now());
                }
                if spoken.heard.take(event) {
                    break;
                }
            }
            sending.abort();
            spoken
        })
    }
}

#[derive(Default)]
struct Spoken {
    heard: Heard,
    partials: Vec<Instant>,
}

impl Spoken {
    /// The longest time without a partial around a moment.
    fn gap_at(&self, moment: Instant) -> Duration {
        let after = self.partials.partition_point(|at| *at <= moment);
        self.partials[after].duration_since(self.partials[after - 1])
    }
}

async fn calm(utterances: u32, words: u32) -> Heard {
    let node = Node::alone(StandbyPolicy::Off, &FakeLauncher::default(), 2, 4).await;
    speak(&node.handle, &speech(utterances, words), REAL_TIME).await
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_decoders_node_dies_goes_on_with_its_standby() {
    let wanted = calm(4, 12).await;
    let net = Net::default();
    let _a = decoder(&net, "a", &FakeLauncher::default()).await;
    let _b = decoder(&net, "b", &FakeLauncher::default()).await;
    let node = Node::gateway(&net, StandbyPolicy::Warm).await;
    net.gossip(vec![candidate("a", 8), candidate("b", 8)]);
    let speaking = node.speak(speech(4, 12));
    let (first, standby) = node.places().await;
    assert_ne!(first, standby);
    sleep(Duration::from_millis(2_050)).await;
    net.cut("gateway", &first);
    let lost = Instant::now();
    until("it goes on", async || node.report().await.decoder == Some(name(&standby))).await;
    assert!(lost.elapsed() < Duration::from_millis(50), "after {:?}", lost.elapsed());
    let spoken = speaking.await.expect("no panic");
    assert_eq!(spoken.heard.finals, wanted.finals);
    assert!(spoken.gap_at(lost) < Duration::from_millis(200), "{:?}", spoken.gap_at(lost));
    let counted = node.counts.counted();
    assert_eq!((counted.promoted, counted.replayed), (1, vec![Duration::ZERO]), "nothing was decoded again");
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_dies_is_replaced() {
    let wanted = calm(6, 12).await;
    let net = Net::default();
    for node in ["a", "b", "c"] {
        decoder(&net, node, &FakeLauncher::default()).await;
    }
    let node = Node::gateway(&net, StandbyPolicy::Warm).await;
    net.gossip(vec![candidate("a", 8), candidate("b", 8), candidate("c", 8)]);
    let speaking = node.speak(speech(6, 12));
    let (first, standby) = node.places().await;
    sleep(Duration::from_millis(1_550)).await;
    net.cut("gateway", &standby);
    let replaced = async || node.report().await.standby.is_some_and(|other| other != name(&standby));
    until("another stands by", replaced).await;
    assert_eq!(node.report().await.decoder, Some(name(&first)), "the session did not notice");
    sleep(Duration::from_millis(1_000)).await;
    net.cut("gateway", &first);
    let spoken = speaking.await.expect("no panic");
    assert_eq!(spoken.heard.finals, wanted.finals);
    let counted = node.counts.counted();
    assert_eq!((counted.promoted, counted.replayed), (1, vec![Duration::ZERO]));
    assert_eq!(counted.standbys_lost[0], "node_lost");
}

#[tokio::test(start_paused = true)]
async fn a_standby_is_taken_while_there_is_room_and_given_back_when_there_is_none() {
    let net = Net::default();
    let a = decoder(&net, "a", &FakeLauncher::default()).await;
    let b = decoder(&net, "b", &FakeLauncher::default()).await;
    let node = Node::gateway(&net, IDLE).await;
    net.gossip(vec![candidate("a", 3), candidate("b", 2)]);
    let speaking = node.speak(speech(30, 5));
    sleep(Duration::from_secs(3)).await;
    assert_eq!(node.report().await.standby, None, "five idle slots are for new sessions");
    net.gossip(vec![candidate("a", 3), candidate("b", 3)]);
    node.places().await;
    net.gossip(vec![candidate("a", 3), candidate("b", 2)]);
    sleep(Duration::from_secs(4)).await;
    assert!(node.report().await.standby.is_some(), "the slot that it took leaves five");
    net.gossip(vec![candidate("a", 2), candidate("b", 2)]);
    until("it is given back", async || busy(&a).await + busy(&b).await == 1).await;
    assert_eq!(node.report().await.standby, None);
    net.gossip(vec![candidate("a", 8), candidate("b", 8)]);
    node.places().await;
    assert_eq!(speaking.await.expect("no panic").heard.finals, calm(30, 5).await.finals);
    let counted = node.counts.counted();
    assert_eq!((counted.promoted, counted.standbys_lost.len(), counted.replayed.len()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_node_on_its_own_stands_by_in_another_host() {
    let wanted = calm(6, 12).await;
    for first in 0..2 {
        let launcher = FakeLauncher::default();
        let node = Node::alone(StandbyPolicy::Warm, &launcher, 2, 4).await;
        let speaking = node.speak(speech(6, 12));
        node.places().await;
        sleep(Duration::from_millis(1_550)).await;
        launcher.alive()[first].die(KILLED);
        sleep(Duration::from_millis(2_000)).await;
        node.places().await;
        launcher.alive()[first].die(KILLED);
        let spoken = speaking.await.expect("no panic");
        assert_eq!(spoken.heard.finals, wanted.finals);
        assert!(node.counts.counted().replayed.iter().all(Duration::is_zero));
        until("I10: every slot is back", async || busy(&node.handle).await == 0).await;
    }
    // Beside its first in the only host it would be of no use.
    let node = Node::alone(StandbyPolicy::Warm, &FakeLauncher::default(), 1, 4).await;
    let speaking = node.speak(speech(2, 12));
    sleep(Duration::from_secs(2)).await;
    assert_eq!((node.report().await.standby, busy(&node.handle).await), (None, 1));
    assert!(speaking.await.expect("no panic").heard.done);
}

#[tokio::test(start_paused = true)]
async fn hosts_that_are_killed_again_and_again_change_nothing() {
    let wanted = calm(6, 12).await;
    for seed in 0..5u64 {
        let launcher = FakeLauncher::default();
        let node = Node::alone(StandbyPolicy::Warm, &launcher, 3, 4).await;
        let killer = launcher.kill_hosts(seed);
        let spoken = node.speak(speech(6, 12)).await.expect("no panic");
        killer.abort();
        assert_eq!(spoken.heard.finals, wanted.finals, "seed {seed}");
        assert!(node.counts.counted().promoted > 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_kills_its_decoders_is_tried_alone_and_given_up() {
    let launcher = FakeLauncher { poison: Some(7_777), ..FakeLauncher::default() };
    let node = Node::alone(StandbyPolicy::Warm, &launcher, 3, 4).await;
    let mut poisoned = scripted::encode(&["before"]);
    poisoned.extend(scripted::encode_from(7_777, &["poison"]));
    poisoned.extend(scripted::encode_from(1, &["after"]));
    let bad = node.speak(poisoned).await.expect("no panic").heard;
    assert_eq!(bad.finals[0].cause, CutCause::GivenUp);
    assert!(bad.done && bad.finals[0].error.is_some());
    assert_eq!(bad.text(), "1:after", "the session goes on after it");
    let alive = launcher.alive().len();
    let died = launcher.hosts.lock().expect("no panic").len() - alive;
    assert!(
        died <= 5,
        "{died} hosts died: a standby may have beside its first, and three that were tried alone"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_session_comes_before_a_standby() {
    let node = Node::alone(StandbyPolicy::Warm, &FakeLauncher::default(), 2, 1).await;
    let first = node.handle.open(request()).await.expect("is admitted");
    node.places().await;
    assert_eq!(node.handle.status().await.models[0].slots_idle, 0);
    let asked = Instant::now();
    let second = node.handle.open(request()).await.expect("is admitted");
    assert!(asked.elapsed() < Duration::from_millis(100), "after {:?}", asked.elapsed());
    sleep(Duration::from_secs(10)).await;
    let reports = node.handle.session_reports(2).await;
    assert!(reports.iter().all(|report| report.standby.is_none() && report.decoder.is_some()));
    second.input.abandon().await;
    until("a slot that nobody needs is used", async || busy(&node.handle).await == 2).await;
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn another_class_is_no_standby() {
    let net = Net::default();
    let _a = decoder(&net, "a", &FakeLauncher { class: "avx2", ..FakeLauncher::default() }).await;
    let b = decoder(&net, "b", &FakeLauncher { class: "neon", ..FakeLauncher::default() }).await;
    let node = Node::gateway(&net, StandbyPolicy::Warm).await;
    net.gossip(vec![candidate("a", 8)]);
    let speaking = node.speak(speech(3, 12));
    until("it is decoded", async || !node.handle.session_reports(1).await.is_empty()).await;
    // What the other one decodes alike with is not known here before it is asked.
    net.gossip(vec![candidate("a", 8), candidate("b", 8)]);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(node.report().await.standby, None);
    until("it keeps no slot", async || busy(&b).await == 0).await;
    assert!(speaking.await.expect("no panic").heard.done);
}

#[tokio::test(start_paused = true)]
async fn the_node_that_keeps_a_copy_stands_by_and_a_session_that_was_taken_over_gets_another() {
    let net = Net::default();
    let (handles, sealer) = (Handles::default(), Arc::new(TokenSealer::random()));
    let names = ["a", "b", "c", "d"];
    let mut nodes = Vec::new();
    for own in names {
        let (link, streams) = net.join(own);
        let copies = CopyArguments {
            peers: Some(Arc::new(MemoryCopies::new(&net, &link, &handles))),
            copies: 1,
            memory_bytes: 64 << 20,
            sealer: Arc::clone(&sealer),
            ..CopyArguments::alone(name(own))
        };
        let (model, peers) = (scripted_model(2, 4), Some(net.peers(&link)));
        let node = Node::start(StandbyPolicy::Warm, FakeLauncher::default(), model, peers, copies).await;
        let serving = node.handle.clone();
        tokio::spawn(async move { serving.serve_peers(streams).await });
        handles.lock().expect("no panic").insert(name(own), node.handle.clone());
        nodes.push(node);
    }
    net.gossip(names.iter().map(|node| candidate(node, 8)).collect());
    let ready = async || nodes[0].handle.status().await.models[0].hosts_ready == 2;
    until("its hosts are ready", ready).await;
    for _ in 0..6 {
        let Attachment { input, output: _output, .. } =
            nodes[0].handle.open(request()).await.expect("is admitted");
        let (first, standby) = nodes[0].places().await;
        sleep(Duration::from_millis(100)).await;
        let keeper = nodes[0].report().await.replicas[0].to_string();
        assert_eq!((first.as_str(), standby), ("a", keeper));
        input.abandon().await;
        until("it is over", async || nodes[0].handle.session_reports(1).await.is_empty()).await;
    }

    let opening = request();
    let session = opening.session;
    let Attachment { ready, input: _input, mut output } =
        nodes[0].handle.open(opening).await.expect("is admitted");
    let token = loop {
        let event = output.next().await.expect("goes on");
        if let SessionEvent::View { token, durable: true, .. } = event {
            break token;
        }
    };
    let (_, standby) = nodes[0].places().await;
    handles.lock().expect("no panic").remove(&name("a"));
    names[1..].iter().for_each(|other| net.cut("a", other));
    let (last_final, final_to, have_from) = (None, None, SourceOffset(0));
    let resume = Resume { token, epoch: ready.epoch.next(), last_final, final_to, have_from };
    let heir = names.iter().position(|node| *node == standby).expect("is one of them");
    let resumed = nodes[heir]
        .handle
        .resume(ResumeRequest { session, tenant: String::new(), resume, trace: None })
        .await;
    let _resumed = resumed.expect("goes on where its standby was");
    let (first, standby) = nodes[heir].places().await;
    assert!(first == names[heir] && standby != names[heir]);
}
