//! How fast one connection is read.
//!
//! Nothing is refused: what is not read waits in the kernel, and then at its sender.

use std::time::{Duration, Instant};

/// How much may come at once.
const BURST: Duration = Duration::from_secs(1);

/// So many messages a second, and a second's worth at once.
#[derive(Debug)]
pub(super) struct Pace {
    each: Duration,
    /// When the next one would be due if all came evenly.
    due: Instant,
}

impl Pace {
    /// A pace that nothing was read at yet.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            each: Duration::from_secs(1) / per_second.max(1),
            due: Instant::now(),
        }
    }

    /// After each message; returns when the next may be read.
    pub(super) async fn wait(&mut self) {
        let over = self.over(Instant::now());
        if !over.is_zero() {
            tokio::time::sleep(over).await;
        }
    }

    /// How long after `now`, when a message was read, the next may be.
    fn over(&mut self, now: Instant) -> Duration {
        self.due = self.due.max(now) + self.each;
        let ahead = self.due.saturating_duration_since(now);
        ahead.saturating_sub(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let mut pace = Pace::new(10);
        let now = Instant::now();
        for _ in 0..10 {
            assert_eq!(pace.over(now), Duration::ZERO);
        }
        assert_eq!(pace.over(now), Duration::from_millis(100));
        assert_eq!(pace.over(now), Duration::from_millis(200));
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.over(later), Duration::ZERO);
    }
}
