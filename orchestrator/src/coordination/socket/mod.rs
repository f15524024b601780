//! The WebSockets of this replica: one session each, and what wakes them.
//!
//! ```text
//!  agent ─text─▶ frame ─▶ session ─▶ hub ─▶ mailbox of the receiver
//!  agent ◀─text─ session ◀─ look ◀─ woken by: hub (listen), every few seconds
//!                    ◀─ presence, told from looking at who is there
//! ```
//!
//! What wakes a session may get lost and comes late; what a session delivers it has read from the mailbox.

mod end;
pub mod frame;
mod metrics;
mod pace;
mod session;
mod waking;

pub use metrics::SocketMetrics;
pub use session::{Acknowledge, run};

use super::hub::{Bounds, Hub};
use mesh_protocol::AgentId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How agents are connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Most agents that are connected to this replica. Each costs some 50 kB.
    pub max_connections: usize,
    /// Largest message, in bytes. What is larger belongs into a store, and a reference into the message.
    pub max_message_bytes: usize,
    /// Messages of one connection in a second; what comes faster is read slower.
    pub messages_per_s: u32,
    /// Between two pings, in milliseconds.
    pub ping_ms: u64,
    /// A connection that is silent for so long has ended, whatever the kernel says: in milliseconds.
    pub silence_ms: u64,
    /// How much is kept for whom.
    pub mailboxes: Bounds,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 1_024,
            max_message_bytes: 64 * 1024,
            messages_per_s: 1_000,
            ping_ms: 10_000,
            silence_ms: 25_000,
            mailboxes: Bounds::default(),
        }
    }
}

impl Settings {
    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn ping(&self) -> Duration {
        Duration::from_millis(self.ping_ms.max(1))
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.silence_ms)
    }

    /// Several times within the presence.
    fn renewal(&self) -> Duration {
        (self.mailboxes.presence() / 3).max(Duration::from_millis(1))
    }
}

/// Most connections of one agent that are not over yet: one, those that it has replaced and that are being closed, and
/// some that its machine has forgotten. More would take the places of others.
const OF_ONE: usize = 16;

/// A place for a connection; free again when it is dropped.
pub struct Place {
    sockets: Arc<Sockets>,
    agent: AgentId,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.sockets.taken();
        match taken.get_mut(&self.agent) {
            Some(of_agent) if *of_agent > 1 => *of_agent -= 1,
            _ => {
                taken.remove(&self.agent);
            }
        }
    }
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// As many connect as may.
    #[error("as many agents as allowed are connected")]
    AtAll,
    /// The agent connects again and again.
    #[error("this agent has {OF_ONE} connections that are not over yet")]
    OfAgent,
}

/// What wakes each agent's sessions, by their numbers: mostly one, and for a moment two.
type Bells = HashMap<AgentId, Vec<(u64, Arc<Notify>)>>;

/// What the sessions of this replica share.
pub struct Sockets {
    hub: Arc<dyn Hub>,
    settings: Settings,
    /// The agents of the mesh, who are known without having registered.
    agents: BTreeSet<AgentId>,
    metrics: SocketMetrics,
    places: Arc<Semaphore>,
    /// How many of the places each agent has.
    taken: Mutex<HashMap<AgentId, usize>>,
    sessions: Mutex<Bells>,
    next: AtomicU64,
    /// Who is there, as far as this replica has looked.
    presence: watch::Sender<Arc<BTreeSet<AgentId>>>,
    changed: Notify,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Sockets {
    /// No sessions yet. [`Self::start`] begins what wakes them.
    ///
    /// # Errors
    /// A metric's name is taken.
    pub fn new(
        hub: Arc<dyn Hub>,
        settings: Settings,
        agents: impl Iterator<Item = AgentId>,
        registry: &prometheus::Registry,
        stopping: CancellationToken,
    ) -> Result<Arc<Self>, prometheus::Error> {
        Ok(Arc::new(Self {
            hub,
            places: Arc::new(Semaphore::new(settings.max_connections)),
            taken: Mutex::default(),
            settings,
            agents: agents.collect(),
            metrics: SocketMetrics::new(registry)?,
            sessions: Mutex::default(),
            next: AtomicU64::new(0),
            presence: watch::Sender::default(),
            changed: Notify::new(),
            tasks: TaskTracker::new(),
            stopping,
        }))
    }

    /// Begins to wake sessions, until this replica stops.
    pub fn start(self: &Arc<Self>) {
        self.tasks.spawn(waking::listen(Arc::clone(self)));
        self.tasks.spawn(waking::presence(Arc::clone(self)));
    }

    /// Returns when every session has said that this replica stops, or `patience` is over.
    pub async fn closed(&self, patience: Duration) {
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("agents' connections were cut off");
        }
    }

    /// What is known of agents.
    pub fn hub(&self) -> &dyn Hub {
        &*self.hub
    }

    /// How agents are connected.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A place for one more connection of `agent`.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn place(self: &Arc<Self>, agent: &AgentId) -> Result<Place, NoPlace> {
        let mut taken = self.taken();
        let of_agent = taken.get(agent).copied().unwrap_or(0);
        if of_agent >= OF_ONE {
            return Err(NoPlace::OfAgent);
        }
        let places = Arc::clone(&self.places);
        let permit = places.try_acquire_owned().map_err(|_| NoPlace::AtAll)?;
        taken.insert(agent.clone(), of_agent + 1);
        drop(taken);
        Ok(Place {
            sockets: Arc::clone(self),
            agent: agent.clone(),
            _permit: permit,
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<AgentId, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is such an agent: in the mesh, or registered.
    ///
    /// # Errors
    /// Whoever registered cannot be looked up.
    pub async fn knows(&self, agent: &AgentId) -> Result<bool, super::hub::HubError> {
        if self.agents.contains(agent) {
            return Ok(true);
        }
        self.hub.is_registered(agent).await
    }

    fn sessions(&self) -> MutexGuard<'_, Bells> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session of `agent` that is woken from now on.
    fn enter(&self, agent: &AgentId) -> (u64, Arc<Notify>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let bell = Arc::new(Notify::new());
        let mut sessions = self.sessions();
        let of = sessions.entry(agent.clone()).or_default();
        of.push((number, Arc::clone(&bell)));
        (number, bell)
    }

    fn exit(&self, agent: &AgentId, number: u64) {
        let mut sessions = self.sessions();
        if let Some(of) = sessions.get_mut(agent) {
            of.retain(|(other, _)| *other != number);
            if of.is_empty() {
                sessions.remove(agent);
            }
        }
    }

    fn wake(&self, agent: &AgentId) {
        for (_, bell) in self.sessions().get(agent).into_iter().flatten() {
            bell.notify_one();
        }
    }

    fn wake_all(&self) {
        for (_, bell) in self.sessions().values().flatten() {
            bell.notify_one();
        }
    }
}
