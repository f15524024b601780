//! Who is to be asked for a service: followed in the registry, and known while it is away.
//!
//! ```text
//!  balance ──watch──▶ Discovery ── one task a service (follow) ──instances, blocking──▶ Registry
//!     ▲                                    │
//!     └────────── Known ◀── cache ◀────────┘
//! ```
//!
//! A service is followed from its first use on, and for a while after its last. A task that fails would leave
//! its service as it was last known; each is on one tracker, which [`Discovery::close`] waits for.

mod cache;
mod follow;

use super::metrics::Metrics;
use super::{Instance, Registry};
use crate::config::ServiceName;
use follow::Follow;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most services followed at once. Their names come from a program's requests, so that a mistake there must not
/// fill memory and Consul; a mesh of a thousand services fits four times.
const MAX_SERVICES: usize = 4096;

/// What is known of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Who is to be asked, by id.
    pub instances: Vec<Instance>,
    /// How good that is.
    pub state: State,
}

/// How good it is what is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The registry has not answered yet; why, where it failed.
    Unanswered {
        /// What the registry said, or that it cannot be reached.
        why: Option<String>,
    },
    /// As the registry has it.
    Fresh,
    /// As the registry had it before it went away.
    Stale {
        /// When it answered last.
        since: Instant,
        /// What went wrong.
        why: String,
    },
}

/// How patient discovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long after an outage the registry's word alone drops nobody: a registry that was restarted empty has
    /// everybody again only after their sidecars tried once more, which they do every four seconds at least.
    pub grace: Duration,
    /// How long a service is followed that nobody uses: a program that calls now and then finds it known.
    pub idle: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            idle: Duration::from_secs(300),
        }
    }
}

/// Who is to be asked, for every service that somebody asks for; cheap to clone.
#[derive(Clone)]
pub struct Discovery(Arc<Shared>);

struct Shared {
    registry: Arc<dyn Registry>,
    metrics: Arc<Metrics>,
    times: Times,
    services: Mutex<HashMap<ServiceName, Followed>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// What is known of a service beyond [`MAX_SERVICES`].
    beyond: watch::Sender<Arc<Known>>,
}

struct Followed {
    known: watch::Sender<Arc<Known>>,
    stop: CancellationToken,
}

impl Discovery {
    /// Finds services in `registry`. Nothing is asked before the first [`Self::watch`].
    pub fn new(registry: Arc<dyn Registry>, metrics: Arc<Metrics>) -> Self {
        Self::with_times(registry, metrics, Times::default())
    }

    /// Finds services with a patience of its own.
    pub fn with_times(registry: Arc<dyn Registry>, metrics: Arc<Metrics>, times: Times) -> Self {
        let why = format!("{MAX_SERVICES} services are followed, which is as many as can be");
        Self(Arc::new(Shared {
            registry,
            metrics,
            times,
            services: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            beyond: watch::Sender::new(Known::unanswered(Some(why))),
        }))
    }

    /// What is known of a service, as it changes; follows it from now on. To be called within a runtime.
    ///
    /// As long as a receiver is there the service is followed, and for a while more ([`Times::idle`]).
    pub fn watch(&self, service: &ServiceName) -> watch::Receiver<Arc<Known>> {
        let mut services = self.0.services();
        if let Some(followed) = services.get(service) {
            return followed.known.subscribe();
        }
        if services.len() >= MAX_SERVICES && !make_room(&mut services) {
            return self.0.beyond.subscribe();
        }
        let (known, receiver) = watch::channel(Known::unanswered(None));
        let stop = self.0.stop.child_token();
        let follow = Follow::new(service.clone(), known.clone(), Arc::clone(&self.0));
        let followed = Followed {
            known,
            stop: stop.clone(),
        };
        services.insert(service.clone(), followed);
        self.0.metrics.watched.inc();
        self.0.tasks.spawn(async move {
            follow.run(&stop).await;
        });
        receiver
    }

    /// What is known of each service that is followed: its instances, their age, and why they are old.
    pub fn shown(&self) -> Value {
        let services = self.0.services();
        let shown = services.iter().map(|(service, followed)| {
            let known = Arc::clone(&followed.known.borrow());
            (service.to_string(), known.shown())
        });
        Value::Object(shown.collect::<Map<_, _>>())
    }

    /// Ends every task and waits for that; what was known stays known to those who hold it.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// Drops a service that nobody uses, before its time.
fn make_room(services: &mut HashMap<ServiceName, Followed>) -> bool {
    let unused = services
        .iter()
        .find(|(_, followed)| followed.known.receiver_count() == 0)
        .map(|(service, _)| service.clone());
    let Some(followed) = unused.and_then(|service| services.remove(&service)) else {
        return false;
    };
    followed.stop.cancel();
    true
}

impl Shared {
    // A map of plain values is whole whatever happened to the last holder.
    fn services(&self) -> MutexGuard<'_, HashMap<ServiceName, Followed>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a service up unless somebody uses it again. Whoever begins to does so under the same lock.
    fn give_up(&self, service: &ServiceName) -> bool {
        let mut services = self.services();
        let unused = services
            .get(service)
            .is_some_and(|followed| followed.known.receiver_count() == 0);
        if unused {
            services.remove(service);
        }
        unused
    }
}

impl Known {
    fn unanswered(why: Option<String>) -> Arc<Self> {
        Arc::new(Self {
            instances: Vec::new(),
            state: State::Unanswered { why },
        })
    }

    fn shown(&self) -> Value {
        let (state, why, age) = match &self.state {
            State::Unanswered { why } => ("unanswered", why.as_ref(), None),
            State::Fresh => ("fresh", None, Some(0.0)),
            State::Stale { since, why } => {
                ("stale", Some(why), Some(since.elapsed().as_secs_f64()))
            }
        };
        let instances = self.instances.iter().map(|instance| {
            json!({
                "id": *instance.id,
                "address": instance.address,
                "weight": instance.weight,
                "zone": instance.zone.as_deref(),
                "meta": *instance.meta,
            })
        });
        json!({
            "state": state,
            "why": why,
            "age_s": age,
            "instances": instances.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests;
