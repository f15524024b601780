//! What came of a step that no orchestrator made, as an event on `ai.events`: a publisher of the plan that names no
//! queue for the answer hears of it there.
//!
//! In the plan's form, as the orchestrator's events are, with the result in it: there is nobody else to ask for it.

use super::invoke::{Answer, Answered};
use super::wire::Step;
use mesh_bus::{CloudEvent, Message, Properties};
use mesh_protocol::AgentId;
use mesh_protocol::event::{Event, EventType};
use mesh_protocol::names::EXCHANGE_EVENTS;
use serde_json::{Value, json};

/// Largest result in an event, in bytes; every listener gets a copy.
const MAX_RESULT: usize = 64 * 1024;

/// The event of `answer` to `step`.
pub(super) fn message(
    agent: &AgentId,
    step: &Step,
    answer: &Answer,
    asked: &Properties,
) -> Message {
    let took = answer.finished_at.since(answer.started_at).as_millis();
    let mut data = json!({
        "task_id": step.task_id,
        "step_id": step.step_id,
        "agent": agent,
        "duration_ms": u64::try_from(took).unwrap_or(u64::MAX),
    });
    let (event_type, status, field, value) = match &answer.answered {
        Answered::Completed(json) if json.len() <= MAX_RESULT => {
            // Checked when the agent answered.
            let result: Value = serde_json::from_slice(json).unwrap_or_default();
            (EventType::StepCompleted, "completed", "result", result)
        }
        Answered::Completed(json) => {
            let bytes = json.len().into();
            (EventType::StepCompleted, "completed", "result_bytes", bytes)
        }
        Answered::Failed(error) => (EventType::StepFailed, "failed", "error", json!(error)),
    };
    if let Value::Object(data) = &mut data {
        data.insert("status".to_owned(), status.into());
        data.insert(field.to_owned(), value);
    }
    let event = Event {
        event_type,
        data,
        timestamp: answer.finished_at,
        source: agent.to_string(),
    };
    // Older messages of one task are told apart by their content alone.
    let id = format!("{}:{}", step.own_key(), event_type.as_str());
    Message {
        exchange: EXCHANGE_EVENTS.to_owned(),
        routing_key: event_type.as_str().to_owned(),
        // Texts, numbers and JSON values always serialise.
        body: serde_json::to_vec(&event).unwrap_or_default().into(),
        mandatory: false,
        properties: Properties {
            message_id: Some(id.clone()),
            correlation_id: Some(step.task_id.as_str().to_owned()),
            traceparent: asked.traceparent.clone(),
            tracestate: asked.tracestate.clone(),
            cloud_event: Some(Box::new(CloudEvent {
                id,
                kind: event_type.as_str().to_owned(),
                source: event.source.clone(),
                time: event.timestamp.to_string(),
                subject: step.task_id.as_str().to_owned(),
            })),
            ..Properties::default()
        },
    }
}
