//! A node's sessions with an eye on what comes in: audio that is not what it was said to be is told in a warning, and a session that
//! is too long is ended.
//!
//! The warning is also in the log: most dialects have no word for one.
//!
//! Owns: what is said of one connection's audio. Must never: change a byte of it, or take anything from a session that was heard: at
//! its end come the finals of all that was taken in, and then the reason.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use starling_actors::{NodeStatus, OpenRequest, ResumeRequest, SessionClosed, SessionEvent};
use starling_core::Timestamp;
use starling_core::audio::AudioCheck;
use starling_protocol::Segment;
use starling_protocol::control::SessionReport;
use starling_protocol::native::{ErrorBody, ErrorCode, WarningCode};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::sessions::{Attached, Input, ModelInfo, Output, Sessions};

/// Bytes of one frame of a session's audio: mono PCM16.
const FRAME_BYTES: u64 = 2;

/// At most one warning of each kind is told.
const WARNINGS: usize = 4;

/// See the module.
pub struct WatchedSessions {
    sessions: Arc<dyn Sessions>,
    /// The most audio that a session may have; zero for any.
    most: Duration,
    /// Where suspicions are counted.
    metrics: Arc<Metrics>,
}

impl WatchedSessions {
    /// `sessions`, each of at most so much audio; zero for any.
    #[must_use]
    pub const fn new(sessions: Arc<dyn Sessions>, most: Duration, metrics: Arc<Metrics>) -> Self {
        Self { sessions, most, metrics }
    }

    fn watch(&self, attached: Attached, live: bool) -> Attached {
        let Attached { ready, input, output } = attached;
        let rate = u64::from(ready.sample_rate.max(1));
        let most = u64::try_from(self.most.as_millis()).unwrap_or(u64::MAX).saturating_mul(rate) / 1_000;
        let left =
            (!self.most.is_zero()).then(|| most.saturating_sub(ready.have_until.0).max(1) * FRAME_BYTES);
        let (tell, warnings) = mpsc::channel(WARNINGS);
        let (cut, ended) = watch::channel(false);
        let check = AudioCheck::new(ready.sample_rate, live);
        let (log, metrics) = (ready.log.clone(), Arc::clone(&self.metrics));
        let input = Watched { input, log, check, begun: Instant::now(), tell, metrics, left, cut };
        let output = Told { output, warnings, ended, most: self.most };
        Attached { ready, input: Box::new(input), output: Box::new(output) }
    }
}

#[async_trait]
impl Sessions for WatchedSessions {
    async fn open(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        let live = !request.options.batch;
        Ok(self.watch(self.sessions.open(request).await?, live))
    }

    async fn go_on(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        Ok(self.watch(self.sessions.go_on(request).await?, false))
    }

    async fn resume(&self, request: ResumeRequest) -> Result<Attached, ErrorBody> {
        // A client that comes back sends at first what it has kept, as fast as it can.
        Ok(self.watch(self.sessions.resume(request).await?, false))
    }

    fn models(&self) -> Vec<ModelInfo> {
        self.sessions.models()
    }

    async fn status(&self) -> NodeStatus {
        self.sessions.status().await
    }

    async fn session_reports(&self, most: usize) -> Vec<SessionReport> {
        self.sessions.session_reports(most).await
    }
}

/// What goes into a session.
struct Watched {
    input: Box<dyn Input>,
    /// Whose lines these are in the log.
    log: tracing::Span,
    check: AudioCheck,
    begun: Instant,
    tell: mpsc::Sender<String>,
    metrics: Arc<Metrics>,
    /// Bytes that the session may still have; `None` for any number.
    left: Option<u64>,
    /// Told when it was ended here.
    cut: watch::Sender<bool>,
}

#[async_trait]
impl Input for Watched {
    async fn audio(&mut self, pcm: &[u8]) -> Result<(), SessionClosed> {
        let room =
            self.left.map_or(pcm.len(), |left| pcm.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        if room > 0 {
            self.input.audio(&pcm[..room]).await?;
        }
        if let Some(suspicion) = self.check.hear(&pcm[..room], Timestamp(self.begun.elapsed())) {
            tracing::warn!(parent: &self.log, reason = %suspicion, "a session's audio is not what it was said to be");
            self.metrics.note_suspect_audio(suspicion.label());
            // Nobody hears the warning of a session that is over.
            let _ = self.tell.try_send(suspicion.to_string());
        }
        let Some(left) = &mut self.left else { return Ok(()) };
        *left -= room as u64;
        // What still comes is read, so that the client reads the reason, and is not heard.
        if *left == 0 && !self.cut.send_replace(true) {
            self.input.end().await?;
        }
        Ok(())
    }

    async fn finalize(&mut self) -> Result<(), SessionClosed> {
        if *self.cut.borrow() { Ok(()) } else { self.input.finalize().await }
    }

    async fn end(&mut self) -> Result<(), SessionClosed> {
        if *self.cut.borrow() { Ok(()) } else { self.input.end().await }
    }

    async fn confirm(&mut self, segment: Segment) -> Result<(), SessionClosed> {
        self.input.confirm(segment).await
    }

    async fn abandon(self: Box<Self>) {
        self.input.abandon().await;
    }
}

/// What comes out of it.
struct Told {
    output: Box<dyn Output>,
    warnings: mpsc::Receiver<String>,
    ended: watch::Receiver<bool>,
    most: Duration,
}

#[async_trait]
impl Output for Told {
    async fn next(&mut self) -> Option<SessionEvent> {
        let event = tokio::select! {
            biased;
            Some(warning) = self.warnings.recv() => {
                return Some(SessionEvent::Warning(WarningCode::SuspectAudio, warning));
            }
            event = self.output.next() => event,
        };
        match event {
            Some(SessionEvent::Done { .. }) if *self.ended.borrow() => {
                let message = format!(
                    "a session may have {} of audio here, which this one has; go on with a new one",
                    humantime::format_duration(self.most)
                );
                Some(SessionEvent::Failed(ErrorBody::new(ErrorCode::SessionTooLong, message)))
            }
            event => event,
        }
    }
}

#[cfg(test)]
mod tests;
