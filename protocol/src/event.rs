//! Changes of state, as published on `ai.events` in the plan's form.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One change of state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub event_type: EventType,
    /// About which task and step, with what; holds `task_id`, but for a [gap](EventType::Gap).
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
    /// Events that are no longer kept were not told.
    #[serde(rename = "gap")]
    Gap,
}

impl Event {
    /// What tells it apart, the same whenever it is told: `<task>:<step>:<type>`, or `<task>:<type>`. Nothing
    /// happens twice to a task or a step; a gap is known by when it was found.
    pub fn id(&self) -> String {
        let field = |name: &str| self.data.get(name).and_then(Value::as_str);
        let kind = self.event_type.as_str();
        match (field("task_id"), field("step_id")) {
            (Some(task), Some(step)) => format!("{task}:{step}:{kind}"),
            (Some(task), None) => format!("{task}:{kind}"),
            (None, _) => format!("{kind}:{}", self.timestamp),
        }
    }

    /// The task that it is about.
    pub fn task_id(&self) -> Option<&str> {
        self.data.get("task_id").and_then(Value::as_str)
    }
}

impl EventType {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::TaskAccepted,
        Self::StepDispatched,
        Self::StepCompleted,
        Self::StepFailed,
        Self::StepSkipped,
        Self::TaskCompleted,
        Self::TaskFailed,
        Self::TaskCancelled,
        Self::Gap,
    ];

    /// The type of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether nothing more happens to the task after it.
    pub fn ends_task(self) -> bool {
        matches!(
            self,
            Self::TaskCompleted | Self::TaskFailed | Self::TaskCancelled
        )
    }

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
            Self::Gap => "gap",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_id_is_the_same_whenever_an_event_is_told() {
        let event = |event_type, data| Event {
            event_type,
            data,
            timestamp: Timestamp::from_millis(7),
            source: "orchestrator".to_owned(),
        };
        let step = event(
            EventType::StepFailed,
            json!({"task_id": "t", "step_id": "s"}),
        );
        assert_eq!(step.id(), "t:s:step.failed");
        let task = event(EventType::TaskAccepted, json!({"task_id": "t"}));
        assert_eq!(task.id(), "t:task.accepted");
        assert!(event(EventType::Gap, json!({})).id().starts_with("gap:"));
    }

    #[test]
    fn every_name_is_read_as_it_is_written() {
        for kind in EventType::ALL {
            assert_eq!(EventType::parse(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert_eq!(EventType::parse("task.odd"), None);
    }
}
