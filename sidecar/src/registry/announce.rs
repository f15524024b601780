//! Keeps one instance registered, whatever happens to the registry.
//!
//! ```text
//!              ┌──────── away, refused: again after a pause ────────┐
//!              ▼                                                    │
//!  start ─▶ register ──▶ report ──▶ (health changes | a third of the TTL) ──▶ report
//!              ▲            │ unknown: the registry forgot                      │
//!              └────────────┴───────────────────────────────────────────────────┘
//!  shutdown, from anywhere: deregister, for a bounded time
//! ```
//!
//! A registry that is away does not make a registered service unready: peers go on with what they know.

use super::metrics::Operation;
use super::{Health, Metrics, Registered, Registry, RegistryError};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// First pause after a failure, and the longest: a registry that came back has everybody again within seconds.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long a shutdown waits for the registry to take the instance out. What it does not take out by then it
/// forgets by itself, when the TTL is over.
const LEAVE: Duration = Duration::from_secs(2);

/// Keeps one instance registered while it runs.
pub struct Announcer {
    registry: Arc<dyn Registry>,
    instance: Registered,
    health: watch::Receiver<Health>,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
    /// Whether the instance was seen in the registry, with its zone or without.
    located: bool,
}

/// How the registration stands, as it changes; cheap to clone.
#[derive(Debug, Clone)]
pub struct Announcement {
    instance: Arc<Registered>,
    state: watch::Receiver<State>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    stand: Stand,
    /// Why the last request was not carried out; `None` once one was.
    why: Option<String>,
    /// Where the registry says that this instance is.
    zone: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stand {
    #[default]
    NotYet,
    Registered,
    /// It was registered, and the registry does not know it any more.
    Forgotten,
    Left,
}

impl Announcer {
    /// Announces `instance`, whose health is `health`. Nothing happens before [`Self::run`].
    pub fn new(
        registry: Arc<dyn Registry>,
        instance: Registered,
        health: watch::Receiver<Health>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            registry,
            instance,
            health,
            metrics,
            state: watch::Sender::default(),
            located: false,
        }
    }

    /// How the registration stands.
    pub fn announcement(&self) -> Announcement {
        Announcement {
            instance: Arc::new(self.instance.clone()),
            state: self.state.subscribe(),
        }
    }

    /// Registers, reports and registers again until `shutdown`, then deregisters, which takes two seconds at most.
    pub async fn run(mut self, shutdown: CancellationToken) {
        if shutdown.run_until_cancelled(self.keep()).await.is_none() {
            self.leave().await;
        }
    }

    /// Never ends.
    async fn keep(&mut self) {
        let mut pauses = pauses();
        loop {
            let registered = self.registry.register(&self.instance).await;
            self.metrics.heard(Operation::Register, &registered);
            match registered {
                Ok(()) => {
                    self.metrics.registrations.inc();
                    tracing::info!(id = self.instance.id, "registered");
                    // Forgotten it is again, where the first report says so: that loop has a pause as well.
                    if self.report_until_forgotten().await {
                        pauses = self::pauses();
                    }
                    self.stands(Stand::Forgotten);
                    tracing::warn!(id = self.instance.id, "registry forgot this service");
                }
                Err(error) => self.failed("not registered", &error),
            }
            sleep(pauses.next().unwrap_or(PAUSE.1)).await;
        }
    }

