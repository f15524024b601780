//! When the model server is left alone for a while. The words are those of the sidecar's breaker.
//!
//! ```text
//!            FAILURES in a row                  the pause is over
//!   Closed ─────────────────────▶ Open ────────────────────────▶ HalfOpen (one call)
//!     ▲                            ▲                               │ it fails: the pause doubles
//!     │                            └───────────────────────────────┤
//!     └────────────────────────────────────────────────────────────┘ it is answered
//! ```
//!
//! A model is asked seldom, and for seconds: shares within a window, as the sidecar counts them, would need
//! minutes to say anything, so failures in a row are counted. What was begun before a change says nothing of
//! the time after it, so each permit knows its epoch.
//!
//! Some failures may be the question's: a server answers 500 to what it cannot read, and too much to what asks for too
//! much. Such ones of one consumer in a row count as one, so that nobody takes the model from the others by asking badly.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// How long it stays open first; doubled up to [`LONGEST`] each time that the call after it fails.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);

/// What a breaker shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The server is asked.
    Closed,
    /// It is left alone.
    Open,
    /// One call tries.
    HalfOpen,
}

impl State {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word for it in metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Decides whether the server may be asked; cheap to clone.
#[derive(Debug, Clone)]
pub struct Breaker(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    circuit: Circuit,
    epoch: u64,
    failures: u32,
    /// Whose question may have brought the last failure about.
    doubtful: Option<String>,
    pause: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circuit {
    Closed,
    Open { until: Instant },
    HalfOpen { until: Instant },
}

/// The right to one call.
#[derive(Debug)]
pub struct Permit {
    breaker: Breaker,
    epoch: u64,
    probe: bool,
    reported: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            circuit: Circuit::Closed,
            epoch: 0,
            failures: 0,
            doubtful: None,
            pause: FIRST,
        })))
    }
}

impl Breaker {
    // Every change leaves it whole.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server may be asked once more.
    ///
    /// # Errors
    /// For how long it will not be at least; zero while another call tries.
    pub fn admit(&self, now: Instant) -> Result<Permit, Duration> {
        let mut inner = self.inner();
        let probe = match inner.circuit {
            Circuit::Closed => false,
            Circuit::Open { until } if now >= until => {
                inner.circuit = Circuit::HalfOpen { until };
                true
            }
            Circuit::Open { until } => return Err(until.saturating_duration_since(now)),
            Circuit::HalfOpen { .. } => return Err(Duration::ZERO),
        };
        Ok(Permit {
            breaker: self.clone(),
            epoch: inner.epoch,
            probe,
            reported: false,
        })
    }

    /// Its state.
    pub fn state(&self) -> State {
        match self.inner().circuit {
            Circuit::Closed => State::Closed,
            Circuit::Open { .. } => State::Open,
            Circuit::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// How long it stays open at least, where it is.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        match self.inner().circuit {
            Circuit::Open { until } if now < until => Some(until.saturating_duration_since(now)),
            Circuit::HalfOpen { .. } => Some(Duration::ZERO),
            Circuit::Open { .. } | Circuit::Closed => None,
        }
    }
}

impl Inner {
    fn open(&mut self, now: Instant) {
        self.circuit = Circuit::Open {
            until: now + self.pause,
        };
        self.epoch += 1;
        self.failures = 0;
        self.doubtful = None;
    }

    fn failed(&mut self, now: Instant) {
        self.failures += 1;
        if self.failures >= FAILURES {
            self.open(now);
        }
    }
}

