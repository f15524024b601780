//! What is counted of the registry, and when it was away last.
//!
//! No service is a label: their number is what others register.

use super::RegistryError;
use crate::config::ServiceName;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// What the registry was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Register,
    Report,
    Deregister,
    Instances,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Report => "report",
            Self::Deregister => "deregister",
            Self::Instances => "instances",
        }
    }
}

/// The metrics of one sidecar's dealings with the registry; [`super::Announcer`] and [`super::Discovery`] share
/// them, and through them what either finds out about the registry's absence.
pub struct Metrics {
    agent: String,
    up: IntGauge,
    errors: IntCounterVec,
    /// 1 while the own instance is registered.
    pub(super) registered: IntGauge,
    /// Registrations that were made.
    pub(super) registrations: IntCounter,
    /// Services that are followed.
    pub(super) watched: IntGauge,
    /// Instances that are known of them.
    pub(super) instances: IntGauge,
    /// Instances that come and go too often and have to wait.
    pub(super) held_back: IntGauge,
    old: Arc<Mutex<HashMap<ServiceName, Instant>>>,
    away: Mutex<Option<Instant>>,
}

impl Metrics {
    /// Makes the metrics of the sidecar beside `service` and registers them.
    ///
    /// # Errors
    /// When they are in `registry` already.
    pub fn register(
        registry: &prometheus::Registry,
        service: &ServiceName,
    ) -> prometheus::Result<Arc<Self>> {
        let opts =
            |name: &str, help: &str| Opts::new(name, help).const_label("agent", service.as_str());
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::with_opts(opts(name, help))?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let errors = IntCounterVec::new(
            Opts::new(
                "sidecar_registry_errors_total",
                "What the registry did not do, by operation and kind: unknown, away, refused",
            ),
            &["agent", "operation", "kind"],
        )?;
        registry.register(Box::new(errors.clone()))?;
        let registrations = IntCounter::with_opts(opts(
            "sidecar_registry_registrations_total",
            "Registrations that were made; more than one when the registry forgot",
        ))?;
        registry.register(Box::new(registrations.clone()))?;
        let age = Gauge::with_opts(opts(
            "sidecar_registry_age_seconds",
            "Since when what is known of a service has not been confirmed; the oldest, 0 while all is fresh",
        ))?;
        let old = Arc::default();
        registry.register(Box::new(Age {
            gauge: age,
            old: Arc::clone(&old),
        }))?;
        Ok(Arc::new(Self {
            agent: service.as_str().to_owned(),
            up: gauge("sidecar_registry_up", "1 while the registry answers")?,
            errors,
            registered: gauge(
                "sidecar_registry_registered",
                "1 while this service is registered",
            )?,
            registrations,
            watched: gauge("sidecar_registry_watched_services", "Services followed")?,
            instances: gauge("sidecar_registry_instances", "Instances known of them")?,
            held_back: gauge(
                "sidecar_registry_held_back_instances",
                "Instances that come and go too often and have to wait",
            )?,
            old,
            away: Mutex::default(),
        }))
    }

    /// Counts what came of a question.
    pub(super) fn heard<T>(&self, operation: Operation, outcome: &Result<T, RegistryError>) {
        let kind = match outcome {
            Ok(_) => return self.up.set(1),
            Err(RegistryError::Unknown) => "unknown",
            Err(RegistryError::Refused(_)) => "refused",
            Err(RegistryError::Away(_)) => {
                *lock(&self.away) = Some(Instant::now());
                "away"
            }
        };
        self.up.set(i64::from(kind != "away"));
        self.errors
            .with_label_values(&[self.agent.as_str(), operation.as_str(), kind])
            .inc();
    }

    /// When the registry was found away last, whoever found it.
    pub(super) fn last_away(&self) -> Option<Instant> {
        *lock(&self.away)
    }

    /// Says that what is known of `service` has not been confirmed since then; `None`: it is fresh, or no longer
    /// followed.
    pub(super) fn old_since(&self, service: &ServiceName, since: Option<Instant>) {
        let mut old = lock(&self.old);
        match since {
            Some(since) => {
                old.insert(service.clone(), since);
            }
            None => {
                old.remove(service);
            }
        }
    }
}

// Plain values are whole whatever happened to the last holder.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An age grows by itself, so it is computed when it is asked for.
struct Age {
    gauge: Gauge,
    old: Arc<Mutex<HashMap<ServiceName, Instant>>>,
}

impl Collector for Age {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let oldest = lock(&self.old).values().min().copied();
        self.gauge
            .set(oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()));
        self.gauge.collect()
    }
}
