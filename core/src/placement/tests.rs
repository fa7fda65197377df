use std::collections::HashMap;

use super::*;
use proptest::prelude::*;

pub(super) fn name(text: &str) -> NodeName {
    NodeName::parse(text).expect("a name")
}

pub(super) fn candidate(node: &str, idle: u32) -> Candidate {
    let (zone, class) = ("z1".into(), "avx2".into());
    Candidate {
        node: name(node),
        zone,
        class,
        slots: idle.max(1),
        busy: 0,
        idle,
        on_demand: false,
        draining: false,
    }
}

fn keeper(node: &str, zone: &str, weight: u64) -> Keeper {
    Keeper { node: name(node), zone: zone.into(), class: String::new(), weight, draining: false }
}

/// Ids as far apart as a client's random ones.
fn session(n: u64) -> SessionId {
    let spread = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    SessionId::parse(&format!("{spread:032x}")).expect("an id")
}

fn copies<'a>(of: u64, owner: &'a NodeName, excluded: &'a [NodeName], count: usize) -> Copies<'a> {
    Copies { session: session(of), owner, owner_zone: "z1", class: "", excluded, count }
}

fn chosen(want: &Want<'_>, candidates: &[Candidate]) -> String {
    match place(want, candidates, 5) {
        None => "none".into(),
        Some(Place::Own) => "own".into(),
        Some(Place::Peer(candidate)) => candidate.node.to_string(),
    }
}

#[test]
fn the_order_is_class_then_room_then_this_node_then_zone() {
    let peers = [
        candidate("full", 0),
        Candidate { zone: "z2".into(), ..candidate("far", 1) },
        candidate("near", 9),
        Candidate { class: "neon".into(), ..candidate("other", 9) },
    ];
    let own = |idle| Some(Own { idle, class: "avx2" });
    let wanted = Want { own: own(1), class: "avx2", ..Want::default() };
    assert_eq!(chosen(&wanted, &peers), "own");
    let wanted = Want { own: own(0), avoid_zone: Some("z1"), ..wanted };
    assert_eq!(chosen(&wanted, &peers), "far");
    assert_eq!(chosen(&Want { avoid_zone: Some("z2"), ..wanted }, &peers), "near");
    assert_eq!(chosen(&wanted, &peers[2..3]), "near", "an avoided zone is better than none");
    assert_eq!(chosen(&wanted, &peers[3..]), "other", "another class is better than none");
    assert_eq!(chosen(&wanted, &peers[..1]), "none");
    let crowded = Want { rooms: &[Room::Idle, Room::Crowded], ..wanted };
    assert_eq!(chosen(&crowded, &peers[..1]), "own");
    assert_eq!(
        chosen(&crowded, &peers[3..]),
        "own",
        "a crowded slot of the class comes before an idle one outside"
    );
    assert_eq!(chosen(&Want { own: None, ..crowded }, &peers[..1]), "full");
    assert_eq!(chosen(&Want { any_class: false, ..wanted }, &peers[3..]), "none", "it stays in its class");
    let without_hosts = [Candidate { slots: 0, busy: 2, ..candidate("gone", 0) }];
    assert_eq!(
        chosen(&Want { own: None, ..crowded }, &without_hosts),
        "none",
        "its streams count, and no more"
    );
}

