//! A collaboration: which agents work on a task together, what flows between them, and where they wait for
//! one another, in the form of the plan's coordinator.

use crate::names::AgentId;
use serde::{Deserialize, Serialize};

/// Lowest priority of a node and lowest weight of an edge.
pub const LEAST: u8 = 1;
/// Highest priority of a node and highest weight of an edge.
pub const MOST: u8 = 10;
/// What a node or an edge has that says nothing of it.
pub const USUAL: u8 = 5;

/// A checked graph: every agent once, edges between them, no cycle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collaboration {
    /// Who takes part.
    pub nodes: Vec<Node>,
    /// What flows from whom to whom.
    pub edges: Vec<Edge>,
    /// Where some wait for others without being given anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub synchronization_points: Vec<SynchronizationPoint>,
}

/// One agent's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The agent.
    pub agent: AgentId,
    /// What it does here.
    pub role: String,
    /// [`LEAST`] to [`MOST`]: the priority of its step in the agent's queue.
    pub priority: u8,
}

/// One agent's result on its way to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Whose result.
    pub from: AgentId,
    /// Who is given it.
    pub to: AgentId,
    /// What it is, for the receiver to read (`type` of its `incoming_data`).
    pub data: String,
    /// [`LEAST`] to [`MOST`]: how heavy it is, for the critical path.
    pub weight: u8,
}

/// Where agents wait for one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SynchronizationPoint {
    /// None of `before` begins until all of `after` are done.
    Barrier {
        /// Who must be done.
        after: Vec<AgentId>,
        /// Who waits.
        before: Vec<AgentId>,
    },
    /// Text, as models write it: kept for people, and nobody waits.
    Note(String),
}

impl Collaboration {
    /// The edges that lead to `agent`.
    pub fn edges_to<'a>(&'a self, agent: &'a AgentId) -> impl Iterator<Item = &'a Edge> {
        self.edges.iter().filter(move |edge| edge.to == *agent)
    }

    /// The part of `agent`.
    pub fn node(&self, agent: &AgentId) -> Option<&Node> {
        self.nodes.iter().find(|node| node.agent == *agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_the_wire() {
        let text = r#"{"nodes":[{"agent":"a","role":"read","priority":5}],"edges":[],"synchronization_points":[{"after":["a"],"before":["b"]},"when all is read"]}"#;
        let read: Collaboration = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(matches!(
            read.synchronization_points[1],
            SynchronizationPoint::Note(_)
        ));
    }
}
