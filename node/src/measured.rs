//! A node's sessions with a clock on what their clients wait for: to go on with one, and to be rid of audio.
//!
//! Owns: those times. Must never: change what goes in or comes out.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use starling_actors::{NodeStatus, OpenRequest, ResumeRequest, SessionClosed};
use starling_protocol::Segment;
use starling_protocol::control::SessionReport;
use starling_protocol::native::ErrorBody;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::sessions::{Attached, Input, ModelInfo, Sessions};

/// See the module.
pub(crate) struct MeasuredSessions {
    sessions: Arc<dyn Sessions>,
    metrics: Arc<Metrics>,
}

impl MeasuredSessions {
    /// `sessions`, measured.
    #[must_use]
    pub(crate) const fn new(sessions: Arc<dyn Sessions>, metrics: Arc<Metrics>) -> Self {
        Self { sessions, metrics }
    }

    fn measure(&self, attached: Attached) -> Attached {
        let input = Measured { input: attached.input, metrics: Arc::clone(&self.metrics) };
        Attached { input: Box::new(input), ..attached }
    }
}

#[async_trait]
impl Sessions for MeasuredSessions {
    async fn open(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        let began = Instant::now();
        let attached = self.sessions.open(request).await?;
        // Some come back by their session's id alone.
        if attached.ready.resumed {
            self.metrics.note_resumed(began.elapsed());
        }
        Ok(self.measure(attached))
    }

    async fn resume(&self, request: ResumeRequest) -> Result<Attached, ErrorBody> {
        let began = Instant::now();
        match self.sessions.resume(request).await {
            Ok(attached) => {
                self.metrics.note_resumed(began.elapsed());
                Ok(self.measure(attached))
            }
            Err(body) => {
                self.metrics.note_resume_refused(body.code);
                Err(body)
            }
        }
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
struct Measured {
    input: Box<dyn Input>,
    metrics: Arc<Metrics>,
}

/// Counts a wait when it is over, also one that is given up.
struct Waiting<'a> {
    metrics: &'a Metrics,
    since: Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.metrics.note_backpressure(self.since.elapsed());
    }
}

#[async_trait]
impl Input for Measured {
    async fn audio(&mut self, pcm: &[u8]) -> Result<(), SessionClosed> {
        let mut taken = pin!(self.input.audio(pcm));
        // The clock is read for audio alone that is not taken at once.
        if let Poll::Ready(taken) = futures_util::poll!(taken.as_mut()) {
            return taken;
        }
        let _waiting = Waiting { metrics: &self.metrics, since: Instant::now() };
        taken.await
    }

    async fn finalize(&mut self) -> Result<(), SessionClosed> {
        self.input.finalize().await
    }

    async fn end(&mut self) -> Result<(), SessionClosed> {
        self.input.end().await
    }

    async fn confirm(&mut self, segment: Segment) -> Result<(), SessionClosed> {
        self.input.confirm(segment).await
    }

    async fn abandon(self: Box<Self>) {
        self.input.abandon().await;
    }
}
