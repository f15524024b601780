//! How busy the agents are: what the orchestrator tells the gateways' filters, so that a task which could
//! not start in time is refused at the door and not after it waited.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Path of the orchestrator at which [`Loads`] are found.
pub const PATH: &str = "/internal/load";

/// How busy every agent is that the orchestrator has heard of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Loads {
    /// By agent id.
    pub agents: BTreeMap<String, AgentLoad>,
    /// Agents that the planner gives a task of this type to, by task type.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub task_types: BTreeMap<String, Vec<String>>,
    /// The agent that takes every other task type, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub general_agent: Option<String>,
}

/// How busy one agent is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentLoad {
    /// Sidecars that consume its queue; 0: nobody works.
    pub consumers: u32,
    /// Steps that were sent and have not ended.
    pub depth: u64,
    /// Age of the oldest of them, in milliseconds.
    pub oldest_ms: u64,
    /// Steps that its agent answered per second in which there was work, of late; none while too few were
    /// answered to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_s: Option<f64>,
}
