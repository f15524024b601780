//! Whether a service exists at all, asked only where none of its instances is known.

use super::answer::Fault;
use super::service::Service;
use crate::config::ServiceName;
use crate::registry::{Discovery, Registry};
use std::collections::HashSet;
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
    known: Mutex<Option<(Instant, HashSet<ServiceName>)>>,
}

impl Names {
    pub(crate) fn new(registry: Arc<dyn Registry>, discovery: Discovery) -> Self {
        Self {
            registry,
            discovery,
            known: Mutex::default(),
        }
    }

    /// Who follows services.
    pub(crate) fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Waits for a service that nobody asked for before.
    ///
    /// # Errors
    /// 404 where the registry has no such service, 503 where it has, or does not say.
    pub(crate) async fn find(&self, service: &Service) -> Result<(), Fault> {
        let longest = Duration::from_millis(service.settings.connect_timeout_ms);
        let none = || Fault::NoInstance(service.name.to_string());
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
