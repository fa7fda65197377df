//! A node's sessions, with models that are loaded when somebody asks for them.
//!
//! Owns: that the first caller of a model has it served. Must never: keep a caller waiting that asks for one which is served, or for one
//! that there is not.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use starling_actors::{NodeStatus, OpenRequest, ResumeRequest};
use starling_protocol::control::SessionReport;
use starling_protocol::native::{ErrorBody, ErrorCode};

use super::LiveModels;
use crate::exit::Exit;
use crate::sessions::{Attached, ModelInfo, Sessions};

/// Every file of the model is read before it is served: two gigabytes in this time, off a slow disk.
const VERIFIED: Duration = Duration::from_secs(10);

/// When to ask again for a model that took longer.
const ASK_AGAIN_MS: u64 = 2_000;

/// See the module.
pub struct OnDemand {
    sessions: Arc<dyn Sessions>,
    live: Arc<LiveModels>,
}

impl OnDemand {
    /// `sessions`, for which models are loaded.
    #[must_use]
    pub const fn new(sessions: Arc<dyn Sessions>, live: Arc<LiveModels>) -> Self {
        Self { sessions, live }
    }

    async fn have(&self, model: &str) -> Result<(), ErrorBody> {
        if self.sessions.models().iter().any(|served| served.name == model) {
            return Ok(());
        }
        let (live, name) = (Arc::clone(&self.live), model.to_owned());
        // In a task of its own: a caller that goes does not end what others may wait for.
        let adding = tokio::spawn(async move { live.add_on_demand(&name).await });
        match tokio::time::timeout(VERIFIED, adding).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(failure))) => {
                tracing::info!(model, "a model that was asked for cannot be served: {failure}");
                match failure.exit {
                    // The node's own refusal names what there is.
                    Exit::Usage | Exit::Unavailable => Ok(()),
                    _ => Err(self.refusal(model, "is known here, but its files are not, or not whole")),
                }
            }
            Ok(Err(_)) => Err(ErrorBody::new(ErrorCode::Internal, "the model could not be added")),
            Err(_) => {
                let message = format!("model {model:?} is still being read from the disk");
                let busy = ErrorBody::new(ErrorCode::Busy, message);
                Err(ErrorBody { retry_after_ms: Some(ASK_AGAIN_MS), ..busy })
            }
        }
    }

    fn refusal(&self, model: &str, problem: &str) -> ErrorBody {
        let served: Vec<String> = self.sessions.models().into_iter().map(|model| model.name).collect();
        let allowed = format!("one of {}", served.join(", "));
        let body = ErrorBody::field("model", format!("{model:?}"), allowed);
        let message = format!("{}; {model} {problem}", body.message);
        ErrorBody { code: ErrorCode::UnknownModel, message, ..body }
    }
}

#[async_trait]
impl Sessions for OnDemand {
    async fn open(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        if let Some(model) = &request.model {
            self.have(model).await?;
        }
        self.sessions.open(request).await
    }

    async fn go_on(&self, request: OpenRequest) -> Result<Attached, ErrorBody> {
        self.sessions.go_on(request).await
    }

    async fn resume(&self, request: ResumeRequest) -> Result<Attached, ErrorBody> {
        self.sessions.resume(request).await
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
