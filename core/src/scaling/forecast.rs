//! What the hour of the day and of the week lets expect.
//!
//! Arrivals are counted in quarters of an hour. Their number is forecast by exponential smoothing with two seasons, a day and a week,
//! and a correction by the last error (Taylor 2003, "Short-term electricity demand forecasting using double seasonal exponential
//! smoothing"), on the square roots of the counts: arrivals vary as their root does, and so the busiest hour counts no more than the
//! quietest (Brown et al. 2005, "Statistical analysis of a telephone call center"). There is no trend: what grows within weeks is
//! followed by the level. Arrivals times the mean time that sessions last are the sessions at once (Little's law), and two of its roots
//! beside leave few to wait (square-root staffing: Halfin and Whitt 1981).

use std::time::Duration;

use crate::Timestamp;

/// Arrivals are counted over so long. Short enough for the morning's rise, long enough that a few calls an hour make a number.
pub const BUCKET: Duration = Duration::from_secs(15 * 60);

/// Buckets of a day.
pub const DAY: usize = 24 * 4;

/// Buckets of a week.
pub const WEEK: usize = 7 * DAY;

/// So much of the last error goes into the level, the day and the week. Each bucket of a day is seen once a day: what is unlike
/// other days should show after a few. Those of a week are seldomer still, and go first: a Sunday is to say nothing of Monday.
const LEVEL: f64 = 0.01;
const OF_DAY: f64 = 0.15;
const OF_WEEK: f64 = 0.4;

/// So much of the last error is expected again: a busy quarter of an hour is followed by another.
const AGAIN: f64 = 0.5;

/// So much of the last session goes into the mean of their lengths: it follows within some fifty.
const OF_LENGTH: f64 = 0.02;

/// Roots of the load that are added to it. With two, one caller in forty waits where arrivals are as expected.
const ROOTS: f64 = 2.0;

/// Expected is at most so much of the most that was at once within a week: a forecast is a guess, and decoders cost money.
const MOST_EXPECTED: f64 = 1.5;

/// One model's callers, learnt.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    began: Timestamp,
    /// Full buckets that were seen.
    seen: u64,
    /// Arrivals in this one.
    count: u32,
    level: f64,
    day: Vec<f64>,
    week: Vec<f64>,
    error: f64,
    /// Mean length of sessions, in seconds.
    length: Option<f64>,
    /// Sessions at once, and the most of each of the last seven days and of this one.
    at_once: u32,
    most: [u32; 8],
}

impl Forecast {
    /// Nothing is known. The seasons are counted from here on; what the clock on the wall says does not matter.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            began: now,
            seen: 0,
            count: 0,
            level: 0.0,
            day: vec![0.0; DAY],
            week: vec![0.0; WEEK],
            error: 0.0,
            length: None,
            at_once: 0,
            most: [0; 8],
        }
    }

    /// A session began.
    pub fn arrived(&mut self, now: Timestamp) {
        self.pass(now);
        self.count = self.count.saturating_add(1);
        self.at_once = self.at_once.saturating_add(1);
        self.most[0] = self.most[0].max(self.at_once);
    }

    /// A session is over.
    pub fn ended(&mut self, now: Timestamp, lasted: Duration) {
        self.pass(now);
        self.at_once = self.at_once.saturating_sub(1);
        let lasted = lasted.as_secs_f64();
        self.length = Some(self.length.map_or(lasted, |mean| mean + OF_LENGTH * (lasted - mean)));
    }

    /// Ends the buckets that are over. After a week without any event nothing is known any more.
    pub fn pass(&mut self, now: Timestamp) {
        let over = bucket_of(now.since(self.began));
        if over.saturating_sub(self.seen) > WEEK as u64 {
            let at_once = self.at_once;
            *self = Self::new(now);
            self.at_once = at_once;
            return;
        }
        while self.seen < over {
            self.learn();
        }
    }

    /// Whether it has seen two days. Before that it expects nobody.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.seen >= 2 * DAY as u64
    }

    /// Decoders for those who are expected in this bucket and the next: that is time enough to start any.
    #[must_use]
    pub fn decoders(&self) -> u32 {
        let Some(length) = self.length.filter(|_| self.is_ready()) else { return 0 };
        let arrivals = self.arrivals(0).max(self.arrivals(1));
        let load = arrivals / BUCKET.as_secs_f64() * length;
        let most = f64::from(self.most.into_iter().max().unwrap_or_default()) * MOST_EXPECTED;
        // Below some thousand million, as counts are; not negative and no NaN, as squares and lengths are.
        (load + ROOTS * load.sqrt()).min(most).ceil() as u32
    }

    /// Arrivals expected in a bucket, `ahead` after the one that is under way.
    #[must_use]
    pub fn arrivals(&self, ahead: u32) -> f64 {
        let at = self.seen + u64::from(ahead);
        let again = self.error * AGAIN.powi(i32::try_from(ahead).unwrap_or(i32::MAX).saturating_add(1));
        let root = self.level + self.day[slot(at, DAY)] + self.week[slot(at, WEEK)] + again;
        root.max(0.0).powi(2)
    }

    /// When the bucket that is under way ends.
    #[must_use]
    pub fn bucket_ends(&self) -> Timestamp {
        let buckets = u32::try_from(self.seen + 1).unwrap_or(u32::MAX);
        self.began.plus(BUCKET.saturating_mul(buckets))
    }

    fn learn(&mut self) {
        let root = f64::from(self.count).sqrt();
        let (of_day, of_week) = (slot(self.seen, DAY), slot(self.seen, WEEK));
        let (day, week) = (self.day[of_day], self.week[of_week]);
        self.error = root - (self.level + day + week);
        if self.seen < DAY as u64 {
            self.day[of_day] = root;
        } else {
            self.level += LEVEL * (root - day - week - self.level);
            // A week says something that its days don't once they are known.
            if self.seen >= WEEK as u64 {
                self.week[of_week] += OF_WEEK * (root - self.level - day - week);
            }
            self.day[of_day] += OF_DAY * (root - self.level - self.week[of_week] - day);
        }
        self.seen += 1;
        self.count = 0;
        if self.seen == DAY as u64 {
            self.level = self.day.iter().sum::<f64>() / DAY as f64;
            self.day.iter_mut().for_each(|root| *root -= self.level);
        }
        if self.seen.is_multiple_of(DAY as u64) {
            self.most.rotate_right(1);
            self.most[0] = self.at_once;
        }
    }
}

