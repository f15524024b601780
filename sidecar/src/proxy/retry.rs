//! What is tried again, how often among all requests, and after which pause.
//!
//! A budget bounds retries by the requests that there are, so that a service in trouble gets at most a fifth more and
//! not three times as much (the reasoning is Finagle's, whose `RetryBudget` this follows).

use super::outlier::Outcome;
use super::window::{Counts, Window};
use crate::config;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use http::Method;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Pause before the second try, and the longest. Another instance is asked, so there is nothing to wait for but a
/// fault of the moment; the jitter keeps those that failed together from coming back together.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// How long a request counts for the budget.
const WINDOW: Duration = Duration::from_secs(10);

/// Where the body of a request is after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// There is none, or all of it was kept, or nothing of it was taken yet.
    There,
    /// Some of it is gone.
    Gone,
}

/// Whether a request may be tried again, as far as the request goes.
///
/// What no instance has seen, always; what one may have acted upon, only where the method may be repeated (RFC 9110,
/// section 9.2.2). A request that ran into its time limit is not: the limit is for all tries together.
pub(crate) fn may(method: &Method, outcome: Outcome, body: Body) -> bool {
    if body == Body::Gone {
        return false;
    }
    match outcome {
        Outcome::NotSent => true,
        Outcome::BrokeOff => method.is_idempotent(),
        Outcome::Answered(_) => method.is_idempotent() && outcome.failed(),
        Outcome::TimedOut | Outcome::FaultBehind => false,
    }
}

/// The pauses between the tries of one request.
pub(crate) fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(PAUSE.0)
        .with_max_delay(PAUSE.1)
        .without_max_times()
        .with_jitter()
        .build()
}

/// How many retries a service has left.
#[derive(Debug)]
pub(crate) struct Budget {
    percent: u64,
    min_per_s: u32,
    spent: Mutex<Spent>,
}

#[derive(Debug)]
struct Spent {
    /// Requests, and the retries that they paid for.
    window: Window,
    /// When the present second began, and the retries in it that nobody paid for.
    second: Instant,
    free: u32,
}

impl Budget {
    pub(crate) fn new(rules: &config::Retries, now: Instant) -> Self {
        Self {
            percent: rules.budget_percent.into(),
            min_per_s: rules.min_per_s,
            spent: Mutex::new(Spent {
                window: Window::new(WINDOW, now),
                second: now,
                free: 0,
            }),
        }
    }

    /// Counts a request; its first try only.
    pub(crate) fn request(&self, now: Instant) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.window.count(Counts { all: 1, marked: 0 }, now);
    }

    /// Whether one more retry may be made; it counts as made.
    pub(crate) fn retry(&self, now: Instant) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = spent.window.counts(now);
        if (counts.marked + 1) * 100 <= counts.all * self.percent {
            spent.window.count(Counts { all: 0, marked: 1 }, now);
            return true;
        }
        if now.saturating_duration_since(spent.second) >= Duration::from_secs(1) {
            spent.second = now;
            spent.free = 0;
        }
        if spent.free < self.min_per_s {
            spent.free += 1;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn only_what_can_do_no_harm_is_tried_again() {
        let answered = |status| Outcome::Answered(StatusCode::from_u16(status).unwrap());
        for method in [
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
        ] {
            for outcome in [
                Outcome::NotSent,
                Outcome::BrokeOff,
                answered(502),
                answered(503),
                answered(504),
            ] {
                assert!(may(&method, outcome, Body::There), "{method} {outcome:?}");
                assert!(!may(&method, outcome, Body::Gone), "{method} {outcome:?}");
            }
            for outcome in [
                Outcome::TimedOut,
                answered(200),
                answered(500),
                answered(429),
            ] {
                assert!(!may(&method, outcome, Body::There), "{method} {outcome:?}");
            }
        }
        for method in [
            Method::POST,
            Method::PATCH,
            Method::CONNECT,
            "OWN".parse().unwrap(),
        ] {
            assert!(may(&method, Outcome::NotSent, Body::There));
            for outcome in [Outcome::BrokeOff, answered(503), Outcome::TimedOut] {
                assert!(!may(&method, outcome, Body::There), "{method} {outcome:?}");
            }
        }
    }

    #[test]
    fn pauses_are_short_and_differ() {
        for (number, pause) in pauses().take(20).enumerate() {
            let least = PAUSE.0.saturating_mul(1 << number.min(10)).min(PAUSE.1);
            assert!(
                (least..=PAUSE.1 * 2).contains(&pause),
                "{number}: {pause:?}"
            );
        }
        let first = || pauses().next().unwrap();
        assert!((0..50).any(|_| first() != first()));
    }

    fn budget(budget_percent: u32, min_per_s: u32, now: Instant) -> Budget {
        let rules = config::Retries {
            budget_percent,
            min_per_s,
            ..config::Retries::default()
        };
        Budget::new(&rules, now)
    }

    #[test]
    fn requests_pay_for_retries() {
        let now = Instant::now();
        let budget = budget(30, 0, now);
        assert!(!budget.retry(now));
        for _ in 0..100 {
            budget.request(now);
        }
        assert_eq!((0..100).filter(|_| budget.retry(now)).count(), 30);
        // Those of ten seconds ago pay for nothing any more.
        let later = now + WINDOW;
        assert!(!budget.retry(later));
        for _ in 0..10 {
            budget.request(later);
        }
        assert_eq!((0..100).filter(|_| budget.retry(later)).count(), 3);
    }

    #[test]
    fn a_quiet_service_may_try_again_at_all() {
        let now = Instant::now();
        let budget = budget(20, 3, now);
        for second in 0..3 {
            let at = now + Duration::from_secs(second);
            assert_eq!((0..10).filter(|_| budget.retry(at)).count(), 3);
        }
    }
}