#[test]
fn a_host_is_loaded_where_no_slot_is_idle_and_every_node_has_the_same_one_loaded() {
    let cold =
        |node: &str| Candidate { slots: 0, on_demand: true, class: String::new(), ..candidate(node, 0) };
    let mut peers = vec![candidate("full", 0), cold("a"), cold("b"), cold("c")];
    let wanted = Want { model: "vosk-ko-small", ..Want::default() };
    assert_eq!(chosen(&wanted, &peers), "none", "an idle slot alone was wanted");
    let loading = Want { rooms: &[Room::OnDemand], ..wanted };
    let first = chosen(&loading, &peers);
    for random in 0..100 {
        let found = place(&loading, &peers, random);
        assert!(matches!(found, Some(Place::Peer(peer)) if peer.node.as_str() == first));
    }
    let models = (0..20).map(|n| chosen(&Want { model: &format!("m{n}"), ..loading }, &peers));
    assert_eq!(models.collect::<std::collections::BTreeSet<_>>().len(), 3, "models are spread");

    let excluded = [name(&first)];
    let second = chosen(&Want { excluded: &excluded, ..loading }, &peers);
    assert!(second != first && second != "full", "{second}");
    let crowded = [Room::Idle, Room::Crowded, Room::OnDemand];
    assert_eq!(chosen(&Want { rooms: &crowded, ..wanted }, &peers), "full");
    let own = Some(Own { idle: 0, class: "" });
    assert_eq!(chosen(&Want { own, ..loading }, &peers[..1]), "none");
    peers.push(candidate("idle", 1));
    assert_eq!(chosen(&Want { rooms: &crowded, ..wanted }, &peers), "idle");
    peers.iter_mut().for_each(|peer| peer.draining = true);
    assert_eq!(chosen(&loading, &peers), "none");
}

#[test]
fn copies_stand_in_another_zone_if_they_can_and_in_the_class_among_those() {
    let (owner, gone) = (name("owner"), [name("gone")]);
    let mut all = vec![
        keeper("near", "z1", 1_000),
        keeper("far", "z2", 1),
        Keeper { class: "neon".into(), ..keeper("odd", "z2", 1_000_000) },
        keeper("owner", "z1", 1_000),
        keeper("gone", "z2", 1_000),
        keeper("none", "z2", 0),
    ];
    let wanted = Copies { class: "avx2", ..copies(1, &owner, &gone, 9) };
    let names = |all: &[Keeper]| keepers(&wanted, all).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&all), ["far", "odd", "near"]);
    all[1].draining = true;
    assert_eq!(names(&all), ["odd", "near"]);
}

#[test]
fn copies_are_spread_by_weight() {
    let owner = name("owner");
    let all = [keeper("a", "z", 1), keeper("b", "z", 1), keeper("c", "z", 2)];
    let mut held: HashMap<&str, u32> = HashMap::new();
    for n in 0..8_000 {
        *held.entry(keepers(&copies(n, &owner, &[], 1), &all)[0].as_str()).or_default() += 1;
    }
    for (node, share) in [("a", 2_000), ("b", 2_000), ("c", 4_000)] {
        assert!(held[node].abs_diff(share) < 200, "{node} holds {} of {share}", held[node]);
    }
}

#[test]
fn a_key_hashes_the_same_for_ever() {
    let names = ["a", "b", "c"].map(name);
    let hashes = names.each_ref().map(|node| hash(b"key", node));
    assert_eq!(hashes, [11_990_401_757_608_578_602, 2_912_895_757_623_873_039, 557_467_054_015_276_663]);
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (0u8..20, 0u32..4, any::<bool>(), 0u8..3, 0u8..3, any::<bool>());
    proptest::collection::vec(one, 0..12).prop_map(|all| {
        let make = |(n, idle, draining, zone, class, on_demand): (_, u32, _, _, _, bool)| Candidate {
            node: name(&format!("n{n}")),
            zone: format!("z{zone}"),
            class: ["", "x", "y"][usize::from(class)].into(),
            slots: u32::max(idle, u32::from(!on_demand)),
            busy: 0,
            idle,
            on_demand: on_demand && idle == 0,
            draining,
        };
        all.into_iter().map(make).collect()
    })
}

