//! How many decoders are free, pushed at every change: what load balancers and clients of the original look at.
//!
//! Owns: one look at the cluster for all who watch. Must never: look when nobody does.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::WebSocket;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::{ClusterReport, Told};
use crate::config::WorkersShown;
use crate::gateway::GatewayState;
use crate::gateway::link::{Received, SendError, Writer, close, split};

/// Changes that come within this time are told as one. Other nodes tell of theirs every second.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What this dialect's clients are told of the node.
#[derive(Debug, Default)]
pub struct Workers {
    requests: AtomicU64,
    shown: OnceLock<watch::Sender<String>>,
}

impl Workers {
    /// Another request is over, however it ended.
    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn watch(&self, state: &GatewayState) -> watch::Receiver<String> {
        let begin = || {
            let shown = watch::Sender::new(String::new());
            tokio::spawn(look(state.clone(), shown.clone()));
            shown
        };
        self.shown.get_or_init(begin).subscribe()
    }
}

async fn look(state: GatewayState, shown: watch::Sender<String>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = state.closing.cancelled() => return,
        }
        if shown.receiver_count() == 0 {
            // Who comes next waits for the next look rather than be told of how things were.
            shown.send_replace(String::new());
            continue;
        }
        let status = state.sessions.status().await;
        let report = ClusterReport::new(&state.cluster.view(&status), Told::default(), &status);
        let requests = state.workers.requests.load(Ordering::Relaxed);
        let text = text(&report, requests, state.settings.gstreamer_workers);
        shown.send_if_modified(|now| {
            let changed = *now != text;
            *now = text;
            changed
        });
    }
}

fn text(report: &ClusterReport, requests: u64, shown: WorkersShown) -> String {
    let idle = report.models.iter().map(|model| (&model.name, model.slots.idle));
    let available: Value = match shown {
        WorkersShown::Number => json!(idle.map(|(_, idle)| idle).sum::<u64>()),
        WorkersShown::Models => idle.map(|(name, idle)| json!({ name: idle })).collect(),
    };
    json!({ "num_workers_available": available, "num_requests_processed": requests }).to_string()
}

/// Serves one connection to its end.
pub(super) async fn serve(socket: WebSocket, state: GatewayState) {
    let (mut reader, mut writer) = split(socket, &state.settings);
    let watching = state.workers.watch(&state);
    let reading = async {
        // Whatever a watcher says is of no meaning, but for its end.
        while !matches!(reader.next().await, Received::Closed | Received::Silent | Received::Broken(..)) {}
    };
    tokio::select! {
        () = reading => {}
        _ = show(&mut writer, watching, state.settings.ping_interval) => {}
        // Who watches goes to another node with the callers.
        () = state.stopping.cancelled() => writer.close(close::RESTARTING, "the node is stopping").await,
    }
}

async fn show(
    writer: &mut Writer,
    mut watching: watch::Receiver<String>,
    ping_interval: Duration,
) -> Result<(), SendError> {
    let mut pings = interval(ping_interval);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    loop {
        let now = watching.borrow_and_update().clone();
        if !now.is_empty() {
            writer.text(now).await?;
        }
        tokio::select! {
            changed = watching.changed() => changed.map_err(|_| SendError::Gone)?,
            _ = pings.tick() => writer.ping().await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ModelReport, SlotsReport};

    #[test]
    fn free_decoders_are_a_number_or_one_for_each_model() {
        let model = |name: &str, idle| ModelReport {
            name: name.to_owned(),
            nodes: 1,
            slots: SlotsReport { total: 9, busy: 9 - idle, idle },
            real_time_factor: None,
            hosts: Default::default(),
        };
        let report = ClusterReport {
            node: "a".to_owned(),
            nodes: Vec::new(),
            models: vec![model("ko", 2), model("en", 5)],
            sessions: Vec::new(),
        };
        let parsed = |shown| serde_json::from_str::<Value>(&text(&report, 4, shown)).expect("is JSON");
        assert_eq!(
            parsed(WorkersShown::Number),
            json!({ "num_workers_available": 7, "num_requests_processed": 4 })
        );
        assert_eq!(
            parsed(WorkersShown::Models),
            json!({ "num_workers_available": [{ "ko": 2 }, { "en": 5 }], "num_requests_processed": 4 })
        );
    }
}
