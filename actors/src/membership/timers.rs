//! Timers of the membership protocol, which stand still while this process does.

use std::collections::BTreeMap;
use std::time::Duration;

use starling_core::Timestamp;

/// A timer that is later than this shows that we were not running. Whoever did not answer meanwhile is not to blame: the
/// answer lies unread in the socket.
const LATE: Duration = Duration::from_millis(100);

/// How long packets that came meanwhile are read before anybody is judged.
const READ_FIRST: Duration = Duration::from_millis(50);

pub(super) struct Timers<T> {
    queue: BTreeMap<(Timestamp, u64), T>,
    next: u64,
    just_moved: bool,
}

impl<T> Timers<T> {
    pub(super) const fn new() -> Self {
        Self { queue: BTreeMap::new(), next: 0, just_moved: false }
    }

    pub(super) fn add(&mut self, at: Timestamp, timer: T) {
        self.queue.insert((at, self.next), timer);
        self.next += 1;
    }

    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next timer that is due, in their order.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<T> {
        let at = self.next_at()?;
        if at > now {
            return None;
        }
        // Not twice in a row: on a machine that is always late nobody would ever be judged.
        if now.since(at) > LATE && !self.just_moved {
            self.move_by(now.since(at) + READ_FIRST);
            return None;
        }
        self.just_moved = false;
        self.queue.pop_first().map(|(_, timer)| timer)
    }

    fn move_by(&mut self, by: Duration) {
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue.into_iter().map(|((at, number), timer)| ((at.plus(by), number), timer)).collect();
        self.just_moved = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp(Duration::from_millis(ms))
    }

    #[test]
    fn timers_come_in_the_order_of_their_times_and_equal_ones_in_that_of_their_making() {
        let mut timers = Timers::new();
        for (when, name) in [(30, 'c'), (10, 'a'), (10, 'b')] {
            timers.add(at(when), name);
        }
        assert_eq!(timers.pop(at(9)), None);
        let popped: Vec<_> = std::iter::from_fn(|| timers.pop(at(30))).collect();
        assert_eq!(popped, ['a', 'b', 'c']);
    }

    #[test]
    fn a_pause_moves_all_of_them_but_not_twice_in_a_row() {
        let mut timers = Timers::new();
        timers.add(at(100), 'a');
        timers.add(at(700), 'b');
        assert_eq!(timers.pop(at(5_000)), None, "4.9 s of pause");
        assert_eq!(timers.next_at(), Some(at(5_050)));
        assert_eq!(timers.pop(at(5_400)), Some('a'), "late again, and judged all the same");
        assert_eq!(timers.pop(at(5_649)), None);
        assert_eq!(timers.pop(at(5_650)), Some('b'));
    }
}
