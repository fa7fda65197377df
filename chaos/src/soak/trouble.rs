//! What goes wrong while callers speak: drawn from a seed, one thing at a time.
//!
//! Owns: the choice, and that a cluster is whole before the next. Must never: end the process of the node that is kept for its long
//! line of samples.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};

use super::sample::{Roster, Running};
use super::tally::Tally;
use crate::cluster::Cluster;
use crate::process;

/// Something that was done, and until when it was felt: in seconds since the load began.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Trouble {
    pub(crate) from_s: f64,
    pub(crate) to_s: f64,
    pub(crate) what: String,
    /// Whoever is connected to the node may be cut off.
    pub(crate) of_node: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Troubles(Arc<Mutex<Vec<Trouble>>>);

impl Troubles {
    pub(crate) fn all(&self) -> Vec<Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begin(&self, from_s: f64, what: &str, of_node: bool) {
        let trouble = Trouble { from_s, to_s: f64::INFINITY, what: what.to_owned(), of_node };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(trouble);
    }

    fn end(&self, to_s: f64) {
        if let Some(last) = self.0.lock().unwrap_or_else(PoisonError::into_inner).last_mut() {
            last.to_s = to_s;
        }
    }

    /// Whether a node was killed, stopped or drained in that time.
    pub(crate) fn befell_a_node(&self, from_s: f64, to_s: f64) -> bool {
        self.all().iter().any(|trouble| trouble.of_node && trouble.from_s <= to_s && from_s <= trouble.to_s)
    }
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    KillHost,
    KillHosts,
    PauseHosts,
    KillNode,
    PauseNode,
    DrainNode,
}

/// As often as they stand here.
const DEEDS: [Deed; 9] = [
    Deed::KillHost,
    Deed::KillHost,
    Deed::KillHosts,
    Deed::PauseHosts,
    Deed::KillNode,
    Deed::KillNode,
    Deed::PauseNode,
    Deed::PauseNode,
    Deed::DrainNode,
];

/// When and how often.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) origin: Instant,
    pub(crate) until: Instant,
    /// The least and the most seconds from one to the next.
    pub(crate) every_s: (f64, f64),
}

/// Makes trouble until it is time to stop.
pub(crate) async fn make(
    cluster: &mut Cluster,
    plan: &Plan,
    roster: &Roster,
    troubles: &Troubles,
    tally: &Tally,
) {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let now = || (Instant::now() - plan.origin).as_secs_f64();
    loop {
        let wait = Duration::from_secs_f64(random.random_range(plan.every_s.0..=plan.every_s.1));
        let deed = *DEEDS.choose(&mut random).unwrap_or(&Deed::KillHost);
        let (victim, seconds) = (random.random_range(0..3_usize), random.random_range(1.0..5.0));
        let at = Instant::now() + wait;
        if at >= plan.until {
            return;
        }
        sleep_until(at).await;
        // Two nodes at a time are more than copies on one other node can stand.
        if let Err(error) = cluster.whole().await {
            tally.change(|counts| {
                counts.fail(format!("{:.0} s: the cluster was not whole: {error:#}", now()));
            });
            list(cluster, roster);
            continue;
        }
        list(cluster, roster);
        let names = cluster.names();
        // The first is kept.
        let mortal = &names[1 + victim % (names.len() - 1)];
        let (victim, of_node) = match deed {
            Deed::KillNode | Deed::DrainNode => (mortal, true),
            Deed::PauseNode => (&names[victim], true),
            Deed::KillHost | Deed::KillHosts | Deed::PauseHosts => (&names[victim], false),
        };
        let what = format!("{deed:?} {victim}");
        troubles.begin(now(), &what, of_node);
        let done = inflict(cluster, deed, victim, Duration::from_secs_f64(seconds), roster).await;
        troubles.end(now());
        list(cluster, roster);
        if let Err(error) = done {
            tally
                .change(|counts| counts.fail(format!("{:.0} s: {what} could not be done: {error:#}", now())));
        }
    }
}

async fn inflict(
    cluster: &mut Cluster,
    deed: Deed,
    victim: &str,
    time: Duration,
    roster: &Roster,
) -> Result<()> {
    match deed {
        Deed::KillHost => {
            let running = roster.get();
            let node = running.iter().find(|node| node.name == victim).context("it does not run")?;
            let host = process::hosts(node.pid).into_iter().next().context("it has no host")?;
            process::signal(host, Signal::KILL)
        }
        Deed::KillHosts => cluster.signal_hosts(victim, Signal::KILL).await,
        Deed::PauseHosts => {
            cluster.signal_hosts(victim, Signal::STOP).await?;
            sleep(time).await;
            cluster.signal_hosts(victim, Signal::CONT).await
        }
        Deed::KillNode => {
            cluster.kill(victim).await?;
            list(cluster, roster);
            sleep(time).await;
            cluster.launch(victim).await
        }
        Deed::PauseNode => {
            cluster.pause(victim, true).await?;
            list(cluster, roster);
            sleep(time).await;
            cluster.pause(victim, false).await
        }
        Deed::DrainNode => cluster.drain(victim).await,
    }
}

/// Tells others which processes there are now.
pub(crate) fn list(cluster: &Cluster, roster: &Roster) {
    let running = cluster.own().iter().filter_map(|node| {
        let (name, http) = (node.plan.name.clone(), node.place.http.to_string());
        Some(Running { name, pid: node.pid()?, http, paused: node.paused })
    });
    roster.set(running.collect());
}
