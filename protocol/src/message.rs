//! A step on its way to an agent, in three wire forms.
//!
//! The mesh writes the first; the other two come from publishers of the plan and are carried out too:
//!
//! 1. [`StepTask`] as serialised here (it contains every field of the second form);
//! 2. `{task_id, agent, action, timestamp}`;
//! 3. `{task_id, task, timestamp}`, where `task` is the payload.

use crate::names::{AgentId, NameError, StepId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Header that carries the step's idempotency key, over AMQP and over HTTP.
pub const HEADER_IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// Header of the W3C trace context, over AMQP and over HTTP.
pub const HEADER_TRACEPARENT: &str = "traceparent";

/// One step for one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTask {
    /// The task.
    pub task_id: TaskId,
    /// The step within it; the agent's name in the older forms, as the plan keys its steps.
    pub step_id: StepId,
    /// Who is to do it.
    pub agent: AgentId,
    /// What to do.
    pub action: String,
    /// The part the agent plays.
    pub role: String,
    /// Input of the step.
    #[serde(default)]
    pub payload: Map<String, Value>,
    /// Results of the steps this one depends on, by step id: `{agent, data}`.
    #[serde(default)]
    pub incoming_data: Map<String, Value>,
    /// When it was dispatched; free text, since older publishers leave out the time zone.
    #[serde(default)]
    pub timestamp: String,
    /// When its result stops being wanted, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// When the task was submitted, in milliseconds since 1970: the time by which its assertion is judged, since
    /// an assertion lives shorter than a task may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitted_ms: Option<u64>,
    /// The originator's signed assertion, when the task came with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<String>,
}

/// Why a message is no step; the text goes into the dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The body is no JSON text.
    #[error("message is not JSON: {0}")]
    NotJson(String),
    /// The body is JSON of none of the three forms.
    #[error("message is no task: {0}")]
    NotATask(String),
    /// The step names another agent than the queue it lay in.
    #[error("message for agent {named} lay in the queue of {queue}")]
    OtherAgent {
        /// The agent in the message.
        named: AgentId,
        /// The agent whose queue it is.
        queue: AgentId,
    },
}

impl StepTask {
    /// Reads any of the three forms from a message in the queue of `agent`.
    ///
    /// # Errors
    /// What is wrong with the message, fit to be a dead letter's reason.
    pub fn from_json(body: &[u8], agent: &AgentId) -> Result<Self, MessageError> {
        let value: Value =
            serde_json::from_slice(body).map_err(|e| MessageError::NotJson(e.to_string()))?;
        let Value::Object(object) = value else {
            return Err(MessageError::NotATask("expected a JSON object".to_owned()));
        };
        let step = if object.contains_key("step_id") {
            serde_json::from_value(Value::Object(object))
                .map_err(|e| MessageError::NotATask(e.to_string()))?
        } else {
            older_form(object, agent)?
        };
        if step.agent != *agent {
            return Err(MessageError::OtherAgent {
                named: step.agent,
                queue: agent.clone(),
            });
        }
        Ok(step)
    }
}

fn older_form(mut object: Map<String, Value>, queue: &AgentId) -> Result<StepTask, MessageError> {
    let task_id: TaskId = text(&object, "task_id")?
        .ok_or_else(|| MessageError::NotATask("task_id is missing".to_owned()))?
        .parse()
        .map_err(name_fault)?;
    let agent = match text(&object, "agent")? {
        Some(name) => name.parse().map_err(name_fault)?,
        None => queue.clone(),
    };
    let timestamp = text(&object, "timestamp")?.unwrap_or_default();
    let (action, payload) = match object.remove("task") {
        Some(Value::Object(task)) => {
            let action = ["action", "task_type", "type"]
                .iter()
                .find_map(|key| task.get(*key)?.as_str())
                .unwrap_or("execute")
                .to_owned();
            (action, task)
        }
        Some(_) => return Err(MessageError::NotATask("task must be an object".to_owned())),
        None => {
            let action = text(&object, "action")?.ok_or_else(|| {
                MessageError::NotATask("neither step_id, action nor task is there".to_owned())
            })?;
            (action, Map::new())
        }
    };
    let step_id: StepId = agent.as_str().parse().map_err(name_fault)?;
    Ok(StepTask {
        task_id,
        step_id,
        role: action.clone(),
        action,
        agent,
        payload,
        incoming_data: Map::new(),
        timestamp,
        deadline_ms: None,
        submitted_ms: None,
        assertion: None,
    })
}

fn text(object: &Map<String, Value>, key: &str) -> Result<Option<String>, MessageError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(MessageError::NotATask(format!("{key} must be a string"))),
    }
}

fn name_fault(error: NameError) -> MessageError {
    MessageError::NotATask(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> AgentId {
        "hardware-optimizer".parse().unwrap()
    }

    fn read(body: &str) -> Result<StepTask, MessageError> {
        StepTask::from_json(body.as_bytes(), &agent())
    }

    #[test]
    fn the_orchestrators_older_form() {
        let step = read(
            r#"{"task_id":"task_1.5","agent":"hardware_optimizer","action":"Process x","timestamp":"2025-01-01T00:00:00.000001"}"#,
        )
        .unwrap();
        assert_eq!(step.step_id.as_str(), "hardware-optimizer");
        assert_eq!(step.action, "Process x");
        assert_eq!(step.agent, agent());
    }

    #[test]
    fn the_backends_older_form() {
        let step = read(r#"{"task_id":"task_1","task":{"type":"scan","depth":2},"timestamp":"t"}"#)
            .unwrap();
        assert_eq!(step.action, "scan");
        assert_eq!(step.payload["depth"], 2);
    }

    #[test]
    fn the_current_form_survives_the_wire() {
        let mut step = read(r#"{"task_id":"t","action":"a"}"#).unwrap();
        step.deadline_ms = Some(7);
        step.incoming_data
            .insert("s1".into(), serde_json::json!({"agent": "x", "data": 1}));
        let body = serde_json::to_vec(&step).unwrap();
        assert_eq!(StepTask::from_json(&body, &agent()).unwrap(), step);
    }

    #[test]
    fn what_is_no_task_says_why() {
        for (body, why) in [
            ("{", "not JSON"),
            ("3", "expected a JSON object"),
            ("{}", "task_id is missing"),
            (r#"{"task_id":"t"}"#, "neither"),
            (r#"{"task_id":"t","task":"x"}"#, "task must be an object"),
            (r#"{"task_id":5,"action":"a"}"#, "task_id must be a string"),
            (r#"{"task_id":"t","step_id":"s"}"#, "missing field"),
            (
                r#"{"task_id":"t","agent":"other","action":"a"}"#,
                "lay in the queue",
            ),
        ] {
            let error = read(body).unwrap_err().to_string();
            assert!(error.contains(why), "{body}: {error}");
        }
    }
}
