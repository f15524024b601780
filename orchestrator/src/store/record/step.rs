//! The steps of a stored run, and how they change.

use super::TaskStatus;
use crate::run::machine::StepStatus;
use mesh_protocol::event::Event;
use mesh_protocol::outcome::StepError;
use mesh_protocol::{AgentId, StepId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// One step of a run; the JSON of the store's `step:<step>` field and of the API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Where it stands.
    pub status: StepStatus,
    /// Who does it.
    pub agent: AgentId,
    /// When it came to stand there.
    pub time: Timestamp,
    /// The resources that it asks for, while it waits for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
    /// When it became due to be handed to the broker: from then on it waits in the outbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatched_at: Option<Timestamp>,
    /// When the broker confirmed that it has it. Written with the next change of the run, or a moment later;
    /// a step that was settled before has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
    /// When its result stops being wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// When its agent was first called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it was settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// How often its agent was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// What its agent answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Why it has no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
}

/// One transition of a run, written in one go.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The steps that changed, whole, by their place in the plan.
    pub steps: Vec<(usize, StepId, StepRecord)>,
    /// Steps completed so far.
    pub completed: usize,
    /// How the task ended, if it did.
    pub end: Option<End>,
    /// The run's version with this change made.
    pub version: u64,
    /// Steps whose results were handed over and are settled now, one way or the other.
    pub handed: Vec<StepId>,
    /// What happened, for the log.
    pub events: Vec<Arc<Event>>,
}

/// The end of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// `Completed`, `Failed` or `Cancelled`.
    pub status: TaskStatus,
    /// Why it failed.
    pub error: Option<StepError>,
    /// When.
    pub at: Timestamp,
}

impl StepRecord {
    /// A step that waits.
    pub fn pending(agent: AgentId, time: Timestamp) -> Self {
        Self {
            status: StepStatus::Pending,
            agent,
            time,
            waiting_for: Vec::new(),
            dispatched_at: None,
            published_at: None,
            deadline: None,
            started_at: None,
            finished_at: None,
            attempts: None,
            result: None,
            error: None,
        }
    }
}
