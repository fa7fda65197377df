//! Random faults against the undisturbed run (I1, I2, I3, I6, I7, I11).

use std::time::Duration;

use proptest::prelude::*;
use starling_protocol::{Attempt, CutCause, DecodeOffset, Epoch, Segment};

use super::world::{World, config};
use crate::session::{LossCause, Outcome, SessionConfig, SessionEvent};

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
    Pass(Duration),
    Reconnect(Duration),
    DecodeStandby(u8),
    GrantStandby,
    LoseStandby(LossCause),
    RetireStandby,
    Lie { standby: bool },
}

/// Longer, all together, than a session is waited for.
fn time() -> impl Strategy<Value = Duration> {
    (0u64..20_000).prop_map(Duration::from_millis)
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
    let suspicious = prop_oneof![
        Just(LossCause::Killed),
        Just(LossCause::EngineFailed),
        Just(LossCause::Crashed { suspect: true }),
        Just(LossCause::Stuck { suspect: true }),
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
        3 => time().prop_map(Move::Pass),
        1 => time().prop_map(Move::Reconnect),
        6 => (1u8..12).prop_map(Move::DecodeStandby),
        4 => Just(Move::GrantStandby),
        1 => suspicious.prop_map(Move::LoseStandby),
        1 => Just(Move::RetireStandby),
        1 => any::<bool>().prop_map(|standby| Move::Lie { standby }),
    ];
    proptest::collection::vec(one, 0..120)
}

fn run(config: SessionConfig, moves: &[Move], faults: bool, cut_first: bool) -> World {
    let mut world = World::new(config);
    world.cut_first = cut_first;
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
            Move::DecodeStandby(count) => {
                for _ in 0..count {
                    world.decode_standby();
                }
            }
            Move::GrantStandby => world.grant_standby(),
            Move::Pass(time) => world.pass(time),
            _ if !faults => {}
            Move::LoseStandby(cause) => world.lose_standby(cause),
            Move::RetireStandby => {
                if let Some(attempt) = world.standby_attempt() {
                    world.send(SessionEvent::LeaseRetiring { attempt });
                }
            }
            Move::Lie { standby } => {
                let attempt = if standby { world.machine.standby() } else { world.current_attempt() };
                if let Some(attempt) = attempt {
                    let segment = Segment(world.machine.open_segment().0 + 9);
                    let (from, to, cause) = (DecodeOffset(0), DecodeOffset(1_600), CutCause::Endpoint);
                    world.send(SessionEvent::SegmentCut { attempt, segment, from, to, cause });
                }
            }
            Move::Lose(cause) => world.lose(cause),
            Move::Retire => {
                if let Some(attempt) = world.current_attempt() {
                    world.send(SessionEvent::LeaseRetiring { attempt });
                }
            }
            Move::Stale => {
                let before = world.machine.clone();
                // Below any that is at work.
                let current = world.current_attempt().map_or(0, |attempt| attempt.0);
                let lowest = world.standby_attempt().map_or(current, |standby| standby.0.min(current));
                let attempt = Attempt(lowest.saturating_sub(1));
                world.send(SessionEvent::Decoded { attempt, until: DecodeOffset(1_600) });
                world.send(SessionEvent::LeaseLost { attempt, cause: LossCause::Killed });
                assert_eq!(before, world.machine, "an old attempt's answer changed something");
            }
            Move::Reconnect(away) => {
                world.send(SessionEvent::Detached { epoch: Epoch(epoch) });
                world.pass(away);
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
    fn faults_change_no_final(
        source in prop_oneof![Just(8_000u32), Just(16_000), Just(44_100)],
        moves in moves(),
        cut_first: bool,
    ) {
        let alone = config(source);
        let with_standby = SessionConfig { standby: true, ..alone };
        let calm = run(alone, &moves, false, cut_first);
        prop_assert_eq!(calm.outcome, Some(Outcome::Done));
        prop_assert_eq!(calm.standbys, (0, 0));
        let others = [(alone, true), (with_standby, false), (with_standby, true)];
        for (config, faults) in others {
            let other = run(config, &moves, faults, cut_first);
            prop_assert_eq!(&calm.finals, &other.finals);
            prop_assert_eq!(calm.announced, other.announced);
            prop_assert_eq!(other.outcome, Some(Outcome::Done));
            let received = other.machine.journal().received();
            prop_assert_eq!(other.finals.last().map_or(received, |last| last.to), received, "all audio is covered");
        }
    }
}
