//! Follows one service: asks for news, again and again, and slows down where that fails or comes too fast.

use super::cache::Cache;
use super::{Known, Shared, State};
use crate::config::ServiceName;
use crate::registry::metrics::Operation;
use crate::registry::{Instances, RegistryError};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// First pause after a failure, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Answers that may come as they like, and the time for each beyond: a service in a crash loop, or a Consul whose
/// index does not rest, is not asked in a circle.
const BURST: u32 = 8;
const GAP: Duration = Duration::from_millis(250);

pub(super) struct Follow {
    service: ServiceName,
    known: watch::Sender<Arc<Known>>,
    shared: Arc<Shared>,
    cache: Cache,
    /// When the registry answered last, and whether it did so when it was asked last.
    answered: Option<Instant>,
    fresh: bool,
    /// What this service adds to the metrics.
    counted: (i64, i64),
}

/// Ends when nobody has used a service for a while.
type Idle = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Follow {
    pub(super) fn new(
        service: ServiceName,
        known: watch::Sender<Arc<Known>>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            service,
            known,
            cache: Cache::new(shared.times.grace),
            shared,
            answered: None,
            fresh: false,
            counted: (0, 0),
        }
    }

    /// Works until it is stopped, or nobody has used the service for a while.
    pub(super) async fn run(mut self, stop: &CancellationToken) {
        // Old from the beginning: there is no answer yet.
        let began = Instant::now();
        self.shared.metrics.old_since(&self.service, Some(began));
        stop.run_until_cancelled(self.follow()).await;
        self.shared.metrics.old_since(&self.service, None);
        self.shared.metrics.watched.dec();
        self.count(0, 0);
    }

    async fn follow(&mut self) {
        let registry = Arc::clone(&self.shared.registry);
        let service = self.service.clone();
        let mut idle = self.idle();
        let (mut after, mut pauses, mut pace) = (None, pauses(), Pace::default());
        loop {
            let asked = registry.instances(&service, after);
            let Some(answer) = self.meanwhile(&mut idle, asked).await else {
                return;
            };
            self.shared.metrics.heard(Operation::Instances, &answer);
            let pause = match answer {
                Ok(answer) => {
                    let anew = after.is_some_and(|after| answer.index < after);
                    after = (!anew).then_some(answer.index);
                    self.take(answer, anew);
                    pauses = self::pauses();
                    pace.next(Instant::now())
                }
                Err(error) => {
                    // A Consul that comes back may begin anew, and would then block on an index of before.
                    after = None;
                    self.lose(&error);
                    pauses.next().unwrap_or(PAUSE.1)
                }
            };
            if !pause.is_zero() && self.meanwhile(&mut idle, sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Waits for `work`, and does what time alone brings. `None` when the service is given up.
    async fn meanwhile<T>(&mut self, idle: &mut Idle, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            let due = self.cache.due(Instant::now());
            tokio::select! {
                done = &mut work => return Some(done),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.cache.show(Instant::now());
                    self.publish();
                }
                () = &mut *idle => {
                    if self.shared.give_up(&self.service) {
                        tracing::debug!(service = %self.service, "nobody uses this service");
                        return None;
                    }
                    *idle = self.idle();
                }
            }
        }
    }

    fn take(&mut self, answer: Instances, anew: bool) {
        let now = Instant::now();
        let again = !self.fresh && self.answered.is_some();
        if again {
            tracing::info!(service = %self.service, "registry answers again");
        }
        // What others found out counts as well: a registry that stood still for a while has let the times of all
        // reports run out, and was not seen to be away by a question that waits anyway.
        let outage = if anew || again {
            Some(now)
        } else {
            self.shared.metrics.last_away()
        };
        self.cache.answered(now, answer.list, outage);
        self.answered = Some(now);
        self.fresh = true;
        self.shared.metrics.old_since(&self.service, None);
        self.publish();
    }

    fn lose(&mut self, error: &RegistryError) {
        if self.fresh {
            tracing::warn!(service = %self.service, %error, "registry does not answer, going on with what is known");
        }
        self.fresh = false;
        let why = error.to_string();
        let state = match self.answered {
            None => State::Unanswered { why: Some(why) },
            Some(since) => {
                self.shared.metrics.old_since(&self.service, Some(since));
                State::Stale { since, why }
            }
        };
        self.say(state);
    }

    /// Shows what the cache shows now.
    fn publish(&mut self) {
        let state = if self.fresh {
            State::Fresh
        } else {
            self.known.borrow().state.clone()
        };
        self.say(state);
    }

    /// Nobody is woken for what they know.
    fn say(&mut self, state: State) {
        let shown = self.cache.shown();
        self.known.send_if_modified(|known| {
            if known.state == state && known.instances == shown {
                return false;
            }
            *known = Arc::new(Known {
                instances: shown.to_vec(),
                state,
            });
            true
        });
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.count(number(shown.len()), number(self.cache.held()));
    }

    fn idle(&self) -> Idle {
        let (known, for_long) = (self.known.clone(), self.shared.times.idle);
        Box::pin(async move {
            loop {
                known.closed().await;
                sleep(for_long).await;
                if known.receiver_count() == 0 {
                    return;
                }
            }
        })
    }

    fn count(&mut self, instances: i64, held: i64) {
        let metrics = &self.shared.metrics;
        metrics.instances.add(instances - self.counted.0);
        metrics.held_back.add(held - self.counted.1);
        self.counted = (instances, held);
    }
}

/// Doubled each time, with jitter: what all lost at once is not asked for by all at once.
fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(PAUSE.0)
        .with_max_delay(PAUSE.1)
        .without_max_times()
        .with_jitter()
        .build()
}

/// When the next question may be asked: [`BURST`] at once, then one each [`GAP`] (the generic cell rate
/// algorithm).
#[derive(Default)]
struct Pace {
    /// When all that were asked so far would have come one [`GAP`] after the other.
    even: Option<Instant>,
}

impl Pace {
    fn next(&mut self, now: Instant) -> Duration {
        let even = self.even.map_or(now, |even| even.max(now)) + GAP;
        self.even = Some(even);
        (even - now).saturating_sub(GAP * BURST)
    }
}

#[cfg(test)]
#[test]
fn a_burst_is_free_and_the_rest_is_even() {
    let (mut pace, mut now) = (Pace::default(), Instant::now());
    for _ in 0..BURST {
        assert_eq!(pace.next(now), Duration::ZERO);
    }
    for _ in 0..100 {
        assert_eq!(pace.next(now), GAP);
        now += GAP;
    }
    // Rest gives back what was used, and no more.
    now += 100 * GAP;
    for _ in 0..BURST {
        assert_eq!(pace.next(now), Duration::ZERO);
    }
    assert_eq!(pace.next(now), GAP);
}
