//! The clock by which deadlines are kept: the wall clock at start, and monotonic time from there.
//!
//! Whoever sets the machine's clock while a task runs neither ends it early nor keeps it for ever. Another
//! replica's clock may show another time: deadlines are [moved](crate::store::RunRecord::rebase) when a run
//! is taken over.

use mesh_protocol::Timestamp;
use tokio::time::Instant;

/// A clock that nobody sets.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Timestamp,
    at: Instant,
}

impl Clock {
    /// A clock that shows the wall clock's time now.
    pub fn start() -> Self {
        Self {
            wall: Timestamp::now(),
            at: Instant::now(),
        }
    }

    /// What it shows.
    pub fn now(&self) -> Timestamp {
        self.wall.plus(self.at.elapsed())
    }

    /// `deadline` as the wall clock will show it, for those who have no other clock.
    pub fn on_the_wall(&self, deadline: Timestamp) -> Timestamp {
        Timestamp::now().plus(deadline.since(self.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn goes_with_monotonic_time() {
        let clock = Clock::start();
        let before = clock.now();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(clock.now(), before.plus(Duration::from_secs(60)));
        // The wall clock did not move: what is a minute away is so by either.
        let deadline = clock.now().plus(Duration::from_secs(60));
        let on_the_wall = clock.on_the_wall(deadline);
        assert!(on_the_wall < deadline);
        assert!(on_the_wall >= before.plus(Duration::from_secs(60)));
    }
}
