//! The cluster as it changes, for whoever looks on: `GET /v1/cluster/events`, and its last sessions: `GET /v1/sessions`.
//!
//! Owns: how looks are told as server-sent events (HTML, 9.2), and sessions as a list. Must never: keep a look for a slow reader;
//! what it missed is in the next one.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Serialize;
use starling_actors::unix_now;
use starling_protocol::native::{ErrorBody, ErrorCode};
use tokio::sync::watch;

use super::GatewayState;
use super::access::Operator;
use super::reply::HttpError;
use crate::cluster::{Scene, SessionEntry, entry};
use crate::config::TRACE_ID;

/// A stream on which nothing happens says so this often: who reads it knows the difference to one that is broken.
const BEAT: Duration = Duration::from_secs(5);

/// When whoever finds no room may try again.
const CROWDED_RETRY_MS: u64 = 5_000;

/// One that looks on.
struct Looking {
    state: GatewayState,
    scenes: watch::Receiver<Arc<Scene>>,
    /// What it was told last.
    report: Option<Arc<str>>,
    /// The last event that it was told.
    told: u64,
    waiting: VecDeque<Event>,
}

pub(super) async fn events(Operator(state): Operator) -> Response {
    let Some(mut scenes) = state.watcher.watch() else {
        let message = "as many watch the cluster here as may";
        let error = ErrorBody::new(ErrorCode::Busy, message);
        return HttpError::from(ErrorBody { retry_after_ms: Some(CROWDED_RETRY_MS), ..error })
            .into_response();
    };
    // What others saw already is there at once.
    scenes.mark_changed();
    let looking = Looking { state, scenes, report: None, told: 0, waiting: VecDeque::new() };
    let stream = unfold(looking, |mut looking| async move {
        let event = looking.next().await?;
        Some((Ok::<_, Infallible>(event), looking))
    });
    let beat = KeepAlive::new().interval(BEAT).text("beat");
    // A proxy that gathers what it hands on would hold it back.
    ([(header::HeaderName::from_static("x-accel-buffering"), "no")], Sse::new(stream).keep_alive(beat))
        .into_response()
}

impl Looking {
    /// `None` when there will be no more: the node goes, and with it what there is to see.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            let closing = self.state.closing.clone();
            tokio::select! {
                changed = self.scenes.changed() => changed.ok()?,
                () = closing.cancelled() => return None,
            }
            let scene = Arc::clone(&self.scenes.borrow_and_update());
            self.tell(&scene);
            if self.state.stopping.is_cancelled() && self.state.sessions.status().await.sessions == 0 {
                self.waiting.clear();
                return None;
            }
        }
    }

    fn tell(&mut self, scene: &Scene) {
        for event in scene.events.iter().filter(|event| event.id > self.told) {
            let written = Event::default().event("happened").json_data(event);
            self.waiting.extend(written);
        }
        self.told = scene.events.last().map_or(self.told, |event| event.id);
        if scene.report.is_some() && scene.report != self.report {
            self.report.clone_from(&scene.report);
            let report = scene.report.as_deref().unwrap_or_default();
            self.waiting.push_back(Event::default().event("cluster").data(report));
        }
    }
}

#[derive(Serialize)]
struct SessionList {
    /// Those that live, then those that have ended, the latest first.
    sessions: Vec<Listed>,
}

#[derive(Serialize)]
struct Listed {
    /// `live`, `away` while its client is, or how it ended.
    state: String,
    /// When it ended, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ms: Option<u64>,
    /// When its owner began with it, in milliseconds since 1970.
    began_ms: u64,
    #[serde(flatten)]
    session: SessionEntry,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_url: Option<String>,
}

/// The last sessions of all nodes that answer.
pub(super) async fn sessions(Operator(state): Operator) -> Response {
    let (told, recent) = tokio::join!(state.cluster.told(state.sessions.as_ref()), state.watcher.recent());
    let now_ms = u64::try_from(unix_now().as_millis()).unwrap_or(u64::MAX);
    let viewer = state.page.viewer_url.as_str();
    let live = told.sessions.into_iter().map(|session| {
        let began_ms = now_ms.saturating_sub(session.age_ms);
        let label = if session.connected { "live" } else { "away" };
        listed(label.to_owned(), None, began_ms, session, viewer)
    });
    let mut sessions: Vec<Listed> = live.collect();
    let mut ended: Vec<Listed> = Vec::new();
    for (node, recent) in recent {
        ended.extend(recent.ended.into_iter().map(|over| {
            let began_ms = over.at_ms.saturating_sub(over.report.age_ms);
            let session = entry(&node.name, over.report);
            listed(over.outcome, Some(over.at_ms), began_ms, session, viewer)
        }));
    }
    sessions.sort_by_key(|session| std::cmp::Reverse(session.began_ms));
    ended.sort_by_key(|session| std::cmp::Reverse(session.ended_ms));
    sessions.extend(ended);
    Json(SessionList { sessions }).into_response()
}

fn listed(
    state: String,
    ended_ms: Option<u64>,
    began_ms: u64,
    session: SessionEntry,
    viewer: &str,
) -> Listed {
    let trace = session.trace_id.as_deref().filter(|_| !viewer.is_empty());
    let trace_url = trace.map(|id| viewer.replace(TRACE_ID, id));
    Listed { state, ended_ms, began_ms, session, trace_url }
}
