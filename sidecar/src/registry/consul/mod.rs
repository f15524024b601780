//! Consul as the registry, by the HTTP API of the agent on this machine.
//!
//! An instance has a check with a time to live, which the sidecar feeds with its program's real health. Instances
//! are found by blocking queries, whose rules are Consul's (<https://developer.hashicorp.com/consul/api-docs/features/blocking>):
//! an index that goes back means asking anew, zero is never asked with, and who asks in a loop slows down (which
//! [`super::Discovery`] does).
//!
//! With access control, the token needs `write` on the sidecar's own service and `read` on services and nodes:
//! without the latter Consul answers with fewer instances, not with an error.

mod bell;
#[cfg(test)]
mod tests;
mod wire;

use super::{Health, Instances, Registered, Registry, RegistryError};
use crate::api::consul::Agent;
use crate::config::{self, ServiceName};
use async_trait::async_trait;
use bell::Bell;
use std::collections::BTreeMap;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

/// Blocking queries for one service each, at the same time; what is beyond waits at the [`bell`].
const PLACES: usize = 32;
/// Other questions for instances at the same time: enough to ask for a thousand services in a moment.
const LOOKS: usize = 8;
/// Consul's own entry in its catalogue, which is no service of the mesh.
const ITSELF: &str = "consul";

/// The agent of Consul on this machine.
pub struct Consul {
    agent: Agent,
    places: Semaphore,
    looks: Semaphore,
    bell: Bell,
}

impl Consul {
    /// Consul as `config` says; it need not be there yet.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] when the configuration cannot work: its URL, or the file of authorities.
    pub fn new(config: &config::Consul) -> Result<Self, RegistryError> {
        Ok(Self {
            agent: Agent::new(config).map_err(RegistryError::Refused)?,
            places: Semaphore::new(PLACES),
            looks: Semaphore::new(LOOKS),
            bell: Bell::new(),
        })
    }

    /// Asks for the instances at once, or for what is beyond an index.
    async fn ask(
        &self,
        service: &ServiceName,
        after: Option<u64>,
    ) -> Result<Instances, RegistryError> {
        let path = ["v1", "health", "service", service.as_str()];
        let passing = [("passing", "1")];
        let answer = match after {
            None => self.agent.get(&path, &passing).await?,
            Some(index) => self.agent.get_after(&path, &passing, index).await?,
        };
        let answer = answer.success()?;
        let entries: Vec<wire::Entry> = answer.read()?;
        if entries.is_empty() && answer.filtered {
            let why = format!("the token may not read service `{service}`");
            return Err(RegistryError::Refused(why));
        }
        let index = answer.index.ok_or_else(|| {
            RegistryError::Away("answer has no index, so it is not Consul's".to_owned())
        })?;
        Ok(Instances {
            index,
            list: wire::instances(entries),
        })
    }

    /// Asks at once, a few at a time; those that wait in line for too long hear what a slow Consul means.
    async fn look(&self, service: &ServiceName) -> Result<Instances, RegistryError> {
        let asked = async {
            let _place = self.looks.acquire().await;
            Box::pin(self.ask(service, None)).await
        };
        timeout(self.agent.timeout(), asked)
            .await
            .unwrap_or_else(|_| Err(RegistryError::Away("does not answer in time".to_owned())))
    }

    /// Looks whenever the bell rings, until there is news.
    async fn wait(&self, service: &ServiceName, after: u64) -> Result<Instances, RegistryError> {
        let end = Instant::now() + self.agent.wait();
        let mut heard = self.bell.listen();
        loop {
            // Before the wait as well: what changed since the last answer has rung already.
            let found = self.look(service).await?;
            if found.index != after || Instant::now() >= end {
                return Ok(found);
            }
            tokio::select! {
                rung = self.bell.wait(&mut heard, &self.agent) => rung?,
                () = sleep_until(end) => {}
            }
        }
    }
}

#[async_trait]
impl Registry for Consul {
    async fn register(&self, instance: &Registered) -> Result<(), RegistryError> {
        let path = ["v1", "agent", "service", "register"];
        // What an earlier registration under this id left behind would count as well.
        let query = [("replace-existing-checks", "true")];
        let body = json(&wire::Registration::new(instance))?;
        self.agent.put(&path, &query, body).await?.success()?;
        Ok(())
    }

    async fn report(&self, id: &str, health: &Health) -> Result<(), RegistryError> {
        let check = wire::check_id(id);
        let path = ["v1", "agent", "check", "update", check.as_str()];
        let answer = self
            .agent
            .put(&path, &[], json(&wire::Report::new(health))?)
            .await?;
        let words = answer.words();
        // 1.8 answers 500 for a check that it does not know, later versions 404; with access control on, 403
        // and 500 have other words.
        let unknown = answer.status.as_u16() == 404
            || answer.status.as_u16() == 500
                && ["Unknown check", "does not have associated TTL"]
                    .iter()
                    .any(|known| words.contains(known));
        if unknown {
            return Err(RegistryError::Unknown);
        }
        answer.success()?;
        Ok(())
    }

    async fn deregister(&self, id: &str) -> Result<(), RegistryError> {
        let path = ["v1", "agent", "service", "deregister", id];
        let answer = self.agent.put(&path, &[], Vec::new()).await?;
        // 1.8 answers 200 for a service that it does not know, later versions 404, some in between 500.
        let unknown = answer.status.as_u16() == 404 || answer.words().contains("Unknown service");
        if !unknown {
            answer.success()?;
        }
        Ok(())
    }

    async fn instances(
        &self,
        service: &ServiceName,
        after: Option<u64>,
    ) -> Result<Instances, RegistryError> {
        let Some(after) = after else {
            return self.look(service).await;
        };
        match self.places.try_acquire() {
            Ok(_place) => Box::pin(self.ask(service, Some(after))).await,
            Err(_) => self.wait(service, after).await,
        }
    }

    async fn services(&self) -> Result<Vec<ServiceName>, RegistryError> {
        let answer = self.agent.get(&["v1", "catalog", "services"], &[]).await?;
        let answer = answer.success()?;
        let names: BTreeMap<String, serde::de::IgnoredAny> = answer.read()?;
        Ok(names
            .into_keys()
            .filter(|name| name != ITSELF)
            .filter_map(|name| name.parse().ok())
            .collect())
    }
}

impl Registered {
    /// Id and name of the check that Consul has for it.
    pub fn check(&self) -> (String, &'static str) {
        (wire::check_id(&self.id), wire::CHECK_NAME)
    }
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, RegistryError> {
    serde_json::to_vec(value).map_err(|e| RegistryError::Refused(e.to_string()))
}
