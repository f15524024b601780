//! What `/ready` tells: whether broker, queue, agent, certificate and registry are there.

use crate::health::ProgramHealth;
use crate::identity::Identity;
use crate::registry::Announcement;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How long the agent has for accepting a connection when the worker looks for it.
const PROBE: Duration = Duration::from_millis(500);

/// The state behind `/ready`.
pub(crate) struct Status {
    bus: Option<watch::Receiver<bool>>,
    agent: Option<ProgramHealth>,
    agent_address: Option<SocketAddr>,
    identity: Option<Identity>,
    announcement: Option<Announcement>,
    state: Mutex<State>,
}

struct State {
    /// Why the queue cannot be consumed; `None` once it is.
    queue: Option<String>,
    /// Whether the last call did not reach the agent.
    missed: bool,
    draining: bool,
}

impl Status {
    pub(crate) fn new(
        bus: Option<watch::Receiver<bool>>,
        agent: Option<ProgramHealth>,
        agent_address: Option<SocketAddr>,
        identity: Option<Identity>,
        announcement: Option<Announcement>,
    ) -> Self {
        let queue = bus.is_some();
        Self {
            bus,
            agent,
            agent_address,
            identity,
            announcement,
            state: Mutex::new(State {
                queue: queue.then(|| "queue is not declared yet".to_owned()),
                missed: false,
                draining: false,
            }),
        }
    }

    // A state of plain texts is whole whatever happened to the last holder.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn queue_consumed(&self) {
        self.state().queue = None;
    }

    pub(crate) fn queue_failed(&self, why: String) {
        self.state().queue = Some(why);
    }

    /// A call reached the agent: where it was thought to be away it is looked for at once.
    pub(crate) fn agent_reached(&self) {
        self.state().missed = false;
        if let Some(agent) = &self.agent
            && agent.reason().is_some()
        {
            agent.look();
        }
    }

    /// A call did not reach the agent: it is looked for at once.
    pub(crate) fn agent_away(&self) {
        self.state().missed = true;
        if let Some(agent) = &self.agent {
            agent.look();
        }
    }

    /// Whether the last call did not reach the agent.
    pub(crate) fn is_agent_away(&self) -> bool {
        self.state().missed
    }

    /// Looks whether the agent accepts connections.
    pub(crate) async fn look_for_agent(&self) -> bool {
        let Some(address) = self.agent_address else {
            return false;
        };
        let connected = tokio::time::timeout(PROBE, TcpStream::connect(address)).await;
        let there = matches!(connected, Ok(Ok(_)));
        if there {
            self.agent_reached();
        }
        there
    }

    pub(crate) fn draining(&self) {
        self.state().draining = true;
    }

    /// Every reason why this sidecar is not ready; none when it is.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.bus.as_ref().is_some_and(|bus| !*bus.borrow()) {
            reasons.push("broker is not connected".to_owned());
        }
        let state = self.state();
        reasons.extend(state.queue.clone());
        reasons.extend(self.agent.as_ref().and_then(ProgramHealth::reason));
        reasons.extend(self.identity.iter().flat_map(Identity::reasons));
        reasons.extend(self.announcement.as_ref().and_then(Announcement::reason));
        if state.draining {
            reasons.push("draining".to_owned());
        }
        reasons
    }
}
