//! The same of runs of whole nodes: one seed gives one log, and the first ones hold.

mod support;

use support::{said, simulate};

#[test]
fn the_same_seed_gives_the_same_log() {
    let [one, other] = [0, 1].map(|_| said(&simulate(&["--whole", "--seed", "2"])));
    assert!(one.lines().count() > 100, "there is a log: {one}");
    assert!(one == other, "the seed gives two logs");
    let hash = |log: &str| log.lines().last().map(str::to_owned);
    let elsewhere = said(&simulate(&["--seed", "2", "--quiet"]));
    assert_ne!(hash(&one), hash(&elsewhere), "this is another network");
}

#[test]
fn a_client_goes_on_when_its_node_is_killed() {
    let output = simulate(&["--whole", "--seed", "3", "--schedule", "crash:n0@3000+2000,crash:n1@6000+2000"]);
    let log = said(&output);
    assert!(output.status.success(), "{log}");
    assert!(log.contains("fault crash:n0@3000+2000") && log.contains("n0 starts again"), "{log}");
    assert!(log.contains("resumed true"), "somebody had a session there: {log}");
}

#[test]
fn the_first_seeds_hold() {
    // More of them come with `cargo xtask sim --whole`, in a build that is quicker.
    let output = simulate(&["--whole", "--seeds", "4"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("all held"), "{}", said(&output));
}
