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

    /// A clock that was started at `wall` an hour ago.
    fn an_hour_old(wall: Timestamp) -> Clock {
        Clock {
            wall,
            at: Instant::now() - HOUR,
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn goes_with_monotonic_time_from_the_wall_clock_at_start() {
        let start = Timestamp::from_millis(1_000_000);
        let shown = an_hour_old(start).now();
        assert!(shown >= start.plus(HOUR) && shown < start.plus(HOUR * 2));
    }

    #[test]
    fn what_is_left_until_a_deadline_is_left_on_the_wall() {
        // The wall clock was set by decades meanwhile.
        let clock = an_hour_old(Timestamp::from_millis(1_000_000));
        let before = Timestamp::now();
        let on_the_wall = clock.on_the_wall(clock.now().plus(HOUR));
        assert!(on_the_wall.since(before) <= HOUR * 2);
        assert!(on_the_wall.since(before) >= HOUR / 2);
    }
}
