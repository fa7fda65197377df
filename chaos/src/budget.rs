//! How many nodes are down at a time, as a scenario has it, before anything is done. What is really down is looked at before each deed
//! (`cluster.rs`).

use std::fmt::Write as _;

use anyhow::{Result, bail, ensure};

use crate::scenario::{Deed, Fault, Scenario};
use crate::theirs::Theirs;

/// A node whose decoder hosts are gone has started others after that, in seconds.
const HOSTS_BACK_S: f64 = 3.0;

/// Refuses what a cluster of somebody's own is not to suffer.
pub(crate) fn check(scenario: &Scenario, theirs: Option<&Theirs>) -> Result<()> {
    let Some(theirs) = theirs else { return Ok(()) };
    let most = most_down(&scenario.faults, theirs.nodes.len());
    ensure!(
        most <= theirs.budget,
        "scenario {} has {most} nodes down at a time; budget allows {}",
        scenario.name,
        theirs.budget
    );
    if let Some(fault) = scenario.faults.iter().find(|fault| fault.deed.is_for_own_nodes()) {
        bail!(
            "scenario {} does what takes nodes that were started for it ({}); it is not for a cluster of your own",
            scenario.name,
            fault.deed.name()
        );
    }
    for fault in &scenario.faults {
        for which in fault.deed.commands() {
            ensure!(
                theirs.command(which).is_some(),
                "scenario {} does {}, which takes commands.{which}; it is missing",
                scenario.name,
                fault.deed.name()
            );
        }
    }
    ensure!(
        scenario.load.requests.is_none(),
        "scenario {} is for nodes that were started for it; use `starling load` on a cluster of your own",
        scenario.name
    );
    ensure!(
        scenario.load.poisoned == 0 && scenario.load.stuck == 0,
        "scenario {} has callers who do harm, or never leave; it is not for a cluster of your own",
        scenario.name
    );
    Ok(())
}

/// The most nodes that are down at once. What is not undone stays.
fn most_down(faults: &[Fault], nodes: usize) -> usize {
    let count = |fault: &Fault| match (&*fault.whom, fault.deed) {
        (_, deed) if !deed.harms_nodes() => 0,
        (_, deed) if deed.goes_round() => 1,
        ("all", _) => nodes,
        ("owner-and-replica", _) => 2,
        _ => 1,
    };
    let down_at = |at: f64| {
        let hits = |fault: &&Fault| {
            let time = match fault.deed {
                Deed::KillHosts => Some(HOSTS_BACK_S),
                _ => fault.for_s,
            };
            let end = time.map_or(f64::INFINITY, |time| fault.at_s + time);
            fault.at_s <= at && at <= end
        };
        faults.iter().filter(hits).map(count).sum::<usize>()
    };
    faults.iter().map(|fault| down_at(fault.at_s)).max().unwrap_or(0)
}

/// What would be done, for people.
pub(crate) fn plan(scenario: &Scenario, theirs: Option<&Theirs>) -> String {
    let mut text = format!("{}: {}\n", scenario.name, scenario.about);
    let mut line = |line: String| {
        // Writing into a String does not fail.
        let _ = writeln!(text, "  {line}");
    };
    match theirs {
        Some(theirs) => {
            let nodes: Vec<String> =
                theirs.nodes.iter().map(|node| format!("{} at {}", node.name, node.http)).collect();
            line(format!("nodes: {}; at most {} of them down", nodes.join(", "), theirs.budget));
        }
        None => {
            let nodes: Vec<String> = scenario
                .nodes
                .iter()
                .map(|node| format!("{} ({})", node.name, node.roles.join(",")))
                .collect();
            let disks =
                scenario.disk_mib.map_or(String::new(), |mib| format!(", each with a disk of {mib} MiB"));
            line(format!("nodes, on {}{disks}: {}", scenario.network.name(), nodes.join(", ")));
        }
    }
    line(format!("{} callers, {} s of speech each", scenario.load.callers, scenario.load.seconds));
    for fault in &scenario.faults {
        let undone = fault.for_s.map_or(String::new(), |time| format!(", undone after {time} s"));
        line(format!("at {} s: {}{undone}", fault.at_s, fault.told(&fault.whom, &fault.from)));
    }
    line(format!("checks {}", scenario.invariants.join(", ")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(at_s: f64, deed: &str, whom: &str, for_s: Option<f64>) -> Fault {
        let undone = for_s.map_or(String::new(), |time| format!("for_s = {time:?}"));
        toml::from_str(&format!("at_s = {at_s:?}\ndo = {deed:?}\nwhom = {whom:?}\n{undone}")).expect("right")
    }

    #[test]
    fn faults_that_overlap_add_up() {
        let one = fault(1.0, "kill", "owner", Some(2.0));
        let later = fault(4.0, "pause", "decoder", Some(1.0));
        assert_eq!(most_down(&[one.clone(), later.clone()], 3), 1);
        let forever = fault(1.0, "kill", "owner", None);
        assert_eq!(most_down(&[forever, later], 3), 2);
        assert_eq!(most_down(&[fault(1.0, "kill", "owner-and-replica", None)], 3), 2);
        assert_eq!(most_down(&[fault(1.0, "kill", "all", Some(1.0)), one], 3), 4);
        assert_eq!(most_down(&[fault(1.0, "kill-hosts", "all", None)], 3), 3);
        let hosts = fault(1.0, "kill-hosts", "decoder", None);
        assert_eq!(most_down(&[hosts.clone(), fault(2.0, "kill", "owner", None)], 3), 2);
        assert_eq!(most_down(&[hosts, fault(5.0, "kill", "owner", None)], 3), 1);
    }
}