const fn bucket_of(time: Duration) -> u64 {
    time.as_secs() / BUCKET.as_secs()
}

/// Which of a season's buckets.
const fn slot(bucket: u64, season: usize) -> usize {
    (bucket % season as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Callers in each bucket of a week: few at night, many at noon, none on Sundays.
    fn usual(bucket: u64) -> u32 {
        let (day, hour) = (bucket / DAY as u64 % 7, bucket % DAY as u64 / 4);
        match (day, hour) {
            (6, _) => 0,
            (_, 8..=17) => 36,
            (_, 6..=21) => 9,
            _ => 1,
        }
    }

    fn after(days: u64) -> Forecast {
        after_buckets(days * DAY as u64)
    }

    fn after_buckets(buckets: u64) -> Forecast {
        let begins = |bucket: u64| Timestamp(BUCKET * u32::try_from(bucket).expect("a few weeks"));
        let mut forecast = Forecast::new(Timestamp::default());
        for bucket in 0..buckets {
            for _ in 0..usual(bucket) {
                forecast.arrived(begins(bucket));
                forecast.ended(begins(bucket), Duration::from_secs(300));
            }
        }
        forecast.pass(begins(buckets));
        forecast
    }

    /// Arrivals expected at an hour of the day after `days`.
    fn at_hour(days: u64, hour: u32) -> f64 {
        let mut forecast = after(days);
        forecast.error = 0.0;
        forecast.arrivals(hour * 4 + 2)
    }

    #[test]
    fn it_expects_nobody_for_two_days_then_as_the_day_before_then_as_the_week_before() {
        assert!(!after(1).is_ready());
        assert_eq!(after(1).decoders(), 0);
        assert!(after(2).is_ready());
        for (days, hour, expected) in [(2, 3, 1.0), (2, 7, 9.0), (2, 12, 36.0), (5, 12, 36.0)] {
            let arrivals = at_hour(days, hour);
            assert!((arrivals.sqrt() - f64::sqrt(expected)).abs() < 1.0, "{days} {hour}: {arrivals}");
        }
        // The first Sunday surprises it, the fifth does not, nor the Monday after.
        assert!(at_hour(6, 12) > 25.0);
        assert!(at_hour(6 + 4 * 7, 12) < 6.0, "{}", at_hour(6 + 4 * 7, 12));
        assert!(at_hour(4 * 7, 12) > 25.0, "{}", at_hour(4 * 7, 12));
    }

    #[test]
    fn arrivals_and_lengths_make_decoders_within_what_was_seen() {
        let mut forecast = after_buckets(3 * DAY as u64 + 48);
        // 36 in a quarter of an hour, each 5 minutes, are 12 at once: 12 and two roots of it. But one at once was the most here.
        assert_eq!(forecast.decoders(), 2);
        forecast.most[1] = 30;
        let decoders = forecast.decoders();
        assert!((12..=22).contains(&decoders), "{decoders}");
    }

    proptest! {
        #[test]
        fn it_stays_a_number_whatever_comes(steps in proptest::collection::vec((0u64..200_000, 0u32..50, 0u64..100_000), 1..80)) {
            let mut forecast = Forecast::new(Timestamp::default());
            let mut now = Timestamp::default();
            for (wait, callers, lasted) in steps {
                now = now.plus(Duration::from_secs(wait));
                (0..callers).for_each(|_| forecast.arrived(now));
                forecast.ended(now, Duration::from_secs(lasted));
                for ahead in [0, 1, 700] {
                    let arrivals = forecast.arrivals(ahead);
                    prop_assert!(arrivals.is_finite() && arrivals >= 0.0, "{arrivals}");
                }
                let most = forecast.most.into_iter().max().unwrap_or_default();
                prop_assert!(forecast.decoders() <= most + most / 2 + 1);
                prop_assert!(forecast.bucket_ends() > now);
            }
        }
    }
}