    /// Reports at once, on every change and every third of the TTL, until the registry does not know the instance.
    /// Tells whether it knew it at all.
    async fn report_until_forgotten(&mut self) -> bool {
        let beat = self.instance.ttl / 3;
        let (mut pauses, mut known, mut health_ends) = (pauses(), false, false);
        loop {
            let health = self.health.borrow_and_update().clone();
            let reported = self.registry.report(&self.instance.id, &health).await;
            self.metrics.heard(Operation::Report, &reported);
            let pause = match reported {
                Ok(()) => {
                    pauses = self::pauses();
                    known = true;
                    self.stands(Stand::Registered);
                    self.find_zone(&health).await;
                    beat
                }
                Err(RegistryError::Unknown) => return known,
                Err(error) => {
                    self.failed("health is not reported", &error);
                    pauses.next().unwrap_or(PAUSE.1).min(beat)
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                // Without anybody who looks, the health stays as it was.
                changed = self.health.changed(), if !health_ends => health_ends = changed.is_err(),
            }
        }
    }

    /// The port says where an instance is only with the instance itself: asked until it is to be found there.
    async fn find_zone(&mut self, health: &Health) {
        if *health != Health::Passing || self.located {
            return;
        }
        let found = self.registry.instances(&self.instance.service, None).await;
        self.metrics.heard(Operation::Instances, &found);
        match found {
            Ok(found) => {
                let own = found.list.into_iter().find(|i| *i.id == *self.instance.id);
                self.located = own.is_some();
                let zone = own.and_then(|own| own.zone);
                self.state.send_if_modified(|state| {
                    let changed = zone.is_some() && state.zone != zone;
                    state.zone = zone.or_else(|| state.zone.take());
                    changed
                });
            }
            Err(RegistryError::Refused(_)) => self.located = true,
            Err(_) => {}
        }
    }

    async fn leave(&self) {
        let left = timeout(LEAVE, async {
            let mut pauses = pauses();
            loop {
                let left = self.registry.deregister(&self.instance.id).await;
                self.metrics.heard(Operation::Deregister, &left);
                let Err(error) = left else { return };
                self.failed("not deregistered", &error);
                sleep(pauses.next().unwrap_or(PAUSE.1)).await;
            }
        });
        match left.await {
            Ok(()) => tracing::info!(id = self.instance.id, "deregistered"),
            Err(_) => tracing::warn!(id = self.instance.id, "left without being deregistered"),
        }
        self.stands(Stand::Left);
    }

    fn stands(&self, stand: Stand) {
        let registered = i64::from(stand == Stand::Registered);
        self.metrics.registered.set(registered);
        self.state.send_if_modified(|state| {
            let changed = state.stand != stand || state.why.is_some();
            state.stand = stand;
            state.why = None;
            changed
        });
    }

    fn failed(&self, what: &str, error: &RegistryError) {
        let why = error.to_string();
        let changed = self.state.send_if_modified(|state| {
            let changed = state.why.as_ref() != Some(&why);
            state.why = Some(why);
            changed
        });
        // Once for each reason: a registry may be away for hours.
        if changed {
            tracing::warn!(id = self.instance.id, %error, "{what}");
        }
    }
}

impl Announcement {
    /// Why this service is not registered, for `/ready`; `None` once it is, also while the registry is away
    /// afterwards.
    pub fn reason(&self) -> Option<String> {
        let state = self.state.borrow();
        let stand = match state.stand {
            Stand::NotYet => "service is not registered yet",
            Stand::Forgotten => "registry forgot the service",
            Stand::Left => "service is deregistered",
            Stand::Registered => return None,
        };
        Some(match &state.why {
            Some(why) => format!("{stand}: {why}"),
            None => stand.to_owned(),
        })
    }

    /// Waits until the instance is registered and was reported on.
    pub async fn registered(&mut self) {
        // A dropped announcer registers nobody any more; its last state says so.
        let _ = self
            .state
            .wait_for(|state| state.stand == Stand::Registered)
            .await;
    }

    /// Where the registry says that this instance is, once it is to be found there; to compare with
    /// [`super::Instance::zone`].
    pub fn zone(&self) -> Option<Arc<str>> {
        self.state.borrow().zone.clone()
    }

    /// What is registered, and how that stands.
    pub fn shown(&self) -> serde_json::Value {
        let state = self.state.borrow();
        let instance = &self.instance;
        serde_json::json!({
            "service": instance.service,
            "id": instance.id,
            "address": instance.address,
            "tags": instance.tags,
            "meta": instance.meta,
            "weight": instance.weight,
            "zone": state.zone.as_deref(),
            "state": match state.stand {
                Stand::NotYet => "not registered yet",
                Stand::Registered => "registered",
                Stand::Forgotten => "forgotten by the registry",
                Stand::Left => "deregistered",
            },
            "why": state.why,
        })
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
