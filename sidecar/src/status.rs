//! What `/ready` tells: whether the broker, the queue and the agent are there.
//!
//! A failed call marks the agent as away; whoever then asks has it looked for again, since a lane
//! without work would otherwise never notice that the agent came back.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// How long the agent has for accepting a connection when `/ready` looks for it.
const PROBE: Duration = Duration::from_millis(500);

/// The state behind `/ready`.
pub(crate) struct Status {
    bus: Option<watch::Receiver<bool>>,
    agent_address: Option<SocketAddr>,
    state: Mutex<State>,
}

struct State {
    /// Why the queue cannot be consumed; `None` once it is.
    queue: Option<String>,
    /// Why the agent counts as away; `None` when the last call reached it.
    agent: Option<String>,
    draining: bool,
}

impl Status {
    pub(crate) fn new(
        bus: Option<watch::Receiver<bool>>,
        agent_address: Option<SocketAddr>,
    ) -> Self {
        let (queue, agent) = (bus.is_some(), agent_address.is_some());
        Self {
            bus,
            agent_address,
            state: Mutex::new(State {
                queue: queue.then(|| "queue is not declared yet".to_owned()),
                agent: agent.then(|| "agent was not called yet".to_owned()),
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

    pub(crate) fn agent_reached(&self) {
        let mut state = self.state();
        if state.agent.is_some() {
            state.agent = None;
        }
    }

    pub(crate) fn agent_away(&self, why: &str) {
        self.state().agent = Some(why.to_owned());
    }

    /// Whether the last call did not reach the agent, or there was none yet.
    pub(crate) fn is_agent_away(&self) -> bool {
        self.state().agent.is_some()
    }

    /// Looks whether the agent accepts connections.
    pub(crate) async fn look_for_agent(&self) -> bool {
        let Some(address) = self.agent_address else {
            return false;
        };
        match tokio::time::timeout(PROBE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                self.agent_reached();
                return true;
            }
            Ok(Err(error)) => self.agent_away(&format!("agent cannot be reached: {error}")),
            Err(_) => self.agent_away("agent does not accept connections in time"),
        }
        false
    }

    pub(crate) fn draining(&self) {
        self.state().draining = true;
    }

    /// Every reason why this sidecar is not ready; none when it is.
    pub(crate) async fn reasons(&self) -> Vec<String> {
        if self.is_agent_away() {
            self.look_for_agent().await;
        }
        let mut reasons = Vec::new();
        if self.bus.as_ref().is_some_and(|bus| !*bus.borrow()) {
            reasons.push("broker is not connected".to_owned());
        }
        let state = self.state();
        reasons.extend(state.queue.clone());
        reasons.extend(state.agent.clone());
        if state.draining {
            reasons.push("draining".to_owned());
        }
        reasons
    }
}
