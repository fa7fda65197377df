//! When nodes that failed are asked for a copy again.

use starling_protocol::replica::View;
use starling_protocol::{Epoch, NodeName, Segment, SourceOffset};

use super::world::config;
use crate::Timestamp;
use crate::replica::{OpenFailure, ReplicationAction, ReplicationEvent, ReplicationMachine, Standing};

/// Performs until nothing is left to be done: every node refuses at once. Which nodes were asked, in this order.
fn refuse_all(
    machine: &mut ReplicationMachine,
    now: Timestamp,
    nodes: &[NodeName],
    mut todo: Vec<ReplicationAction>,
) -> Vec<NodeName> {
    let mut asked = Vec::new();
    while let Some(action) = todo.pop() {
        let event = match action {
            ReplicationAction::FindKeepers { excluded, count } => {
                let others = nodes.iter().filter(|node| !excluded.contains(node));
                ReplicationEvent::KeepersFound { nodes: others.take(count).cloned().collect() }
            }
            ReplicationAction::Open { tries, node, .. } => {
                asked.push(node);
                assert!(asked.len() <= 2 * nodes.len(), "asked without end: {asked:?}");
                ReplicationEvent::OpenFailed { tries, failure: OpenFailure::Refused }
            }
            _ => continue,
        };
        machine.handle(now, event, &mut todo);
    }
    asked
}

#[test]
fn nodes_that_refuse_at_once_are_asked_once_until_it_is_time_again() {
    let nodes = ["a", "b", "c"].map(|name| NodeName::parse(name).expect("a name"));
    for copies in 1..=3 {
        let config = config(copies);
        let standing = Standing {
            finals_from: Segment(0),
            next_segment: Segment(0),
            audio_from: SourceOffset(0),
            audio_to: SourceOffset(0),
            entries: Vec::new(),
        };
        let (mut now, mut out) = (Timestamp::default(), Vec::new());
        let mut machine = ReplicationMachine::new(now, config, Epoch(1), View(0), &standing, &mut out);
        for _ in 0..3 {
            let mut asked = refuse_all(&mut machine, now, &nodes, std::mem::take(&mut out));
            asked.sort();
            assert_eq!(asked, nodes, "{copies} copies");
            now = now.plus(config.retry);
            machine.handle(now, ReplicationEvent::TimedOut, &mut out);
        }
    }
}
