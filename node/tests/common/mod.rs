//! A node that a test plays by hand, behind real gateways on real sockets.

#![allow(dead_code, unreachable_pub, reason = "each test binary takes its own part of this")]

pub mod answer;
pub mod events;
pub mod quic;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use starling_actors::{
    Capabilities, NodeStatus, OpenRequest, Ready, ResumeRequest, SessionClosed, SessionEvent,
};
use starling_node::cluster::{Cluster, Watcher};
use starling_node::config::{AudioSocketSettings, GatewaySettings, WyomingSettings};
use starling_node::gateway::gstreamer::Workers;
use starling_node::gateway::{
    Calls, Gateway, GatewayState, PageSettings, Startup, audiosocket_service, http_service,
    quic as quic_gateway, vosk_router, wyoming_service,
};
use starling_node::metrics::{Metrics, MetricsOptions};
use starling_node::net::{Places, Serving, accept};
use starling_node::sessions::{Attached, Input, ModelInfo, Output, Sessions};
use starling_node::tenants::Tenants;
use starling_node::tls::Certificate;
use starling_protocol::control::SessionReport;
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::{Epoch, Segment, SessionId, SourceOffset};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Far more than anything here takes; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long calls are waited for and kept: long enough for a machine that stands still, short enough for a test to wait it out.
pub const LINGER: Duration = Duration::from_secs(7);

/// How long whoever is to be noticed by its silence may be silent. Whoever is not has to be heard within it, however busy the
/// machine.
pub const SILENT_FOR: Duration = Duration::from_secs(5);

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a gateway did with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Audio(usize),
    Finalize,
    End,
    Confirm(Segment),
    Abandoned,
    Dropped,
}

/// The node's side of one session, in the test's hands.
pub struct Played {
    pub opened: Opened,
    pub seen: mpsc::UnboundedReceiver<Seen>,
    events: Option<mpsc::UnboundedSender<SessionEvent>>,
    /// Audio is taken while there is room.
    pub room: Arc<Semaphore>,
}

#[derive(Debug, Clone)]
pub enum Opened {
    New(OpenRequest),
    Resumed(ResumeRequest),
}

impl Played {
    pub fn request(&self) -> &OpenRequest {
        match &self.opened {
            Opened::New(request) => request,
            Opened::Resumed(_) => panic!("the session was resumed"),
        }
    }

    pub fn say(&self, event: SessionEvent) {
        // A gateway that has gone hears nothing more; tests check that by what was seen.
        if let Some(events) = &self.events {
            let _ = events.send(event);
        }
    }

    pub fn say_nothing_more(&mut self) {
        self.events = None;
    }

    pub async fn expect(&mut self, expected: Seen) {
        assert_eq!(self.next().await, expected);
    }

    pub async fn next(&mut self) -> Seen {
        in_time(self.seen.recv()).await.expect("the gateway holds the session")
    }

    /// Whatever comes before this is passed over.
    pub async fn wait_for(&mut self, wanted: &Seen) {
        while self.next().await != *wanted {}
    }
}

pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

struct FakeInput {
    seen: mpsc::UnboundedSender<Seen>,
    room: Arc<Semaphore>,
    abandoned: bool,
}

impl FakeInput {
    fn see(&self, seen: Seen) -> Result<(), SessionClosed> {
        self.seen.send(seen).map_err(|_| SessionClosed)
    }
}

#[async_trait]
impl Input for FakeInput {
    async fn audio(&mut self, pcm: &[u8]) -> Result<(), SessionClosed> {
        let room = self.room.acquire_many(pcm.len() as u32).await.map_err(|_| SessionClosed)?;
        room.forget();
        self.see(Seen::Audio(pcm.len()))
    }

    async fn finalize(&mut self) -> Result<(), SessionClosed> {
        self.see(Seen::Finalize)
    }

    async fn end(&mut self) -> Result<(), SessionClosed> {
        self.see(Seen::End)
    }

    async fn confirm(&mut self, segment: Segment) -> Result<(), SessionClosed> {
        self.see(Seen::Confirm(segment))
    }

    async fn abandon(mut self: Box<Self>) {
        self.abandoned = true;
        let _ = self.see(Seen::Abandoned);
    }
}

impl Drop for FakeInput {
    fn drop(&mut self) {
        if !self.abandoned {
            let _ = self.see(Seen::Dropped);
        }
    }
}

struct FakeOutput(mpsc::UnboundedReceiver<SessionEvent>);

#[async_trait]
impl Output for FakeOutput {
    async fn next(&mut self) -> Option<SessionEvent> {
        self.0.recv().await
    }
}

struct FakeSessions {
    played: mpsc::UnboundedSender<Played>,
    /// And how many sessions are opened before.
    refusal: Mutex<Option<(usize, ErrorBody)>>,
    status: Mutex<NodeStatus>,
    /// Sessions that their clients can come back to by their ids.
    named: Mutex<HashSet<SessionId>>,
}

