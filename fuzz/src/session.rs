//! A session's machine between a client and decoders, neither of which has to keep to anything.
//!
//! Owns: what bytes mean as a course of events. [`world`] owns what has to hold. Must never: judge.

mod world;

use std::time::Duration;

use starling_core::audio::RateMap;
use starling_core::session::{LossCause, SessionConfig, SessionEvent};
use starling_protocol::{Attempt, CutCause, DecodeOffset, Epoch, Segment, SourceOffset};

use world::{Who, World};

/// Events that are looked at: more of them lead nowhere that fewer do not.
const MOST_EVENTS: usize = 1_000;

const CAUSES: [LossCause; 9] = [
    LossCause::Killed,
    LossCause::Crashed { suspect: true },
    LossCause::Crashed { suspect: false },
    LossCause::Stuck { suspect: true },
    LossCause::Stuck { suspect: false },
    LossCause::EngineFailed,
    LossCause::Silent,
    LossCause::Protocol,
    LossCause::NodeLost,
];

const CUTS: [CutCause; 7] = [
    CutCause::Endpoint,
    CutCause::Pause,
    CutCause::Length,
    CutCause::NoSpeech,
    CutCause::Finalize,
    CutCause::End,
    CutCause::GivenUp,
];

/// The session's settings in two bytes, then its events, four bytes each: which, and three of what they say.
pub fn session_machine(data: &[u8]) {
    let (settings, events) = data.split_at(data.len().min(2));
    let cut_first = settings.last().is_none_or(|others| others / 128 == 0);
    let mut world = World::new(config(settings), cut_first);
    for event in events.as_chunks::<4>().0.iter().take(MOST_EVENTS) {
        step(&mut world, *event);
        if world.machine.is_over() {
            return;
        }
    }
    world.settle();
}

fn config(settings: &[u8]) -> SessionConfig {
    let [rates, others] = *settings else { return config(&[0, 0]) };
    let source = [16_000, 8_000, 44_100, 48_000, 11_025][usize::from(rates % 5)];
    let decode = [16_000, 8_000][usize::from(rates / 5 % 2)];
    SessionConfig {
        rates: RateMap::new(source, decode).expect("in range"),
        window: [20, 8, 2, 1][usize::from(others % 4)],
        partial_interval_ms: 200,
        decoded_interval_ms: u32::from(others / 64 % 2) * 400,
        linger: Duration::from_secs(u64::from(others / 4 % 2) * 60),
        idle: Duration::from_secs(u64::from(others / 8 % 2) * 300),
        slow_reader: Duration::from_secs(30),
        unconfirmed_max: [64, 2][usize::from(others / 16 % 2)],
        standby: others / 32 % 2 == 1,
    }
}

/// A number near another, or none that anybody would say.
fn number(near: u64, choice: u8, far: u8) -> u64 {
    match choice % 8 {
        0 => near,
        1 => near.saturating_add(1),
        2 => near.saturating_sub(1),
        3 => near.saturating_add(u64::from(far) * 160),
        4 => near.saturating_sub(u64::from(far) * 160),
        5 => u64::from(far),
        6 => u64::MAX >> (far % 64),
        _ => u64::MAX - u64::from(far),
    }
}

/// Whom a decoder's word comes from.
fn who(choice: u8) -> Who {
    match choice % 8 {
        0..=2 => Who::First,
        3 | 4 => Who::Standby,
        5 => Who::Gone,
        _ => Who::Other(Attempt(u32::from(choice / 8))),
    }
}

fn step(world: &mut World, [kind, a, b, c]: [u8; 4]) {
    match kind % 24 {
        0 | 1 => {
            let frames = u64::from(u16::from_le_bytes([a, b])) << (c % 4);
            world.hear(frames);
        }
        2 => world.send(SessionEvent::FinalizeRequested),
        3 => world.send(SessionEvent::EndRequested),
        4 | 5 => {
            let segment = Segment(number(world.machine.open_segment().0.saturating_sub(1), a, b));
            world.send(SessionEvent::Confirmed { segment });
        }
        6 => {
            let last_final = number(world.machine.confirmed().0, b, b / 8);
            let have_from = number(world.machine.final_end().0, c, c / 8);
            world.send(SessionEvent::Attach {
                // The node makes these and not the client; the last ones are never reached.
                epoch: Epoch(number(world.machine.last_epoch().0, a, a / 8).min(1 << 40)),
                last_final: last_final.checked_sub(1).map(Segment),
                have_from: SourceOffset(have_from),
            });
        }
        7 => world.come_back(),
        8 => {
            let epoch = Epoch(number(world.machine.last_epoch().0, a, b));
            world.send(SessionEvent::Detached { epoch });
        }
        9 | 10 => world.grant(Who::First),
        11 => world.grant(who(a)),
        12 | 13 => world.decode(Who::First, a % 32),
        14 => world.decode(Who::Standby, a % 32),
        15 => world.cut_here(if a % 2 == 0 { Who::First } else { Who::Standby }, CUTS[usize::from(b % 4)]),
        16 => world.lose(who(a), CAUSES[usize::from(b) % CAUSES.len()]),
        17 => world.say(who(a), |attempt, _| SessionEvent::LeaseRetiring { attempt }),
        18 => world.lie(who(a), |attempt, known| SessionEvent::Decoded {
            attempt,
            until: DecodeOffset(number(known.given.0, b, c)),
        }),
        19 => world.lie(who(a), |attempt, known| SessionEvent::PartialHeard {
            attempt,
            segment: Segment(number(known.segment.0, b / 8, c)),
            until: DecodeOffset(number(known.given.0, b, c)),
        }),
        20 => world.lie(who(a), |attempt, known| SessionEvent::SegmentCut {
            attempt,
            segment: Segment(number(known.segment.0, if b.is_multiple_of(4) { b / 4 } else { 0 }, c)),
            from: DecodeOffset(number(known.from.0, if b % 4 == 1 { b / 4 } else { 0 }, c)),
            to: DecodeOffset(number(known.given.0, b / 4, c)),
            cause: CUTS[usize::from(c) % CUTS.len()],
        }),
        21 => world.say(who(a), |attempt, _| SessionEvent::OptionsRefused { attempt }),
        22 => {
            let after = Duration::from_millis(u64::from(u16::from_le_bytes([a, b])));
            world.wait(if c % 8 == 7 { None } else { Some(after) });
        }
        _ => match a % 16 {
            0 => world.send(SessionEvent::Abandoned),
            1 => world.send(SessionEvent::Superseded),
            2 => world.send(SessionEvent::ShutDown),
            _ => world.move_to_another_node(),
        },
    }
}
