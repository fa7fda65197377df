//! The loop of one node: looks, has the machine decide, and does what it says, while this node leads.

use std::sync::Arc;
use std::time::Duration;

use starling_core::scaling::{
    ActuatorAction, ActuatorConfig, ActuatorEvent, ActuatorMachine, Observation, PodState, Standing,
    pods_needed,
};
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{CallError, Connection, Objects, SetScale};
use crate::clock::Clock;
use crate::election::{Election, Leads, LeaseTimings};
use crate::fleet::{ActuatorFact, Fleet, FleetError, FleetView, NodeState, Outcome};

/// When to look again after somebody else changed the StatefulSet, its own controller for one.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);

/// What an actuator is given.
pub struct ActuatorArguments {
    /// The way to the API server.
    pub connection: Connection,
    /// The StatefulSet whose pods the nodes are.
    pub stateful_set: String,
    /// The Lease by which one of the nodes is chosen.
    pub lease: String,
    /// This run of this node, unlike any other.
    pub me: String,
    /// How many pods there may be.
    pub config: ActuatorConfig,
    /// How often it is looked.
    pub check_interval: Duration,
    /// Whether nothing is done, and only told.
    pub dry_run: bool,
    /// How the Lease is kept.
    pub timings: LeaseTimings,
    /// The nodes.
    pub fleet: Arc<dyn Fleet>,
}

/// One node's actuator.
pub struct Actuator {
    arguments: ActuatorArguments,
    objects: Objects,
    machine: ActuatorMachine,
    clock: Clock,
    /// What was told last, so that it is told once.
    told: Option<Told>,
    /// Whether the last look failed: it is told once.
    blind: bool,
}

/// What was done, and why nothing more was.
type Told = (Vec<(ActuatorAction, Outcome)>, Standing);

/// Why an action was not done.
#[derive(Debug, Error)]
enum Undone {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

impl Actuator {
    /// An actuator that follows.
    #[must_use]
    pub fn new(arguments: ActuatorArguments) -> Self {
        let ActuatorArguments { connection, stateful_set, lease, timings, config, .. } = &arguments;
        let objects = Objects::new(connection, stateful_set, lease, timings.call);
        let clock = Clock::start();
        let machine = ActuatorMachine::new(clock.now(), *config);
        Self { arguments, objects, machine, clock, told: None, blind: false }
    }

    /// Takes part in the election, and scales while it leads, until told to stop. The Lease is given back then.
    pub async fn run(mut self, stopping: CancellationToken) {
        let (me, timings) = (self.arguments.me.clone(), self.arguments.timings);
        let (election, leads) = Election::new(me, self.objects.clone(), timings, self.clock);
        let over = CancellationToken::new();
        let acting = async {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = self.act(leads) => {}
            }
            over.cancel();
        };
        tokio::join!(acting, election.run(over.clone()));
    }

