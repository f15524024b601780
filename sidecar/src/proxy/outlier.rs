//! When an instance is left alone for a while.
//!
//! As Envoy's outlier detection does it (<https://www.envoyproxy.io/docs>, "outlier detection"): failures in a row
//! eject an instance, for longer the more often it happened lately, and never more than a share of all, since the
//! load of those that are left alone falls on the others. Stricter in one point: whoever comes back is left alone
//! again at its first failure until it has answered once, so that a dead instance costs one request for each time it
//! is tried and not as many as at first.

use crate::config;
use http::StatusCode;
use std::time::Duration;
use tokio::time::Instant;

/// What came of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The head of an answer came.
    Answered(StatusCode),
    /// An answer came, of something behind the instance that is at fault ([`mesh_protocol::problem::HEADER_FAULT`]).
    FaultBehind,
    /// The instance has not seen the request: no connection, no handshake, or an HTTP/2 stream that it refused.
    NotSent,
    /// No answer came in time.
    TimedOut,
    /// The connection broke before the head of an answer was there.
    BrokeOff,
}

impl Outcome {
    /// Whether it speaks against the instance: nothing came, or the answer of a proxy that has nobody behind it.
    pub(crate) fn failed(self) -> bool {
        match self {
            Self::Answered(status) => matches!(
                status,
                StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
            // All instances have the same behind them: to leave this one alone helps nobody.
            Self::FaultBehind => false,
            Self::NotSent | Self::TimedOut | Self::BrokeOff => true,
        }
    }
}

/// Whether an instance is left alone, and how often it was lately.
#[derive(Debug)]
pub(super) struct Standing {
    times: u32,
    out: Option<Out>,
    /// When it was added or came back.
    since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Out {
    since: Instant,
    until: Instant,
}

impl Standing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            times: 0,
            out: None,
            since: now,
        }
    }

    /// Leaves it alone, because of a request that was begun at `begun`. For how long; `None` when it is left alone
    /// already, or came back after the request was begun: that failure is of the time before.
    pub(super) fn eject(
        &mut self,
        rules: &config::Outlier,
        begun: Instant,
        now: Instant,
    ) -> Option<Duration> {
        if self.out.is_some() || begun < self.since {
            return None;
        }
        let base = Duration::from_millis(rules.ejection_ms.max(1));
        // Each ejection is forgotten after as much good time as it would have lasted alone.
        let good = now.saturating_duration_since(self.since).as_nanos() / base.as_nanos().max(1);
        let forgotten = u32::try_from(good).unwrap_or(u32::MAX);
        self.times = self.times.saturating_sub(forgotten).saturating_add(1);
        let length = base
            .saturating_mul(self.times)
            .min(Duration::from_millis(rules.max_ejection_ms));
        self.out = Some(Out {
            since: now,
            until: now + length,
        });
        Some(length)
    }

    pub(super) fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// When it comes back, if it is left alone.
    pub(super) fn until(&self) -> Option<Instant> {
        self.out.map(|out| out.until)
    }

    /// Brings it back if its time is over at `now`, as of when.
    pub(super) fn end(&mut self, now: Instant) -> Option<Instant> {
        let until = self.until().filter(|until| *until <= now)?;
        self.out = None;
        self.since = until;
        Some(until)
    }

    /// Brings it back since it answered a request that was begun at `begun`, while it was left alone.
    pub(super) fn answered(&mut self, begun: Instant, now: Instant) -> bool {
        let proven = self.out.is_some_and(|out| begun >= out.since);
        if proven {
            self.out = None;
            self.since = now;
        }
        proven
    }
}

/// How many of `all` instances may be left alone at the same time: `percent` of them, and one always.
pub(super) fn most_out(all: usize, percent: u32) -> usize {
    let percent = usize::try_from(percent).unwrap_or(100);
    (all.saturating_mul(percent) / 100).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> config::Outlier {
        config::Outlier {
            ejection_ms: 1_000,
            max_ejection_ms: 3_500,
            ..config::Outlier::default()
        }
    }

    #[test]
    fn failures_are_what_a_proxy_without_anybody_behind_it_says() {
        let answered = |status| Outcome::Answered(StatusCode::from_u16(status).unwrap()).failed();
        assert!([502, 503, 504].into_iter().all(answered));
        assert!(![200, 304, 404, 429, 500, 501].into_iter().any(answered));
        assert!(
            [Outcome::NotSent, Outcome::TimedOut, Outcome::BrokeOff]
                .into_iter()
                .all(Outcome::failed)
        );
    }

    #[test]
    fn whoever_fails_again_is_left_alone_for_longer() {
        let mut now = Instant::now();
        let mut standing = Standing::new(now);
        for seconds in [1.0, 2.0, 3.0, 3.5, 3.5] {
            let length = Duration::from_secs_f64(seconds);
            assert_eq!(standing.eject(&rules(), now, now), Some(length));
            assert_eq!(standing.eject(&rules(), now, now), None);
            let until = now + length;
            assert_eq!(standing.until(), Some(until));
            assert_eq!(standing.end(until - Duration::from_millis(1)), None);
            now = until + Duration::from_millis(500);
            assert_eq!(standing.end(now), Some(until));
        }
        // Four of five are forgotten.
        now += Duration::from_millis(3_600);
        assert_eq!(
            standing.eject(&rules(), now, now),
            Some(Duration::from_secs(2))
        );
    }

    #[test]
    fn what_was_begun_before_says_nothing_of_the_time_after() {
        let begun = Instant::now();
        let mut standing = Standing::new(begun);
        let later = begun + Duration::from_secs(5);
        standing.eject(&rules(), begun, begun + Duration::from_millis(1));
        assert!(!standing.answered(begun, later));
        assert!(standing.is_out());
        assert!(standing.answered(later, later));
        assert!(!standing.is_out());
        assert_eq!(standing.eject(&rules(), begun, later), None);
        assert!(standing.eject(&rules(), later, later).is_some());
    }

    #[test]
    fn one_may_always_be_left_alone() {
        for (all, percent, most) in [
            (1, 50, 1),
            (2, 50, 1),
            (3, 50, 1),
            (10, 50, 5),
            (10, 0, 1),
            (10, 100, 10),
        ] {
            assert_eq!(most_out(all, percent), most);
        }
    }
}
