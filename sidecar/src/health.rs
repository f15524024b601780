//! Whether the program beside the sidecar is well: asked now and then, and at once where a call to it failed.
//!
//! What comes of it goes to the registry and to `/ready`. The program's word counts from the first answer on;
//! after that it takes a few in a row to change it, so that one slow answer does not take an instance out.

mod ask;

use crate::config;
use crate::config::Place;
use crate::registry::Health;
use ask::Ask;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Least time between two questions: a program in trouble may fail a thousand calls a second.
const LEAST: Duration = Duration::from_millis(100);
/// How long the last words of a question that ran out of time have.
const GRACE: Duration = Duration::from_millis(500);

/// Asks one program how it is.
pub(crate) struct Probe {
    ask: Ask,
    interval: Duration,
    timeout: Duration,
    verdict: Verdict,
    health: watch::Sender<Health>,
    look: Arc<Notify>,
}

/// How the program is, as it changes; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ProgramHealth {
    health: watch::Receiver<Health>,
    look: Arc<Notify>,
}

impl Probe {
    /// Asks the program at `place` as `config` says. Nothing is asked before [`Self::run`].
    pub(crate) fn new(config: &config::Health, place: &Place) -> Self {
        let unknown = Health::Critical("agent was not asked yet".to_owned());
        Self {
            ask: Ask::new(&config.check, place),
            interval: Duration::from_millis(config.interval_ms),
            timeout: Duration::from_millis(config.timeout_ms),
            verdict: Verdict::new(config.healthy_after, config.unhealthy_after),
            health: watch::Sender::new(unknown),
            look: Arc::default(),
        }
    }

    /// How the program is.
    pub(crate) fn health(&self) -> ProgramHealth {
        ProgramHealth {
            health: self.health.subscribe(),
            look: Arc::clone(&self.look),
        }
    }

    /// Asks until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.probe()).await;
    }

    /// Never ends.
    async fn probe(&mut self) {
        loop {
            let answer = self.answer().await;
            let healthy = self.verdict.take(answer.is_ok());
            self.health.send_if_modified(|health| {
                let now = match (healthy, answer) {
                    (true, _) => Health::Passing,
                    (false, Err(why)) => Health::Critical(why),
                    // Not well again yet: what was wrong stays the reason.
                    (false, Ok(())) => return false,
                };
                let changed = *health != now;
                *health = now;
                changed
            });
            let least = LEAST.min(self.interval);
            sleep(least).await;
            tokio::select! {
                () = sleep(jitter(self.interval).saturating_sub(least)) => {}
                () = self.look.notified() => {}
            }
        }
    }

    async fn answer(&self) -> Result<(), String> {
        // The question keeps its own time, and has a moment to clean up.
        let asked = self.ask.ask(self.timeout);
        match timeout(self.timeout + GRACE, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(ask::too_late(self.timeout)),
        }
    }
}

impl ProgramHealth {
    /// How it is, as it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Why it is not well.
    pub(crate) fn reason(&self) -> Option<String> {
        match &*self.health.borrow() {
            Health::Passing => None,
            Health::Critical(why) => Some(why.clone()),
        }
    }

    /// Has it asked at once: somebody has reason to think that it is otherwise than known.
    pub(crate) fn look(&self) {
        self.look.notify_one();
    }
}

/// A tenth more or less, so that sidecars that were started together do not ask together.
fn jitter(interval: Duration) -> Duration {
    // Without chance there is no jitter, and nothing worse.
    let chance = getrandom::u32().unwrap_or(u32::MAX / 2);
    interval.mul_f64(0.9 + 0.2 * f64::from(chance) / f64::from(u32::MAX))
}

/// What the answers mean.
#[derive(Debug)]
struct Verdict {
    healthy: Option<bool>,
    /// Answers in a row that say otherwise.
    against: u32,
    healthy_after: u32,
    unhealthy_after: u32,
}

impl Verdict {
    fn new(healthy_after: u32, unhealthy_after: u32) -> Self {
        Self {
            healthy: None,
            against: 0,
            healthy_after,
            unhealthy_after,
        }
    }

    /// Takes an answer and tells whether the program counts as healthy.
    fn take(&mut self, good: bool) -> bool {
        let Some(healthy) = self.healthy else {
            self.healthy = Some(good);
            return good;
        };
        if good == healthy {
            self.against = 0;
            return healthy;
        }
        self.against += 1;
        let needed = if healthy {
            self.unhealthy_after
        } else {
            self.healthy_after
        };
        if self.against < needed {
            return healthy;
        }
        self.against = 0;
        self.healthy = Some(good);
        good
    }
}

#[cfg(test)]
mod tests;
