//! The same of runs on the wire: one seed gives one log, and the first ones hold.

mod support;

use support::{said, simulate};

/// Seeds with three nodes, which are quick in a build that is not.
const SMALL: [&str; 2] = ["8", "17"];

#[test]
fn the_same_seed_gives_the_same_log() {
    let hash = |log: &str| log.lines().last().map(str::to_owned);
    let mut hashes = Vec::new();
    for seed in SMALL {
        let [one, other] = [0, 1].map(|_| said(&simulate(&["--wire", "--seed", seed])));
        assert!(one.lines().count() > 20, "there is a log: {one}");
        assert!(one == other, "seed {seed} gives two logs");
        hashes.push(hash(&one));
    }
    assert_ne!(hashes[0], hashes[1]);
    let quiet = said(&simulate(&["--wire", "--seed", SMALL[0], "--quiet"]));
    assert_eq!(hash(&quiet), hashes[0], "printing it changes nothing");
}

#[test]
fn a_schedule_of_its_own_takes_the_place_of_the_seeds() {
    let schedule = "crash:n0@3000+500,sever:n1-n2@1500+900";
    let output = simulate(&["--wire", "--seed", "17", "--schedule", schedule]);
    let log = said(&output);
    assert!(output.status.success(), "{log}");
    assert!(log.contains("fault crash:n0@3000+500") && log.contains("n0#20 begins"), "{log}");
    let refused = simulate(&["--wire", "--seed", "17", "--schedule", "jump:n0@3000"]);
    assert!(said(&refused).contains("there are crash, off"), "{}", said(&refused));
}

#[test]
fn the_first_seeds_hold() {
    // More of them come with `cargo xtask sim --wire`, in a build that is quicker.
    let output = simulate(&["--wire", "--seeds", "3"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("all held"), "{}", said(&output));
}
