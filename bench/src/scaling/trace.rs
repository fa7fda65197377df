//! When callers come and how long they stay.
//!
//! The traces here are made up, from a seed: calls that come independently of each other at a rate that changes, and last an
//! exponentially distributed time, as calls to contact centres about do. A recorded one can be read from a file.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A call: when it begins, and how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) begins: Duration,
    pub(crate) lasts: Duration,
}

/// Calls in the order they come.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) calls: Vec<Call>,
    /// Until when they come.
    pub(crate) lasts: Duration,
    /// From when on a policy is judged: what it has to learn first is not its fault.
    pub(crate) judged_from: Duration,
}

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3_600.0;
const DAY: f64 = 24.0 * HOUR;

/// Mean length of a call.
const MEAN: f64 = 4.0 * MINUTE;

/// All that are made up. Each has a past that the forecast can learn from, though not always what comes.
pub(crate) fn synthetic(quick: bool) -> Vec<Trace> {
    let weeks = if quick { 2.0 } else { 4.0 };
    vec![
        made("day", 1, 5.0 * DAY, 3.0 * DAY, day),
        made("week", 2, weeks * 7.0 * DAY, (weeks - 1.0) * 7.0 * DAY, week),
        made("burst", 3, 5.0 * DAY, 3.0 * DAY, burst),
        made("ramp", 4, 5.0 * DAY, 3.0 * DAY, ramp),
    ]
}

/// Callers at once by the hour of each day: 40 at noon, one at night.
fn day(at: f64) -> f64 {
    let hour = (at % DAY) / HOUR;
    // Lunch is a little quieter.
    let lunch = 1.0 - 0.25 * (-((hour - 12.5) / 0.7).powi(2)).exp();
    1.0 + 39.0 * (-((hour - 13.0) / 4.0).powi(4)).exp() * lunch
}

/// The same for five days, few callers on the sixth and hardly any on the seventh.
fn week(at: f64) -> f64 {
    let by_day = match (at / DAY) as u64 % 7 {
        5 => 0.3,
        6 => 0.05,
        _ => 1.0,
    };
    1.0 + by_day * (day(at) - 1.0)
}

/// Two callers; now and then, and at no hour twice, 60 more within two minutes.
fn burst(at: f64) -> f64 {
    let since = at % (7.1 * HOUR) - 5.0 * HOUR;
    if (0.0..2.0 * MINUTE).contains(&since) { 60.0 * MEAN / (2.0 * MINUTE) } else { 2.0 }
}

/// Each day from nobody to 60 at once within two hours, as many for an hour, and back.
fn ramp(at: f64) -> f64 {
    let at = at % DAY - 8.0 * HOUR;
    let up = (at / (2.0 * HOUR)).clamp(0.0, 1.0);
    let down = ((5.0 * HOUR - at) / (2.0 * HOUR)).clamp(0.0, 1.0);
    60.0 * up.min(down)
}

/// `at_once` callers in the mean at each second.
fn made(name: &str, seed: u64, lasts: f64, judged_from: f64, at_once: fn(f64) -> f64) -> Trace {
    let mut random = Random(seed);
    // No rate is higher: candidates come at it, and as many are left out as the rate is lower at the time.
    let most = (0..(lasts / MINUTE) as u64).map(|minute| at_once(minute as f64 * MINUTE)).fold(1.0, f64::max);
    let (mut at, mut calls) = (0.0, Vec::new());
    loop {
        at += random.exponential(MEAN / most);
        if at >= lasts {
            break;
        }
        let length = random.exponential(MEAN).max(1.0);
        if random.unit() * most < at_once(at) {
            calls.push(Call { begins: Duration::from_secs_f64(at), lasts: Duration::from_secs_f64(length) });
        }
    }
    Trace {
        name: format!("{name} (made up)"),
        calls,
        lasts: Duration::from_secs_f64(lasts),
        judged_from: Duration::from_secs_f64(judged_from),
    }
}

/// A recorded trace: a line for each call with the second it began and the seconds it lasted, a comma between; other lines are a
/// heading at most.
pub(crate) fn recorded(path: &Path) -> Result<Trace> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut calls = read(&text).with_context(|| format!("in {}", path.display()))?;
    calls.sort_unstable();
    let lasts = calls.last().map_or(Duration::ZERO, |call| call.begins);
    let name = format!("{} (recorded)", path.file_name().unwrap_or_default().to_string_lossy());
    Ok(Trace { name, calls, lasts, judged_from: lasts / 2 })
}

fn read(text: &str) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parts = line.split_once(',').map(|(begins, lasts)| (begins.trim().parse(), lasts.trim().parse()));
        match parts {
            Some((Ok(begins), Ok(lasts))) => {
                let time = |seconds: f64| Duration::try_from_secs_f64(seconds);
                let (begins, lasts) = (time(begins), time(lasts));
                let (Ok(begins), Ok(lasts)) = (begins, lasts) else {
                    bail!("line {}: {line:?} has a time that can't be", number + 1);
                };
                calls.push(Call { begins, lasts });
            }
            _ if number == 0 => {}
            _ => bail!("line {}: {line:?} is not two numbers of seconds with a comma between", number + 1),
        }
    }
    Ok(calls)
}

/// SplitMix64 (Steele, Lea and Flood 2014): the same calls in every run.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The upper 53 bits are as many as a number between 0 and 1 has.
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_at_once_are_as_many_as_the_pattern_says() {
        let trace = made("week", 1, 7.0 * DAY, 0.0, week);
        let at_once = |hour: f64| {
            let at = Duration::from_secs_f64(hour * HOUR);
            trace.calls.iter().filter(|call| call.begins <= at && at < call.begins + call.lasts).count()
        };
        assert!(at_once(3.0) < 6, "{}", at_once(3.0));
        assert!((20..65).contains(&at_once(15.0)), "{}", at_once(15.0));
        assert!(at_once(6.0 * 24.0 + 15.0) < 12);
        assert!(trace.calls.is_sorted_by_key(|call| call.begins));
    }

    #[test]
    fn a_recording_has_a_heading_or_none_and_its_faults_are_named() {
        let call =
            |begins, lasts| Call { begins: Duration::from_secs(begins), lasts: Duration::from_secs(lasts) };
        let calls = read("begins_s,lasts_s\n0,60\n\n 1.0 , 2 \n").expect("is a trace");
        assert_eq!(calls, [call(0, 60), call(1, 2)]);
        assert_eq!(read("5,6").expect("is a trace"), [call(5, 6)]);
        assert!(read("0,1\nfive,6").expect_err("is none").to_string().starts_with("line 2"));
        assert!(read("0,-1").expect_err("is none").to_string().contains("can't be"));
    }
}