impl Permit {
    /// Says what came of the call; once.
    pub fn report(&mut self, failed: bool, now: Instant) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        let mut inner = self.breaker.inner();
        if inner.epoch != self.epoch {
            return;
        }
        inner.doubtful = None;
        match (failed, self.probe) {
            (false, probe) => {
                inner.failures = 0;
                if probe {
                    inner.circuit = Circuit::Closed;
                    inner.epoch += 1;
                    inner.pause = FIRST;
                }
            }
            (true, true) => {
                inner.pause = (inner.pause * 2).min(LONGEST);
                inner.open(now);
            }
            (true, false) => inner.failed(now),
        }
    }

    /// Says that the call failed in a way that the question of `consumer` may have brought about; once.
    pub fn report_doubtful(&mut self, consumer: &str, now: Instant) {
        if self.probe {
            // It says nothing of the server: the next call may try.
            return;
        }
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        let mut inner = self.breaker.inner();
        if inner.epoch == self.epoch && inner.doubtful.as_deref() != Some(consumer) {
            inner.doubtful = Some(consumer.to_owned());
            inner.failed(now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.reported || !self.probe {
            return;
        }
        // It was given up and says nothing: the next call may try.
        let mut inner = self.breaker.inner();
        if let Circuit::HalfOpen { until } = inner.circuit
            && inner.epoch == self.epoch
        {
            inner.circuit = Circuit::Open { until };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(breaker: &Breaker, failed: bool, now: Instant) {
        breaker.admit(now).unwrap().report(failed, now);
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_closes_it() {
        let begin = Instant::now();
        let breaker = Breaker::default();
        for failed in [true, true, true, true, false, true, true, true, true] {
            ask(&breaker, failed, begin);
        }
        assert_eq!(breaker.state(), State::Closed);
        ask(&breaker, true, begin);
        assert_eq!(breaker.state(), State::Open);
        assert_eq!(breaker.admit(begin).unwrap_err(), FIRST);
        // One may try, and fails.
        let probe_at = begin + FIRST;
        let mut probe = breaker.admit(probe_at).unwrap();
        assert_eq!(breaker.state(), State::HalfOpen);
        assert_eq!(breaker.admit(probe_at).unwrap_err(), Duration::ZERO);
        probe.report(true, probe_at);
        assert_eq!(breaker.left(probe_at), Some(FIRST * 2));
        // One that is given up leaves the next one to try.
        let later = probe_at + FIRST * 2;
        drop(breaker.admit(later).unwrap());
        assert_eq!(breaker.state(), State::Open);
        ask(&breaker, false, later);
        assert_eq!(breaker.state(), State::Closed);
        for _ in 0..FAILURES {
            ask(&breaker, true, later);
        }
        assert_eq!(breaker.left(later), Some(FIRST));
    }

    #[test]
    fn what_was_begun_before_it_opened_changes_nothing_after() {
        let now = Instant::now();
        let breaker = Breaker::default();
        let mut old = breaker.admit(now).unwrap();
        for _ in 0..FAILURES {
            ask(&breaker, true, now);
        }
        old.report(false, now);
        assert_eq!(breaker.state(), State::Open);
        let probe = breaker.admit(now + FIRST).unwrap();
        drop(old);
        assert_eq!(breaker.state(), State::HalfOpen);
        drop(probe);
    }

    #[test]
    fn one_consumer_opens_it_for_nobody_by_its_questions() {
        let now = Instant::now();
        let breaker = Breaker::default();
        let doubt = |consumer| breaker.admit(now).unwrap().report_doubtful(consumer, now);
        for _ in 0..FAILURES * 10 {
            doubt("a");
        }
        assert_eq!(breaker.state(), State::Closed);
        // What several see is the server's.
        for consumer in ["b", "a", "b", "a"] {
            doubt(consumer);
        }
        assert_eq!(breaker.state(), State::Open);
        // Nor does it keep it open.
        let later = now + FIRST;
        breaker.admit(later).unwrap().report_doubtful("a", later);
        assert_eq!(breaker.state(), State::Open);
        ask(&breaker, false, later);
        assert_eq!(breaker.state(), State::Closed);
        // An answer to somebody else begins anew.
        for consumer in ["a", "b", "a", "b"] {
            breaker
                .admit(later)
                .unwrap()
                .report_doubtful(consumer, later);
        }
        ask(&breaker, false, later);
        breaker.admit(later).unwrap().report_doubtful("a", later);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn the_pause_is_bounded() {
        let mut now = Instant::now();
        let breaker = Breaker::default();
        for _ in 0..FAILURES {
            ask(&breaker, true, now);
        }
        for _ in 0..10 {
            now += LONGEST;
            ask(&breaker, true, now);
        }
        assert_eq!(breaker.left(now), Some(LONGEST));
    }
}
