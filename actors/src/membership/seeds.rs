//! Finding others to join by: which addresses to ask, and when to ask again.

use std::net::SocketAddr;
use std::time::Duration;

use starling_core::Timestamp;

/// The first repetition of an announcement that nobody answered.
const FIRST_RETRY: Duration = Duration::from_millis(200);

/// The longest time between two while we are alone.
const LAST_RETRY: Duration = Duration::from_secs(5);

/// The time between two to seeds that are not members while others are: two islands that grew apart find each other by it.
const WHILE_JOINED: Duration = Duration::from_secs(10);

/// Addresses of one look-up that are used. A headless service names each of its nodes.
const MOST_ADDRESSES: usize = 64;

/// Looking up a name takes no longer.
const LOOK_UP: Duration = Duration::from_secs(2);

/// When to announce ourselves.
pub(super) struct Announcing {
    at: Timestamp,
    backoff: Duration,
}

impl Announcing {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { at: now, backoff: FIRST_RETRY }
    }

    /// Whether it is time; if so, the next time is set. `jitter` is from 0 to 1.
    pub(super) fn is_due(&mut self, now: Timestamp, alone: bool, jitter: f64) -> bool {
        if now < self.at {
            return false;
        }
        // Nodes that lost each other at once must not all ask at once.
        let spread = 0.75 + jitter / 2.0;
        self.at = if alone {
            let wait = self.backoff;
            self.backoff = (self.backoff * 2).min(LAST_RETRY);
            now.plus(wait.mul_f64(spread))
        } else {
            self.backoff = FIRST_RETRY;
            now.plus(WHILE_JOINED.mul_f64(spread))
        };
        true
    }

    /// Something happened that makes an answer likely, or necessary.
    pub(super) const fn at_once(&mut self, now: Timestamp) {
        *self = Self::new(now);
    }
}

/// The addresses of all seeds, as they are now. Names that can't be looked up are passed over: they may exist later.
pub(super) async fn look_up(seeds: &[String]) -> Vec<SocketAddr> {
    let found = futures_util::future::join_all(seeds.iter().map(|seed| look_up_one(seed))).await;
    let mut addresses = found.concat();
    addresses.truncate(MOST_ADDRESSES);
    addresses
}

async fn look_up_one(seed: &str) -> Vec<SocketAddr> {
    if let Ok(address) = seed.parse() {
        return vec![address];
    }
    match tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(seed)).await {
        Ok(Ok(found)) => return found.take(MOST_ADDRESSES).collect(),
        Ok(Err(error)) => tracing::debug!(seed, %error, "a seed cannot be looked up"),
        Err(_) => tracing::debug!(seed, "looking up a seed takes longer than {LOOK_UP:?}"),
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_get_rarer_while_alone_and_start_over_when_something_happens() {
        let at = |ms| Timestamp(Duration::from_millis(ms));
        let mut announcing = Announcing::new(at(0));
        let mut asked = Vec::new();
        for ms in 0..20_000 {
            if announcing.is_due(at(ms), true, 0.5) {
                asked.push(ms);
            }
        }
        assert_eq!(asked, [0, 200, 600, 1_400, 3_000, 6_200, 11_200, 16_200]);
        announcing.at_once(at(20_000));
        assert!(announcing.is_due(at(20_000), true, 0.0));
        assert!(announcing.is_due(at(20_150), false, 0.0));
        assert!(!announcing.is_due(at(27_000), false, 0.0));
        assert!(announcing.is_due(at(27_650), false, 0.0));
    }

    #[tokio::test]
    async fn addresses_are_taken_as_they_are_and_names_that_do_not_exist_are_passed_over() {
        let seeds = ["127.0.0.1:7400", "no-such-host.invalid:1", "[::1]:7401"].map(str::to_owned);
        let expected: Vec<SocketAddr> =
            ["127.0.0.1:7400", "[::1]:7401"].iter().map(|text| text.parse().expect("an address")).collect();
        assert_eq!(look_up(&seeds).await, expected);
    }
}
