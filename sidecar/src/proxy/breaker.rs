//! When a service as a whole is asked no more for a while, and how much it is asked at once.
//!
//! ```text
//!            share of failures within the window        open_ms over
//!   Closed ─────────────────────────────────────▶ Open ──────────────▶ HalfOpen (one request)
//!     ▲                                            ▲                      │ it fails
//!     │                                            └──────────────────────┤
//!     └───────────────────────────────────────────────────────────────────┘ it is answered
//! ```
//!
//! Nygard's circuit breaker ("Release It!"), with a window of counts so that a few failures of a quiet service do not
//! open it. What was begun before a change says nothing of the time after it, so each permit knows its epoch.

use super::window::{Counts, Window};
use crate::config;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Decides whether a service may be asked; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Breaker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rules: config::Breaker,
    under_way: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    circuit: Circuit,
    epoch: u64,
    window: Window,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circuit {
    Closed,
    Open {
        until: Instant,
    },
    /// Since `until` one request tries.
    HalfOpen {
        until: Instant,
    },
}

/// Why a request is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// As many requests as allowed are under way.
    #[error("as many requests as allowed are under way")]
    Busy,
    /// Too many failed.
    #[error("too many requests failed, the service is left alone")]
    Open {
        /// How long it stays so at least.
        left: Duration,
    },
}

/// A change, for log and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The service is left alone.
    Opened {
        /// For how long.
        length: Duration,
    },
    /// It is asked again.
    Closed,
}

/// The right to send one request. Dropped when the request is over, which includes the body of its answer.
#[derive(Debug)]
pub(crate) struct Permit {
    breaker: Breaker,
    epoch: u64,
    probe: bool,
    reported: bool,
}

impl Breaker {
    pub(crate) fn new(rules: &config::Breaker, now: Instant) -> Self {
        Self(Arc::new(Shared {
            rules: rules.clone(),
            under_way: AtomicU32::new(0),
            state: Mutex::new(State {
                circuit: Circuit::Closed,
                epoch: 0,
                window: Window::new(Duration::from_millis(rules.window_ms), now),
            }),
        }))
    }

    // Every change leaves the state whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more request may be sent.
    ///
    /// # Errors
    /// [`Refused`], why not.
    pub(crate) fn admit(&self, now: Instant) -> Result<Permit, Refused> {
        // Dropped on the way out, it counts itself off.
        let mut permit = Permit {
            breaker: self.clone(),
            epoch: 0,
            probe: false,
            reported: true,
        };
        if self.0.under_way.fetch_add(1, Ordering::Relaxed) >= self.0.rules.max_requests {
            return Err(Refused::Busy);
        }
        if self.0.rules.failure_percent == 0 {
            return Ok(permit);
        }
        let mut state = self.state();
        match state.circuit {
            Circuit::Closed => {}
            Circuit::Open { until } if now >= until => {
                state.circuit = Circuit::HalfOpen { until };
                permit.probe = true;
            }
            Circuit::Open { until } => {
                let left = until.saturating_duration_since(now);
                return Err(Refused::Open { left });
            }
            // How long the probe takes nobody knows.
            Circuit::HalfOpen { .. } => {
                return Err(Refused::Open {
                    left: Duration::ZERO,
                });
            }
        }
        permit.epoch = state.epoch;
        permit.reported = false;
        drop(state);
        Ok(permit)
    }

    /// Whether the service is left alone, or tried by one request.
    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.state().circuit != Circuit::Closed
    }

    /// Requests under way.
    #[cfg(test)]
    pub(crate) fn under_way(&self) -> u32 {
        self.0.under_way.load(Ordering::Relaxed)
    }
}

impl State {
    fn turn(&mut self, circuit: Circuit) {
        self.circuit = circuit;
        self.epoch += 1;
        self.window.clear();
    }

    fn open(&mut self, rules: &config::Breaker, now: Instant) -> Option<Event> {
        let length = Duration::from_millis(rules.open_ms);
        self.turn(Circuit::Open {
            until: now + length,
        });
        Some(Event::Opened { length })
    }
}

