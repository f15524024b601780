//! One service that the program calls: who may be asked, how much, and the connections of each thread to them.
//!
//! ```text
//!  Discovery ──known──▶ follow (one task a service) ──update──▶ Balancer ◀── pick, by every thread
//!                                                  Breaker, Budget ◀── admit, retry
//!  thread ─▶ Reach ─▶ Target (address) ─▶ connections
//! ```

use super::Mesh;
use super::balance::{self, Balancer};
use super::breaker::{self, Breaker};
use super::connect::{Ground, Security, Target};
use super::metrics::{Directed, PeerCounts};
use super::retry::Budget;
use crate::config::{ServiceName, Settings};
use crate::registry::{Discovery, Known, State};
use http::HeaderValue;
use http::uri::{Authority, InvalidUri};
use prometheus::IntGauge;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A service, for all threads.
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) settings: Settings,
    /// Made when an instance is found, or the service is of this mesh: names come from requests, and series stay.
    series: OnceLock<Series>,
    pub(crate) balancer: Balancer,
    pub(crate) budget: Budget,
    pub(crate) breaker: Breaker,
    /// Its name, as HTTP/2 has it.
    pub(crate) authority: Authority,
    /// The same for HTTP/1.1.
    pub(crate) host: HeaderValue,
    known: watch::Receiver<Arc<Known>>,
    begun: Instant,
    /// When it was asked for last, in seconds since it was begun.
    used: AtomicU64,
    _follow: DropGuard,
}

/// What is counted of a service.
struct Series {
    counts: Arc<PeerCounts>,
    breaker_open: IntGauge,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Service").field(&self.name.as_str()).finish()
    }
}

impl Service {
    /// Begins to follow a service.
    ///
    /// # Errors
    /// None for a name of a service.
    pub(crate) fn new(
        name: ServiceName,
        settings: Settings,
        zone: Option<Arc<str>>,
        discovery: &Discovery,
        ground: &Ground,
    ) -> Result<Arc<Self>, InvalidUri> {
        let now = Instant::now();
        let balancer = Balancer::new(&settings, zone);
        let known = discovery.watch(&name);
        let stop = CancellationToken::new();
        let following = follow(known.clone(), balancer.clone());
        let (stopped, cut) = (stop.clone(), ground.cut.clone());
        ground.tasks.spawn(async move {
            tokio::select! {
                () = following => {}
                () = stopped.cancelled() => {}
                () = cut.cancelled() => {}
            }
        });
        Ok(Arc::new(Self {
            authority: name.as_str().parse()?,
            host: HeaderValue::from_str(name.as_str())
                .unwrap_or_else(|_| HeaderValue::from_static("")),
            budget: Budget::new(&settings.retries, now),
            breaker: Breaker::new(&settings.breaker, now),
            balancer,
            known,
            series: OnceLock::new(),
            name,
            settings,
            begun: now,
            used: AtomicU64::new(0),
            _follow: stop.drop_guard(),
        }))
    }

    /// Whether it has counters of its own.
    pub(crate) fn is_counted(&self) -> bool {
        self.series.get().is_some()
    }

    /// Its counters.
    pub(crate) fn counts(&self, metrics: &Directed) -> &Arc<PeerCounts> {
        let series = self.series.get_or_init(|| {
            let counts = metrics.peer(&self.name);
            Series {
                breaker_open: metrics.breaker(&counts),
                counts,
            }
        });
        &series.counts
    }

