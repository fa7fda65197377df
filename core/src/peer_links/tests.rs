use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> Timestamp {
    Timestamp(Duration::from_millis(ms))
}

fn name(name: &str) -> NodeName {
    NodeName::parse(name).expect("name")
}

fn run(node: &str, generation: u64) -> NodeId {
    NodeId { name: name(node), generation: Generation(generation) }
}

struct Node {
    machine: PeerLinksMachine,
    now: u64,
}

impl Node {
    fn new(own: &str) -> Self {
        Self { machine: PeerLinksMachine::new(name(own)), now: 0 }
    }

    fn says(&mut self, event: PeerLinksEvent) -> Vec<PeerLinksAction> {
        let mut out = Vec::new();
        self.machine.handle(at(self.now), event, &mut out);
        out
    }

    fn connected(&mut self, peer: &str, link: u64, side: Side) -> Vec<PeerLinksAction> {
        self.says(PeerLinksEvent::Connected { peer: name(peer), link: LinkId(link), side })
    }

    fn up(&mut self, link: u64, peer: NodeId) -> Vec<PeerLinksAction> {
        self.says(PeerLinksEvent::Up { link: LinkId(link), peer })
    }

    fn ended(&mut self, link: u64) -> Vec<PeerLinksAction> {
        self.says(PeerLinksEvent::Ended { link: LinkId(link), cause: PeerLoss::Closed, random: u32::MAX })
    }
}

fn dial(peer: &str) -> PeerLinksAction {
    PeerLinksAction::Dial(name(peer))
}

fn close(link: u64) -> PeerLinksAction {
    PeerLinksAction::Close(LinkId(link))
}

fn up(peer: NodeId) -> PeerLinksAction {
    PeerLinksAction::Tell(PeerChange::Up(peer))
}

fn lost(peer: NodeId, cause: PeerLoss) -> PeerLinksAction {
    PeerLinksAction::Tell(PeerChange::Lost { peer, cause })
}

#[test]
fn the_first_by_name_dials_and_the_other_accepts() {
    let members = || PeerLinksEvent::Members(vec![run("a", 1), run("b", 1), run("c", 1)]);
    let mut b = Node::new("b");
    assert_eq!(b.says(members()), [dial("c")]);
    assert_eq!(b.says(members()), []);
    assert_eq!(b.connected("a", 1, Side::Accepted), []);
    assert_eq!(b.up(1, run("a", 1)), [up(run("a", 1))]);
    assert_eq!(b.connected("c", 2, Side::Accepted), [close(2)], "it was to wait for us");
}

#[test]
fn an_earlier_run_than_gossip_tells_of_is_never_up() {
    let mut b = Node::new("b");
    assert_eq!(b.says(PeerLinksEvent::Members(vec![run("a", 2)])), []);
    assert_eq!(b.connected("a", 1, Side::Accepted), []);
    assert_eq!(b.up(1, run("a", 1)), [close(1)], "it was thought dead, and still has its name");
    assert_eq!(b.ended(1), []);
    assert_eq!(b.connected("a", 2, Side::Accepted), []);
    assert_eq!(b.up(2, run("a", 2)), [up(run("a", 2))]);
}

#[test]
fn a_peer_that_was_up_is_dialled_again_at_once_and_one_that_fails_more_and_more_rarely() {
    let mut a = Node::new("a");
    assert_eq!(a.says(PeerLinksEvent::Members(vec![run("b", 1)])), [dial("b")]);
    assert_eq!(a.connected("b", 1, Side::Dialled), []);
    assert_eq!(a.up(1, run("b", 1)), [up(run("b", 1))]);
    a.now = 5_000;
    assert_eq!(a.ended(1), [lost(run("b", 1), PeerLoss::Closed), dial("b")]);
    let failed = || PeerLinksEvent::DialFailed { peer: name("b"), random: u32::MAX };
    for wait in [100, 200, 400] {
        assert_eq!(a.says(failed()), []);
        assert_eq!(a.machine.next_timeout(), Some(at(a.now + wait)));
        a.now += wait - 1;
        assert_eq!(a.says(PeerLinksEvent::Timeout), []);
        a.now += 1;
        assert_eq!(a.says(PeerLinksEvent::Timeout), [dial("b")]);
    }
    assert_eq!(a.says(failed()), []);
    assert_eq!(a.says(PeerLinksEvent::Members(vec![run("b", 2)])), [dial("b")], "a new run is tried at once");
}

#[test]
fn a_peer_that_throws_us_out_is_not_dialled_without_a_pause() {
    let mut a = Node::new("a");
    a.says(PeerLinksEvent::Members(vec![run("b", 1)]));
    for link in 1..4 {
        a.connected("b", link, Side::Dialled);
        a.up(link, run("b", 1));
        assert_eq!(a.ended(link), [lost(run("b", 1), PeerLoss::Closed)]);
        let next = a.machine.next_timeout().expect("a pause").since(at(a.now)).as_millis();
        assert_eq!(next, 50 << link);
        a.now += 50 << link;
        assert_eq!(a.says(PeerLinksEvent::Timeout), [dial("b")]);
    }
}

