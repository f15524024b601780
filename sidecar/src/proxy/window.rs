//! Counts of the last while, in ten slots that expire one after the other.

use std::time::Duration;
use tokio::time::Instant;

const SLOTS: usize = 10;

/// How many there were within a window, and how many of them were of one kind.
#[derive(Debug)]
pub(super) struct Window {
    begin: Instant,
    slot: Duration,
    /// Number of the newest slot since `begin`.
    newest: u64,
    slots: [Counts; SLOTS],
    sum: Counts,
}

/// What is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) all: u64,
    pub(super) marked: u64,
}

impl Window {
    /// A window of `length`, which ends now and ever after.
    pub(super) fn new(length: Duration, now: Instant) -> Self {
        let slots = u32::try_from(SLOTS).unwrap_or(u32::MAX);
        Self {
            begin: now,
            slot: (length / slots).max(Duration::from_nanos(1)),
            newest: 0,
            slots: [Counts::default(); SLOTS],
            sum: Counts::default(),
        }
    }

    /// What was counted within the window that ends at `now`.
    pub(super) fn counts(&mut self, now: Instant) -> Counts {
        self.advance(now);
        self.sum
    }

    /// Counts `more` at `now`.
    pub(super) fn count(&mut self, more: Counts, now: Instant) -> Counts {
        self.advance(now);
        if let Some(slot) = self.slots.get_mut(place(self.newest)) {
            slot.all += more.all;
            slot.marked += more.marked;
            self.sum.all += more.all;
            self.sum.marked += more.marked;
        }
        self.sum
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.slots = [Counts::default(); SLOTS];
        self.sum = Counts::default();
    }

    fn advance(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.begin).as_nanos();
        let newest = u64::try_from(since / self.slot.as_nanos().max(1)).unwrap_or(u64::MAX);
        // Of two threads, the one that looked at the clock earlier may come later.
        let passed = newest.saturating_sub(self.newest);
        if passed >= SLOTS as u64 {
            self.clear();
        } else {
            for number in self.newest + 1..=newest {
                if let Some(slot) = self.slots.get_mut(place(number)) {
                    let expired = std::mem::take(slot);
                    self.sum.all -= expired.all;
                    self.sum.marked -= expired.marked;
                }
            }
        }
        self.newest = self.newest.max(newest);
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number % SLOTS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_forgotten_after_the_window() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut window = Window::new(Duration::from_secs(1), begin);
        let one = |marked| Counts { all: 1, marked };
        window.count(one(1), at(0));
        window.count(one(0), at(150));
        assert_eq!(window.count(one(1), at(950)), Counts { all: 3, marked: 2 });
        assert_eq!(window.counts(at(999)), Counts { all: 3, marked: 2 });
        assert_eq!(window.counts(at(1_000)), Counts { all: 2, marked: 1 });
        // A clock that was looked at earlier.
        assert_eq!(window.count(one(0), at(500)), Counts { all: 3, marked: 1 });
        assert_eq!(window.counts(at(1_100)), Counts { all: 2, marked: 1 });
        assert_eq!(window.counts(at(1_000_000)), Counts::default());
        window.count(one(1), at(1_000_001));
        window.clear();
        assert_eq!(window.counts(at(1_000_002)), Counts::default());
    }
}
