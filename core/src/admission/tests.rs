use proptest::prelude::*;

use super::*;

fn node(total: u32, busy: u32) -> NodeSlots {
    NodeSlots { total, busy, draining: false }
}

fn room_beside(nodes: &[NodeSlots], own: usize) -> u64 {
    let others = nodes.iter().enumerate().filter(|(n, _)| *n != own).map(|(_, node)| *node);
    headroom(nodes[own], others.collect())
}

/// The rule in the words of the design: idle and reserve slots of all but `lost` are enough for the streams of `lost`.
pub(crate) fn can_be_lost(nodes: &[NodeSlots], lost: usize) -> bool {
    let others = || nodes.iter().enumerate().filter(|(n, _)| *n != lost).map(|(_, node)| node);
    let free: u64 = others().map(|node| node.capacity().saturating_sub(node.busy.into())).sum();
    let nobody = others().all(|node| node.capacity() == 0);
    nobody || free >= u64::from(nodes[lost].busy)
}

#[test]
fn what_is_kept() {
    let drained = |busy| NodeSlots { draining: true, ..node(8, busy) };
    let table: &[(&str, NodeSlots, &[NodeSlots], u64)] = &[
        ("a node on its own", node(8, 8), &[], u64::MAX),
        ("among those that decode nothing and could not", node(8, 3), &[node(0, 0)], u64::MAX),
        ("two alike, both full", node(4, 4), &[node(4, 4)], 0),
        ("two alike, one slot left", node(4, 3), &[node(4, 4)], 1),
        ("three alike", node(4, 3), &[node(4, 4), node(4, 4)], 5),
        ("a large one beside a small one", node(8, 2), &[node(1, 0)], 0),
        ("the small one beside the large one", node(1, 0), &[node(8, 1)], 1),
        (
            "the small one beside the large one, which holds all it can take over",
            node(1, 0),
            &[node(8, 2)],
            0,
        ),
        ("an empty one beside one that took over", node(4, 0), &[node(4, 8)], 0),
        ("one beside one that leaves", node(4, 1), &[drained(3)], 4),
        ("one beside one that has left", node(4, 4), &[drained(0)], u64::MAX),
    ];
    for (what, own, others, wanted) in table {
        assert_eq!(headroom(*own, others.iter().copied().collect()), *wanted, "{what}");
    }
}

fn any_node() -> impl Strategy<Value = NodeSlots> {
    (0u32..10, 0u32..20, proptest::bool::weighted(0.2)).prop_map(|(total, busy, draining)| NodeSlots {
        total,
        busy: busy.min(2 * total),
        draining,
    })
}

#[test]
fn a_node_on_its_own_keeps_nothing_for_others() {
    assert_eq!(least_total(100, Others::default()), 0);
    assert_eq!(least_total(0, [node(4, 0)].into_iter().collect()), 0);
    // The other's 4 and the own 3 have to fit on twice the own.
    assert_eq!(least_total(3, [node(4, 4)].into_iter().collect()), 4);
    // The third node has 8 places for them.
    assert_eq!(least_total(4, [node(4, 4), node(4, 3)].into_iter().collect()), 2);
}

proptest! {
    /// With so many the loss of any other node leaves room for all, and with one less it does not.
    #[test]
    fn the_fewest_slots_are_enough_and_no_more(
        others in proptest::collection::vec(any_node(), 1..6),
        busy in 0u32..30,
    ) {
        let least = u32::try_from(least_total(busy, others.iter().copied().collect())).expect("few");
        let free = |lost: usize| -> u64 {
            let rest = others.iter().enumerate().filter(|(n, _)| *n != lost).map(|(_, node)| node.capacity());
            rest.sum()
        };
        let streams = u64::from(busy) + others.iter().map(|node| u64::from(node.busy)).sum::<u64>();
        let fits = |total: u64| {
            let lost = (0..others.len()).filter(|lost| others[*lost].busy > 0);
            lost.map(free).all(|rest| 2 * total + rest >= streams)
        };
        prop_assert!(fits(u64::from(least)));
        prop_assert!(least == 0 || !fits(u64::from(least) - 1));
    }

    #[test]
    fn a_session_is_never_admitted_into_what_is_kept(
        mut nodes in proptest::collection::vec(any_node(), 1..6),
    ) {
        if room_beside(&nodes, 0) > 0 {
            nodes[0].busy += 1;
            for lost in (0..nodes.len()).filter(|lost| nodes[*lost].busy > 0) {
                prop_assert!(can_be_lost(&nodes, lost), "{:?} without {lost}", nodes);
            }
        }
    }

    #[test]
    fn a_session_is_admitted_while_there_is_room(
        mut nodes in proptest::collection::vec(any_node(), 1..6),
    ) {
        let room = room_beside(&nodes, 0);
        nodes[0].busy += 1;
        let all: u64 = nodes.iter().map(|node| node.capacity()).sum();
        let streams: u64 = nodes.iter().map(|node| u64::from(node.busy)).sum();
        // All streams fit without `lost`, those of nodes that leave among them.
        let fits = nodes.iter().enumerate().filter(|(_, lost)| lost.busy > 0).all(|(n, lost)| {
            let rest = all - lost.capacity();
            rest >= streams || (n == 0 && rest == 0)
        });
        prop_assert_eq!(room > 0, fits, "{:?}", nodes);
    }

    /// Sessions come and go anywhere, each node admits by the rule and no more than its slots: any node can be lost at any
    /// time. Nodes of one size are never kept from filling up.
    #[test]
    fn whatever_is_admitted_any_node_can_be_lost(
        totals in proptest::collection::vec(1u32..9, 2..6),
        moves in proptest::collection::vec((any::<u8>(), proptest::bool::weighted(0.8)), 0..200),
    ) {
        let mut nodes: Vec<NodeSlots> = totals.iter().map(|total| node(*total, 0)).collect();
        for (which, comes) in moves {
            let which = usize::from(which) % nodes.len();
            let full = nodes[which].busy >= nodes[which].total;
            let room = room_beside(&nodes, which);
            if comes && !full && room > 0 {
                nodes[which].busy += 1;
            } else if !comes {
                nodes[which].busy = nodes[which].busy.saturating_sub(1);
            }
            let alike = totals.iter().all(|total| *total == totals[0]);
            prop_assert!(!alike || full || room > 0, "{:?}", nodes);
            prop_assert!((0..nodes.len()).all(|lost| can_be_lost(&nodes, lost)), "{:?}", nodes);
        }
    }
}
