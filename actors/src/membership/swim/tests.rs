//! Several members in a cluster of bytes and times.

use std::collections::VecDeque;

use super::super::view::MemberState;
use super::*;
use starling_protocol::{Generation, NodeName};

/// What time moves by, and what a packet takes.
const STEP: Duration = Duration::from_millis(10);

struct Net {
    swims: Vec<Swim>,
    now: Timestamp,
    on_their_way: VecDeque<(usize, usize, Bytes)>,
    told: Vec<(usize, ClusterChange)>,
}

impl Net {
    /// So many, who all know each other.
    fn of(count: u8) -> Self {
        let swims = (0..count).map(|at| {
            let name = NodeName::parse(&format!("n{at}")).expect("a name");
            let me = NodeId { name, generation: Generation(1) };
            let random = StdRng::seed_from_u64(u64::from(at));
            Swim::new(me, address(at), MembershipTimings::default(), LoadReport::default(), random)
        });
        let mut net = Self {
            swims: swims.collect(),
            now: Timestamp::default(),
            on_their_way: VecDeque::new(),
            told: Vec::new(),
        };
        for swim in &mut net.swims {
            swim.say(net.now, None).expect("fits");
        }
        net.run(Duration::from_secs(2), |_, _| true);
        net.all_know_all();
        net.told.clear();
        net
    }

    /// For so long; what does not pass from one to another is lost.
    fn run(&mut self, time: Duration, passes: impl Fn(usize, usize) -> bool) {
        let end = self.now.plus(time);
        while self.now < end {
            self.now = self.now.plus(STEP);
            for (from, to, bytes) in std::mem::take(&mut self.on_their_way) {
                if passes(from, to) {
                    self.swims[to].hear(&bytes).expect("is gossip");
                }
            }
            for at in 0..self.swims.len() {
                self.turn(at);
            }
        }
    }

    fn turn(&mut self, at: usize) {
        let swim = &mut self.swims[at];
        while swim.run_timer(self.now) {}
        if swim.is_alone() {
            let all: Vec<SocketAddr> = (0..5).map(address).collect();
            swim.announce(&all);
        }
        let outcome = swim.settle(self.now);
        self.told.extend(outcome.changes.into_iter().map(|change| (at, change)));
        while let Some((to, bytes)) = self.swims[at].take_outgoing() {
            let to = usize::from(to.port() - 1);
            if to < self.swims.len() {
                self.on_their_way.push_back((at, to, bytes));
            }
        }
    }

    fn all_know_all(&self) {
        for swim in &self.swims {
            let view = swim.view();
            let there = view.members.iter().filter(|member| member.state == MemberState::Alive).count();
            assert_eq!(there, self.swims.len(), "{view:#?}");
        }
    }

    fn told(&self, by: usize, is_it: impl Fn(&ClusterChange) -> bool) -> usize {
        self.told.iter().filter(|(at, change)| *at == by && is_it(change)).count()
    }
}

fn address(at: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], u16::from(at) + 1))
}

#[test]
fn a_suspect_that_spoke_up_is_not_told_that_it_was_given_up() {
    let mut net = Net::of(3);
    // Long enough for one probe to go unanswered, and not for a suspect's time to run out.
    net.run(Duration::from_millis(450), |from, _| from != 1);
    net.run(Duration::from_secs(3), |_, _| true);
    let suspected = |change: &ClusterChange| matches!(change, ClusterChange::Suspected(_));
    assert!(net.told(0, suspected) + net.told(2, suspected) > 0, "it was under suspicion");
    assert_eq!(net.told(1, |change| *change == ClusterChange::DeclaredDown), 0);
    net.all_know_all();
}

#[test]
fn who_was_cut_off_has_nobody_given_up_who_was_heard_by_the_rest() {
    let mut net = Net::of(5);
    net.run(Duration::from_secs(4), |from, to| from != 0 && to != 0);
    assert_eq!(net.told(0, |change| matches!(change, ClusterChange::Down(_))), 4);
    let down = |change: &ClusterChange| matches!(change, ClusterChange::Down(id) if id.name.as_str() != "n0");
    net.told.clear();
    net.run(Duration::from_secs(12), |_, _| true);
    for by in 1..5 {
        assert_eq!(net.told(by, down), 0, "by n{by}: {:?}", net.told);
    }
    net.all_know_all();
}
