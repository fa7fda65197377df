//! Of the nodes that had copies of a session that nobody came back to, one tells of its end.

use std::time::Duration;

use proptest::prelude::*;
use starling_protocol::control::CopySummary;
use starling_protocol::replica::View;
use starling_protocol::{Epoch, NodeName, Segment, SourceOffset};

use super::owner::session;
use super::world::keeper_config;
use crate::Timestamp;
use crate::replica::{KeeperAction, KeeperEvent, KeeperMachine, Orphans, RanOut, Shape, StreamId};

const KEEP: Duration = Duration::from_secs(90);

struct Keeper {
    name: NodeName,
    machine: KeeperMachine,
    orphans: Orphans,
}

fn at(seconds: u64) -> Timestamp {
    Timestamp(Duration::from_secs(seconds))
}

const STREAM: StreamId = StreamId(1);

impl Keeper {
    /// With a whole copy of this set, which its owner writes.
    fn with_copy(name: &str, view: u64) -> Self {
        let name = NodeName::parse(name).expect("a name");
        let orphans = Orphans::new(64, Duration::from_secs(60));
        let mut keeper = Self { name, machine: KeeperMachine::new(keeper_config()), orphans };
        keeper.handle(at(0), KeeperEvent::Opened { stream: STREAM, session: session(), epoch: Epoch(1) });
        keeper.applied(at(0), view, false);
        keeper
    }

    fn handle(&mut self, now: Timestamp, event: KeeperEvent) -> Vec<KeeperAction> {
        let mut out = Vec::new();
        self.machine.handle(now, event, &mut out);
        out
    }

    fn applied(&mut self, now: Timestamp, view: u64, over: bool) {
        let shape = Shape {
            epoch: Epoch(1),
            view: View(view),
            next_segment: Segment(0),
            audio_end: SourceOffset(0),
            bytes: 100,
            whole: true,
            keep: KEEP,
        };
        self.handle(now, KeeperEvent::Applied { stream: STREAM, shape, over });
        if over {
            self.orphans.over(now, session(), Epoch(1), KEEP);
        }
    }

    /// Its owner's stream ends at this time.
    fn closed(&mut self, now: u64) {
        self.handle(at(now), KeeperEvent::Closed { stream: STREAM });
    }

    /// What its copy was like, which runs out now.
    fn runs_out(&mut self, now: u64) -> CopySummary {
        match self.handle(at(now), KeeperEvent::TimedOut)[..] {
            [KeeperAction::RanOut { session, held }, KeeperAction::DropCopy { .. }] => {
                self.orphans.ran_out(at(now), session, held);
                held
            }
            ref other => panic!("{other:?}"),
        }
    }

    fn knows_better(&self, now: u64, by: &NodeName, copy: CopySummary) -> bool {
        let ran_out = RanOut { session: session(), copy, by };
        self.orphans.knows_better(at(now), &self.machine, &self.name, &ran_out)
    }
}

#[test]
fn a_copy_that_its_owner_had_given_up_tells_nothing() {
    let mut stale = Keeper::with_copy("a", 1);
    let mut kept = Keeper::with_copy("b", 2);
    stale.closed(10);
    let copy = stale.runs_out(100);
    assert!(kept.knows_better(100, &stale.name, copy), "the owner lives and writes");
    kept.closed(100);
    assert!(kept.knows_better(101, &stale.name, copy), "its copy is of a later set");

    let mut over = Keeper::with_copy("b", 2);
    over.applied(at(10), 2, true);
    assert!(over.knows_better(100, &stale.name, copy), "its owner said that it is over");
    assert!(!over.knows_better(1_000, &stale.name, copy), "nothing is remembered for ever");
}

#[test]
fn a_session_that_somebody_goes_on_with_is_theirs_to_tell_of() {
    let (mut one, mut other) = (Keeper::with_copy("a", 1), Keeper::with_copy("b", 1));
    one.closed(10);
    other.closed(10);
    other.handle(at(20), KeeperEvent::Promote { session: session(), epoch: Epoch(2) });
    let copy = one.runs_out(100);
    assert!(other.knows_better(100, &one.name, copy));
}

#[test]
fn what_an_earlier_owner_said_says_nothing_of_a_later_one() {
    let mut ran_out = Keeper::with_copy("b", 1);
    ran_out.closed(10);
    let copy = ran_out.runs_out(100);
    let mut owner = Keeper::with_copy("a", 1);
    owner.machine = KeeperMachine::new(keeper_config());
    owner.orphans.over(at(20), session(), Epoch(1), KEEP);
    assert!(owner.knows_better(100, &ran_out.name, copy), "the owner has told of it");
    let later = CopySummary { epoch: Epoch(2), ..copy };
    assert!(!owner.knows_better(100, &ran_out.name, later), "it lived on elsewhere");
}

#[test]
fn who_knows_nothing_knows_no_better() {
    let mut one = Keeper::with_copy("b", 1);
    one.closed(10);
    let copy = one.runs_out(100);
    let mut fresh = Keeper::with_copy("a", 1);
    fresh.machine = KeeperMachine::new(keeper_config());
    assert!(!fresh.knows_better(100, &one.name, copy));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut orphans = Orphans::new(2, Duration::from_secs(60));
    let sessions = [(); 3].map(|()| starling_protocol::SessionId::random());
    sessions.iter().zip(0..).for_each(|(session, now)| orphans.over(at(now), *session, Epoch(1), KEEP));
    let (machine, name) = (KeeperMachine::new(keeper_config()), NodeName::parse("a").expect("a name"));
    let copy = CopySummary { epoch: Epoch(1), view: 1, next_segment: Segment(0), audio_end: SourceOffset(0) };
    let known = sessions
        .map(|session| orphans.knows_better(at(3), &machine, &name, &RanOut { session, copy, by: &name }));
    assert_eq!(known, [false, true, true], "the first to be forgotten makes room");
}

proptest! {
    /// Whatever the copies are like, and whoever notices first and asks first: one node tells, if all answer.
    #[test]
    fn one_tells(keepers in prop::collection::vec((0u64..3, 0u64..20, 0u64..20), 1..4)) {
        let mut nodes: Vec<Keeper> = Vec::new();
        let mut steps = Vec::new();
        for (index, (view, noticed, takes)) in keepers.iter().enumerate() {
            nodes.push(Keeper::with_copy(&format!("n{index}"), *view));
            nodes[index].closed(*noticed);
            let due = noticed + KEEP.as_secs();
            // What has run out is remembered before anybody is asked.
            steps.extend([(due, 0, index), (due + takes, 1, index)]);
        }
        steps.sort_unstable();
        let mut ran_out = vec![None; nodes.len()];
        let mut told = 0;
        for (now, step, index) in steps {
            if step == 0 {
                ran_out[index] = Some(nodes[index].runs_out(now));
                continue;
            }
            let (copy, by) = (ran_out[index].expect("has run out"), nodes[index].name.clone());
            let mut others = nodes.iter().filter(|node| node.name != by);
            told += usize::from(!others.any(|node| node.knows_better(now, &by, copy)));
        }
        prop_assert_eq!(told, 1);
    }
}
