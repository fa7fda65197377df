//! The whole client against a small server over real sockets: one that cuts connections where it is told to.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{SinkExt, StreamExt};
use starling_protocol::native::{ErrorBody, ErrorCode, Final, ServerMessage, parse_client};
use starling_protocol::{CutCause, Epoch, Segment, SourceOffset};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::{Client, ClientConfig, SessionConfig};

mod moving;

/// Frames of a segment of this server: it cuts every time.
const SEGMENT: usize = 1_000;

/// What one connection does before it is cut.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Serve,
    /// Cut after this many messages of the client.
    CutAfter(usize),
    /// Cut after this many finals were sent on it.
    CutAfterFinals(usize),
    /// Answer the hello with this.
    Refuse(ErrorCode),
    /// Forget every session, then serve.
    Forget,
    /// Say that this node is about to stop after this many messages of the client, and serve on.
    GoAwayAfter(usize),
    /// Take the connection and never answer.
    Stall,
}

#[derive(Debug, Default)]
struct Session {
    audio: Vec<u8>,
    ended: bool,
    finals: Vec<Final>,
    confirmed: u64,
    epoch: u64,
}

type Sessions = Arc<Mutex<HashMap<SessionId, Session>>>;

#[derive(Debug, Default)]
struct State {
    fates: VecDeque<Fate>,
    connections: usize,
    /// What each connection is told of copies; nothing when empty.
    resume_at: Vec<String>,
}

#[derive(Clone)]
struct Server {
    address: String,
    url: String,
    state: Arc<Mutex<State>>,
    sessions: Sessions,
}

impl Server {
    async fn start(fates: impl IntoIterator<Item = Fate>) -> Self {
        Self::with_sessions(fates, Sessions::default()).await
    }

    /// Another server that can go on with this one's sessions.
    async fn beside(&self, fates: impl IntoIterator<Item = Fate>) -> Self {
        Self::with_sessions(fates, self.sessions.clone()).await
    }

    async fn with_sessions(fates: impl IntoIterator<Item = Fate>, sessions: Sessions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound").to_string();
        let url = format!("ws://{address}");
        let state = State { fates: fates.into_iter().collect(), ..State::default() };
        let server = Self { address, url, state: Arc::new(Mutex::new(state)), sessions };
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let fate = {
                    let mut state = accepting.state();
                    state.connections += 1;
                    state.fates.pop_front().unwrap_or(Fate::Serve)
                };
                let server = accepting.clone();
                tokio::spawn(async move {
                    // A connection that is cut ends in an error; that is the point.
                    let _ = server.serve(stream, fate).await;
                });
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while holding it")
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        self.sessions.lock().expect("no test panics while holding it")
    }

    fn client(&self) -> Client {
        let mut config = ClientConfig::new([self.url.clone()]);
        config.backoff_first = Duration::from_millis(5);
        Client::new(config).expect("is a valid configuration")
    }

    fn with<T>(&self, id: SessionId, work: impl FnOnce(&mut Session) -> T) -> T {
        work(self.sessions().get_mut(&id).expect("is open"))
    }

