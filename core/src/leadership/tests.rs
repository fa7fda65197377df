//! Leadership by tables, and by several processes at one server whose calls are late, lost and refused.

use proptest::prelude::*;

use super::LeadershipAction::{Create, Follow, Lead, Look, Release, Take};
use super::LeadershipEvent::{Conflicted, Failed, Looked, Stopping, TimedOut, Written};
use super::*;

fn config(me: &str) -> LeadershipConfig {
    LeadershipConfig {
        me: me.to_owned(),
        duration: Duration::from_secs(15),
        renew_within: Duration::from_secs(10),
        look_every: Duration::from_secs(2),
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp(Duration::from_secs(seconds))
}

fn record(version: &str, holder: &str, renewed_us: i64) -> LeaseRecord {
    LeaseRecord {
        version: version.to_owned(),
        holder: holder.to_owned(),
        duration: Duration::from_secs(15),
        transitions: 3,
        acquired_us: 1,
        renewed_us,
    }
}

fn step(machine: &mut LeadershipMachine, second: u64, event: LeadershipEvent) -> Vec<LeadershipAction> {
    let mut out = Vec::new();
    machine.handle(at(second), event, &mut out);
    out
}

fn take(version: &str, transitions: u32, acquired_us: Option<i64>) -> LeadershipAction {
    Take { version: version.to_owned(), transitions, acquired_us }
}

#[test]
fn a_lease_that_nobody_has_is_made_renewed_and_given_back() {
    let mut machine = LeadershipMachine::new(at(0), config("a"));
    assert_eq!(step(&mut machine, 0, TimedOut), [Look]);
    assert_eq!(step(&mut machine, 0, TimedOut), []);
    assert_eq!(step(&mut machine, 0, Looked(None)), [Create]);
    assert_eq!(step(&mut machine, 1, Written(record("1", "a", 0))), [Lead]);
    // From when the write began, not from when it was answered.
    assert_eq!((machine.leads_until(), machine.next_timeout()), (Some(at(10)), Some(at(2))));
    assert_eq!(step(&mut machine, 2, TimedOut), [Look]);
    assert_eq!(step(&mut machine, 2, Looked(Some(record("1", "a", 0)))), [take("1", 3, Some(1))]);
    assert_eq!(step(&mut machine, 2, Written(record("2", "a", 2))), []);
    assert_eq!(machine.leads_until(), Some(at(12)));
    let released = Release { version: "2".to_owned(), transitions: 3 };
    assert_eq!(step(&mut machine, 3, Stopping), [Follow, released]);
    assert_eq!((machine.leads_until(), machine.next_timeout()), (None, None));
}

#[test]
fn one_that_is_given_back_is_taken_at_once_and_one_that_is_held_when_it_stood_still_for_its_duration() {
    let mut machine = LeadershipMachine::new(at(100), config("b"));
    // Its times say nothing: however old they look, its holder may be alive.
    assert_eq!(step(&mut machine, 100, Looked(Some(record("1", "a", 0)))), []);
    assert_eq!(step(&mut machine, 114, Looked(Some(record("1", "a", 0)))), []);
    // Another version with the same holder and times is somebody's label.
    assert_eq!(step(&mut machine, 115, Looked(Some(record("2", "a", 0)))), [take("2", 4, None)]);
    assert_eq!(step(&mut machine, 115, Conflicted), []);
    assert_eq!(step(&mut machine, 117, Looked(Some(record("3", "a", 7)))), []);
    assert_eq!(step(&mut machine, 131, Looked(Some(record("3", "a", 7)))), []);
    assert_eq!(step(&mut machine, 132, Looked(Some(record("3", "a", 7)))), [take("3", 4, None)]);
    let mut machine = LeadershipMachine::new(at(0), config("b"));
    assert_eq!(step(&mut machine, 0, Looked(Some(record("1", "", 0)))), [take("1", 4, None)]);
}

#[test]
fn a_holder_that_can_not_renew_stops_before_another_may_begin() {
    let mut machine = LeadershipMachine::new(at(0), config("a"));
    step(&mut machine, 0, Looked(None));
    step(&mut machine, 0, Written(record("1", "a", 0)));
    for second in [2, 4, 6, 8] {
        assert_eq!(step(&mut machine, second, TimedOut), [Look]);
        assert_eq!(step(&mut machine, second, Failed), []);
    }
    assert_eq!(machine.next_timeout(), Some(at(10)));
    assert_eq!(step(&mut machine, 10, TimedOut), [Follow, Look]);
    // It is its own still, and it leads again once it could say so.
    assert_eq!(step(&mut machine, 11, Looked(Some(record("1", "a", 0)))), [take("1", 3, Some(1))]);
    // A write that took longer than it may lead for does not make it lead.
    assert_eq!(step(&mut machine, 21, Written(record("2", "a", 1))), []);
    assert_eq!(step(&mut machine, 22, Looked(Some(record("2", "a", 1)))), [take("2", 3, Some(1))]);
    assert_eq!(step(&mut machine, 22, Written(record("3", "a", 2))), [Lead]);
    assert_eq!(step(&mut machine, 23, Looked(Some(record("4", "b", 3)))), [Follow]);
}

#[test]
fn who_loses_a_write_does_not_lead() {
    let mut machine = LeadershipMachine::new(at(0), config("a"));
    step(&mut machine, 0, Looked(None));
    step(&mut machine, 0, Written(record("1", "a", 0)));
    step(&mut machine, 2, Looked(Some(record("1", "a", 0))));
    assert_eq!(step(&mut machine, 2, Conflicted), [Follow]);
    // Nobody waits for what comes too late.
    assert_eq!(step(&mut machine, 3, Written(record("2", "a", 0))), []);
}

/// A server with one lease, in tenths of a second.
#[derive(Debug, Default)]
struct Server {
    lease: Option<LeaseRecord>,
    versions: u64,
}

impl Server {
    fn write(&mut self, over: Option<&str>, holder: &str, now: u64, transitions: u32) -> LeadershipEvent {
        if self.lease.as_ref().map(|lease| lease.version.as_str()) != over {
            return Conflicted;
        }
        self.versions += 1;
        let renewed_us = i64::try_from(now).expect("small");
        let lease = LeaseRecord { transitions, ..record(&self.versions.to_string(), holder, renewed_us) };
        self.lease = Some(lease.clone());
        Written(lease)
    }
}

/// A process, and what is on its way to it: when it comes.
struct Process {
    machine: LeadershipMachine,
    answers: Vec<(u64, LeadershipEvent)>,
}

proptest! {
    /// However calls are late and lost: never do two lead at once, with a call's time to spare; and when all goes well one does.
    #[test]
    fn never_two_lead(
        fates in proptest::collection::vec((0u64..60, any::<bool>(), any::<bool>()), 1..400),
        offsets in proptest::collection::vec(0u64..40, 3),
    ) {
        let tenths = |now: u64| Timestamp(Duration::from_millis(now * 100));
        let mut server = Server::default();
        let mut processes: Vec<Process> = (0..3)
            .map(|number| Process {
                machine: LeadershipMachine::new(tenths(offsets[number]), config(&format!("p{number}"))),
                answers: Vec::new(),
            })
            .collect();
        let (mut fates, mut calm) = (fates.into_iter(), 0);
        let mut last_acted: Option<(usize, u64)> = None;
        let mut now = 40;
        // Long enough, when no more goes wrong, for a lease to run out and to be taken.
        while calm < 400 {
            now += 1;
            for (number, process) in processes.iter_mut().enumerate() {
                let due: Vec<LeadershipEvent> =
                    process.answers.extract_if(.., |(at, _)| *at <= now).map(|(_, event)| event).collect();
                let timer = process.machine.next_timeout().is_some_and(|at| at <= tenths(now));
                // One call at a time: the next look waits for the answer to the last.
                let timer = (timer && process.answers.is_empty()).then_some(TimedOut);
                for event in due.into_iter().chain(timer) {
                    let mut out = Vec::new();
                    process.machine.handle(tenths(now), event, &mut out);
                    for action in out {
                        let me = format!("p{number}");
                        let fate = fates.next();
                        calm = if fate.is_some() { 0 } else { calm };
                        let (late, arrives, answered) = fate.unwrap_or((0, true, true));
                        let answer = match action {
                            Lead | Follow => continue,
                            _ if !arrives => Failed,
                            Look => Looked(server.lease.clone()),
                            Create => server.write(None, &me, now, 0),
                            Take { version, transitions, .. } => server.write(Some(&version), &me, now, transitions),
                            Release { version, transitions } => server.write(Some(&version), "", now, transitions),
                        };
                        process.answers.push((now + late, if answered { answer } else { Failed }));
                    }
                }
            }
            calm += 1;
            for (number, process) in processes.iter().enumerate() {
                if process.machine.leads_until().is_some_and(|until| until > tenths(now)) {
                    if let Some((before, at)) = last_acted.filter(|(before, _)| *before != number) {
                        // The duration less what the first could act for: what it did then has ended.
                        prop_assert!(now - at >= 49, "p{before} at {at}, p{number} at {now}");
                    }
                    last_acted = Some((number, now));
                }
            }
            let leading = processes.iter().filter(|process| {
                process.machine.leads_until().is_some_and(|until| until > tenths(now))
            });
            prop_assert!(leading.count() <= 1, "two lead at {now}");
        }
        prop_assert!(last_acted.is_some_and(|(_, at)| at == now), "nobody leads");
    }
}
