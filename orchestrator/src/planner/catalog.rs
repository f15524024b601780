//! Whom a plan may be made of, and for whom.

use crate::config;
use crate::resources::Amounts;
use crate::store::Owner;
use mesh_protocol::AgentId;
use mesh_protocol::assertion::Claims;
use std::collections::BTreeMap;

/// On whose behalf a plan is made; somebody on this machine's by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Originator {
    /// Whose tasks these are.
    pub owner: Option<Owner>,
    /// What the gateway says of them, where it does.
    pub claims: Option<Claims>,
}

impl Originator {
    /// Whether `agent` takes steps on their behalf.
    pub fn reaches(&self, agent: &config::Agent) -> bool {
        agent.takes_from(self.claims.as_ref())
    }
}

/// Who is there to be planned with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    agents: Vec<config::Agent>,
    capacity: Amounts,
}

impl Catalog {
    /// The agents of the mesh.
    pub fn new(agents: Vec<config::Agent>) -> Self {
        Self {
            agents,
            capacity: Amounts::new(),
        }
    }

    /// The same, where steps share that much.
    #[must_use]
    pub fn with_resources(self, capacity: Amounts) -> Self {
        Self { capacity, ..self }
    }

    /// How much there is of what steps share.
    pub fn capacity(&self) -> &Amounts {
        &self.capacity
    }

    /// The agents, in the order of the configuration.
    pub fn agents(&self) -> &[config::Agent] {
        &self.agents
    }

    /// What a step of `agent` takes of the mesh's resources where it says nothing of its own; nothing where none are
    /// declared.
    pub fn takes(&self, agent: &AgentId) -> Amounts {
        match self.find(agent) {
            Some(agent) if !self.capacity().is_empty() => agent.resources.clone(),
            _ => Amounts::new(),
        }
    }

    /// The agent of that name.
    pub fn find(&self, id: &AgentId) -> Option<&config::Agent> {
        self.agents.iter().find(|a| a.id == *id)
    }

    /// The capabilities that several agents have.
    pub fn shared(&self) -> Vec<&str> {
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for capability in self.agents.iter().flat_map(|a| &a.capabilities) {
            *times.entry(capability).or_default() += 1;
        }
        let shared = times.into_iter().filter(|(_, times)| *times > 1);
        shared.map(|(capability, _)| capability).collect()
    }

    /// The agents that can do `capability`, in the order of the configuration.
    pub fn capable<'a>(&'a self, capability: &'a str) -> impl Iterator<Item = &'a config::Agent> {
        self.agents
            .iter()
            .filter(move |a| a.capabilities.iter().any(|c| c == capability))
    }
}
