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

    async fn go_on(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        let began = Instant::now();
        let attached = self.sessions.go_on(request).await?;
        self.metrics.note_resumed(began.elapsed());
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster::Cluster;
    use crate::cluster::ScalingReport;
    use crate::metrics::{MetricsOptions, Scrape};

    /// Takes audio after so long.
    struct Slow(Duration);

    #[async_trait]
    impl Input for Slow {
        async fn audio(&mut self, _: &[u8]) -> Result<(), SessionClosed> {
            if !self.0.is_zero() {
                tokio::time::sleep(self.0).await;
            }
            Ok(())
        }

        async fn finalize(&mut self) -> Result<(), SessionClosed> {
            Ok(())
        }

        async fn end(&mut self) -> Result<(), SessionClosed> {
            Ok(())
        }

        async fn confirm(&mut self, _: Segment) -> Result<(), SessionClosed> {
            Ok(())
        }

        async fn abandon(self: Box<Self>) {}
    }

    fn waited(metrics: &Metrics) -> Option<String> {
        let (status, cluster) = (NodeStatus::default(), Cluster::alone("a").expect("a name"));
        let cluster = cluster.view(&status);
        let scrape = Scrape {
            status: &status,
            cluster: &cluster,
            scaling: &ScalingReport::default(),
            ready: true,
            tenants: &[],
            machine: None,
        };
        let text = metrics.encode(&scrape).expect("fits");
        text.lines()
            .find_map(|line| line.strip_prefix("starling_backpressure_seconds_total "))
            .map(str::to_owned)
    }

    #[tokio::test(start_paused = true)]
    async fn only_audio_that_waits_is_counted_also_when_it_is_given_up() {
        let metrics = Arc::new(Metrics::new([], MetricsOptions::default()));
        let input = |wait| Measured { input: Box::new(Slow(wait)), metrics: Arc::clone(&metrics) };
        input(Duration::ZERO).audio(&[0; 2]).await.expect("is taken");
        assert_eq!(waited(&metrics).as_deref(), Some("0.0"));
        input(Duration::from_secs(2)).audio(&[0; 2]).await.expect("is taken");
        assert_eq!(waited(&metrics).as_deref(), Some("2.0"));
        let mut slow = input(Duration::from_secs(60));
        let given_up = tokio::time::timeout(Duration::from_secs(3), slow.audio(&[0; 2])).await;
        assert!(given_up.is_err());
        assert_eq!(waited(&metrics).as_deref(), Some("5.0"));
    }
}
