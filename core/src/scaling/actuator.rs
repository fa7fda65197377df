//! How many pods the nodes' StatefulSet should have, and how one that is too many goes.
//!
//! Owns: the order of it. More pods at once; fewer by one at a time, and by the highest ordinal alone, since that is the one a
//! StatefulSet takes away: it is asked to drain and to stay, and when it has nobody left there is one pod less. Must never: take a pod
//! away that has not drained, ask for a drain on figures that are not whole, or act unless this node leads.
//!
//! A node that drains can't be had back: it ends, and is started anew. Until then it counts as absent.

use std::time::Duration;

use crate::Timestamp;

/// How a StatefulSet is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ActuatorConfig {
    /// Fewest pods.
    pub min_pods: u32,
    /// Most pods; wins over all else.
    pub max_pods: u32,
    /// For so long after the start no pod is asked to go: what was needed before is not known here, so that the policy's cooldown
    /// begins anew with each node.
    pub settle: Duration,
}

/// What is needed of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelNeed {
    /// Decoders that there should be in the whole cluster.
    pub desired: u32,
    /// Decoders of one pod; 0 where nobody knows.
    pub per_pod: u32,
}

/// Pods that suffice for all models at once, each of which has its decoders in every pod; `None` where nothing can be said.
#[must_use]
pub fn pods_needed(models: &[ModelNeed]) -> Option<u32> {
    if models.iter().any(|need| need.per_pod == 0) {
        return None;
    }
    models.iter().map(|need| need.desired.div_ceil(need.per_pod)).max()
}

/// A pod, as far as the nodes and Kubernetes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PodState {
    /// No node of its name is a member, and it has run: whoever is on it can't be asked.
    Unknown,
    /// Kubernetes says that it never ran: it waits for a machine, an image or its models, and nobody can be on it.
    Unstarted,
    /// Its node is a member and loads its models.
    Loading,
    /// Its node serves.
    Serving,
    /// Its node drains for another reason, and ends by itself: it was told to, is rolled or moved.
    Leaving,
    /// Its node was asked to make room, and has somebody left.
    Draining,
    /// Its node was asked to make room, has nobody left, and stays to be taken away.
    Drained,
}

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Observation {
    /// Pods that suffice; `None` where nothing can be said.
    pub needed: Option<u32>,
    /// Pods that the StatefulSet is to have.
    pub replicas: u32,
    /// Pods that it has, those that are going too.
    pub created: u32,
    /// Each pod by its ordinal, `replicas` of them.
    pub pods: Vec<PodState>,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ActuatorEvent {
    /// This node leads from now on.
    Elected,
    /// It does not any more.
    Deposed,
    /// How things stand now.
    Observed(Observation),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActuatorAction {
    /// The StatefulSet is to have more pods.
    Grow {
        /// It has so many.
        from: u32,
        /// It is to have so many.
        to: u32,
    },
    /// The pod's node is to drain and to stay.
    Drain {
        /// The pod.
        ordinal: u32,
    },
    /// The highest pod is to be taken away: it has drained, or never ran.
    Shrink {
        /// The StatefulSet has so many.
        from: u32,
    },
    /// The pod is wanted after all: its node has drained, and is to end and be started anew.
    Recall {
        /// The pod.
        ordinal: u32,
    },
}

impl ActuatorAction {
    /// Every name that [`Self::label`] gives.
    pub const LABELS: [&'static str; 4] = ["grow", "drain", "shrink", "recall"];

    /// The name used as a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Grow { .. } => "grow",
            Self::Drain { .. } => "drain",
            Self::Shrink { .. } => "shrink",
            Self::Recall { .. } => "recall",
        }
    }
}

/// Why nothing more is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Another node leads.
    Follows,
    /// Somebody has set the StatefulSet to no pods at all, and means it.
    Off,
    /// There are as many as there should be.
    Enough,
    /// More were asked for.
    Grows,
    /// There are more than needed, and what is needed is not known for long enough yet.
    Settles,
    /// There are more than needed, and pods still come or go.
    PodsChange,
    /// There are more than needed, and this one of the others does not serve.
    Waits {
        /// The pod.
        ordinal: u32,
    },
    /// There are more than needed, and nobody knows of the highest.
    OutOfReach {
        /// The pod.
        ordinal: u32,
    },
    /// The highest is about to go, by our wish or by another's.
    Drains {
        /// The pod.
        ordinal: u32,
    },
    /// The highest is taken away.
    Shrinks,
}