impl FakeSessions {
    fn attach(&self, opened: Opened) -> Result<Attached, ErrorBody> {
        if let Some((left, refusal)) = &mut *self.refusal.lock().expect("lock") {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => return Err(refusal.clone()),
            }
        }
        let (seen_sender, seen) = mpsc::unbounded_channel();
        let (events, event_receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(64 << 20));
        let (session, epoch, resumed, sample_rate) = match &opened {
            Opened::New(request) => {
                let known = request.by_id && !self.named.lock().expect("lock").insert(request.session);
                (request.session, Epoch(1), known, request.sample_rate)
            }
            Opened::Resumed(request) => (request.session, request.resume.epoch, true, 16_000),
        };
        let input = FakeInput { seen: seen_sender, room: Arc::clone(&room), abandoned: false };
        self.played.send(Played { opened, seen, events: Some(events), room }).expect("the test lives");
        Ok(Attached {
            ready: Ready {
                session,
                epoch,
                token: "token".to_owned(),
                model: "fake".to_owned(),
                sample_rate,
                have_until: SourceOffset(0),
                next_segment: Segment(0),
                resumed,
                durable: false,
                linger: Duration::from_secs(60),
                warnings: Vec::new(),
                log: tracing::Span::none(),
            },
            input: Box::new(input),
            output: Box::new(FakeOutput(event_receiver)),
        })
    }
}

#[async_trait]
impl Sessions for FakeSessions {
    async fn open(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        self.attach(Opened::New(request))
    }

    async fn go_on(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        if self.named.lock().expect("lock").contains(&request.session) {
            return self.attach(Opened::New(request));
        }
        Err(ErrorBody::new(ErrorCode::UnknownSession, "no such session"))
    }

    async fn resume(&self, request: ResumeRequest) -> Result<Attached, ErrorBody> {
        self.attach(Opened::Resumed(request))
    }

    fn models(&self) -> Vec<ModelInfo> {
        vec![model("fake", "en", true), model("other", "ko", false)]
    }

    async fn status(&self) -> NodeStatus {
        self.status.lock().expect("lock").clone()
    }

    async fn session_reports(&self, _: usize) -> Vec<SessionReport> {
        Vec::new()
    }
}

/// Gateways on ports of the system's choice, over a node played by the test.
pub struct FakeNode {
    pub http: SocketAddr,
    pub vosk: SocketAddr,
    pub audiosocket: SocketAddr,
    pub wyoming: SocketAddr,
    pub quic: Option<SocketAddr>,
    pub stopping: CancellationToken,
    /// Cancelled to drop whatever is connected.
    pub closing: CancellationToken,
    sessions: Arc<FakeSessions>,
    played: mpsc::UnboundedReceiver<Played>,
}

impl FakeNode {
    pub async fn start() -> Self {
        Self::with(GatewaySettings::default()).await
    }

    pub async fn with(settings: GatewaySettings) -> Self {
        Self::with_idle(settings, Duration::ZERO).await
    }

    pub async fn with_idle(settings: GatewaySettings, idle: Duration) -> Self {
        Self::of(settings, idle, Tenants::new(Vec::new()), None, None, 0).await
    }

    /// One where an address may have so many connections.
    pub async fn with_places(per_address: u32) -> Self {
        let (settings, tenants) = (GatewaySettings::default(), Tenants::new(Vec::new()));
        Self::of(settings, Duration::ZERO, tenants, None, None, per_address).await
    }

    pub async fn with_tenants(tenants: Arc<Tenants>) -> Self {
        Self::of(GatewaySettings::default(), Duration::ZERO, tenants, None, None, 0).await
    }

    pub async fn over_quic(
        settings: GatewaySettings,
        tenants: Arc<Tenants>,
        cert: &Arc<Certificate>,
    ) -> Self {
        let tls = cert.acceptor().expect("fine");
        Self::of(settings, Duration::ZERO, tenants, Some(tls), Some(cert), 0).await
    }

    pub async fn over_tls(tls: TlsAcceptor) -> Self {
        let (settings, tenants) = (GatewaySettings::default(), Tenants::new(Vec::new()));
        Self::of(settings, Duration::ZERO, tenants, Some(tls), None, 0).await
    }

