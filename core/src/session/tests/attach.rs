//! Connections that come and go in any order against the highest epoch that there was (I5), and confirmations against a count.

use std::time::Duration;

use proptest::prelude::*;
use starling_protocol::{Epoch, Segment, SourceOffset};

use super::world::config;
use crate::Timestamp;
use crate::session::{AttachRefusal, Outcome, SessionAction, SessionEvent, SessionMachine};

#[derive(Debug, Clone, Copy)]
enum Move {
    Attach { epoch: u64, last_final: Option<u64>, have_from: u64 },
    Detach(u64),
    Audio(u64),
    Confirm(u64),
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (0u64..12, proptest::option::weighted(0.2, 0u64..3), 0u64..2_000)
            .prop_map(|(epoch, last_final, have_from)| Move::Attach { epoch, last_final, have_from }),
        3 => (0u64..12).prop_map(Move::Detach),
        3 => (0u64..900).prop_map(Move::Audio),
        1 => (0u64..3).prop_map(Move::Confirm),
        2 => (0u64..40).prop_map(Move::Wait),
    ];
    proptest::collection::vec(one, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_highest_epoch_speaks_and_is_told_of_once(moves in moves()) {
        let mut machine = SessionMachine::new(Timestamp::default(), config(16_000), &mut Vec::new());
        let mut now = Timestamp::default();
        let (mut highest, mut attached, mut received, mut left) = (0, None, 0, Timestamp::default());
        for step in moves {
            let mut out = Vec::new();
            match step {
                Move::Attach { epoch, last_final, have_from } => {
                    let (last_final, have_from) = (last_final.map(Segment), SourceOffset(have_from));
                    machine.handle(now, SessionEvent::Attach { epoch: Epoch(epoch), last_final, have_from }, &mut out);
                    // Nothing was decoded here, so no final was made.
                    let refusal = if epoch <= highest {
                        Some(AttachRefusal::Superseded)
                    } else if have_from.0 > received {
                        Some(AttachRefusal::Gap)
                    } else {
                        last_final.map(|_| AttachRefusal::UnknownFinal)
                    };
                    let mut expected = Vec::new();
                    match refusal {
                        Some(reason) => expected.push(SessionAction::RefuseAttach { epoch: Epoch(epoch), reason }),
                        None => {
                            expected.extend(attached.map(|epoch| SessionAction::Fence { epoch: Epoch(epoch) }));
                            (highest, attached) = (epoch, Some(epoch));
                            expected.push(SessionAction::Welcome {
                                epoch: Epoch(epoch),
                                have_until: SourceOffset(received),
                                resend_from: Segment(0),
                                finished: false,
                            });
                        }
                    }
                    prop_assert_eq!(out, expected);
                }
                Move::Detach(epoch) => {
                    machine.handle(now, SessionEvent::Detached { epoch: Epoch(epoch) }, &mut out);
                    if attached == Some(epoch) {
                        (attached, left) = (None, now);
                    }
                    prop_assert_eq!(out, []);
                }
                Move::Audio(frames) => {
                    machine.handle(now, SessionEvent::AudioReceived { frames }, &mut out);
                    received += frames;
                    prop_assert_eq!(machine.journal().received(), SourceOffset(received));
                }
                Move::Confirm(segment) => {
                    machine.handle(now, SessionEvent::Confirmed { segment: Segment(segment) }, &mut out);
                    prop_assert_eq!(out, [], "there is no final to be confirmed");
                }
                Move::Wait(seconds) => {
                    now = now.plus(Duration::from_secs(seconds));
                    machine.handle(now, SessionEvent::TimedOut, &mut out);
                    let over = attached.is_none() && now.since(left) >= Duration::from_secs(60);
                    let idle = out.iter().any(|action| matches!(action, SessionAction::End(Outcome::Failed(_))));
                    prop_assert_eq!(machine.is_over(), over || idle);
                    if machine.is_over() {
                        return Ok(());
                    }
                }
            }
            prop_assert_eq!(machine.attached(), attached.map(Epoch));
            prop_assert_eq!(machine.last_epoch(), Epoch(highest), "I5");
            prop_assert_eq!(machine.confirmed(), Segment(0));
        }
    }
}
