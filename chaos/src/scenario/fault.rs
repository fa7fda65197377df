//! What can be done to nodes, and what has to be said of it.
//!
//! Owns: the words of a `[[fault]]`. Must never: do any of it.

use anyhow::{Result, ensure};
use serde::Deserialize;

use super::{Ground, Scenario};

/// Nodes by what they are for most sessions.
const ROLES: [&str; 5] = ["owner", "decoder", "replica", "owner-and-replica", "all"];

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// Seconds since the first caller. A fault that befalls sessions waits, beyond that, until they have a decoder and their copies.
    pub(crate) at_s: f64,
    #[serde(rename = "do")]
    pub(crate) deed: Deed,
    /// `owner`, `decoder` or `replica`, each the node that is it for most sessions; `owner-and-replica`; `all`; or a node's name.
    #[serde(default)]
    pub(crate) whom: String,
    /// After so many seconds it is undone: a killed node is started again, a paused one goes on.
    pub(crate) for_s: Option<f64>,
    /// From what a `cut` parts it: `callers`, `nodes` (the others), `all` of these, `replica` (of an `owner`), or a node's name.
    #[serde(default)]
    pub(crate) from: String,
    /// Which way packets of a `cut` are dropped.
    #[serde(default)]
    pub(crate) way: Way,
    /// Of a `disturb`: how many of a hundred packets are dropped, each way.
    #[serde(default)]
    pub(crate) loss_percent: u8,
    /// Of a `disturb`: packets are late by anything from nothing to this, each way.
    #[serde(default)]
    pub(crate) jitter_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Deed {
    /// SIGKILL to a node.
    Kill,
    /// SIGSTOP to a node.
    Pause,
    /// SIGKILL to a node's decoder hosts, which it starts again by itself.
    KillHosts,
    /// SIGSTOP to a node's decoder hosts.
    PauseHosts,
    /// A node is told to go, has to end within its deadline, and is started again.
    Drain,
    /// The same with one node after the other.
    RollingRestart,
    /// The same, and those that ran older programs are started from the ones that are tried.
    Upgrade,
    /// A thread for each core that does nothing but take its time.
    HogCpu,
    /// Packets between a node and others are dropped, one way or both.
    Cut,
    /// Packets to and from a node are dropped at random, and come late.
    Disturb,
    /// The disk that a node writes to is filled to the last byte.
    FillDisk,
    /// The memory of a node's decoder hosts is limited, and the limit is met.
    LimitMemory,
    /// Packets and tokens that are forged, or were heard before, are shown to all nodes.
    Forge,
}

