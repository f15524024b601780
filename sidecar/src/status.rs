//! What `/ready` tells: whether the broker, the queue and the agent are there.

use crate::health::ProgramHealth;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The state behind `/ready`.
pub(crate) struct Status {
    bus: Option<watch::Receiver<bool>>,
    agent: Option<ProgramHealth>,
    state: Mutex<State>,
}

struct State {
    /// Why the queue cannot be consumed; `None` once it is.
    queue: Option<String>,
    draining: bool,
}

impl Status {
    pub(crate) fn new(bus: Option<watch::Receiver<bool>>, agent: Option<ProgramHealth>) -> Self {
        let queue = bus.is_some();
        Self {
            bus,
            agent,
            state: Mutex::new(State {
                queue: queue.then(|| "queue is not declared yet".to_owned()),
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
        if let Some(agent) = &self.agent
            && agent.reason().is_some()
        {
            agent.look();
        }
    }

    /// A call did not reach the agent: it is looked for at once.
    pub(crate) fn agent_away(&self) {
        if let Some(agent) = &self.agent {
            agent.look();
        }
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
        if state.draining {
            reasons.push("draining".to_owned());
        }
        reasons
    }
}