/// The decision about one StatefulSet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ActuatorMachine {
    config: ActuatorConfig,
    settled: Timestamp,
    leads: bool,
    standing: Standing,
    wanted: Option<u32>,
}

impl ActuatorMachine {
    /// A node that has just been started, and follows.
    #[must_use]
    pub const fn new(now: Timestamp, config: ActuatorConfig) -> Self {
        Self {
            config,
            settled: now.plus(config.settle),
            leads: false,
            standing: Standing::Follows,
            wanted: None,
        }
    }

    /// Takes an event; says what is to be done. What was not done, or failed, comes again with the next observation.
    pub fn handle(&mut self, now: Timestamp, event: ActuatorEvent, out: &mut Vec<ActuatorAction>) {
        match event {
            ActuatorEvent::Elected if !self.leads => {
                self.leads = true;
                self.standing = Standing::Enough;
            }
            ActuatorEvent::Deposed => {
                self.leads = false;
                self.standing = Standing::Follows;
                self.wanted = None;
            }
            ActuatorEvent::Observed(seen) if self.leads => self.judge(now, &seen, out),
            ActuatorEvent::Elected | ActuatorEvent::Observed(_) => {}
        }
    }

    /// Why it does what it does.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// How many pods there should be; `None` while another node leads.
    #[must_use]
    pub const fn wanted(&self) -> Option<u32> {
        self.wanted
    }

    fn judge(&mut self, now: Timestamp, seen: &Observation, out: &mut Vec<ActuatorAction>) {
        let (min, max) = (self.config.min_pods.min(self.config.max_pods), self.config.max_pods);
        let replicas = seen.replicas;
        if replicas == 0 {
            (self.standing, self.wanted) = (Standing::Off, Some(0));
            return;
        }
        let wanted = match seen.needed {
            // Without figures there may be too few, by the settings, and never too many.
            None => replicas.max(min),
            Some(needed) => {
                let wanted = needed.clamp(min, max);
                // One that drains is none of those that are wanted, though it has the place of one.
                let places = seen.pods.iter().take(wanted as usize);
                let away = places.filter(|pod| **pod == PodState::Draining).count();
                wanted.saturating_add(u32::try_from(away).unwrap_or(u32::MAX)).min(max)
            }
        };
        self.wanted = Some(wanted);
        let top = replicas - 1;
        let surplus = replicas > wanted;
        for (pod, ordinal) in seen.pods.iter().zip(0..) {
            if *pod == PodState::Drained && !(surplus && ordinal == top) {
                out.push(ActuatorAction::Recall { ordinal });
            }
        }
        self.standing = if surplus {
            self.shrink(now, seen, top, out)
        } else if wanted > replicas {
            out.push(ActuatorAction::Grow { from: replicas, to: wanted });
            Standing::Grows
        } else {
            Standing::Enough
        };
    }

    fn shrink(
        &self,
        now: Timestamp,
        seen: &Observation,
        top: u32,
        out: &mut Vec<ActuatorAction>,
    ) -> Standing {
        let mut others = seen.pods.iter().zip(0..top);
        let absent = others.find(|(pod, _)| **pod != PodState::Serving);
        let change = seen.created != seen.replicas;
        match seen.pods.get(top as usize).copied().unwrap_or(PodState::Unknown) {
            PodState::Drained => {
                out.push(ActuatorAction::Shrink { from: seen.replicas });
                Standing::Shrinks
            }
            PodState::Unknown => Standing::OutOfReach { ordinal: top },
            PodState::Draining | PodState::Leaving => Standing::Drains { ordinal: top },
            _ if change => Standing::PodsChange,
            PodState::Unstarted => {
                out.push(ActuatorAction::Shrink { from: seen.replicas });
                Standing::Shrinks
            }
            PodState::Loading | PodState::Serving => match absent {
                _ if now < self.settled => Standing::Settles,
                Some((_, ordinal)) => Standing::Waits { ordinal },
                None => {
                    out.push(ActuatorAction::Drain { ordinal: top });
                    Standing::Drains { ordinal: top }
                }
            },
        }
    }
}

#[cfg(test)]
#[path = "actuator/tests.rs"]
mod tests;
