//! A registry within one process, for a mesh on a laptop and for tests.
//!
//! It has no task of its own: whoever asks or waits notices what ran out in the meantime.

use super::{Health, Instance, Instances, Registered, Registry, RegistryError};
use crate::config::ServiceName;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long a question waits for news.
const WAIT: Duration = Duration::from_secs(60);
/// The index of a service that nobody registered yet.
const FIRST: u64 = 1;

/// A registry within one process.
#[derive(Debug)]
pub struct Memory {
    state: Mutex<State>,
    /// The index of the last change, for those who wait.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    /// When a service changed last. One that left stays, so that its index never goes back.
    indices: BTreeMap<ServiceName, u64>,
}

#[derive(Debug)]
struct Entry {
    registered: Registered,
    health: Health,
    /// When something happens to it without a report: a passing one becomes critical, a critical one is forgotten.
    due: Instant,
    /// Shared by all who ask.
    instance: Instance,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(FIRST),
        }
    }
}

impl Memory {
    /// An empty registry.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The state as it is now: what ran out has run out.
    fn state(&self) -> MutexGuard<'_, State> {
        // A map of plain values is whole whatever happened to the last holder.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let due = |entry: &Entry| entry.due <= now;
        if state.entries.values().any(due) {
            let mut changed = Vec::new();
            state.entries.retain(|_, entry| {
                if !due(entry) {
                    return true;
                }
                changed.push(entry.registered.service.clone());
                let silent_since = entry.due;
                let was = std::mem::replace(
                    &mut entry.health,
                    Health::Critical("no report within its time to live".to_owned()),
                );
                entry.due = silent_since + entry.registered.forget_after;
                was == Health::Passing && entry.due > now
            });
            for service in changed {
                self.changed(&mut state, service);
            }
        }
        state
    }

    fn changed(&self, state: &mut State, service: ServiceName) {
        self.changed.send_modify(|index| {
            *index += 1;
            state.indices.insert(service, *index);
        });
    }

    /// What is known of a service, and when time alone changes something.
    fn look(&self, service: &ServiceName) -> (Instances, Option<Instant>) {
        let state = self.state();
        let of_service = || {
            let entries = state.entries.values();
            entries.filter(|entry| entry.registered.service == *service)
        };
        let passing = of_service().filter(|entry| entry.health == Health::Passing);
        let instances = Instances {
            index: state.indices.get(service).copied().unwrap_or(FIRST),
            list: passing.map(|entry| entry.instance.clone()).collect(),
        };
        (instances, of_service().map(|entry| entry.due).min())
    }
}

#[async_trait]
impl Registry for Memory {
    async fn register(&self, instance: &Registered) -> Result<(), RegistryError> {
        let entry = Entry {
            registered: instance.clone(),
            health: Health::Critical("not reported yet".to_owned()),
            due: Instant::now() + instance.forget_after,
            instance: Instance {
                id: instance.id.as_str().into(),
                address: instance.address,
                weight: instance.weight,
                zone: None,
                meta: Arc::new(instance.meta.clone()),
            },
        };
        let mut state = self.state();
        let was = state.entries.insert(instance.id.clone(), entry);
        // An id that goes to another service leaves the first one.
        if let Some(was) = was
            && was.registered.service != instance.service
        {
            self.changed(&mut state, was.registered.service);
        }
        self.changed(&mut state, instance.service.clone());
        Ok(())
    }

    async fn report(&self, id: &str, health: &Health) -> Result<(), RegistryError> {
        let mut state = self.state();
        let entry = state.entries.get_mut(id).ok_or(RegistryError::Unknown)?;
        match health {
            Health::Passing => entry.due = Instant::now() + entry.registered.ttl,
            // Counted from when it became so, as long as it stays so.
            Health::Critical(_) if entry.health != Health::Passing => {}
            Health::Critical(_) => entry.due = Instant::now() + entry.registered.forget_after,
        }
        let same = entry.health == *health;
        entry.health = health.clone();
        let service = entry.registered.service.clone();
        if !same {
            self.changed(&mut state, service);
        }
        Ok(())
    }

    async fn deregister(&self, id: &str) -> Result<(), RegistryError> {
        let mut state = self.state();
        if let Some(entry) = state.entries.remove(id) {
            self.changed(&mut state, entry.registered.service);
        }
        Ok(())
    }

    async fn instances(
        &self,
        service: &ServiceName,
        after: Option<u64>,
    ) -> Result<Instances, RegistryError> {
        let mut changed = self.changed.subscribe();
        let end = Instant::now() + WAIT;
        loop {
            changed.mark_unchanged();
            let (instances, due) = self.look(service);
            let news = after.is_none_or(|after| instances.index != after);
            if news || Instant::now() >= end {
                return Ok(instances);
            }
            let next = due.map_or(end, |due| due.min(end));
            tokio::select! {
                // The sender is in `self`.
                _ = changed.changed() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    async fn services(&self) -> Result<Vec<ServiceName>, RegistryError> {
        let state = self.state();
        let mut names: Vec<_> = state
            .entries
            .values()
            .map(|entry| entry.registered.service.clone())
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }
}
