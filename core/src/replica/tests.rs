//! An owner, three keepers and the streams between them, with faults at any time. What the client was told must be found
//! in the copies (I4), epochs never fall (I5), memory keeps to its caps (I6).

mod gather;
mod keeper;
mod orphans;
mod owner;
mod random;
mod search;
mod takeover;
mod world;

use std::time::Duration;

use proptest::prelude::*;
use starling_protocol::replica::EntryKind;

use super::ReplicationConfig;
use world::{World, config};

#[derive(Debug, Clone, Copy)]
enum Move {
    Audio(u64),
    Entry,
    Commit,
    Confirm,
    Reconnect,
    /// A message arrives at a keeper.
    Deliver(u8),
    /// A keeper's answer arrives.
    Answer(u8),
    /// A stream is opened, or can't be.
    Open(bool),
    /// A keeper is gone, with what it kept.
    Crash(u8),
    /// Its streams break.
    Break(u8),
    /// It comes back, empty.
    Return(u8),
    Wait(u16),
    StandStill,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        8 => (1u64..3_000).prop_map(Move::Audio),
        1 => Just(Move::Entry),
        3 => Just(Move::Commit),
        2 => Just(Move::Confirm),
        1 => Just(Move::Reconnect),
        10 => (0u8..3).prop_map(Move::Deliver),
        10 => (0u8..3).prop_map(Move::Answer),
        4 => any::<bool>().prop_map(Move::Open),
        1 => (0u8..3).prop_map(Move::Crash),
        1 => (0u8..3).prop_map(Move::Break),
        2 => (0u8..3).prop_map(Move::Return),
        3 => (1u16..1_500).prop_map(Move::Wait),
        1 => Just(Move::StandStill),
    ];
    proptest::collection::vec(one, 0..150)
}

fn run(copies: u8, gather_ms: u64, moves: &[Move]) -> World {
    let gather = Duration::from_millis(gather_ms);
    let mut world = World::new(ReplicationConfig { gather, ..config(copies) });
    for step in moves {
        match *step {
            Move::Audio(frames) => world.audio(frames),
            Move::Entry => world.entry(EntryKind::Finalize),
            Move::Commit => world.commit(),
            Move::Confirm => world.confirm(),
            Move::Reconnect => world.reconnect(),
            Move::Deliver(node) => world.deliver(node),
            Move::Answer(node) => world.answer(node),
            Move::Open(works) => world.open(works),
            Move::Crash(node) => world.crash(node),
            Move::Break(node) => world.break_streams(node),
            Move::Return(node) => world.come_back(node),
            Move::Wait(ms) => world.wait(Duration::from_millis(u64::from(ms))),
            Move::StandStill => world.stand_still(),
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn what_a_durable_session_told_survives_its_owner(
        copies in 1u8..3,
        gather_ms in prop_oneof![Just(0u64), Just(300)],
        moves in moves(),
    ) {
        let mut world = run(copies, gather_ms, &moves);
        world.owner_dies();
    }

    #[test]
    fn with_nodes_that_answer_everything_is_told_in_the_end(
        copies in 0u8..3,
        gather_ms in prop_oneof![Just(0u64), Just(300)],
        moves in moves(),
    ) {
        let mut world = run(copies, gather_ms, &moves);
        world.settle();
    }
}
