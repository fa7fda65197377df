//! Faults: whom they befall, and how they are done and undone.
//!
//! Owns: the choice of victims by what nodes do for sessions now. Must never: harm two nodes where one was meant.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::Cluster;
use crate::http::Session;
use crate::scenario::{Deed, Fault};

/// How long it is waited for sessions to have their decoders and copies before those that have are enough.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Something that was done.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Mark {
    /// Seconds since the load began.
    pub(crate) at_s: f64,
    pub(crate) what: String,
}

/// What has to be undone, and when.
struct Undo {
    at: Instant,
    deed: Deed,
    victim: String,
}

/// Does all faults in their time, and undoes them.
pub(crate) async fn inflict(
    cluster: &mut Cluster,
    faults: &[Fault],
    origin: Instant,
    marks: &mut Vec<Mark>,
) -> Result<()> {
    let mut due: Vec<&Fault> = faults.iter().collect();
    due.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
    let mut undos: Vec<Undo> = Vec::new();
    for fault in due {
        let at = origin + Duration::from_secs_f64(fault.at_s);
        undo_until(cluster, &mut undos, Some(at), origin, marks).await?;
        sleep_until(at).await;
        let what = || format!("{} {}", fault.deed.name(), fault.whom);
        let victims = victims(cluster, fault).await.with_context(what)?;
        for victim in &victims {
            let mark = format!("{} {victim}", fault.deed.name()).trim_end().to_owned();
            marks.push(Mark { at_s: (Instant::now() - origin).as_secs_f64(), what: mark });
            act(cluster, fault, victim).await.with_context(what)?;
        }
        if let Some(time) = fault.for_s.map(Duration::from_secs_f64) {
            let undo = |victim| Undo { at: Instant::now() + time, deed: fault.deed, victim };
            undos.extend(victims.into_iter().map(undo));
        }
    }
    undo_until(cluster, &mut undos, None, origin, marks).await
}

/// Undoes what is due before this, or all.
async fn undo_until(
    cluster: &mut Cluster,
    undos: &mut Vec<Undo>,
    until: Option<Instant>,
    origin: Instant,
    marks: &mut Vec<Mark>,
) -> Result<()> {
    undos.sort_by_key(|undo| undo.at);
    while undos.first().is_some_and(|undo| until.is_none_or(|until| undo.at <= until)) {
        let Undo { at, deed, victim } = undos.remove(0);
        sleep_until(at).await;
        let what = match deed {
            Deed::Kill => {
                cluster.launch(&victim).await?;
                "start"
            }
            Deed::Pause => {
                cluster.pause(&victim, false).await?;
                "SIGCONT"
            }
            Deed::PauseHosts => {
                cluster.signal_hosts(&victim, Signal::CONT).await?;
                "SIGCONT to the hosts of"
            }
            // These end by themselves.
            Deed::KillHosts | Deed::Drain | Deed::RollingRestart | Deed::HogCpu => continue,
        };
        marks.push(Mark { at_s: (Instant::now() - origin).as_secs_f64(), what: format!("{what} {victim}") });
    }
    Ok(())
}

async fn act(cluster: &mut Cluster, fault: &Fault, victim: &str) -> Result<()> {
    match fault.deed {
        Deed::Kill => cluster.kill(victim).await,
        Deed::Pause => cluster.pause(victim, true).await,
        Deed::KillHosts => cluster.signal_hosts(victim, Signal::KILL).await,
        Deed::PauseHosts => cluster.signal_hosts(victim, Signal::STOP).await,
        Deed::Drain => cluster.drain(victim).await,
        Deed::RollingRestart => {
            cluster.drain(victim).await?;
            // The next one goes only when this one is back.
            cluster.whole().await
        }
        Deed::HogCpu => {
            hog(Duration::from_secs_f64(fault.for_s.unwrap_or(0.0)));
            Ok(())
        }
    }
}

async fn victims(cluster: &Cluster, fault: &Fault) -> Result<Vec<String>> {
    match (fault.deed, &*fault.whom) {
        (Deed::RollingRestart, _) | (_, "all") => Ok(cluster.names()),
        (Deed::HogCpu, _) => Ok(vec![String::new()]),
        (_, "owner" | "decoder" | "replica" | "owner-and-replica") => by_role(cluster, &fault.whom).await,
        (_, name) => {
            ensure!(cluster.names().iter().any(|known| known == name), "there is no node {name} here");
            Ok(vec![name.to_owned()])
        }
    }
}

async fn by_role(cluster: &Cluster, role: &str) -> Result<Vec<String>> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let sessions = cluster.sessions().await?;
        let connected: Vec<&Session> = sessions.iter().filter(|session| session.connected).collect();
        let fit: Vec<&Session> = connected.iter().copied().filter(|session| is_fit(session, role)).collect();
        let late = Instant::now() > deadline;
        if !fit.is_empty() && (fit.len() == connected.len() || late) {
            let victims = most(&fit, role).with_context(|| format!("no session has a {role}"))?;
            ensure!(
                victims.iter().all(|name| cluster.names().contains(name)),
                "{victims:?} may not be harmed"
            );
            return Ok(victims);
        }
        ensure!(!late, "none of {} sessions has its decoder and copies", connected.len());
        sleep(LOOK_EVERY).await;
    }
}

fn is_fit(session: &Session, role: &str) -> bool {
    session.decoder.is_some() && (session.durable || role == "decoder")
}

/// The node, or the pair of nodes, that is it for most sessions.
fn most(sessions: &[&Session], role: &str) -> Option<Vec<String>> {
    let mut counts: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for session in sessions {
        let copy = session.copies.first().cloned();
        let nodes = match role {
            "owner" => Some(vec![session.owner.clone()]),
            "decoder" => session.decoder.clone().map(|decoder| vec![decoder]),
            "replica" => copy.map(|copy| vec![copy]),
            _ => copy.map(|copy| vec![session.owner.clone(), copy]),
        };
        nodes.into_iter().for_each(|nodes| *counts.entry(nodes).or_default() += 1);
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(nodes, _)| nodes)
}

/// As many threads as there are cores, each at work until then.
fn hog(time: Duration) {
    let end = Instant::now() + time;
    for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        std::thread::spawn(move || {
            let mut number = 1_u64;
            while Instant::now() < end {
                for _ in 0..100_000 {
                    number =
                        std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn victims_are_those_of_most_sessions() {
        let session = |owner: &str, copy: &str, decoder: Option<&str>| Session {
            owner: owner.to_owned(),
            copies: vec![copy.to_owned()],
            durable: true,
            connected: true,
            decoder: decoder.map(str::to_owned),
        };
        let all = [session("a", "b", Some("c")), session("a", "c", Some("b")), session("b", "c", Some("c"))];
        let all: Vec<&Session> = all.iter().collect();
        for (role, expected) in [("owner", vec!["a"]), ("replica", vec!["c"]), ("decoder", vec!["c"])] {
            assert_eq!(most(&all, role).expect(role), expected);
        }
        let pair = most(&all[1..2], "owner-and-replica");
        assert_eq!(pair, Some(vec!["a".to_owned(), "c".to_owned()]));
        assert_eq!(most(&[], "owner"), None);
    }
}
