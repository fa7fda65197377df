//! Where a session's second decoder goes, and whether there is room for one.

use starling_protocol::NodeName;

use super::{Candidate, Own, Place, two_choices};
use crate::admission::{NodeSlots, headroom};

/// What is wanted of a standby's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StandbyWant<'a> {
    /// This node's own decoders, if it has any.
    pub own: Option<Own<'a>>,
    /// The peer that has the session's decoder; `None` for this node.
    pub first: Option<&'a NodeName>,
    /// Where that stands, if it is known.
    pub zone: &'a str,
    /// What it decodes alike with. A standby of another class would cut elsewhere, and is none.
    pub class: &'a str,
    /// Nodes that keep a copy of the session, best first.
    pub keepers: &'a [NodeName],
    /// Nodes that just failed at this.
    pub excluded: &'a [NodeName],
}

/// Chooses where to ask for a standby, among those with an idle slot: a node that keeps a copy of the session, another peer, in
/// another zone if there is one, and this node at last. Never the peer that has the session's decoder; on this node it is for
/// the pool to find another host.
#[must_use]
pub fn place_standby<'a>(
    want: &StandbyWant<'_>,
    candidates: &'a [Candidate],
    random: u64,
) -> Option<Place<'a>> {
    let alike = |class: &str| want.class.is_empty() || class.is_empty() || class == want.class;
    let able = |candidate: &&Candidate| {
        candidate.idle > 0
            && !candidate.draining
            && alike(&candidate.class)
            && Some(&candidate.node) != want.first
            && !want.excluded.contains(&candidate.node)
    };
    let able: Vec<&Candidate> = candidates.iter().filter(able).collect();
    let keeper =
        want.keepers.iter().find_map(|keeper| able.iter().find(|able| able.node == *keeper).copied());
    let drawn = || {
        let away = |candidate: &&&Candidate| !want.zone.is_empty() && candidate.zone != want.zone;
        let elsewhere: Vec<&Candidate> = able.iter().filter(away).copied().collect();
        two_choices(&elsewhere, random).or_else(|| two_choices(&able, random))
    };
    let own = || want.own.filter(|own| own.idle > 0 && alike(own.class)).map(|_| Place::Own);
    keeper.or_else(drawn).map(Place::Peer).or_else(own)
}

/// How many more sessions all nodes together could take now: by each one's idle slots, and by what has to stay free for those
/// of a node that is lost. `own` is this node's slots, and how many of them are idle.
#[must_use]
pub fn cluster_idle(own: Option<(NodeSlots, u32)>, candidates: &[Candidate]) -> u64 {
    let (slots, own_idle) = own.unwrap_or_default();
    let others = candidates.iter().filter(|candidate| !candidate.draining);
    let idle = u64::from(own_idle) + others.map(|candidate| u64::from(candidate.idle)).sum::<u64>();
    idle.min(headroom(slots, candidates.iter().map(Candidate::node_slots).collect()))
}