    /// Waits until the registry has answered; whether it has.
    pub(crate) async fn is_answered(&self, longest: Duration) -> bool {
        let mut known = self.known.clone();
        let answered = known.wait_for(|known| !matches!(known.state, State::Unanswered { .. }));
        match tokio::time::timeout(longest, answered).await {
            Ok(Ok(known)) => {
                // Whoever waited is not to wait for the task that follows.
                self.balancer.update(&known.instances, Instant::now());
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Waits until there is an instance; whether there is.
    pub(crate) async fn has_instance(&self, longest: Duration) -> bool {
        let mut known = self.known.clone();
        let there = known.wait_for(|known| !known.instances.is_empty());
        match tokio::time::timeout(longest, there).await {
            Ok(Ok(known)) => {
                self.balancer.update(&known.instances, Instant::now());
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// It is asked for.
    pub(crate) fn touch(&self, now: Instant) {
        let since = now.saturating_duration_since(self.begun).as_secs();
        self.used.store(since, Ordering::Relaxed);
    }

    /// How long nobody asked for it.
    pub(crate) fn unused(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.begun);
        since.saturating_sub(Duration::from_secs(self.used.load(Ordering::Relaxed)))
    }

    /// Tells log and metrics what happened to an instance.
    pub(crate) fn tell(&self, event: Option<balance::Event>) {
        let service = self.name.as_str();
        match event {
            None => {}
            Some(balance::Event::Ejected { id, length }) => {
                if let Some(series) = self.series.get() {
                    series.counts.ejections.inc();
                }
                let seconds = length.as_secs_f64();
                tracing::warn!(service, instance = %id, seconds, "instance is left alone");
            }
            Some(balance::Event::Returned { id }) => {
                tracing::info!(service, instance = %id, "instance answers again");
            }
        }
    }

    /// The same of the service.
    pub(crate) fn tell_breaker(&self, event: Option<breaker::Event>) {
        if let Some(series) = self.series.get() {
            breaker_changed(self.name.as_str(), &series.breaker_open, event);
        }
    }

    fn has(&self, address: SocketAddr) -> bool {
        let known = self.known.borrow();
        known.instances.iter().any(|i| i.address == address)
    }
}

/// Tells log and metrics what happened to a breaker.
pub(crate) fn breaker_changed(service: &str, open: &IntGauge, event: Option<breaker::Event>) {
    match event {
        None => {}
        Some(breaker::Event::Opened { length }) => {
            open.set(1);
            let seconds = length.as_secs_f64();
            tracing::warn!(service, seconds, "too many requests failed: none is sent");
        }
        Some(breaker::Event::Closed) => {
            open.set(0);
            tracing::info!(service, "a request was answered: all are sent again");
        }
    }
}

async fn follow(mut known: watch::Receiver<Arc<Known>>, balancer: Balancer) {
    loop {
        let now = Arc::clone(&known.borrow_and_update());
        // Before the first answer there is nothing to forget.
        if !matches!(now.state, State::Unanswered { .. }) {
            balancer.update(&now.instances, Instant::now());
        }
        if known.changed().await.is_err() {
            return;
        }
    }
}

/// A service within the reach of one thread.
#[derive(Debug)]
pub(crate) struct Reach {
    pub(crate) service: Arc<Service>,
    targets: Mutex<HashMap<SocketAddr, Arc<Target>>>,
}

impl Reach {
    pub(crate) fn new(service: Arc<Service>) -> Self {
        Self {
            service,
            targets: Mutex::default(),
        }
    }

    // A map of connections is whole whatever happened to the last holder.
    fn targets(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<Target>>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections to an instance.
    pub(crate) fn target(
        &self,
        address: SocketAddr,
        mesh: &Mesh,
        max_head: usize,
        ground: &Ground,
    ) -> Arc<Target> {
        let service = &self.service;
        let new = || {
            let security = Security::Mutual {
                identity: mesh.identity.clone(),
                service: service.name.clone(),
            };
            Arc::new(Target::new(
                address,
                security,
                &service.settings,
                max_head,
                ground.clone(),
            ))
        };
        Arc::clone(self.targets().entry(address).or_insert_with(new))
    }

    /// Closes what is free for too long, and lets go of instances that are gone; how many connections are left.
    pub(crate) fn sweep(&self, now: Instant) -> usize {
        let mut targets = self.targets();
        targets.retain(|address, target| {
            let stays = self.service.has(*address);
            if !stays {
                target.retire();
            }
            stays
        });
        targets.values().map(|target| target.sweep(now)).sum()
    }
}