    async fn act(&mut self, mut leads: Leads) {
        let mut next = Instant::now();
        loop {
            let led = self.machine.standing() != Standing::Follows;
            let ends = leads.borrow_and_update().filter(|_| led);
            tokio::select! {
                () = tokio::time::sleep_until(ends.map_or(next, |ends| ends.min(next))) => {}
                changed = leads.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // It changes with every renewal.
                    if may_act(&leads) == led {
                        continue;
                    }
                }
            }
            let again = self.round(&leads).await;
            next = Instant::now() + again;
        }
    }

    /// Looks and acts once; says when to look again.
    async fn round(&mut self, leads: &Leads) -> Duration {
        let interval = self.arguments.check_interval;
        let fleet = Arc::clone(&self.arguments.fleet);
        let event = if may_act(leads) { ActuatorEvent::Elected } else { ActuatorEvent::Deposed };
        let leading = event == ActuatorEvent::Elected;
        self.decide(event);
        fleet.note(&ActuatorFact::Leads(leading));
        if !leading {
            self.told = None;
            return interval;
        }
        let scale = match self.objects.scale().await {
            Ok(scale) => {
                self.blind = false;
                scale
            }
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    tracing::warn!(%error, "nobody knows how many pods there are; nothing is done");
                }
                fleet.note(&ActuatorFact::Blind);
                return interval;
            }
        };
        let observation = self.observe(&fleet.look().await, &scale).await;
        let actions = self.decide(ActuatorEvent::Observed(observation));
        let standing = self.machine.standing();
        let wanted = self.machine.wanted().unwrap_or(scale.replicas);
        fleet.note(&ActuatorFact::Looked { replicas: scale.replicas, wanted, standing });
        let (mut done, mut problems) = (Vec::new(), Vec::new());
        for action in actions {
            // The figures are as fresh as the calls were quick; the right to act may have run out meanwhile.
            if !may_act(leads) {
                return Duration::ZERO;
            }
            let (outcome, problem) = self.carry_out(action, &scale).await;
            fleet.note(&ActuatorFact::Acted(action, outcome));
            done.push((action, outcome));
            problems.push(problem);
        }
        let conflict = done.iter().any(|(_, outcome)| *outcome == Outcome::Conflict);
        self.tell((done, standing), &problems);
        if conflict { AFTER_CONFLICT.min(interval) } else { interval }
    }

    fn decide(&mut self, event: ActuatorEvent) -> Vec<ActuatorAction> {
        let mut actions = Vec::new();
        self.machine.handle(self.clock.now(), event, &mut actions);
        actions
    }

    async fn observe(&self, view: &FleetView, scale: &SetScale) -> Observation {
        let mut pods = Vec::new();
        for ordinal in 0..scale.replicas {
            pods.push(match view.nodes.get(&self.objects.pod(ordinal)) {
                Some(NodeState::Loading) => PodState::Loading,
                Some(NodeState::Serving) => PodState::Serving,
                Some(NodeState::Leaving) => PodState::Leaving,
                Some(NodeState::Draining) => PodState::Draining,
                Some(NodeState::Drained) => PodState::Drained,
                None if ordinal + 1 == scale.replicas => self.stranger(ordinal).await,
                None => PodState::Unknown,
            });
        }
        let needed = pods_needed(&view.needs);
        Observation { needed, replicas: scale.replicas, created: scale.created, pods }
    }

    /// A pod that no node knows.
    async fn stranger(&self, ordinal: u32) -> PodState {
        match self.objects.has_run(ordinal).await {
            Ok(false) => PodState::Unstarted,
            Ok(true) => PodState::Unknown,
            Err(error) => {
                tracing::debug!(%error, "nobody knows whether a pod has run");
                PodState::Unknown
            }
        }
    }

    async fn carry_out(&self, action: ActuatorAction, scale: &SetScale) -> (Outcome, Option<Undone>) {
        if self.arguments.dry_run {
            return (Outcome::DryRun, None);
        }
        match self.perform(action, scale).await {
            Ok(()) => (Outcome::Done, None),
            Err(undone @ Undone::Call(CallError::Conflict { .. })) => (Outcome::Conflict, Some(undone)),
            Err(undone) => (Outcome::Failed, Some(undone)),
        }
    }

    async fn perform(&self, action: ActuatorAction, scale: &SetScale) -> Result<(), Undone> {
        let (objects, fleet) = (&self.objects, &self.arguments.fleet);
        match action {
            ActuatorAction::Grow { to, .. } => objects.set_replicas(scale, to, false).await?,
            ActuatorAction::Shrink { from } => objects.set_replicas(scale, from - 1, false).await?,
            ActuatorAction::Drain { ordinal } => {
                // Nobody is sent away for a pod that may not be taken away in the end.
                objects.set_replicas(scale, ordinal, true).await?;
                fleet.drain(&objects.pod(ordinal)).await?;
            }
            ActuatorAction::Recall { ordinal } => fleet.recall(&objects.pod(ordinal)).await?,
        }
        Ok(())
    }

    /// Logs what was decided, unless it is what was decided the last time.
    fn tell(&mut self, now: Told, problems: &[Option<Undone>]) {
        let before = self.told.replace(now.clone());
        if before.as_ref() == Some(&now) {
            return;
        }
        let (set, (done, standing)) = (&self.arguments.stateful_set, now);
        for ((action, outcome), problem) in done.iter().zip(problems) {
            let outcome = outcome.label();
            match problem {
                Some(problem) => tracing::warn!(set, ?action, outcome, %problem, "could not scale"),
                None => tracing::info!(set, ?action, outcome, "scales"),
            }
        }
        if done.is_empty() && before.is_none_or(|(_, why)| why != standing) {
            tracing::info!(set, ?standing, wanted = self.machine.wanted(), "nothing is scaled");
        }
    }
}

fn may_act(leads: &Leads) -> bool {
    leads.borrow().is_some_and(|until| Instant::now() < until)
}
