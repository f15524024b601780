//! Changes of state, as published on `ai.events` in the plan's form.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One change of state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub event_type: EventType,
    /// About which task and step, with what; always holds `task_id`.
    pub data: Value,
    /// When.
    pub timestamp: Timestamp,
    /// Which part says so.
    pub source: String,
}

/// What can happen to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// The task is planned and stored.
    #[serde(rename = "task.accepted")]
    TaskAccepted,
    /// A step was handed to the broker.
    #[serde(rename = "step.dispatched")]
    StepDispatched,
    /// A step's agent answered.
    #[serde(rename = "step.completed")]
    StepCompleted,
    /// A step failed.
    #[serde(rename = "step.failed")]
    StepFailed,
    /// A step will not run, since what it waits for failed.
    #[serde(rename = "step.skipped")]
    StepSkipped,
    /// Every step is completed.
    #[serde(rename = "task.completed")]
    TaskCompleted,
    /// The task ended without all its steps.
    #[serde(rename = "task.failed")]
    TaskFailed,
    /// The client called it off.
    #[serde(rename = "task.cancelled")]
    TaskCancelled,
}

impl EventType {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskAccepted => "task.accepted",
            Self::StepDispatched => "step.dispatched",
            Self::StepCompleted => "step.completed",
            Self::StepFailed => "step.failed",
            Self::StepSkipped => "step.skipped",
            Self::TaskCompleted => "task.completed",
            Self::TaskFailed => "task.failed",
            Self::TaskCancelled => "task.cancelled",
        }
    }
}
