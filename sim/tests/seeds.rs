//! What a seed is good for: the same one gives the same log, and the first ones hold.

mod support;

use support::{said, simulate};

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in ["1", "7", "12"] {
        let [one, other] = [0, 1].map(|_| simulate(&["--seed", seed]));
        let log = said(&one);
        assert!(log.lines().count() > 100, "there is a log: {log}");
        assert!(log == said(&other), "seed {seed} gives two logs");
        let hash = |log: &str| log.lines().last().map(str::to_owned);
        let quiet = simulate(&["--seed", seed, "--quiet"]);
        assert_eq!(hash(&said(&quiet)), hash(&log), "printing it changes nothing");
    }
    let last = |seed: &str| said(&simulate(&["--seed", seed, "--quiet"]));
    assert_ne!(last("1"), last("2"));
}

#[test]
fn a_schedule_of_its_own_takes_the_place_of_the_seeds() {
    let output = simulate(&["--seed", "1", "--schedule", "crash:n0@3000+500,stall:c0@1000+2000"]);
    let log = said(&output);
    assert!(output.status.success(), "{log}");
    assert!(log.contains("fault crash:n0@3000+500") && log.contains("n0 starts again"), "{log}");
    let refused = simulate(&["--seed", "1", "--schedule", "crash:n7@3000"]);
    assert!(said(&refused).contains("there is no n7"), "{}", said(&refused));
}

#[test]
fn the_first_seeds_hold() {
    // More of them, and each fault alone, come with `cargo xtask sim`, in a build that is quicker.
    let output = simulate(&["--seeds", "20"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("all held"), "{}", said(&output));
}
