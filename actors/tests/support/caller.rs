//! A client of nodes that keep copies of each other's sessions.

use std::time::Duration;

use starling_actors::{
    Attachment, NodeHandle, OpenRequest, ResumeRequest, SessionEvent, SessionInput, SessionOutput,
};
use starling_protocol::native::{ErrorBody, Resume};
use starling_protocol::{Epoch, SessionId, SourceOffset};
use tokio::time::{Instant, sleep};

use super::client::{Heard, bytes, request};
use super::keepers::Cluster;

pub const STEP: Duration = Duration::from_millis(100);
pub const STEP_BYTES: usize = 3_200;

/// Longer than copies are kept whose owner is gone.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A client that keeps all its audio and goes on wherever it is let.
pub struct Caller {
    pub session: SessionId,
    pub audio: Vec<u8>,
    pub input: SessionInput,
    pub output: SessionOutput,
    pub token: String,
    pub epoch: Epoch,
    pub sent: usize,
    pub acked: u64,
    pub durable: Vec<bool>,
    pub resume_at: Vec<String>,
    pub heard: Heard,
    pub over: bool,
}

impl Caller {
    pub async fn open(node: &NodeHandle, audio: &[i16]) -> Self {
        Self::open_with(node, audio, request()).await
    }

    pub async fn open_with(node: &NodeHandle, audio: &[i16], request: OpenRequest) -> Self {
        let session = request.session;
        let Attachment { ready, input, output } = node.open(request).await.expect("is admitted");
        Self {
            session,
            audio: bytes(audio),
            input,
            output,
            token: ready.token,
            epoch: ready.epoch,
            sent: 0,
            acked: 0,
            durable: vec![ready.durable],
            resume_at: Vec::new(),
            heard: Heard::default(),
            over: false,
        }
    }

    /// Speaks for so long, or to the end, and listens meanwhile.
    pub async fn speak(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline && self.sent < self.audio.len() {
            let end = (self.sent + STEP_BYTES).min(self.audio.len());
            if self.input.audio(&self.audio[self.sent..end]).await.is_ok() {
                self.sent = end;
            }
            self.listen(STEP).await;
        }
    }

    pub async fn listen(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Ok(Some(event)) = tokio::time::timeout_at(deadline, self.output.next()).await {
            match event {
                SessionEvent::View { token, durable, resume_at, .. } => {
                    (self.token, self.resume_at) = (token, resume_at);
                    self.durable.push(durable);
                }
                SessionEvent::Ack(until) => {
                    assert!(until.0 >= self.acked, "acknowledgements grow");
                    self.acked = until.0;
                }
                event => self.over |= self.heard.take(event),
            }
        }
        sleep(deadline.saturating_duration_since(Instant::now())).await;
    }

    pub fn resume(&mut self) -> ResumeRequest {
        self.epoch = self.epoch.next();
        let last = self.heard.finals.last();
        let resume = Resume {
            token: self.token.clone(),
            epoch: self.epoch,
            last_final: last.map(|last| last.segment),
            final_to: last.map(|last| last.to),
            have_from: last.map_or(SourceOffset(0), |last| last.to),
        };
        ResumeRequest { session: self.session, tenant: String::new(), resume, trace: None }
    }

    pub async fn resume_on(&mut self, node: &NodeHandle) -> Result<(), ErrorBody> {
        let request = self.resume();
        let Attachment { ready, input, output } = node.resume(request).await?;
        assert!(ready.resumed);
        (self.input, self.output) = (input, output);
        self.sent = ready.have_until.0 as usize * 2;
        self.token = ready.token;
        // What was acknowledged while there was one copy alone may be gone with it.
        self.acked = 0;
        self.durable.push(ready.durable);
        self.heard.failed = None;
        self.over = false;
        Ok(())
    }

    pub async fn finish(mut self) -> Self {
        self.speak(Duration::from_secs(600)).await;
        self.input.end().await.expect("is open");
        for _ in 0..100 {
            if self.over {
                break;
            }
            self.listen(STEP).await;
        }
        assert!(self.heard.done, "{:?}", self.heard.failed);
        if let Some(last) = self.heard.finals.last() {
            let _ = self.input.confirm(last.segment).await;
        }
        self
    }
}

pub async fn calm(audio: &[i16]) -> Heard {
    let cluster = Cluster::start(&["calm"]).await;
    Caller::open(&cluster.node("calm"), audio).await.finish().await.heard
}
