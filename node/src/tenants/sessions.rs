//! A node's sessions as one tenant has them.
//!
//! Owns: what is counted of a connection while it lasts. Must never: change a session that was admitted.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use starling_actors::{
    Dialect, NodeStatus, Observation, Observer, OpenRequest, ResumeRequest, SessionClosed, SessionEvent,
};
use starling_protocol::control::SessionReport;
use starling_protocol::lease::TraceContext;
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::{Segment, SessionId};

use super::Tenant;
use crate::sessions::{Attached, Input, ModelInfo, Output, Sessions};
use crate::traces::RequestSpan;

/// Bytes of one frame of a session's audio: mono PCM16.
const FRAME_BYTES: u64 = 2;

/// See the module.
pub struct TenantSessions {
    tenant: Arc<Tenant>,
    sessions: Arc<dyn Sessions>,
    /// What the request is a part of that the sessions are opened for.
    trace: Option<TraceContext>,
    /// What is told of it while it has none.
    request: RequestSpan,
    observer: Arc<dyn Observer>,
}

impl TenantSessions {
    /// The sessions as `tenant` has them, for a request that is told of as `request`. They are part of `trace`, unless they name
    /// another.
    #[must_use]
    pub fn new(
        tenant: Arc<Tenant>,
        sessions: Arc<dyn Sessions>,
        (trace, request): (Option<TraceContext>, RequestSpan),
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self { tenant, sessions, trace, request, observer }
    }

    /// The request as this tenant's.
    fn own(&self, request: OpenRequest) -> OpenRequest {
        let trace = request.trace.or_else(|| self.trace.clone());
        OpenRequest { tenant: self.tenant.name().to_owned(), trace, ..request }
    }

    /// Counts a session that is refused before the node hears of it.
    fn note_refused(&self, dialect: Dialect, body: &ErrorBody) {
        self.observer.observe(&Observation::SessionRequested { dialect });
        self.observer.observe(&Observation::SessionRefused { dialect, reason: body.code });
    }

    /// The model that is meant, if this tenant may use it.
    fn model(&self, named: Option<String>) -> Result<Option<String>, ErrorBody> {
        if self.tenant.models.is_empty() {
            return Ok(named);
        }
        let Some(name) = named else {
            // The default is the first of those that it may use.
            let first = self.models().into_iter().next().map(|model| model.name);
            return Ok(first.or_else(|| self.tenant.models.first().cloned()));
        };
        self.tenant.check_model(&name)?;
        Ok(Some(name))
    }

    /// Tells what became of a request, whose client said this of its trace.
    fn told(
        &self,
        trace: Option<&TraceContext>,
        attached: Result<Attached, ErrorBody>,
    ) -> Result<Attached, ErrorBody> {
        match &attached {
            Ok(_) => self.request.began_session(),
            Err(body) => self.request.refused(body.code, trace),
        }
        attached
    }

    async fn opened(&self, mut request: OpenRequest) -> Result<Attached, ErrorBody> {
        let dialect = request.dialect;
        let model = self.model(request.model.take());
        request.model = model.inspect_err(|body| self.note_refused(dialect, body))?;
        let request = self.own(request);
        let over = match Pass::new(&self.tenant, request.session, false) {
            Ok(pass) => return Ok(pass.counting(self.sessions.open(request).await?)),
            Err(over) => over,
        };
        if request.by_id {
            // One that goes on is no new one, and whether it does the cluster knows. Nothing is begun to see it.
            match self.gone_on(request).await {
                Err(error) if error.code == ErrorCode::UnknownSession => {}
                answer => return answer,
            }
        }
        self.note_refused(dialect, &over);
        Err(over)
    }

    async fn gone_on(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        let request = self.own(request);
        let pass = Pass::new(&self.tenant, request.session, true)?;
        Ok(pass.counting(self.sessions.go_on(request).await?))
    }

    async fn resumed(&self, mut request: ResumeRequest) -> Result<Attached, ErrorBody> {
        request.tenant = self.tenant.name().to_owned();
        request.trace = request.trace.or_else(|| self.trace.clone());
        let pass = Pass::new(&self.tenant, request.session, true)?;
        Ok(pass.counting(self.sessions.resume(request).await?))
    }
}

#[async_trait]
impl Sessions for TenantSessions {
    async fn open(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        let trace = request.trace.clone();
        self.told(trace.as_ref(), self.opened(request).await)
    }

    async fn go_on(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        let trace = request.trace.clone();
        self.told(trace.as_ref(), self.gone_on(request).await)
    }

    async fn resume(&self, request: ResumeRequest) -> Result<Attached, ErrorBody> {
        let trace = request.trace.clone();
        self.told(trace.as_ref(), self.resumed(request).await)
    }

    fn models(&self) -> Vec<ModelInfo> {
        let mut models = self.sessions.models();
        models.retain(|model| self.tenant.may_use(&model.name));
        models
    }

    async fn status(&self) -> NodeStatus {
        self.sessions.status().await
    }

    async fn session_reports(&self, most: usize) -> Vec<SessionReport> {
        self.sessions.session_reports(most).await
    }
}

/// A connection that counts until it is dropped.
struct Pass {
    tenant: Arc<Tenant>,
    session: SessionId,
}

impl Pass {
    fn new(tenant: &Arc<Tenant>, session: SessionId, goes_on: bool) -> Result<Self, ErrorBody> {
        tenant.enter(session, goes_on)?;
        Ok(Self { tenant: Arc::clone(tenant), session })
    }

    /// Counts for as long as either end is there: a recording is decoded after its last byte.
    fn counting(self, attached: Attached) -> Attached {
        let Attached { ready, input, output } = attached;
        // The session's own rate: what a client that comes back says of it is nobody's business.
        let bytes_per_second = FRAME_BYTES * u64::from(ready.sample_rate.max(1));
        let pass = Arc::new(self);
        let output = Box::new(Told { output, _pass: Arc::clone(&pass) });
        Attached { ready, input: Box::new(Counted { input, pass, bytes_per_second }), output }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.tenant.leave(self.session);
    }
}

/// What goes into a session, its audio counted.
struct Counted {
    input: Box<dyn Input>,
    pass: Arc<Pass>,
    bytes_per_second: u64,
}

/// What comes out of it.
struct Told {
    output: Box<dyn Output>,
    _pass: Arc<Pass>,
}

#[async_trait]
impl Output for Told {
    async fn next(&mut self) -> Option<SessionEvent> {
        self.output.next().await
    }
}

#[async_trait]
impl Input for Counted {
    async fn audio(&mut self, pcm: &[u8]) -> Result<(), SessionClosed> {
        self.input.audio(pcm).await?;
        let nanoseconds = pcm.len() as u64 * 1_000_000_000 / self.bytes_per_second;
        self.pass.tenant.hear(Duration::from_nanos(nanoseconds));
        Ok(())
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
