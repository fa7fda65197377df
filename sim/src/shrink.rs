//! Makes what fails smaller: faults that are not needed are left out, and those that are last no longer than they must.

use anyhow::Result;
use starling_sim::plan::{Fault, Schedule};

use crate::level::Level;
use crate::many::{Came, Which, one};

/// What does not hold, by its first word: another fault of the product is not to take the place of the one that was found.
pub(crate) fn what(said: &str) -> Option<&str> {
    let violation = said.lines().find_map(|line| line.strip_prefix("violation "));
    violation.and_then(|violation| violation.split([' ', ':']).next())
}

/// The least of a schedule with which the same does not hold.
pub(crate) fn shrink<L: Level>(
    which: Which<L::Kind>,
    schedule: &Schedule<L::Kind>,
    came: &Came,
) -> Result<Schedule<L::Kind>> {
    let wanted = what(&came.said).map(str::to_owned);
    let fails = |faults: &[Fault<L::Kind>]| -> Result<bool> {
        let came = one::<L>(which, Some(&Schedule(faults.to_vec())))?;
        Ok(!came.well && what(&came.said).map(str::to_owned) == wanted)
    };
    let mut faults = schedule.0.clone();
    // Halves first, then ever smaller parts (Zeller's delta debugging).
    let mut part = faults.len().div_ceil(2).max(1);
    while !faults.is_empty() {
        let mut smaller = None;
        for start in (0..faults.len()).step_by(part) {
            let rest: Vec<Fault<L::Kind>> =
                [&faults[..start], &faults[(start + part).min(faults.len())..]].concat();
            if fails(&rest)? {
                smaller = Some(rest);
                break;
            }
        }
        match smaller {
            Some(rest) => faults = rest,
            None if part == 1 => break,
            None => part = part.div_ceil(2),
        }
        part = part.min(faults.len().max(1));
    }
    for index in 0..faults.len() {
        while faults[index].for_ms > 100 {
            let mut shorter = faults.clone();
            shorter[index].for_ms /= 2;
            if !fails(&shorter)? {
                break;
            }
            faults = shorter;
        }
    }
    Ok(Schedule(faults))
}