/// Whether there is room for a standby: one is taken while more slots are idle than `kept` for new sessions. One that is there
/// is counted as taken, and stays while no fewer are.
#[must_use]
pub const fn has_room(cluster_idle: u64, kept: u32, is_there: bool) -> bool {
    if is_there { cluster_idle >= kept as u64 } else { cluster_idle > kept as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::name;
    use proptest::prelude::*;

    fn candidate(node: &str, idle: u32) -> Candidate {
        Candidate { slots: 8, busy: 8 - idle, ..crate::placement::tests::candidate(node, idle) }
    }

    fn chosen(want: &StandbyWant<'_>, candidates: &[Candidate]) -> String {
        match place_standby(want, candidates, 5) {
            None => "none".into(),
            Some(Place::Own) => "own".into(),
            Some(Place::Peer(candidate)) => candidate.node.to_string(),
        }
    }

    #[test]
    fn it_goes_to_the_keeper_then_to_another_zone_then_to_any_peer_then_to_this_node() {
        let first = name("first");
        let (keepers, failed) = ([name("keeper")], [name("failed")]);
        let peers = [
            candidate("first", 8),
            candidate("failed", 8),
            candidate("full", 0),
            Candidate { class: "neon".into(), ..candidate("other", 8) },
            Candidate { draining: true, ..candidate("leaving", 8) },
            candidate("near", 8),
            Candidate { zone: "z2".into(), ..candidate("far", 1) },
            candidate("keeper", 1),
        ];
        let own = Some(Own { idle: 3, class: "avx2" });
        let want = StandbyWant {
            own,
            first: Some(&first),
            zone: "z1",
            class: "avx2",
            keepers: &keepers,
            excluded: &failed,
        };
        assert_eq!(chosen(&want, &peers), "keeper");
        assert_eq!(chosen(&want, &peers[..7]), "far");
        assert_eq!(chosen(&want, &peers[..6]), "near");
        assert_eq!(chosen(&want, &peers[..5]), "own");
        assert_eq!(
            chosen(&StandbyWant { own: Some(Own { idle: 0, class: "avx2" }), ..want }, &peers[..5]),
            "none"
        );
        assert_eq!(
            chosen(&StandbyWant { own: Some(Own { idle: 3, class: "neon" }), ..want }, &peers[..5]),
            "none"
        );
        let full = [Candidate { idle: 0, ..candidate("keeper", 1) }, candidate("near", 8)];
        assert_eq!(chosen(&want, &full), "near", "a keeper without a slot is none");
    }

    #[test]
    fn room_is_what_the_cluster_can_do_without() {
        let own = NodeSlots { total: 8, busy: 2, draining: false };
        assert_eq!(cluster_idle(None, &[]), 0);
        assert_eq!(cluster_idle(Some((own, 6)), &[]), 6);
        let peers = [candidate("a", 5), Candidate { draining: true, ..candidate("b", 8) }];
        assert_eq!(cluster_idle(Some((own, 6)), &peers), 11, "16 must hold the 5 that there are");
        let small = [Candidate { slots: 2, busy: 1, ..candidate("a", 1) }];
        assert_eq!(cluster_idle(Some((own, 6)), &small), 1, "a small one can take over 4, and there are 3");
        assert!(has_room(6, 5, false) && !has_room(5, 5, false));
        assert!(has_room(5, 5, true) && !has_room(4, 5, true));
    }

    fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let zones = prop::sample::select(vec!["", "z1", "z2"]);
        let classes = prop::sample::select(vec!["", "avx2", "neon"]);
        let one = (0u8..6, zones, classes, 0u32..4, any::<bool>());
        proptest::collection::vec(one, 0..6).prop_map(|all| {
            let one = |(n, zone, class, idle, draining): (u8, &str, &str, u32, bool)| Candidate {
                zone: zone.into(),
                class: class.into(),
                draining,
                ..candidate(&format!("n{n}"), idle)
            };
            all.into_iter().map(one).collect()
        })
    }

    proptest! {
        #[test]
        fn it_never_goes_where_it_would_not_help(
            candidates in any_candidates(),
            class in prop::sample::select(vec!["", "avx2"]),
            own_idle in 0u32..2,
            random: u64,
        ) {
            let (first, keepers, excluded) = (name("n0"), [name("n1")], [name("n2")]);
            let own = Some(Own { idle: own_idle, class: "avx2" });
            let (keepers, excluded) = (&keepers, &excluded);
            let want = StandbyWant { own, first: Some(&first), zone: "z1", class, keepers, excluded };
            let able = |candidate: &Candidate| {
                let alike = class.is_empty() || candidate.class.is_empty() || candidate.class == class;
                let apart = candidate.node != first && candidate.node != excluded[0];
                candidate.idle > 0 && !candidate.draining && alike && apart
            };
            let found = place_standby(&want, &candidates, random);
            prop_assert_eq!(found, place_standby(&want, &candidates, random), "the same figures give the same choice");
            match found {
                Some(Place::Peer(peer)) => {
                    prop_assert!(able(peer), "{:?}", peer);
                    let keeps = |candidate: &Candidate| able(candidate) && candidate.node == keepers[0];
                    prop_assert!(keeps(peer) || !candidates.iter().any(keeps), "a keeper goes first");
                }
                Some(Place::Own) => prop_assert!(own_idle > 0 && !candidates.iter().any(able)),
                None => prop_assert!(own_idle == 0 && !candidates.iter().any(able)),
            }
        }
    }
}
