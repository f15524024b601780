//! What came of a step, as a sidecar reports it on `ai.coordination`.

use crate::names::{AgentId, StepId, TaskId};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Result of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    /// The task.
    pub task_id: TaskId,
    /// The step within it.
    pub step_id: StepId,
    /// Who did it.
    pub agent: AgentId,
    /// How it ended, with what the agent answered or why it failed.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How often the agent was called for it.
    pub attempts: u32,
    /// When the agent was first called.
    pub started_at: Timestamp,
    /// When the outcome stood.
    pub finished_at: Timestamp,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Outcome {
    /// The agent answered 2xx with JSON.
    Completed {
        /// The agent's answer, untouched.
        result: Value,
    },
    /// The agent did not.
    Failed {
        /// Why.
        error: StepError,
    },
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct StepError {
    /// Stable word for programs: `agent_unreachable`, `agent_timeout`, `agent_status`,
    /// `agent_answer`, `not_allowed`, `poison`, `deadline_exceeded`, `unroutable`, `step_too_large`, `broker_refused`, `resources_exceeded`,
    /// `cancelled`, `predecessor_failed`; of a task also `not_accepted`, `corrupt`.
    pub code: String,
    /// For people; holds no secret.
    pub detail: String,
}

impl StepError {
    /// An error with a stable `code`.
    pub fn new(code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            detail: detail.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_flat() {
        let result = StepResult {
            task_id: "t".parse().unwrap(),
            step_id: "s".parse().unwrap(),
            agent: "a".parse().unwrap(),
            outcome: Outcome::Completed {
                result: Value::from(1),
            },
            attempts: 1,
            started_at: Timestamp::from_millis(0),
            finished_at: Timestamp::from_millis(1),
        };
        let json = serde_json::to_value(&result).unwrap();
        assert_eq!(json["status"], "completed");
        assert_eq!(json["result"], 1);
        assert_eq!(serde_json::from_value::<StepResult>(json).unwrap(), result);
    }
}
