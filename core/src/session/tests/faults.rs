//! Random faults against the undisturbed run (I1, I2, I3, I6, I7, I11).

use proptest::prelude::*;
use starling_protocol::{Attempt, DecodeOffset, Epoch};

use super::world::{World, config};
use crate::session::{LossCause, Outcome, SessionEvent};

#[derive(Debug, Clone, Copy)]
enum Move {
    Audio(u64),
    Finalize,
    Decode(u8),
    Grant,
    Lose(LossCause),
    Retire,
    Stale,
    Confirm,
    Reconnect,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let cause = prop_oneof![
        Just(LossCause::Killed),
        Just(LossCause::Silent),
        Just(LossCause::Protocol),
        Just(LossCause::NodeLost),
        Just(LossCause::Stuck { suspect: true }),
        Just(LossCause::Stuck { suspect: false }),
        Just(LossCause::Crashed { suspect: false }),
    ];
    let one = prop_oneof![
        6 => (1u64..9_000).prop_map(Move::Audio),
        1 => Just(Move::Finalize),
        8 => (1u8..12).prop_map(Move::Decode),
        3 => Just(Move::Grant),
        2 => cause.prop_map(Move::Lose),
        1 => Just(Move::Retire),
        1 => Just(Move::Stale),
        2 => Just(Move::Confirm),
        1 => Just(Move::Reconnect),
    ];
    proptest::collection::vec(one, 0..120)
}

fn run(source: u32, moves: &[Move], faults: bool) -> World {
    let mut world = World::new(config(source));
    let mut epoch = 1;
    for step in moves {
        match *step {
            Move::Audio(frames) => world.send(SessionEvent::AudioReceived { frames }),
            Move::Finalize => world.send(SessionEvent::FinalizeRequested),
            Move::Decode(count) => {
                for _ in 0..count {
                    world.decode();
                }
            }
            Move::Grant => world.grant(),
            Move::Confirm => {
                if let Some(last) = world.finals.last() {
                    let segment = last.segment;
                    world.send(SessionEvent::Confirmed { segment });
                }
            }
            _ if !faults => {}
            Move::Lose(cause) => world.lose(cause),
            Move::Retire => {
                if let Some(attempt) = world.current_attempt() {
                    world.send(SessionEvent::LeaseRetiring { attempt });
                }
            }
            Move::Stale => {
                let before = world.machine.clone();
                let attempt = Attempt(world.current_attempt().map_or(0, |attempt| attempt.0 - 1));
                world.send(SessionEvent::Decoded { attempt, until: DecodeOffset(1_600) });
                world.send(SessionEvent::LeaseLost { attempt, cause: LossCause::Killed });
                assert_eq!(before, world.machine, "an old attempt's answer changed something");
            }
            Move::Reconnect => {
                world.send(SessionEvent::Detached { epoch: Epoch(epoch) });
                epoch += 1;
                world.attach(epoch);
            }
        }
    }
    world.send(SessionEvent::EndRequested);
    world.settle();
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn faults_change_no_final(source in prop_oneof![Just(8_000u32), Just(16_000), Just(44_100)], moves in moves()) {
        let calm = run(source, &moves, false);
        let faulty = run(source, &moves, true);
        prop_assert_eq!(&calm.finals, &faulty.finals);
        prop_assert_eq!(calm.announced, faulty.announced);
        prop_assert_eq!(calm.outcome, Some(Outcome::Done));
        prop_assert_eq!(faulty.outcome, Some(Outcome::Done));
        let received = faulty.machine.journal().received();
        prop_assert_eq!(faulty.finals.last().map_or(received, |last| last.to), received, "all audio is covered");
    }
}