impl Deed {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Pause => "SIGSTOP",
            Self::KillHosts => "SIGKILL to the hosts of",
            Self::PauseHosts => "SIGSTOP to the hosts of",
            Self::Drain => "drain",
            Self::RollingRestart => "rolling restart",
            Self::Upgrade => "rolling upgrade",
            Self::HogCpu => "CPU hog",
            Self::Cut => "cut",
            Self::Disturb => "disturb",
            Self::FillDisk => "fill the disk of",
            Self::LimitMemory => "limit the memory of the hosts of",
            Self::Forge => "forged packets and tokens",
        }
    }

    /// Whether a node that it befalls counts as down: as a whole, or because it decodes nothing.
    pub(crate) const fn harms_nodes(self) -> bool {
        matches!(
            self,
            Self::Kill
                | Self::Pause
                | Self::KillHosts
                | Self::PauseHosts
                | Self::Drain
                | Self::RollingRestart
                | Self::Upgrade
        )
    }

    /// Whether it goes through all nodes by itself.
    pub(crate) const fn goes_round(self) -> bool {
        matches!(self, Self::RollingRestart | Self::Upgrade)
    }

    /// Whether it takes nodes that were started for it: there is no command of others for it, and the cores are those of whoever runs it.
    pub(crate) const fn is_for_own_nodes(self) -> bool {
        matches!(
            self,
            Self::Upgrade
                | Self::HogCpu
                | Self::Cut
                | Self::Disturb
                | Self::FillDisk
                | Self::LimitMemory
                | Self::Forge
        )
    }

    /// Whether nothing is left to undo once it is done.
    pub(crate) const fn ends_by_itself(self) -> bool {
        matches!(
            self,
            Self::KillHosts
                | Self::Drain
                | Self::RollingRestart
                | Self::Upgrade
                | Self::HogCpu
                | Self::LimitMemory
                | Self::Forge
        )
    }

    /// The commands that it takes on a cluster of somebody's own: what does it, and what undoes it. Who starts a node again may be
    /// somebody else, and a drain is asked for over HTTP where there is no command.
    pub(crate) const fn commands(self) -> &'static [&'static str] {
        match self {
            Self::Kill => &["kill"],
            Self::Pause => &["pause", "resume"],
            Self::KillHosts => &["kill_hosts"],
            Self::PauseHosts => &["pause_hosts", "resume_hosts"],
            _ => &[],
        }
    }

    const fn has_to_end(self) -> bool {
        matches!(
            self,
            Self::Pause | Self::PauseHosts | Self::HogCpu | Self::Cut | Self::Disturb | Self::FillDisk
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    #[default]
    Both,
    /// What others send to the node.
    To,
    /// What the node sends.
    From,
}

impl Fault {
    /// What it does, with the names of those it befalls.
    pub(crate) fn told(&self, whom: &str, from: &str) -> String {
        let from = match from {
            "nodes" => "other nodes",
            "all" => "callers and other nodes",
            other => other,
        };
        match (self.deed, self.way) {
            (Deed::Cut, Way::Both) => format!("cut {whom} from {from}"),
            (Deed::Cut, Way::To) => format!("nothing of {from} reaches {whom}"),
            (Deed::Cut, Way::From) => format!("nothing of {whom} reaches {from}"),
            (Deed::Disturb, _) => {
                format!("{whom}'s link loses {} % and is up to {} ms late", self.loss_percent, self.jitter_ms)
            }
            (deed, _) => format!("{} {whom}", deed.name()).trim_end().to_owned(),
        }
    }

    /// Says what it must not, as the `index`th of a scenario.
    pub(super) fn check(&self, index: usize, scenario: &Scenario) -> Result<()> {
        let Self { at_s, deed, whom, for_s, from, way, loss_percent, jitter_ms } = self;
        ensure!(*at_s >= 0.0, "fault[{index}].at_s is {at_s}; it must not be negative");
        ensure!(
            for_s.is_some_and(|time| time > 0.0) || !deed.has_to_end(),
            "fault[{index}].for_s is missing; {deed:?} has to end"
        );
        let is_node = |name: &str| scenario.nodes.iter().any(|node| node.name == name);
        let nobody = deed.goes_round() || matches!(deed, Deed::HogCpu | Deed::Forge);
        ensure!(
            if nobody { whom.is_empty() } else { ROLES.contains(&&**whom) || is_node(whom) },
            "fault[{index}].whom is {whom:?}; it must be {}",
            if nobody {
                "left out".to_owned()
            } else {
                format!("one of {} or a node's name", ROLES.join(", "))
            }
        );
        ensure!(
            !matches!(deed, Deed::Cut | Deed::Disturb) || scenario.network == Ground::Namespaces,
            "fault[{index}] does {deed:?}, which takes network = \"namespaces\""
        );
        if *deed == Deed::Cut {
            let known = ["callers", "nodes", "all"].contains(&&**from) || is_node(from);
            ensure!(
                known || (from == "replica" && whom == "owner"),
                "fault[{index}].from is {from:?}; it must be callers, nodes, all, replica (of whom = \"owner\") or a node's name"
            );
            ensure!(
                !["owner-and-replica", "all"].contains(&&**whom) && from != whom,
                "fault[{index}] cuts {whom:?} from {from:?}; it must be one node and something else"
            );
        } else {
            ensure!(
                from.is_empty() && *way == Way::Both,
                "fault[{index}] has from or way, which are for cut alone"
            );
        }
        let disturbs = *loss_percent > 0 || *jitter_ms > 0;
        ensure!(
            disturbs == (*deed == Deed::Disturb) && *loss_percent < 100 && *jitter_ms <= 10_000,
            "fault[{index}] has loss_percent {loss_percent} and jitter_ms {jitter_ms}; disturb takes one of them at least, below \
             100 and up to 10000, and nothing else takes them"
        );
        ensure!(
            *deed != Deed::FillDisk || scenario.disk_mib.is_some(),
            "fault[{index}] does {deed:?}, which takes disk_mib"
        );
        ensure!(
            *deed != Deed::Upgrade || scenario.nodes.iter().any(|node| node.previous),
            "fault[{index}] does {deed:?}, and no node has previous = true"
        );
        Ok(())
    }
}
