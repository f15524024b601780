//! How busy one agent is, as far as its steps tell: plain numbers, told what time it is.
//!
//! The rate is that of the time in which there was work. Answers divided by all the time would tell how
//! much an agent was asked to do, which of an idle one is next to nothing.

use mesh_protocol::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Answers that are younger count for the rate.
const RECENT: Duration = Duration::from_secs(30);
/// So many count even when they are older, for agents that take long for a step ...
const KEPT: usize = 8;
/// ... unless they are older than this: by then it is another agent.
const OLDEST: Duration = Duration::from_secs(600);
/// Fewer answers do not tell a rate.
const ENOUGH: usize = 4;
/// Most answers that are kept: 24 kB an agent. Of faster agents, a shorter time counts.
const MOST: usize = 1_024;

/// How busy an agent is.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Steps that were sent and have not ended, by when they were sent (milliseconds).
    under_way: BTreeMap<u64, u64>,
    depth: u64,
    /// Steps that are planned for it and were not sent yet.
    promised: u64,
    /// Time in which there was work.
    busy: Duration,
    busy_since: Option<Instant>,
    answers: VecDeque<Answer>,
    /// `busy` at the last answer that counts no more.
    before: Duration,
}

#[derive(Debug)]
struct Answer {
    at: Instant,
    /// `busy` then.
    busy: Duration,
}

impl Figures {
    /// A step is planned for it.
    pub(super) fn promise(&mut self) {
        self.promised += 1;
    }

    pub(super) fn promised(&self) -> u64 {
        self.promised
    }

    /// What is planned may never be sent, or much later.
    pub(super) fn forget_promises(&mut self) {
        self.promised = 0;
    }

    /// A step was sent.
    pub(super) fn sent(&mut self, at: Timestamp, now: Instant) {
        self.promised = self.promised.saturating_sub(1);
        *self.under_way.entry(at.millis()).or_default() += 1;
        self.depth += 1;
        self.busy_since.get_or_insert(now);
    }

    /// A step that was sent then has ended; whether its agent had `answered`, or its time was up.
    pub(super) fn ended(&mut self, sent: Timestamp, answered: bool, now: Instant) {
        let Some(same) = self.under_way.get_mut(&sent.millis()) else {
            return;
        };
        *same -= 1;
        if *same == 0 {
            self.under_way.remove(&sent.millis());
        }
        self.depth -= 1;
        let busy = self.busy(now);
        if self.depth == 0 {
            self.busy = busy;
            self.busy_since = None;
        }
        if answered {
            self.answers.push_back(Answer { at: now, busy });
            self.forget(now);
        }
    }

    pub(super) fn depth(&self) -> u64 {
        self.depth
    }

    pub(super) fn oldest(&self, now: Timestamp) -> Duration {
        self.under_way.keys().next().map_or(Duration::ZERO, |sent| {
            now.since(Timestamp::from_millis(*sent))
        })
    }

    /// Answers per second in which there was work; `None` while there are too few.
    pub(super) fn rate(&mut self, now: Instant) -> Option<f64> {
        self.forget(now);
        if self.answers.len() < ENOUGH {
            return None;
        }
        let busy = self.busy(now).saturating_sub(self.before);
        let count = u32::try_from(self.answers.len()).unwrap_or(u32::MAX);
        // Answers may come in the very moment in which the first of them was awaited.
        Some(f64::from(count) / busy.max(Duration::from_millis(1)).as_secs_f64())
    }

    fn busy(&self, now: Instant) -> Duration {
        let since = self
            .busy_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.busy + since
    }

    fn forget(&mut self, now: Instant) {
        while let Some(first) = self.answers.front() {
            let age = now.saturating_duration_since(first.at);
            let counts = age < RECENT || (self.answers.len() <= KEPT && age < OLDEST);
            if counts && self.answers.len() <= MOST {
                return;
            }
            self.before = first.busy;
            self.answers.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sent(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + ms)
    }

    #[test]
    fn the_oldest_is_the_one_that_was_sent_first_and_goes_on() {
        let (mut figures, now) = (Figures::default(), Instant::now());
        for ms in [30, 10, 10, 20] {
            figures.sent(sent(ms), now);
        }
        let seen = |f: &Figures| (f.depth(), f.oldest(sent(100)).as_millis());
        assert_eq!(seen(&figures), (4, 90));
        figures.ended(sent(10), true, now);
        assert_eq!(seen(&figures), (3, 90));
        figures.ended(sent(10), true, now);
        assert_eq!(seen(&figures), (2, 80));
        // Never sent, or ended twice.
        figures.ended(sent(10), true, now);
        assert_eq!(seen(&figures), (2, 80));
        figures.ended(sent(30), false, now);
        figures.ended(sent(20), false, now);
        assert_eq!(seen(&figures), (0, 0));
    }

    #[test]
    fn the_rate_is_that_of_the_time_with_work() {
        let (mut figures, mut now) = (Figures::default(), Instant::now());
        for step in 0..6 {
            // A step takes half a second, and the agent is idle for three.
            figures.sent(sent(step), now);
            now += SECOND / 2;
            assert_eq!(figures.rate(now).is_some(), step >= 4, "{step}");
            figures.ended(sent(step), true, now);
            now += 3 * SECOND;
        }
        let rate = figures.rate(now).unwrap();
        assert!((rate - 2.0).abs() < 0.01, "{rate}");
        // Work that nobody answers makes it slower and slower.
        figures.sent(sent(9), now);
        let slower = figures.rate(now + 3 * SECOND).unwrap();
        assert!((slower - 1.0).abs() < 0.01, "{slower}");
    }

    #[test]
    fn what_was_not_answered_is_no_work_done() {
        let (mut figures, now) = (Figures::default(), Instant::now());
        for step in 0..10 {
            figures.sent(sent(step), now);
            figures.ended(sent(step), false, now + SECOND);
        }
        assert_eq!(figures.rate(now + SECOND), None);
    }

    #[test]
    fn slow_agents_have_a_rate_and_old_answers_do_not_count() {
        let (mut figures, mut now) = (Figures::default(), Instant::now());
        for step in 0..5 {
            figures.sent(sent(step), now);
            now += 40 * SECOND;
            figures.ended(sent(step), true, now);
        }
        let rate = figures.rate(now).unwrap();
        assert!((rate - 0.025).abs() < 0.001, "{rate}");
        assert_eq!(figures.rate(now + OLDEST), None);
    }

    #[test]
    fn answers_are_bounded_and_the_latest_count() {
        let (mut figures, mut now) = (Figures::default(), Instant::now());
        for (steps, each) in [(3 * MOST, 1), (2 * MOST, 10)] {
            for _ in 0..steps {
                figures.sent(sent(0), now);
                now += Duration::from_millis(each);
                figures.ended(sent(0), true, now);
            }
            assert_eq!(figures.answers.len(), MOST);
        }
        let rate = figures.rate(now).unwrap();
        assert!((rate - 100.0).abs() < 1.0, "{rate}");
    }
}
