//! The part of one node in the election: carries out what the machine says, and tells until when this node may act.

use std::time::Duration;

use starling_core::leadership::{
    LeadershipAction, LeadershipConfig, LeadershipEvent, LeadershipMachine, LeaseRecord,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{CallError, Objects};
use crate::clock::{Clock, unix_us};

/// How the Lease is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimings {
    /// For so long the others wait for a holder that says nothing more. Whole seconds.
    pub duration: Duration,
    /// A holder that has not renewed it for so long does not act. Shorter than the duration by what a call may take, at least.
    pub renew_within: Duration,
    /// How often it is looked at.
    pub look_every: Duration,
    /// How long any call to the API server may take.
    pub call: Duration,
}

impl Default for LeaseTimings {
    /// Those of Kubernetes' own controllers, and a call that ends between the holder's last deed and the next one's first.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_within: Duration::from_secs(10),
            look_every: Duration::from_secs(2),
            call: Duration::from_secs(4),
        }
    }
}

/// Until when this node may act; in the past or `None` if it may not.
pub(crate) type Leads = watch::Receiver<Option<Instant>>;

pub(crate) struct Election {
    machine: LeadershipMachine,
    objects: Objects,
    clock: Clock,
    duration: Duration,
    me: String,
    leads: watch::Sender<Option<Instant>>,
    /// Whether the last call failed: it is told once.
    failing: bool,
}

impl Election {
    pub(crate) fn new(me: String, objects: Objects, timings: LeaseTimings, clock: Clock) -> (Self, Leads) {
        let config = LeadershipConfig {
            me: me.clone(),
            duration: timings.duration,
            renew_within: timings.renew_within,
            look_every: timings.look_every,
        };
        let machine = LeadershipMachine::new(clock.now(), config);
        let (sender, leads) = watch::channel(None);
        let duration = timings.duration;
        (Self { machine, objects, clock, duration, me, leads: sender, failing: false }, leads)
    }

    /// Takes part until told to stop, and gives the Lease back then.
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        while let Some(next) = self.machine.next_timeout() {
            tokio::select! {
                () = stopping.cancelled() => break,
                () = tokio::time::sleep_until(self.clock.instant(next)) => {}
            }
            // A call that hangs must not keep this node from giving way at its deadline; `leads` has that deadline in it.
            self.perform(LeadershipEvent::TimedOut).await;
        }
        self.perform(LeadershipEvent::Stopping).await;
    }

    async fn perform(&mut self, event: LeadershipEvent) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut actions = Vec::new();
            self.machine.handle(self.clock.now(), event, &mut actions);
            let until = self.machine.leads_until().map(|at| self.clock.instant(at));
            self.leads.send_replace(until);
            for action in actions {
                events.extend(self.carry_out(action).await);
            }
        }
    }

    async fn carry_out(&mut self, action: LeadershipAction) -> Option<LeadershipEvent> {
        match action {
            LeadershipAction::Lead => {
                tracing::info!(me = self.me, "this node leads: it scales the pods");
                None
            }
            LeadershipAction::Follow => {
                tracing::info!("this node leads no more");
                None
            }
            LeadershipAction::Look => {
                let looked = self.objects.lease().await;
                Some(self.answer(looked, LeadershipEvent::Looked))
            }
            LeadershipAction::Create => {
                let made = self.objects.create_lease(&self.mine(String::new(), 0, None)).await;
                Some(self.answer(made, LeadershipEvent::Written))
            }
            LeadershipAction::Take { version, transitions, acquired_us } => {
                let taken = self.objects.replace_lease(&self.mine(version, transitions, acquired_us)).await;
                Some(self.answer(taken, LeadershipEvent::Written))
            }
            LeadershipAction::Release { version, transitions } => {
                let mine = self.mine(version, transitions, None);
                // The shortest there is, as whoever can't make out an empty name waits for it.
                let nobodys = LeaseRecord { holder: String::new(), duration: Duration::from_secs(1), ..mine };
                if let Err(error) = self.objects.replace_lease(&nobodys).await {
                    tracing::info!(%error, "the lease was not given back; it runs out");
                }
                None
            }
        }
    }

    fn mine(&self, version: String, transitions: u32, acquired_us: Option<i64>) -> LeaseRecord {
        let renewed_us = unix_us();
        LeaseRecord {
            version,
            holder: self.me.clone(),
            duration: self.duration,
            transitions,
            acquired_us: acquired_us.unwrap_or(renewed_us),
            renewed_us,
        }
    }

    fn answer<T>(
        &mut self,
        answer: Result<T, CallError>,
        event: impl FnOnce(T) -> LeadershipEvent,
    ) -> LeadershipEvent {
        let failed = matches!(&answer, Err(error) if !matches!(error, CallError::Conflict { .. }));
        if failed != std::mem::replace(&mut self.failing, failed) {
            match &answer {
                Err(error) if failed => {
                    tracing::warn!(%error, "the lease can't be kept; somebody else may lead");
                }
                _ => tracing::info!("the lease can be kept again"),
            }
        }
        match answer {
            Ok(answer) => event(answer),
            Err(CallError::Conflict { .. }) => LeadershipEvent::Conflicted,
            Err(_) => LeadershipEvent::Failed,
        }
    }
}