    async fn serve(&self, stream: TcpStream, fate: Fate) -> Option<()> {
        if fate == Fate::Stall {
            return std::future::pending().await;
        }
        let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
        let Message::Text(hello) = socket.next().await?.ok()? else { panic!("no hello") };
        let ClientMessage::Hello(hello) = parse_client(&hello).expect("is a message") else {
            panic!("no hello")
        };
        let id = hello.session.expect("made by the client");
        if fate == Fate::Forget {
            self.sessions().clear();
        }
        let known = self.sessions().contains_key(&id);
        let refusal = match fate {
            Fate::Refuse(code) => Some(code),
            _ if hello.resume.is_some() && !known => Some(ErrorCode::UnknownSession),
            _ => None,
        };
        if let Some(code) = refusal {
            say(&mut socket, &ServerMessage::Error(ErrorBody::new(code, "refused"))).await?;
            return None;
        }
        let last_final = hello.resume.as_ref().and_then(|resume| resume.last_final);
        let mut sent = last_final.map_or(0, |last| usize::try_from(last.0).expect("small") + 1);
        let (epoch, ready) = {
            let mut sessions = self.sessions();
            let session = sessions.entry(id).or_default();
            let opens = hello.epoch.unwrap_or(Epoch(1)).0;
            let epoch = hello.resume.as_ref().map_or(opens, |resume| resume.epoch.0);
            assert!(epoch > session.epoch, "a used epoch");
            session.epoch = epoch;
            let ready = ServerMessage::Ready {
                session: id,
                epoch: Epoch(epoch),
                token: "token".into(),
                model: hello.model.unwrap_or_else(|| "default".into()),
                have_until: SourceOffset((session.audio.len() / 2) as u64),
                next_segment: Segment(sent as u64),
                resumed: hello.resume.is_some(),
                durable: false,
                linger_ms: 60_000,
                node: String::new(),
            };
            (epoch, ready)
        };
        say(&mut socket, &ready).await?;
        let resume_at = self.state().resume_at.clone();
        if !resume_at.is_empty() {
            let view = ServerMessage::View { view: 1, token: "token".into(), durable: true, resume_at };
            say(&mut socket, &view).await?;
        }
        let mut received = 0;
        let first = sent;
        loop {
            for last in self.with(id, |session| session.finals[sent..].to_vec()) {
                say(&mut socket, &ServerMessage::Final(last)).await?;
                sent += 1;
                if fate == Fate::CutAfterFinals(sent - first) {
                    return None;
                }
            }
            let (frames, over) = self.with(id, |session| (session.audio.len() / 2, session.ended));
            let until = SourceOffset(frames as u64);
            say(&mut socket, &ServerMessage::Ack { until }).await?;
            if over {
                let segments = sent as u64;
                say(&mut socket, &ServerMessage::Done { segments, frames: until }).await?;
                socket.close(None).await.ok()?;
                return Some(());
            }
            let message = socket.next().await?.ok()?;
            received += 1;
            if fate == Fate::CutAfter(received) {
                return None;
            }
            if fate == Fate::GoAwayAfter(received) {
                say(&mut socket, &ServerMessage::GoAway { deadline_ms: 30_000 }).await?;
            }
            let speaks = self.with(id, |session| {
                let speaks = session.epoch == epoch;
                if speaks {
                    take(session, &message);
                }
                speaks
            });
            if !speaks {
                let body = ErrorBody::new(ErrorCode::Superseded, "taken over");
                say(&mut socket, &ServerMessage::Error(body)).await?;
                return None;
            }
        }
    }
}

fn take(session: &mut Session, message: &Message) {
    match message {
        Message::Binary(audio) => session.audio.extend_from_slice(audio),
        Message::Text(text) => match parse_client(text).expect("is a message") {
            ClientMessage::Confirm { segment } => session.confirmed = segment.0 + 1,
            ClientMessage::End {} => session.ended = true,
            ClientMessage::Finalize {} | ClientMessage::Hello(_) => {}
        },
        _ => {}
    }
    loop {
        let from = session.finals.last().map_or(0, |last| last.to.0);
        let start = usize::try_from(from).expect("small") * 2;
        let open = &session.audio[start..];
        let bytes = open.len().min(SEGMENT * 2);
        if bytes == 0 || (bytes < SEGMENT * 2 && !session.ended) {
            return;
        }
        let to = from + (bytes / 2) as u64;
        session.finals.push(Final {
            segment: Segment(session.finals.len() as u64),
            from: SourceOffset(from),
            to: SourceOffset(to),
            start: from as f64 / 16_000.0,
            end: to as f64 / 16_000.0,
            cause: CutCause::Length,
            text: digest(&open[..bytes]),
            words: Vec::new(),
            confidence: None,
            alternatives: Vec::new(),
            error: None,
        });
    }
}

async fn say(socket: &mut WebSocketStream<TcpStream>, message: &ServerMessage) -> Option<()> {
    let text = serde_json::to_string(message).expect("serializes");
    socket.send(Message::text(text)).await.ok()
}

fn digest(audio: &[u8]) -> String {
    let sum = audio
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{sum:x}")
}

fn recording(frames: u32) -> Vec<u8> {
    (0..frames).flat_map(|n| (n.wrapping_mul(40_503) as u16).to_le_bytes()).collect()
}

