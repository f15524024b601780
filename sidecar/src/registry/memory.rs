//! A registry within one process, for a mesh on a laptop and for tests.

use super::{Health, Instance, Instances, Registered, Registry, RegistryError};
use crate::config::ServiceName;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a question waits for news.
const WAIT: Duration = Duration::from_secs(60);

/// A registry within one process.
#[derive(Debug)]
pub struct Memory {
    entries: Mutex<BTreeMap<String, Entry>>,
    index: watch::Sender<u64>,
}

#[derive(Debug)]
struct Entry {
    registered: Registered,
    health: Health,
    /// Until when it counts as alive.
    until: Instant,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            index: watch::Sender::new(1),
        }
    }
}

impl Memory {
    /// An empty registry.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    // A map of plain values is whole whatever happened to the last holder.
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.index.send_modify(|index| *index += 1);
    }

    fn healthy(&self, service: &ServiceName) -> Vec<Instance> {
        let now = Instant::now();
        let entries = self.entries();
        let healthy = entries.values().filter(|entry| {
            entry.registered.service == *service
                && entry.health == Health::Passing
                && entry.until > now
        });
        healthy
            .map(|entry| Instance {
                id: entry.registered.id.clone(),
                address: entry.registered.address,
                weight: entry.registered.weight,
                zone: None,
                meta: entry.registered.meta.clone(),
            })
            .collect()
    }
}

#[async_trait]
impl Registry for Memory {
    async fn register(&self, instance: &Registered) -> Result<(), RegistryError> {
        let entry = Entry {
            registered: instance.clone(),
            health: Health::Critical("not reported yet".to_owned()),
            until: Instant::now() + instance.ttl,
        };
        self.entries().insert(instance.id.clone(), entry);
        self.changed();
        Ok(())
    }

    async fn report(&self, id: &str, health: &Health) -> Result<(), RegistryError> {
        {
            let mut entries = self.entries();
            let entry = entries.get_mut(id).ok_or(RegistryError::Unknown)?;
            let now = Instant::now();
            let same = entry.health == *health && entry.until > now;
            entry.until = now + entry.registered.ttl;
            entry.health = health.clone();
            if same {
                return Ok(());
            }
        }
        self.changed();
        Ok(())
    }

    async fn deregister(&self, id: &str) -> Result<(), RegistryError> {
        if self.entries().remove(id).is_some() {
            self.changed();
        }
        Ok(())
    }

    async fn instances(
        &self,
        service: &ServiceName,
        after: Option<u64>,
    ) -> Result<Instances, RegistryError> {
        let mut index = self.index.subscribe();
        let now = match after {
            None => *index.borrow_and_update(),
            Some(after) => {
                let news = index.wait_for(|index| *index > after);
                match tokio::time::timeout(WAIT, news).await {
                    Ok(Ok(index)) => *index,
                    Ok(Err(_)) | Err(_) => after,
                }
            }
        };
        Ok(Instances {
            index: now,
            list: self.healthy(service),
        })
    }

    async fn services(&self) -> Result<Vec<ServiceName>, RegistryError> {
        let entries = self.entries();
        let mut names: Vec<_> = entries
            .values()
            .map(|entry| entry.registered.service.clone())
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }
}