proptest! {
    #[test]
    fn nobody_is_asked_who_is_draining_or_excluded_or_full(
        all in candidates(),
        random: u64,
        rooms in prop::sample::subsequence(vec![Room::Idle, Room::OnDemand, Room::Crowded], 0..=3),
        class in prop::sample::select(vec!["", "x"]),
    ) {
        let excluded: Vec<NodeName> = (0..5).map(|n| name(&format!("n{n}"))).collect();
        let want =
            Want { class, excluded: &excluded, rooms: &rooms, avoid_zone: Some("z1"), ..Want::default() };
        let has_room = |candidate: &Candidate| rooms.iter().any(|room| room.is_at(candidate));
        let found = place(&want, &all, random);
        prop_assert_eq!(found, place(&want, &all, random), "the same figures give the same choice");
        match found {
            Some(Place::Peer(candidate)) => {
                prop_assert!(!candidate.draining && !excluded.contains(&candidate.node));
                prop_assert!(has_room(candidate));
            }
            Some(Place::Own) => prop_assert!(false, "there is no own pool"),
            None => prop_assert!(all.iter().all(|candidate| candidate.draining
                || excluded.contains(&candidate.node)
                || !has_room(candidate))),
        }
    }

    /// Whoever acts on stale figures spreads over all that look alike.
    #[test]
    fn two_choices_spread_evenly_over_equals(nodes in 2usize..9, seed: u64) {
        let all: Vec<Candidate> = (0..nodes).map(|n| candidate(&format!("n{n}"), 4)).collect();
        let mut asked: HashMap<NodeName, u64> = HashMap::new();
        let mut random = seed;
        let draws = 600 * nodes as u64;
        for _ in 0..draws {
            random = hash(&random.to_le_bytes(), &all[0].node);
            let Some(Place::Peer(found)) = place(&Want::default(), &all, random) else {
                return Err(TestCaseError::fail("somebody is idle"));
            };
            *asked.entry(found.node.clone()).or_default() += 1;
        }
        for count in asked.values() {
            prop_assert!((400..=800).contains(count), "{asked:?}");
        }
        prop_assert_eq!(asked.len(), nodes);
    }

    /// Sessions that come one after another with fresh figures are never far from even.
    #[test]
    fn two_choices_keep_load_even(seed: u64) {
        let mut all: Vec<Candidate> = (0..8).map(|n| candidate(&format!("n{n}"), 100)).collect();
        let mut random = seed;
        for _ in 0..400 {
            random = hash(&random.to_le_bytes(), &all[0].node);
            let Some(Place::Peer(found)) = place(&Want::default(), &all, random) else {
                return Err(TestCaseError::fail("somebody is idle"));
            };
            let node = found.node.clone();
            for candidate in all.iter_mut().filter(|candidate| candidate.node == node) {
                candidate.idle -= 1;
            }
        }
        let idle = all.iter().map(|candidate| candidate.idle);
        prop_assert!(idle.clone().max().unwrap_or(0) - idle.min().unwrap_or(0) <= 12, "{all:?}");
    }

    /// A node that goes moves only what it held; one that comes takes only what is now its own.
    #[test]
    fn movement_is_minimal(weights in proptest::collection::vec(1u64..100, 2..10), gone: prop::sample::Index, n: u64) {
        let owner = name("owner");
        let all: Vec<Keeper> = weights
            .iter()
            .enumerate()
            .map(|(n, weight)| keeper(&format!("n{n}"), &format!("z{}", n % 3), *weight))
            .collect();
        let gone = gone.index(all.len());
        let mut left = all.clone();
        let lost = left.remove(gone).node;
        let before = keepers(&copies(n, &owner, &[], 10), &all);
        let after = keepers(&copies(n, &owner, &[], 10), &left);
        let kept: Vec<&NodeName> = before.into_iter().filter(|node| **node != lost).collect();
        prop_assert_eq!(&kept, &after, "the order of the rest is as it was");
        let mut turned = all.clone();
        turned.reverse();
        let wanted = copies(n, &owner, &[], 10);
        prop_assert_eq!(keepers(&wanted, &turned), keepers(&wanted, &all), "the order of gossip does not matter");
        let excluded = [lost];
        let without = keepers(&copies(n, &owner, &excluded, 10), &all);
        prop_assert_eq!(without, after);
    }
}
