//! The policy by tables, and by whatever may happen.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp(Duration::from_secs(seconds))
}

const CONFIG: ScalingConfig = ScalingConfig {
    idle_target: 5,
    min: 2,
    max: 20,
    cooldown: Duration::from_secs(100),
    check_interval: Duration::from_secs(60),
    predictive: false,
};

fn demand(busy: u32, waiting: u32, reserve: u32) -> ScalingEvent {
    ScalingEvent::Demanded(Demand { busy, waiting, reserve })
}

#[test]
fn more_at_once_fewer_after_the_cooldown_and_at_a_check() {
    use ScalingReason::{Cooldown, Demand, Maximum};
    let mut machine = ScalingMachine::new(at(0), CONFIG);
    assert_eq!(machine.current(), Scale { desired: 5, reason: Demand });
    let steps = [
        (1, demand(1, 0, 0), Some((6, Demand))),
        (2, demand(3, 2, 1), Some((11, Demand))),
        (3, demand(30, 0, 1), Some((20, Maximum))),
        (10, demand(2, 0, 0), None),
        // At the check it is not long enough ago, and later it is no check.
        (60, ScalingEvent::TimedOut, None),
        (110, ScalingEvent::TimedOut, None),
        (120, ScalingEvent::TimedOut, Some((7, Demand))),
        (121, demand(1, 0, 0), None),
    ];
    for (second, event, expected) in steps {
        let mut out = Vec::new();
        machine.handle(at(second), event, &mut out);
        let expected = expected.map(|(desired, reason)| Scale { desired, reason });
        assert_eq!(out, Vec::from_iter(expected), "at {second} s");
        assert_eq!(machine.check(), Ok(()));
    }
    assert_eq!(machine.current(), Scale { desired: 7, reason: Cooldown });
    assert_eq!(machine.next_timeout(), Some(at(221)));
}

#[test]
fn fewer_are_found_by_its_own_timer_whatever_is_told_meanwhile() {
    let mut machine = ScalingMachine::new(at(0), CONFIG);
    let mut out = Vec::new();
    machine.handle(at(1), demand(9, 0, 0), &mut out);
    machine.handle(at(2), demand(0, 0, 0), &mut out);
    machine.handle(at(60), ScalingEvent::TimedOut, &mut out);
    // The cooldown is over now, and it is no check.
    machine.handle(at(110), demand(0, 0, 0), &mut out);
    assert_eq!((machine.current().desired, machine.next_timeout()), (14, Some(at(120))));
    machine.handle(at(120), ScalingEvent::TimedOut, &mut out);
    assert_eq!((machine.current().desired, machine.next_timeout()), (5, None));
}

#[test]
fn bounds_win_and_the_largest_wins_over_the_least() {
    let idle = ScalingConfig { idle_target: 0, ..CONFIG };
    let machine = ScalingMachine::new(at(0), idle);
    assert_eq!(machine.current(), Scale { desired: 2, reason: ScalingReason::Minimum });
    let odd = ScalingConfig { min: 9, max: 4, ..CONFIG };
    assert_eq!(ScalingMachine::new(at(0), odd).current().desired, 4);
}

#[test]
fn who_is_expected_is_there_before_they_come() {
    let config = ScalingConfig { predictive: true, max: 100, idle_target: 1, ..CONFIG };
    let mut machine = ScalingMachine::new(at(0), config);
    let mut out = Vec::new();
    // Each day at ten 40 callers come within half an hour and stay for ten minutes.
    for day in 0..4 {
        for minute in (0..1_440).step_by(5) {
            let now = at(day * 86_400 + minute * 60);
            let busy = if (600..630).contains(&minute) { 13 } else { 0 };
            machine.handle(now, demand(busy, 0, 0), &mut out);
            if (600..630).contains(&minute) {
                for _ in 0..7 {
                    machine.handle(now, ScalingEvent::Arrived, &mut out);
                }
            }
            if (610..640).contains(&minute) {
                for _ in 0..7 {
                    machine.handle(now, ScalingEvent::Ended { lasted: Duration::from_secs(600) }, &mut out);
                }
            }
            machine.handle(now, ScalingEvent::TimedOut, &mut out);
            assert_eq!(machine.check(), Ok(()));
            if minute == 590 {
                let ready = machine.current();
                match day {
                    0 | 1 => assert_eq!(ready.desired, 2, "it has no data"),
                    _ => assert!(ready.desired >= 8, "{ready:?} on day {day}"),
                }
            }
        }
    }
}

proptest! {
    /// Never too few, never beyond the bounds, fewer only when nothing asked for more within the cooldown, and a timeout that comes
    /// too early or twice changes nothing.
    #[test]
    fn whatever_happens(
        steps in proptest::collection::vec((0u64..90, 0u8..4, (0u32..12, 0u32..4, 0u32..3)), 1..120),
        predictive in any::<bool>(),
    ) {
        let config = ScalingConfig { predictive, ..CONFIG };
        let mut machine = ScalingMachine::new(at(0), config);
        let mut needed = vec![(at(0), 5)];
        let mut now = at(0);
        for (wait, kind, (busy, waiting, reserve)) in steps {
            now = now.plus(Duration::from_secs(wait));
            let event = match kind {
                0 => demand(busy, waiting, reserve),
                1 => ScalingEvent::Arrived,
                2 => ScalingEvent::Ended { lasted: Duration::from_secs(wait) },
                _ => ScalingEvent::TimedOut,
            };
            let (before, mut out) = (machine.current(), Vec::new());
            machine.handle(now, event, &mut out);
            prop_assert_eq!(machine.check(), Ok(()));
            needed.push((now, machine.needed()));
            let desired = machine.current().desired;
            prop_assert_eq!(out.last().map_or(before.desired, |scale| scale.desired), desired);
            if desired < before.desired {
                let within = needed.windows(2).filter(|pair| now.since(pair[1].0) < config.cooldown).map(|pair| pair[0].1);
                prop_assert!(within.max().unwrap_or_default() <= desired.max(config.min) || desired == config.max);
            }
            let mut again = Vec::new();
            machine.handle(now, ScalingEvent::TimedOut, &mut again);
            prop_assert_eq!(again, vec![]);
        }
        // Left alone it comes down by its own timer.
        while let Some(at) = machine.next_timeout().filter(|at| *at < now.plus(Duration::from_secs(600))) {
            machine.handle(at, ScalingEvent::TimedOut, &mut Vec::new());
        }
        if !predictive {
            prop_assert_eq!(machine.current().desired, machine.needed().clamp(config.min, config.max));
        }
    }
}
