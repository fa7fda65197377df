//! What one tenant takes: sessions at once, sessions begun in a second, audio in a day.
//!
//! Owns: the counts of one tenant on one node. Must never: end what was admitted; a call that was taken is finished.

use std::time::Duration;

use crate::Timestamp;

/// Audio is counted over so long, from the first that is heard.
pub const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What a tenant may take; zero for as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TenantLimits {
    /// Sessions at once.
    pub sessions: u32,
    /// Sessions begun in a second, and as many at once after a quiet time.
    pub opens_per_second: u32,
    /// Audio in a day.
    pub audio_per_day: Duration,
}

/// Why a session is not begun. Nothing was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverQuota {
    /// As many as are allowed are open.
    Sessions {
        /// How many that is.
        limit: u32,
    },
    /// As many as are allowed in a second were begun.
    Opens {
        /// How many that is.
        limit: u32,
        /// When the next may be.
        retry_after: Duration,
    },
    /// A day's audio was heard.
    Audio {
        /// How much that is.
        limit: Duration,
        /// When the next day begins.
        retry_after: Duration,
    },
}

/// One tenant's counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TenantMachine {
    limits: TenantLimits,
    open: u32,
    /// When the next session would be due if they were begun evenly; as far ahead of now as a second's worth at most.
    next_open: Timestamp,
    /// Since when audio is counted, and how much was heard.
    day: Option<(Timestamp, Duration)>,
}

impl TenantMachine {
    /// A tenant that has taken nothing.
    #[must_use]
    pub fn new(limits: TenantLimits) -> Self {
        Self { limits, open: 0, next_open: Timestamp::default(), day: None }
    }

    /// From now on these are the limits. What is open stays open, and counts.
    pub const fn set_limits(&mut self, limits: TenantLimits) {
        self.limits = limits;
    }

    /// Sessions that are open.
    #[must_use]
    pub const fn open(&self) -> u32 {
        self.open
    }

    /// Whether a session could be begun now.
    ///
    /// # Errors
    /// Which limit forbids it.
    pub fn check(&self, now: Timestamp) -> Result<(), OverQuota> {
        let TenantLimits { sessions, opens_per_second, audio_per_day } = self.limits;
        if sessions > 0 && self.open >= sessions {
            return Err(OverQuota::Sessions { limit: sessions });
        }
        if let Some((since, heard)) = self.day
            && !audio_per_day.is_zero()
            && heard >= audio_per_day
            && now < since.plus(DAY)
        {
            let retry_after = since.plus(DAY).since(now);
            return Err(OverQuota::Audio { limit: audio_per_day, retry_after });
        }
        if opens_per_second > 0 {
            // The last of a second's worth may be begun as long as it is due within that second.
            let latest = now.plus(Duration::from_secs(1).saturating_sub(spacing(opens_per_second)));
            if self.next_open > latest {
                let retry_after = self.next_open.since(latest);
                return Err(OverQuota::Opens { limit: opens_per_second, retry_after });
            }
        }
        Ok(())
    }

    /// Begins a session.
    ///
    /// # Errors
    /// Which limit forbids it; nothing was counted then.
    pub fn admit(&mut self, now: Timestamp) -> Result<(), OverQuota> {
        self.check(now)?;
        self.open += 1;
        if self.limits.opens_per_second > 0 {
            self.next_open = self.next_open.max(now).plus(spacing(self.limits.opens_per_second));
        }
        Ok(())
    }

    /// A client comes back to a session that was admitted before: it counts, and is never refused.
    pub const fn readmit(&mut self) {
        self.open += 1;
    }

    /// A session's client is gone.
    pub const fn release(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Audio was heard.
    pub fn hear(&mut self, now: Timestamp, audio: Duration) {
        match &mut self.day {
            Some((since, heard)) if now < since.plus(DAY) => *heard = heard.saturating_add(audio),
            day => *day = Some((now, audio)),
        }
    }
}

fn spacing(per_second: u32) -> Duration {
    Duration::from_secs(1) / per_second
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_millis(ms))
    }

    #[test]
    fn sessions_at_once_are_limited_and_given_back() {
        let mut tenant = TenantMachine::new(TenantLimits { sessions: 2, ..TenantLimits::default() });
        assert_eq!((tenant.admit(at(0)), tenant.admit(at(0))), (Ok(()), Ok(())));
        assert_eq!(tenant.admit(at(0)), Err(OverQuota::Sessions { limit: 2 }));
        tenant.release();
        assert_eq!(tenant.admit(at(0)), Ok(()));
        tenant.readmit();
        assert_eq!(tenant.open(), 3, "who comes back is never refused");
        tenant.set_limits(TenantLimits::default());
        assert_eq!(tenant.admit(at(0)), Ok(()), "without limits there is none");
    }

    #[test]
    fn a_seconds_worth_may_come_at_once_and_then_evenly() {
        let mut tenant = TenantMachine::new(TenantLimits { opens_per_second: 4, ..TenantLimits::default() });
        for _ in 0..4 {
            assert_eq!(tenant.admit(at(5_000)), Ok(()));
        }
        let retry_after = Duration::from_millis(250);
        assert_eq!(tenant.admit(at(5_000)), Err(OverQuota::Opens { limit: 4, retry_after }));
        assert!(tenant.admit(at(5_249)).is_err());
        assert_eq!(tenant.admit(at(5_250)), Ok(()));
        assert!(tenant.admit(at(5_250)).is_err());
    }

    #[test]
    fn a_days_audio_is_counted_from_the_first() {
        let limits = TenantLimits { audio_per_day: Duration::from_secs(3_600), ..TenantLimits::default() };
        let mut tenant = TenantMachine::new(limits);
        tenant.hear(at(1_000), Duration::from_secs(3_599));
        assert_eq!(tenant.check(at(2_000)), Ok(()));
        tenant.hear(at(2_000), Duration::from_secs(2));
        let retry_after = DAY.saturating_sub(Duration::from_secs(9));
        let limit = limits.audio_per_day;
        assert_eq!(tenant.admit(at(10_000)), Err(OverQuota::Audio { limit, retry_after }));
        let tomorrow = at(1_000).plus(DAY);
        assert_eq!(tenant.check(tomorrow), Ok(()));
        tenant.hear(tomorrow, Duration::from_secs(1));
        assert_eq!(tenant.check(tomorrow), Ok(()));
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_twice_the_opens_and_no_moment_more_sessions(
            limit in 1u32..20,
            sessions in 1u32..8,
            moves in proptest::collection::vec((0u64..400, any::<bool>()), 0..200),
        ) {
            let limits = TenantLimits { sessions, opens_per_second: limit, ..TenantLimits::default() };
            let mut tenant = TenantMachine::new(limits);
            let (mut now, mut opened, mut open) = (0u64, Vec::new(), 0u32);
            for (pause, leaves) in moves {
                now += pause;
                if leaves && open > 0 {
                    open -= 1;
                    tenant.release();
                }
                if tenant.admit(at(now)).is_ok() {
                    open += 1;
                    opened.push(now);
                }
                prop_assert!(open <= sessions && tenant.open() == open);
                let recent = opened.iter().filter(|then| **then + 1_000 > now).count();
                prop_assert!(recent <= 2 * limit as usize, "{recent} in a second");
            }
        }
    }
}
