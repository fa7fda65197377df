//! The search, to the end: it holds in every state, and where something is done wrong on purpose it is found.

use starling_model::{Cluster, Faults, Found, Invariant, Mistake};

/// Steps that are looked ahead where all would take minutes: nine more than the mistake takes that is found this way.
const FAR: usize = 22;

/// The same where there are many more: half a million states.
const NEAR: usize = 17;

fn holds(faults: Faults) {
    assert!(holds_for(faults, None).can_end, "nobody was ever told everything");
}

fn holds_for(faults: Faults, most_steps: Option<usize>) -> Found {
    let found = Cluster { faults, most_steps, ..Cluster::default() }.search();
    println!("{faults:?}: {} states, {} steps deep", found.states, found.depth);
    for counterexample in &found.counterexamples {
        println!("{counterexample}\n");
    }
    assert!(found.counterexamples.is_empty(), "{faults:?}: something does not hold");
    found
}

fn is_found(mistake: Mistake, faults: Faults, broken: Invariant) {
    let found = Cluster { faults, mistake: Some(mistake), ..Cluster::default() }.search();
    let counterexample = found.counterexamples.first().expect("a counterexample");
    println!("{mistake:?}, after {} states:\n{counterexample}", found.states);
    assert_eq!(counterexample.invariant, broken, "{counterexample}");
}

#[test]
fn without_faults() {
    holds(Faults::default());
}

#[test]
fn a_node_that_is_gone_and_one_that_stands_still() {
    holds(Faults { crashes: 1, pauses: 1, ..Faults::default() });
}

#[test]
fn what_is_lost_and_what_comes_twice() {
    holds(Faults { losses: 1, duplicates: 1, ..Faults::default() });
}

#[test]
fn a_connection_that_is_lost_and_a_node_that_is_gone() {
    let faults = Faults { losses: 1, crashes: 1, ..Faults::default() };
    assert_eq!(holds_for(faults, Some(FAR)).depth, FAR, "there is more to come");
}

#[test]
fn one_of_everything_as_far_as_that_goes() {
    let faults = Faults { losses: 1, duplicates: 1, crashes: 1, pauses: 1, ..Faults::default() };
    assert_eq!(holds_for(faults, Some(NEAR)).depth, NEAR, "there is more to come");
}

#[test]
fn an_acknowledgement_before_the_copy_is_found() {
    is_found(Mistake::AckBeforeCopy, Faults { crashes: 1, ..Faults::default() }, Invariant::I4);
}

#[test]
fn a_promise_that_is_forgotten_is_found() {
    is_found(Mistake::PromiseForgotten, Faults { crashes: 1, ..Faults::default() }, Invariant::I5);
}

#[test]
fn an_end_that_is_forgotten_is_found() {
    is_found(
        Mistake::TombstoneForgotten,
        Faults { crashes: 1, pauses: 1, ..Faults::default() },
        Invariant::I5,
    );
}

#[test]
fn an_owner_that_leaves_nothing_behind_is_found() {
    let faults = Faults { hangups: 1, crashes: 1, ..Faults::default() };
    is_found(Mistake::FencedOwnerForgets, faults, Invariant::I4);
}
