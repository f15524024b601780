//! Collaborations by rules: who has the capabilities, one after the other.
//!
//! The result of each flows to the next: what a task asks for first comes first. Where several have a capability
//! the one with the least to do gets it, of those that are there and that the originator may reach.

use super::draft::{Draft, DraftEdge, DraftNode};
use super::{Company, Joint};
use crate::planner::Planning;
use mesh_protocol::AgentId;
use mesh_protocol::load::AgentLoad;

/// Why nobody takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoCollaboration {
    /// No agent that takes steps has this capability.
    Capability {
        /// Its place in the task's list.
        place: usize,
        /// The capability.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// No rule, no capability and no general agent takes this type of task.
    TaskType {
        /// Those that are taken.
        known: Vec<String>,
    },
}

/// Proposes a collaboration.
///
/// # Errors
/// [`NoCollaboration`].
pub(super) fn draft(
    planning: &Planning,
    joint: &Joint,
    company: &Company,
) -> Result<Draft, NoCollaboration> {
    let parts = if joint.capabilities.is_empty() {
        by_type(planning, joint, company)?
    } else {
        by_capability(joint, company)?
    };
    let mut draft = Draft {
        estimated_time: 60.0,
        ..Draft::default()
    };
    for (agent, role) in &parts {
        draft.nodes.push(DraftNode {
            agent: agent.to_string(),
            role: role.clone(),
            priority: None,
        });
    }
    for pair in parts.windows(2) {
        if let [(from, what), (to, _)] = pair {
            draft.edges.push(DraftEdge {
                from: from.to_string(),
                to: to.to_string(),
                data: Some(what.clone()),
                weight: None,
            });
        }
    }
    Ok(draft)
}

fn by_capability(
    joint: &Joint,
    company: &Company,
) -> Result<Vec<(AgentId, String)>, NoCollaboration> {
    let mut parts: Vec<(AgentId, String)> = Vec::new();
    for (place, name) in joint.capabilities.iter().enumerate() {
        let Some(agent) = company.chosen(name) else {
            let agents = company.catalog.agents().iter();
            let mut known: Vec<String> = agents.flat_map(|a| a.capabilities.clone()).collect();
            known.sort();
            known.dedup();
            return Err(NoCollaboration::Capability {
                place,
                name: name.clone(),
                known,
            });
        };
        match parts.iter_mut().find(|(id, _)| id == agent) {
            Some((_, role)) => {
                role.push_str(", ");
                role.push_str(name);
            }
            None => parts.push((agent.clone(), name.clone())),
        }
    }
    Ok(parts)
}

fn by_type(
    planning: &Planning,
    joint: &Joint,
    company: &Company,
) -> Result<Vec<(AgentId, String)>, NoCollaboration> {
    let kind = &joint.request.task_type;
    let busy = company.workload.iter().map(|(agent, depth)| {
        let load = AgentLoad {
            consumers: u32::from(!company.passed_over.contains(agent)),
            depth: *depth,
            ..AgentLoad::default()
        };
        (agent.to_string(), load)
    });
    let known = planning.task_types(&busy.collect());
    let named = known.get(kind).into_iter().flatten();
    let mut agents: Vec<AgentId> = named.filter_map(|name| name.parse().ok()).collect();
    if agents.is_empty() {
        // What an agent can do since it registered.
        agents.extend(company.chosen(kind).cloned());
    }
    if agents.is_empty() {
        agents.extend(planning.general_agent().cloned());
    }
    if agents.is_empty() {
        let known = known.keys().cloned().collect();
        return Err(NoCollaboration::TaskType { known });
    }
    let part = |agent| (agent, kind.clone());
    Ok(agents.into_iter().map(part).collect())
}
