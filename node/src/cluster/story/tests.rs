use starling_protocol::SessionId;

use super::super::report::SessionEntry;
use super::*;

fn node(name: &str, generation: u64, state: &str) -> NodeReport {
    NodeReport {
        name: name.to_owned(),
        generation,
        state: state.to_owned(),
        zone: String::new(),
        roles: Vec::new(),
        version: String::new(),
        gossip: None,
        http: None,
        models: Vec::new(),
    }
}

fn session(id: SessionId, owner: &str) -> SessionEntry {
    SessionEntry { session: id.to_string(), owner: owner.to_owned(), ..SessionEntry::default() }
}

fn report(nodes: Vec<NodeReport>, sessions: Vec<SessionEntry>) -> ClusterReport {
    ClusterReport { node: "a".to_owned(), nodes, models: Vec::new(), sessions }
}

fn told(node: &str, generation: u64, events: &[(u64, u64, &str, Option<SessionId>)]) -> NodeTold {
    let events = events.iter().map(|&(sequence, at_ms, kind, session)| NodeEvent {
        sequence,
        at_ms,
        kind: kind.to_owned(),
        session,
        ..NodeEvent::default()
    });
    NodeTold { node: node.to_owned(), generation, events: events.collect() }
}

fn kinds(story: &Story, after: u64) -> Vec<(String, String)> {
    story.after(after).map(|event| (event.node.clone(), event.event.kind.clone())).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(node, kind)| ((*node).to_owned(), (*kind).to_owned())).collect()
}

#[test]
fn the_first_look_is_no_news_and_the_next_tells_what_differs() {
    let mut story = Story::default();
    story.look(&report(vec![node("a", 1, "alive"), node("b", 1, "alive")], vec![]), vec![], 10);
    assert_eq!(kinds(&story, 0), []);
    story.look(&report(vec![node("a", 1, "draining"), node("b", 1, "suspected")], vec![]), vec![], 20);
    assert_eq!(kinds(&story, 0), pairs(&[("a", "node_draining"), ("b", "node_suspected")]));
    let nodes = vec![node("a", 1, "left"), node("b", 2, "alive"), node("c", 1, "alive")];
    story.look(&report(nodes.clone(), vec![]), vec![], 30);
    assert_eq!(kinds(&story, 2), pairs(&[("a", "node_left"), ("b", "node_joined"), ("c", "node_joined")]));
    story.look(&report(nodes, vec![]), vec![], 40);
    assert_eq!(kinds(&story, 5), []);
}

#[test]
fn an_event_is_told_once_and_a_new_run_of_a_node_counts_anew() {
    let mut story = Story::default();
    let now = report(vec![], vec![]);
    story.look(&now, vec![told("a", 1, &[(1, 5, "x", None), (2, 6, "y", None)])], 10);
    story.look(&now, vec![told("a", 1, &[(1, 5, "x", None), (2, 6, "y", None), (3, 7, "z", None)])], 20);
    assert_eq!(kinds(&story, 0), pairs(&[("a", "x"), ("a", "y"), ("a", "z")]));
    assert_eq!((story.heard("a", 1), story.heard("a", 2), story.heard("b", 1)), (3, 0, 0));
    story.look(&now, vec![told("a", 2, &[(1, 8, "w", None)])], 30);
    assert_eq!(kinds(&story, 3), pairs(&[("a", "w")]));
}

#[test]
fn what_several_nodes_tell_is_in_the_order_of_its_time() {
    let mut story = Story::default();
    let events = vec![
        told("b", 1, &[(1, 9, "late", None)]),
        told("a", 1, &[(1, 3, "early", None), (2, 9, "too", None)]),
    ];
    story.look(&report(vec![], vec![]), events, 10);
    assert_eq!(kinds(&story, 0), pairs(&[("a", "early"), ("b", "late"), ("a", "too")]));
}

#[test]
fn a_session_that_moved_is_told_with_where_it_was() {
    let mut story = Story::default();
    let id = SessionId::random();
    story.look(&report(vec![], vec![session(id, "a")]), vec![], 10);
    let taken = told("b", 1, &[(1, 11, "taken_over", Some(id))]);
    story.look(&report(vec![], vec![session(id, "b")]), vec![taken], 20);
    let lost = told("b", 1, &[(2, 21, "decoder_lost", Some(id))]);
    story.look(&report(vec![], vec![session(id, "b")]), vec![lost], 30);
    let before: Vec<Option<&str>> = story.after(0).map(|event| event.before.as_deref()).collect();
    assert_eq!(before, [Some("a"), None]);
}

#[test]
fn no_more_is_kept_than_fits() {
    let mut story = Story::default();
    for round in 1..=KEPT as u64 + 10 {
        story.look(&report(vec![], vec![]), vec![told("a", 1, &[(round, round, "x", None)])], round);
    }
    assert_eq!(story.after(0).count(), KEPT);
    assert_eq!(story.after(0).next().map(|event| event.id), Some(11));
}