    async fn of(
        settings: GatewaySettings,
        idle: Duration,
        tenants: Arc<Tenants>,
        tls: Option<TlsAcceptor>,
        quic: Option<&Arc<Certificate>>,
        per_address: u32,
    ) -> Self {
        let (sender, played) = mpsc::unbounded_channel();
        let sessions = Arc::new(FakeSessions {
            played: sender,
            refusal: Mutex::new(None),
            status: Mutex::new(NodeStatus::default()),
            named: Mutex::default(),
        });
        let cluster = Arc::new(Cluster::alone("fake-node").expect("a name"));
        let gateway = Gateway {
            sessions: Arc::clone(&sessions) as Arc<dyn Sessions>,
            tenants,
            watcher: Watcher::new(
                Arc::clone(&cluster),
                Arc::clone(&sessions) as Arc<dyn Sessions>,
                Arc::default(),
            ),
            page: PageSettings::default(),
            cluster,
            settings: settings.clone(),
            linger: Duration::from_secs(60),
            idle,
            metrics: Arc::new(Metrics::new(["fake"], MetricsOptions::default())),
            started: Startup::default(),
            // Whose listeners these are is asked where there are tenants; the tests' first is "acme".
            audiosocket: AudioSocketSettings { tenant: "acme".to_owned(), ..AudioSocketSettings::default() },
            takes_calls: true,
            calls: Calls::new(LINGER),
            wyoming: WyomingSettings { tenant: "acme".to_owned() },
            workers: Workers::default(),
            rounds: Arc::default(),
            stopping: CancellationToken::new(),
            drain_deadline: Duration::from_secs(25),
            closing: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        let (stopping, closing) = (gateway.stopping.clone(), gateway.closing.clone());
        let state = GatewayState::from(gateway);
        let serving = Serving {
            places: Places::new(100, per_address),
            head_timeout: settings.handshake_timeout,
            peer_timeout: settings.peer_timeout,
            accepting: CancellationToken::new(),
            serving: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        let quic = quic.map(|certificate| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
            let address = socket.local_addr().expect("an address");
            let endpoint = quic_gateway::listen(socket, certificate, &settings).expect("listens");
            let places = Places::new(100, 0);
            tokio::spawn(quic_gateway::accept(endpoint, state.clone(), places, CancellationToken::new()));
            address
        });
        let (http, http_address) = listen().await;
        let (vosk, vosk_address) = listen().await;
        tokio::spawn(accept(http, tls.clone(), http_service(state.clone()), serving.clone()));
        tokio::spawn(accept(vosk, tls.clone(), vosk_router(state.clone()), serving.clone()));
        let (audiosocket, audiosocket_address) = listen().await;
        let (wyoming, wyoming_address) = listen().await;
        tokio::spawn(accept(audiosocket, tls.clone(), audiosocket_service(state.clone()), serving.clone()));
        tokio::spawn(accept(wyoming, tls, wyoming_service(state), serving));
        Self {
            http: http_address,
            vosk: vosk_address,
            audiosocket: audiosocket_address,
            wyoming: wyoming_address,
            quic,
            stopping,
            closing,
            sessions,
            played,
        }
    }

    /// Every session but so many is refused with this from now on.
    pub fn refuse_after(&self, sessions: usize, error: ErrorBody) {
        *self.sessions.refusal.lock().expect("lock") = Some((sessions, error));
    }

    /// Every session is refused with this from now on.
    pub fn refuse(&self, error: ErrorBody) {
        self.refuse_after(0, error);
    }

    pub fn set_status(&self, status: NodeStatus) {
        *self.sessions.status.lock().expect("lock") = status;
    }

    /// The next session that a gateway opens.
    pub async fn session(&mut self) -> Played {
        in_time(self.played.recv()).await.expect("the node lives")
    }

    /// The next session, however long it takes to come; `None` when there can be none.
    pub async fn any_session(&mut self) -> Option<Played> {
        self.played.recv().await
    }

    pub fn no_session(&mut self) -> bool {
        self.played.try_recv().is_err()
    }

    pub async fn native(&self) -> Socket {
        connect(format!("ws://{}/v1/stream", self.http)).await
    }

    pub async fn vosk(&self) -> Socket {
        connect(format!("ws://{}/any/path", self.vosk)).await
    }
}

fn model(name: &str, language: &str, words: bool) -> ModelInfo {
    ModelInfo {
        name: name.to_owned(),
        language: language.to_owned(),
        engine: "fake",
        sample_rate: 16_000,
        capabilities: Capabilities { words, alternatives: true, phrases: false, ..Capabilities::default() },
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

pub async fn connect(url: String) -> Socket {
    let (socket, _) = in_time(tokio_tungstenite::connect_async(url)).await.expect("upgraded");
    socket
}

pub async fn send_text(socket: &mut Socket, text: &str) {
    in_time(socket.send(Message::text(text))).await.expect("sent");
}

pub async fn send_audio(socket: &mut Socket, bytes: usize) {
    send_binary(socket, &vec![0; bytes]).await;
}

pub async fn send_binary(socket: &mut Socket, bytes: &[u8]) {
    in_time(socket.send(Message::binary(bytes.to_vec()))).await.expect("sent");
}

/// The next text; pings are passed over.
pub async fn text(socket: &mut Socket) -> String {
    loop {
        match in_time(socket.next()).await {
            Some(Ok(Message::Text(text))) => return text.to_string(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("no text but {other:?}"),
        }
    }
}

pub async fn json(socket: &mut Socket) -> serde_json::Value {
    serde_json::from_str(&text(socket).await).expect("JSON")
}

/// The close frame, with nothing before it.
pub async fn closed(socket: &mut Socket) -> (u16, String) {
    loop {
        match in_time(socket.next()).await {
            Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                return (code.into(), reason.to_string());
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("no close frame but {other:?}"),
        }
    }
}

/// Sends a hello and takes the ready.
pub async fn greet(node: &mut FakeNode) -> (Socket, Played) {
    let mut socket = node.native().await;
    send_text(&mut socket, r#"{"type":"hello"}"#).await;
    let ready = json(&mut socket).await;
    assert_eq!(ready["type"], "ready", "{ready}");
    let session = node.session().await;
    (socket, session)
}
