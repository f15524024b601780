//! Whether a service exists at all, asked only where none of its instances is known.

use super::answer::Fault;
use super::service::Service;
use crate::config::ServiceName;
use crate::registry::{Discovery, Registry};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long the registry's names count: a program that goes on asking for what is not there asks the registry no
/// more than once a second.
const FRESH: Duration = Duration::from_secs(1);

/// The names of services.
pub(crate) struct Names {
    registry: Arc<dyn Registry>,
    discovery: Discovery,
    /// Of this mesh, whether the registry has them or not.
    expected: BTreeSet<ServiceName>,
    known: Mutex<Option<(Instant, HashSet<ServiceName>)>>,
}

impl Names {
    pub(crate) fn new(
        registry: Arc<dyn Registry>,
        discovery: Discovery,
        expected: BTreeSet<ServiceName>,
    ) -> Self {
        Self {
            registry,
            discovery,
            expected,
            known: Mutex::default(),
        }
    }

    /// Who follows services.
    pub(crate) fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Whether a service is of this mesh, whether the registry has it or not.
    pub(crate) fn expects(&self, service: &ServiceName) -> bool {
        self.expected.contains(service)
    }

    /// Waits for a service that nobody asked for before.
    ///
    /// # Errors
    /// 404 where nobody knows such a service, 503 where somebody does, or the registry does not say.
    pub(crate) async fn find(&self, service: &Service) -> Result<(), Fault> {
        let longest = Duration::from_millis(service.settings.connect_timeout_ms);
        let none = || Fault::NoInstance(service.name.to_string());
        if self.expects(&service.name) {
            // A mesh that starts, or an only instance that is exchanged: there will be one in a moment.
            let there = service.has_instance(longest).await;
            return if there { Ok(()) } else { Err(none()) };
        }
        if !service.is_answered(longest).await {
            return Err(none());
        }
        if service.balancer.counts(Instant::now()).all > 0 {
            return Ok(());
        }
        match tokio::time::timeout(longest, self.exists(&service.name)).await {
            Ok(Some(false)) => Err(Fault::UnknownService(service.name.to_string())),
            Ok(Some(true) | None) | Err(_) => Err(none()),
        }
    }

    /// Whether the registry has a service of this name; `None` when it does not say.
    async fn exists(&self, name: &ServiceName) -> Option<bool> {
        // Those who wait here are told what the first one hears.
        let mut known = self.known.lock().await;
        let fresh = known.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH);
        if !fresh {
            let names = self.registry.services().await.ok()?;
            *known = Some((Instant::now(), names.into_iter().collect()));
        }
        known.as_ref().map(|(_, names)| names.contains(name))
    }
}