/// Sends the audio in odd pieces, and gives back the finals' texts, how many reconnects there were, and the id.
async fn transcribe(client: &Client, audio: Vec<u8>) -> (Vec<String>, usize, SessionId) {
    let session = client.open(SessionConfig::default()).await.expect("opens");
    let id = session.opened().session;
    let (mut sender, mut events) = session.split();
    let sending = tokio::spawn(async move {
        for piece in audio.chunks(333) {
            sender.send(piece).await?;
        }
        sender.end().await
    });
    let (mut texts, mut reconnects, mut done) = (Vec::new(), 0, false);
    while let Some(event) = events.next().await {
        match event.expect("the session lives") {
            Event::Final(last) => {
                assert_eq!(last.segment.0, texts.len() as u64);
                assert_eq!(last.from.0, (texts.len() * SEGMENT) as u64);
                texts.push(last.text);
            }
            Event::Reconnected { .. } => reconnects += 1,
            Event::Done { segments, .. } => {
                assert_eq!(segments, texts.len() as u64);
                done = true;
            }
            Event::Gap { from, to } => panic!("frames {from} to {to} are said to be lost"),
            Event::Partial { .. } | Event::Warning { .. } | Event::Durable(_) => {}
        }
    }
    assert!(done, "ended without done");
    sending.await.expect("does not panic").expect("was taken");
    (texts, reconnects, id)
}

fn expected(audio: &[u8]) -> Vec<String> {
    audio.chunks(SEGMENT * 2).map(digest).collect()
}

#[tokio::test]
async fn audio_of_any_chunking_arrives_whole() {
    let server = Server::start([]).await;
    let audio = recording(10_500);
    let (texts, reconnects, id) = transcribe(&server.client(), audio.clone()).await;
    assert_eq!((texts, reconnects), (expected(&audio), 0));
    server.with(id, |session| assert_eq!(session.audio, audio));
}

#[tokio::test]
async fn connections_that_are_cut_again_and_again_lose_and_repeat_nothing() {
    let finals = [1, 2, 3].map(Fate::CutAfterFinals);
    let cuts = [2, 1, 2, 1].map(Fate::CutAfter);
    let server = Server::start(finals.into_iter().chain(cuts)).await;
    let audio = recording(40_000);
    let (texts, reconnects, id) = transcribe(&server.client(), audio.clone()).await;
    assert_eq!(texts, expected(&audio));
    assert!(reconnects >= 6, "{reconnects}");
    server.with(id, |session| assert_eq!(session.audio, audio));
}

#[tokio::test]
async fn a_server_that_forgets_is_told_again() {
    let server = Server::start([Fate::CutAfter(20), Fate::Forget]).await;
    let audio = recording(40_000);
    let (texts, reconnects, first) = transcribe(&server.client(), audio.clone()).await;
    assert_eq!((texts, reconnects), (expected(&audio), 1));
    assert_eq!(server.state().connections, 3);
    assert!(!server.sessions().contains_key(&first), "the new session has an id of its own");
}