#[test]
fn a_new_run_replaces_the_old_one_and_an_old_one_never_the_new() {
    let mut b = Node::new("b");
    b.connected("a", 1, Side::Accepted);
    assert_eq!(b.up(1, run("a", 1)), [up(run("a", 1))]);
    b.connected("a", 2, Side::Accepted);
    assert_eq!(b.up(2, run("a", 2)), [close(1), lost(run("a", 1), PeerLoss::Restarted), up(run("a", 2))]);
    assert_eq!(b.ended(1), [], "told already");
    b.connected("a", 3, Side::Accepted);
    assert_eq!(b.up(3, run("a", 1)), [close(3)]);
    assert_eq!(b.ended(3), []);
    b.connected("a", 4, Side::Accepted);
    let replaced = [close(2), lost(run("a", 2), PeerLoss::Replaced), up(run("a", 2))];
    assert_eq!(b.up(4, run("a", 2)), replaced);
}

#[test]
fn only_the_link_that_counts_is_told_of() {
    let mut b = Node::new("b");
    b.connected("a", 1, Side::Accepted);
    assert_eq!(b.says(PeerLinksEvent::Suspected(LinkId(1))), []);
    b.up(1, run("a", 1));
    let told = b.says(PeerLinksEvent::Suspected(LinkId(1)));
    assert_eq!(told, [PeerLinksAction::Tell(PeerChange::Suspected(run("a", 1)))]);
    let told = b.says(PeerLinksEvent::Cleared(LinkId(1)));
    assert_eq!(told, [PeerLinksAction::Tell(PeerChange::Cleared(run("a", 1)))]);
    assert_eq!(b.says(PeerLinksEvent::Suspected(LinkId(9))), []);
}

#[test]
fn who_left_the_cluster_is_not_dialled_but_its_link_is_kept_while_it_lasts() {
    let mut a = Node::new("a");
    a.says(PeerLinksEvent::Members(vec![run("b", 1)]));
    a.connected("b", 1, Side::Dialled);
    a.up(1, run("b", 1));
    assert_eq!(a.says(PeerLinksEvent::Members(Vec::new())), []);
    a.now = 60_000;
    assert_eq!(a.ended(1), [lost(run("b", 1), PeerLoss::Closed)]);
    assert_eq!(a.machine.next_timeout(), None);
    assert_eq!(a.machine, PeerLinksMachine::new(name("a")), "nothing is left of it");
}

fn any_event() -> impl Strategy<Value = PeerLinksEvent> {
    let peer = prop::sample::select(vec!["a", "c", "d"]);
    let id = (peer.clone(), 1u64..4).prop_map(|(peer, generation)| run(peer, generation));
    let link = (0u64..6).prop_map(LinkId);
    let side = prop::sample::select(vec![Side::Dialled, Side::Accepted]);
    prop_oneof![
        proptest::collection::vec(id.clone(), 0..4).prop_map(PeerLinksEvent::Members),
        (peer.clone(), 0u64..6, side).prop_map(|(peer, link, side)| PeerLinksEvent::Connected {
            peer: name(peer),
            link: LinkId(link),
            side
        }),
        (peer, any::<u32>())
            .prop_map(|(peer, random)| PeerLinksEvent::DialFailed { peer: name(peer), random }),
        (link.clone(), id).prop_map(|(link, peer)| PeerLinksEvent::Up { link, peer }),
        link.clone().prop_map(PeerLinksEvent::Suspected),
        (link, any::<u32>()).prop_map(|(link, random)| PeerLinksEvent::Ended {
            link,
            cause: PeerLoss::Closed,
            random
        }),
        Just(PeerLinksEvent::Timeout),
    ]
}

proptest! {
    /// Whatever comes in whatever order: a peer's ups and losses take turns, each loss names the run that was up, and no
    /// later run of a peer gives way to an earlier one.
    #[test]
    fn ups_and_losses_take_turns(events in proptest::collection::vec((any_event(), 0u64..500), 1..200)) {
        let mut b = Node::new("b");
        let mut told: BTreeMap<NodeName, NodeId> = BTreeMap::new();
        for (event, gap) in events {
            b.now += gap;
            for action in b.says(event) {
                match action {
                    PeerLinksAction::Tell(PeerChange::Up(id)) => {
                        prop_assert_eq!(told.insert(id.name.clone(), id), None);
                    }
                    PeerLinksAction::Tell(PeerChange::Lost { peer, cause }) => {
                        prop_assert_eq!(told.remove(&peer.name), Some(peer));
                        prop_assert_ne!(cause, PeerLoss::Silent);
                    }
                    PeerLinksAction::Tell(PeerChange::Suspected(id) | PeerChange::Cleared(id)) => {
                        prop_assert_eq!(told.get(&id.name), Some(&id));
                    }
                    PeerLinksAction::Dial(peer) => prop_assert!(name("b") < peer),
                    PeerLinksAction::Close(_) => {}
                }
            }
        }
    }
}