impl Permit {
    /// Says what came of the request, once all its tries are over; what changed by it.
    pub(crate) fn report(&mut self, failed: bool, now: Instant) -> Option<Event> {
        if std::mem::replace(&mut self.reported, true) {
            return None;
        }
        let rules = &self.breaker.0.rules;
        let mut state = self.breaker.state();
        if state.epoch != self.epoch {
            return None;
        }
        if self.probe {
            if failed {
                return state.open(rules, now);
            }
            state.turn(Circuit::Closed);
            return Some(Event::Closed);
        }
        let one = Counts {
            all: 1,
            marked: failed.into(),
        };
        let counts = state.window.count(one, now);
        let enough = counts.all >= rules.min_requests.into();
        let share = counts.marked * 100 >= counts.all * u64::from(rules.failure_percent);
        if failed && enough && share {
            return state.open(rules, now);
        }
        None
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breaker.0.under_way.fetch_sub(1, Ordering::Relaxed);
        if self.probe && !self.reported {
            // It was given up without an answer: the next request may try.
            let mut state = self.breaker.state();
            if let Circuit::HalfOpen { until } = state.circuit
                && state.epoch == self.epoch
            {
                state.circuit = Circuit::Open { until };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> config::Breaker {
        config::Breaker {
            max_requests: 3,
            failure_percent: 50,
            min_requests: 4,
            window_ms: 1_000,
            open_ms: 500,
        }
    }

    fn ask(breaker: &Breaker, failed: bool, now: Instant) -> Option<Event> {
        breaker.admit(now).unwrap().report(failed, now)
    }

    const OPENED: Option<Event> = Some(Event::Opened {
        length: Duration::from_millis(500),
    });

    #[test]
    fn a_share_of_failures_opens_it_and_one_answer_closes_it() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let breaker = Breaker::new(&rules(), begin);
        for failed in [true, false, true] {
            assert_eq!(ask(&breaker, failed, begin), None);
        }
        // Half of them, and no failure more: nothing opens on an answer.
        assert_eq!(ask(&breaker, false, begin), None);
        assert_eq!(ask(&breaker, true, begin), OPENED);
        let left = Duration::from_millis(400);
        assert_eq!(breaker.admit(at(100)).unwrap_err(), Refused::Open { left });
        assert_eq!(breaker.under_way(), 0);
        // One may try; it fails.
        let mut probe = breaker.admit(at(500)).unwrap();
        assert!(matches!(breaker.admit(at(500)), Err(Refused::Open { .. })));
        assert_eq!(probe.report(true, at(600)), OPENED);
        assert!(breaker.admit(at(1_099)).is_err());
        // One that is given up leaves the next one to try.
        drop(breaker.admit(at(1_100)).unwrap());
        assert_eq!(ask(&breaker, false, at(1_100)), Some(Event::Closed));
        assert!(!breaker.is_open());
        // Nothing is left of before.
        for _ in 0..3 {
            assert_eq!(ask(&breaker, true, at(1_100)), None);
        }
        assert_eq!(ask(&breaker, true, at(1_100)), OPENED);
    }

    #[test]
    fn failures_of_long_ago_do_not_count() {
        let begin = Instant::now();
        let breaker = Breaker::new(&rules(), begin);
        for _ in 0..3 {
            ask(&breaker, true, begin);
        }
        let later = begin + Duration::from_millis(1_000);
        for _ in 0..3 {
            assert_eq!(ask(&breaker, true, later), None);
        }
    }

    #[test]
    fn what_was_begun_before_it_opened_changes_nothing_after() {
        let begin = Instant::now();
        let breaker = Breaker::new(&rules(), begin);
        let mut old = breaker.admit(begin).unwrap();
        for _ in 0..4 {
            ask(&breaker, true, begin);
        }
        assert_eq!(old.report(false, begin), None);
        assert!(breaker.is_open());
        let later = begin + Duration::from_millis(500);
        let probe = breaker.admit(later).unwrap();
        drop(old);
        assert!(matches!(breaker.admit(later), Err(Refused::Open { .. })));
        drop(probe);
    }

    #[test]
    fn requests_under_way_are_bounded_until_they_are_over() {
        let now = Instant::now();
        for failure_percent in [0, 50] {
            let rules = config::Breaker {
                failure_percent,
                ..rules()
            };
            let breaker = Breaker::new(&rules, now);
            let mut permits: Vec<_> = (0..3).map(|_| breaker.admit(now).unwrap()).collect();
            assert_eq!(breaker.admit(now).unwrap_err(), Refused::Busy);
            for permit in &mut permits {
                permit.report(false, now);
            }
            assert_eq!(breaker.admit(now).unwrap_err(), Refused::Busy);
            permits.pop();
            assert!(breaker.admit(now).is_ok());
            permits.clear();
            assert_eq!(breaker.under_way(), 0);
        }
    }

    #[test]
    fn without_a_share_nothing_opens_it() {
        let now = Instant::now();
        let rules = config::Breaker {
            failure_percent: 0,
            ..rules()
        };
        let breaker = Breaker::new(&rules, now);
        assert!((0..100).all(|_| ask(&breaker, true, now).is_none()));
    }
}