#[tokio::test]
async fn finals_that_the_consumer_has_taken_are_confirmed() {
    let server = Server::start([]).await;
    let session = server.client().open(SessionConfig::default()).await.expect("opens");
    let id = session.opened().session;
    let (mut sender, mut events) = session.split();
    sender.send(&recording(3_500)).await.expect("is taken");
    for _ in 0..2 {
        assert!(matches!(events.next().await, Some(Ok(Event::Final(_)))));
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.with(id, |session| session.confirmed) < 2 {
        assert!(Instant::now() < deadline, "never confirmed");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.with(id, |session| assert_eq!(session.confirmed, 2));
}

#[tokio::test]
async fn a_refusal_says_why() {
    let server = Server::start([Fate::Refuse(ErrorCode::UnknownModel)]).await;
    let error = server.client().open(SessionConfig::default()).await.expect_err("is refused");
    let OpenError::Refused(body) = error else { panic!("not a refusal: {error:?}") };
    assert_eq!(body.code, ErrorCode::UnknownModel);
}

#[tokio::test]
async fn a_busy_server_is_waited_for_when_that_is_wanted() {
    let busy = Fate::Refuse(ErrorCode::Busy);
    let server = Server::start([busy, busy, busy]).await;
    let error = server.client().open(SessionConfig::default()).await.expect_err("is refused");
    assert!(matches!(error, OpenError::Busy(_)), "{error:?}");
    let mut config = ClientConfig::new([server.url.clone()]);
    config.wait_when_busy = true;
    let client = Client::new(config).expect("is valid");
    client.open(SessionConfig::default()).await.expect("opens at last");
    assert_eq!(server.state().connections, 4);
}

/// An address at which nobody listens and nobody will, while the socket is kept.
fn nobody() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("binds");
    let url = format!("ws://{}", socket.local_addr().expect("is bound"));
    (socket, url)
}

#[tokio::test]
async fn the_next_server_is_tried_when_one_does_not_answer() {
    let silent = Server::start([Fate::Stall]).await;
    let server = Server::start([]).await;
    let (_nobody, refusing) = nobody();
    let mut config = ClientConfig::new([refusing, silent.url, server.url.clone()]);
    // The last one has to answer within it.
    config.attempt_timeout = Duration::from_secs(1);
    config.backoff_first = Duration::from_millis(1);
    let client = Client::new(config).expect("is valid");
    client.open(SessionConfig::default()).await.expect("opens");
    assert_eq!(server.state().connections, 1);
}

#[tokio::test]
async fn nobody_there_is_said_at_the_deadline() {
    let (_nobody, url) = nobody();
    let mut config = ClientConfig::new([url]);
    config.open_deadline = Duration::ZERO;
    let client = Client::new(config).expect("is valid");
    let error = client.open(SessionConfig::default()).await.expect_err("nobody is there");
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_session_that_no_server_takes_on_ends_with_an_error() {
    let stall = std::iter::repeat_n(Fate::Stall, 1_000);
    let server = Server::start(std::iter::once(Fate::CutAfter(1)).chain(stall)).await;
    let mut config = ClientConfig::new([server.url.clone()]);
    config.give_up = Duration::from_millis(100);
    // The first has to be answered within it.
    config.attempt_timeout = Duration::from_secs(2);
    let client = Client::new(config).expect("is valid");
    let (mut sender, mut events) = client.open(SessionConfig::default()).await.expect("opens").split();
    sender.send(&[0, 0]).await.expect("is taken");
    let error = events.next().await.expect("an error").expect_err("no event");
    assert!(matches!(error, SessionError::GaveUp { .. }), "{error:?}");
    assert_eq!(events.next().await, None);
    // The task closes its end before it says why, so whoever sends learns of it too.
    assert_eq!(sender.send(&[0, 0]).await, Err(crate::SendError));
}

#[tokio::test]
async fn a_ring_that_is_full_makes_the_sender_wait() {
    let server = Server::start([Fate::Serve, Fate::Stall]).await;
    let mut config = ClientConfig::new([server.url.clone()]);
    config.ring = Duration::from_millis(100);
    let client = Client::new(config).expect("is valid");
    // The server takes a tenth of a second at a time and acknowledges it; four seconds pass through.
    let audio = recording(64_000);
    let (texts, ..) = transcribe(&client, audio.clone()).await;
    assert_eq!(texts, expected(&audio));

    // A server that never acknowledges: the ring and what lies before it fill, and then nothing is taken.
    let (mut sender, _events) = {
        let server = Server::start([Fate::CutAfter(1), Fate::Stall]).await;
        let mut config = ClientConfig::new([server.url.clone()]);
        config.ring = Duration::from_millis(100);
        let client = Client::new(config).expect("is valid");
        client.open(SessionConfig::default()).await.expect("opens").split()
    };
    let flood = recording(64_000);
    let waiting = tokio::time::timeout(Duration::from_millis(300), sender.send(&flood)).await;
    assert!(waiting.is_err(), "four seconds were taken into a ring of a tenth");
}

#[tokio::test]
async fn dropping_the_sender_ends_the_audio() {
    let server = Server::start([]).await;
    let session = server.client().open(SessionConfig::default()).await.expect("opens");
    let (mut sender, mut events) = session.split();
    sender.send(&recording(10)).await.expect("is taken");
    drop(sender);
    let mut done = false;
    while let Some(event) = events.next().await {
        done = matches!(event.expect("the session lives"), Event::Done { segments: 1, .. });
    }
    assert!(done);
}
