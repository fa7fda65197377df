//! vosk-server's protocol on a port of its own, any path: one reply for each message, no greeting, settings per
//! connection.
//!
//! A client reads and writes in turn, and so does this: a message is taken when the one before it was answered, so a
//! client that floods is held back by its own socket. What a reply says and when is decided in [`lockstep`].

use std::time::Duration;

use axum::extract::ws::WebSocket;
use starling_actors::{Dialect, OpenRequest, SessionEvent};
use starling_core::audio::RateMap;
use starling_protocol::SessionId;
use starling_protocol::limits::{MAX_ALTERNATIVES, MAX_PHRASE_BYTES, MAX_PHRASES};
use starling_protocol::limits::{MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use starling_protocol::native::{ErrorBody, ErrorCode, SessionOptions};
use starling_protocol::vosk::{VoskConfig, VoskMessage, final_reply, parse_message, partial_reply};
use tokio::time::{Instant, timeout, timeout_at};

use self::lockstep::{Awaited, Ended, Lockstep, Reply};
use super::link::{Link, Received, SendError, close, close_code};
use super::{GatewayState, note_warnings};
use crate::sessions::{Attached, Input, Output, feed};

mod lockstep;

/// What vosk-server takes audio for when nothing was said of its rate.
const DEFAULT_SAMPLE_RATE: f64 = 8_000.0;

/// The last final may have a whole segment to be decoded again before it; it is worth a longer wait than a partial.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a connection is over.
enum Over {
    /// The client has left, or doesn't read: nobody is there to be told.
    Gone,
    /// To be told with a close frame.
    Close(u16, String),
}

impl From<SendError> for Over {
    fn from(_: SendError) -> Self {
        Self::Gone
    }
}

impl From<ErrorBody> for Over {
    fn from(error: ErrorBody) -> Self {
        Self::Close(close_code(error.code), error.message)
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(socket: WebSocket, state: GatewayState) {
    let mut connection = Connection {
        link: Link::new(socket, &state.settings),
        state,
        settings: Settings::default(),
        session: None,
    };
    let over = connection.run().await;
    if let Over::Close(code, reason) = &over {
        connection.link.writer().close(*code, reason).await;
    }
    if let Some(session) = connection.session {
        if let Some(reason) = session.replies.failure() {
            tracing::warn!(parent: &session.log, reason, "a client that can't be told got a text with a hole in it");
        }
        // A client of this protocol can't come back: nothing is kept for it.
        session.input.abandon().await;
    }
}

struct Settings {
    sample_rate: f64,
    /// `None` where nothing was said of them: they are shown where the model has them.
    words: Option<bool>,
    alternatives: i64,
    phrases: Vec<String>,
    model: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sample_rate: DEFAULT_SAMPLE_RATE,
            words: None,
            alternatives: 0,
            phrases: Vec::new(),
            model: None,
        }
    }
}

struct Session {
    input: Box<dyn Input>,
    output: Box<dyn Output>,
    replies: Lockstep,
    /// What lines of the log about it are within.
    log: tracing::Span,
}

struct Connection {
    link: Link,
    state: GatewayState,
    settings: Settings,
    session: Option<Session>,
}

impl Connection {
    async fn run(&mut self) -> Over {
        loop {
            let received = match self.receive().await {
                Ok(received) => received,
                Err(over) => return over,
            };
            let step = match received {
                Received::Binary(pcm) if pcm.is_empty() => self.repeat().await,
                Received::Binary(pcm) => self.audio(&pcm).await,
                Received::Text(text) => match parse_message(&text) {
                    VoskMessage::Config(config) => {
                        self.configure(config);
                        Ok(())
                    }
                    VoskMessage::Reset => self.reset().await,
                    VoskMessage::Eof => self.finish().await,
                    VoskMessage::Other => self.repeat().await,
                },
                Received::Pong(_) => Ok(()),
                Received::Closed | Received::Silent => Err(Over::Gone),
                Received::Broken(code, reason) => Err(Over::Close(code, reason.to_owned())),
            };
            if let Err(over) = step {
                return over;
            }
        }
    }

    /// The next message; what the session says meanwhile is taken in.
    async fn receive(&mut self) -> Result<Received, Over> {
        loop {
            let Some(session) = &mut self.session else {
                return self.receive_before_audio().await;
            };
            tokio::select! {
                received = self.link.next() => return Ok(received),
                event = session.output.next() => session.take_in(event).await,
            }
            self.refuse_if_failed()?;
        }
    }

    async fn receive_before_audio(&mut self) -> Result<Received, Over> {
        let most = self.state.idle;
        if most.is_zero() {
            return Ok(self.link.next().await);
        }
        let received = timeout(most, self.link.next()).await;
        received
            .map_err(|_| Over::Close(close::POLICY, format!("no audio came for {} s", most.as_secs_f64())))
    }

    fn configure(&mut self, config: VoskConfig) {
        if let Some(session) = &self.session {
            tracing::info!(parent: &session.log, "settings after the first audio are ignored: the recognizer has been made");
            return;
        }
        let settings = &mut self.settings;
        settings.sample_rate = config.sample_rate.unwrap_or(settings.sample_rate);
        settings.words = config.words.or(settings.words);
        settings.alternatives = config.max_alternatives.unwrap_or(settings.alternatives);
        if let Some(phrases) = config.phrase_list {
            settings.phrases = phrases;
        }
        settings.model = config.model.or_else(|| settings.model.take());
    }

    async fn audio(&mut self, pcm: &[u8]) -> Result<(), Over> {
        let timeout = self.state.settings.vosk_reply_timeout;
        let session = self.opened().await?;
        let awaited = session.feed(pcm).await;
        session.wait(awaited, timeout).await;
        let reply = session.replies.next_reply();
        self.answer(reply).await?;
        self.refuse_if_failed()
    }

    async fn reset(&mut self) -> Result<(), Over> {
        let timeout = self.state.settings.vosk_reply_timeout;
        let Some(session) = &mut self.session else {
            return self.answer(self.settings.nothing_said()).await;
        };
        // A session that is over says so in its events.
        let _ = session.input.finalize().await;
        session.wait(Awaited::Finalized, timeout).await;
        let reply = match session.replies.is_due(Awaited::Finalized) {
            true => session.replies.joined_reply(),
            false => session.replies.next_reply(),
        };
        self.answer(reply).await?;
        self.refuse_if_failed()
    }

    async fn finish(&mut self) -> Result<(), Over> {
        let Some(session) = &mut self.session else {
            self.answer(self.settings.nothing_said()).await?;
            return Err(Over::Close(close::NORMAL, String::new()));
        };
        let _ = session.input.end().await;
        session.wait(Awaited::Done, END_TIMEOUT).await;
        let (ended, log) = (session.replies.ended().cloned(), session.log.clone());
        let failure = session.replies.failure().map(str::to_owned);
        let reply = session.replies.joined_reply();
        self.answer(reply).await?;
        match ended {
            Some(Ended::Done) => Err(match failure {
                // The texts are all told, and there is a hole in them.
                Some(failure) => Over::Close(close::INTERNAL, failure),
                None => Over::Close(close::NORMAL, String::new()),
            }),
            Some(Ended::Failed(error)) => Err(error.into()),
            Some(Ended::Silently) | None => {
                tracing::warn!(parent: &log, "the session did not end within {END_TIMEOUT:?} of the end of its audio");
                Err(Over::Close(close::INTERNAL, "the last final is late".to_owned()))
            }
        }
    }

    /// The reply to what is neither audio nor anything else that is known.
    async fn repeat(&mut self) -> Result<(), Over> {
        let reply = match &self.session {
            Some(session) => session.replies.text_so_far(),
            None => Reply { text: partial_reply(""), confirm: None },
        };
        self.answer(reply).await?;
        self.refuse_if_failed()
    }

    async fn answer(&mut self, reply: Reply) -> Result<(), Over> {
        self.link.writer().text(reply.text).await?;
        self.link.listening();
        if let (Some(segment), Some(session)) = (reply.confirm, &mut self.session) {
            // For a client that can't confirm, having been sent is as good as it gets.
            let _ = session.input.confirm(segment).await;
        }
        Ok(())
    }

    fn refuse_if_failed(&self) -> Result<(), Over> {
        match self.session.as_ref().and_then(|session| session.replies.ended()) {
            Some(Ended::Failed(error)) => Err(error.clone().into()),
            Some(Ended::Silently) => Err(Over::Close(close::INTERNAL, "the session is gone".to_owned())),
            Some(Ended::Done) | None => Ok(()),
        }
    }

    /// The session, opened at the first audio: only then are the settings complete.
    async fn opened(&mut self) -> Result<&mut Session, Over> {
        if self.session.is_none() {
            let request = self.settings.request(&self.state)?;
            let source_hz = request.sample_rate;
            let Attached { ready, input, output } = self.state.sessions.open(request).await?;
            note_warnings(&ready);
            let decode_hz = self.state.sample_rate_of(&ready.model);
            let rates = RateMap::new(source_hz, decode_hz).map_err(|error| {
                tracing::error!(parent: &ready.log, "model {}: {error}", ready.model);
                ErrorBody::new(ErrorCode::Internal, "the model's rate can't be served")
            })?;
            tracing::debug!(parent: &ready.log, model = ready.model, source_hz, "vosk-server session opened");
            self.session = Some(Session {
                input,
                output,
                replies: Lockstep::new(rates, self.settings.shows_words(), self.settings.alternatives > 0),
                log: ready.log,
            });
        }
        self.session.as_mut().ok_or(Over::Gone)
    }
}

impl Session {
    async fn take_in(&mut self, event: Option<SessionEvent>) {
        match event {
            Some(event) => self.replies.take_in(event),
            None => self.replies.closed(),
        }
        if let Some(segment) = self.replies.overflow() {
            let _ = self.input.confirm(segment).await;
        }
    }

    async fn feed(&mut self, pcm: &[u8]) -> Awaited {
        let replies = &mut self.replies;
        let take_in = |event| {
            replies.take_in(event);
            replies.overflow()
        };
        // A session that is over says why in its last events.
        let _ = feed(&mut *self.input, &mut *self.output, pcm, take_in).await;
        self.replies.sent(pcm.len())
    }

    async fn wait(&mut self, awaited: Awaited, most: Duration) {
        let deadline = Instant::now() + most;
        while !self.replies.is_due(awaited) {
            match timeout_at(deadline, self.output.next()).await {
                Ok(event) => self.take_in(event).await,
                Err(_) => return,
            }
        }
    }
}

impl Settings {
    fn shows_words(&self) -> bool {
        self.words.unwrap_or(true)
    }

    fn request(&self, state: &GatewayState) -> Result<OpenRequest, ErrorBody> {
        let rate = self.sample_rate;
        if rate.fract() != 0.0 || !(f64::from(MIN_SAMPLE_RATE)..=f64::from(MAX_SAMPLE_RATE)).contains(&rate) {
            let allowed = format!("a whole number from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}");
            return Err(ErrorBody::field("config.sample_rate", rate.to_string(), allowed));
        }
        let alternatives = u8::try_from(self.alternatives).ok().filter(|count| *count <= MAX_ALTERNATIVES);
        let Some(alternatives) = alternatives else {
            let allowed = format!("0 to {MAX_ALTERNATIVES}");
            return Err(ErrorBody::field("config.max_alternatives", self.alternatives.to_string(), allowed));
        };
        Ok(OpenRequest {
            model: self.model.clone(),
            options: SessionOptions {
                words: self.words.unwrap_or_else(|| state.has_words(self.model.as_deref())),
                alternatives,
                phrases: self.checked_phrases()?,
                // A reply is due for each step of 100 ms, and a fresh text with it.
                partial_interval_ms: 100,
                ..SessionOptions::default()
            },
            ..OpenRequest::new(SessionId::random(), Dialect::Vosk, rate as u32)
        })
    }

    fn checked_phrases(&self) -> Result<Vec<String>, ErrorBody> {
        if self.phrases.len() > MAX_PHRASES {
            let value = format!("{} phrases", self.phrases.len());
            return Err(ErrorBody::field(
                "config.phrase_list",
                value,
                format!("at most {MAX_PHRASES} phrases"),
            ));
        }
        let wrong =
            self.phrases.iter().find(|phrase| phrase.trim().is_empty() || phrase.len() > MAX_PHRASE_BYTES);
        if let Some(phrase) = wrong {
            let allowed = format!("phrases of 1 to {MAX_PHRASE_BYTES} bytes each");
            return Err(ErrorBody::field(
                "config.phrase_list",
                format!("a phrase of {} bytes", phrase.len()),
                allowed,
            ));
        }
        Ok(self.phrases.clone())
    }

    /// The final of a connection that has sent no audio.
    fn nothing_said(&self) -> Reply {
        Reply { text: final_reply(&[], self.shows_words(), self.alternatives > 0), confirm: None }
    }
}
