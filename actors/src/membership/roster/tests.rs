use foca::BroadcastHandler;
use starling_protocol::Generation;

use super::*;
use crate::membership::arguments::LoadReport;

fn id(name: &str, generation: u64) -> NodeId {
    NodeId { name: NodeName::parse(name).expect("a name"), generation: Generation(generation) }
}

fn address() -> SocketAddr {
    "127.0.0.1:7400".parse().expect("an address")
}

struct World {
    roster: Roster,
    records: Records,
}

impl World {
    fn new() -> Self {
        Self { roster: Roster::new(id("me", 5), address()), records: Records::default() }
    }

    fn see(&mut self, members: &[(&str, u64, State)]) -> Vec<ClusterChange> {
        let peers: Vec<(Peer, State)> = members
            .iter()
            .map(|(name, generation, state)| (Peer::new(id(name, *generation), address()), *state))
            .collect();
        let mut changes = Vec::new();
        self.roster.update(peers.iter().map(|(peer, state)| (peer, *state)), &self.records, &mut changes);
        changes
    }

    fn hear(&mut self, of: &NodeId, revision: u64, change: impl FnOnce(&mut LoadRecord)) {
        let mut record = LoadReport::default().record(of, revision, false);
        change(&mut record);
        let bytes = record.encode().expect("fits");
        let sender = Peer::new(id("x", 1), address());
        self.records.receive_item(&bytes, Some(&sender)).expect("reads");
    }

    fn state(&self, name: &str) -> MemberState {
        let name = NodeName::parse(name).expect("a name");
        self.roster.view(None).get(&name).expect("is known").state
    }
}

use ClusterChange::{Down, Draining, Joined, Left, Suspected, Trusted, Updated};

#[test]
fn a_life_with_a_suspicion_and_a_death() {
    let mut world = World::new();
    let a = id("a", 1);
    assert_eq!(world.see(&[("a", 1, State::Alive)]), [Joined(a.clone())]);
    assert_eq!(world.see(&[("a", 1, State::Alive)]), []);
    assert_eq!(world.see(&[("a", 1, State::Suspect)]), [Suspected(a.clone())]);
    assert_eq!(world.see(&[("a", 1, State::Alive)]), [Trusted(a.clone())]);
    assert_eq!(world.see(&[("a", 1, State::Down)]), [Down(a.clone())]);
    assert_eq!(world.state("a"), MemberState::Down);
    assert_eq!(world.see(&[("a", 1, State::Alive)]), [Joined(a)], "it was given up wrongly");
    assert_eq!(world.see(&[]), [], "forgotten");
    assert_eq!(world.roster.view(None).members.len(), 1);
}

#[test]
fn a_restarted_node_is_the_end_of_one_run_and_the_beginning_of_another() {
    let mut world = World::new();
    world.see(&[("a", 1, State::Alive)]);
    world.hear(&id("a", 1), 1, |_| ());
    assert_eq!(world.see(&[("a", 2, State::Alive)]), [Down(id("a", 1)), Joined(id("a", 2))]);
    let view = world.roster.view(None);
    assert_eq!(view.members[0].load, None, "what the old run said is not true of the new one");
}

#[test]
fn what_a_node_says_is_told_when_it_is_new_and_not_when_it_is_repeated() {
    let mut world = World::new();
    let a = id("a", 1);
    let alive = [("a", 1, State::Alive)];
    world.see(&alive);
    world.hear(&a, 1, |_| ());
    assert_eq!(world.see(&alive), [Updated(a.clone())]);
    world.hear(&a, 2, |_| ());
    assert_eq!(world.see(&alive), [], "the same again");
    world.hear(&a, 3, |record| record.draining = true);
    assert_eq!(world.see(&alive), [Draining(a.clone()), Updated(a.clone())]);
    world.hear(&a, 4, |record| (record.draining, record.leaving) = (true, true));
    assert_eq!(world.see(&[("a", 1, State::Down)]), [Left(a)]);
    assert_eq!(world.state("a"), MemberState::Left);
}

#[test]
fn a_word_of_leaving_that_comes_after_the_end_still_explains_it() {
    let mut world = World::new();
    world.see(&[("a", 1, State::Alive)]);
    assert_eq!(world.see(&[("a", 1, State::Down)]), [Down(id("a", 1))]);
    world.hear(&id("a", 1), 1, |record| record.leaving = true);
    assert_eq!(world.see(&[("a", 1, State::Down)]), []);
    assert_eq!(world.state("a"), MemberState::Left);
}

#[test]
fn old_runs_of_our_own_are_not_shown_and_we_are() {
    let mut world = World::new();
    assert_eq!(world.see(&[("me", 4, State::Down), ("b", 1, State::Down)]), []);
    let names: Vec<String> =
        world.roster.view(None).members.iter().map(|member| member.id.to_string()).collect();
    assert_eq!(names, ["b#1", "me#5"]);
}
