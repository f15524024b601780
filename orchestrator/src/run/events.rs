//! What happened to a run, as events; pure.
//!
//! The same happening is always the same event, with the same [id](Event::id), whoever tells it and whenever.

use super::machine::StepStatus;
use crate::store::{Change, End, RunRecord, StepRecord, TaskStatus};
use mesh_protocol::event::{Event, EventType};
use mesh_protocol::names::ORCHESTRATOR;
use mesh_protocol::{StepId, TaskId, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

/// What `change` does to `record`.
pub fn of_change(record: &RunRecord, change: &Change) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    for (place, id, step) in &change.steps {
        let before = record.steps.get(*place);
        if step.dispatched_at.is_some() && before.is_none_or(|b| b.dispatched_at.is_none()) {
            events.push(dispatched(&record.task_id, id, step));
        }
        // A step whose publishing is noted is settled in no change but its own.
        if before.is_none_or(|b| !b.status.is_settled()) {
            events.extend(settled(&record.task_id, id, step));
        }
    }
    if let Some(end) = &change.end {
        events.extend(of_end(
            &record.task_id,
            end,
            record.client_task_id.as_deref(),
        ));
    }
    events.into_iter().map(Arc::new).collect()
}

/// What a run that is kept for the first time, or again, has to tell.
pub fn of_new(record: &RunRecord) -> Vec<Arc<Event>> {
    // Nobody heard of what was not accepted, and nothing is known of what cannot be read, but their ends.
    let events = if record.is_withdrawn() || record.steps.is_empty() {
        ended(record).into_iter().collect()
    } else {
        of_run(record)
    };
    events.into_iter().map(Arc::new).collect()
}

/// The end of a task.
pub fn of_end(task: &TaskId, end: &End, client_task_id: Option<&str>) -> Option<Event> {
    let event_type = match end.status {
        TaskStatus::Pending | TaskStatus::InProgress => return None,
        TaskStatus::Completed => EventType::TaskCompleted,
        TaskStatus::Failed => EventType::TaskFailed,
        TaskStatus::Cancelled => EventType::TaskCancelled,
    };
    let mut data = json!({"task_id": task, "status": end.status});
    if let Value::Object(data) = &mut data {
        if let Some(error) = &end.error {
            data.insert("error".to_owned(), json!(error));
        }
        if let Some(name) = client_task_id {
            data.insert("client_task_id".to_owned(), name.into());
        }
    }
    Some(event(event_type, data, end.at))
}

/// The events that led to `record`, in the order of their times.
pub fn of_run(record: &RunRecord) -> Vec<Event> {
    let mut events = Vec::new();
    for (planned, step) in record.plan.execution_plan.iter().zip(&record.steps) {
        if step.dispatched_at.is_some() {
            events.push(dispatched(&record.task_id, &planned.id, step));
        }
        events.extend(settled(&record.task_id, &planned.id, step));
    }
    events.sort_by_key(|e| e.timestamp);
    let mut data = json!({
        "task_id": record.task_id,
        "task_type": record.request.task_type,
        "steps": record.steps.len(),
    });
    if let (Value::Object(data), Some(name)) = (&mut data, &record.client_task_id) {
        data.insert("client_task_id".to_owned(), name.as_str().into());
    }
    let accepted = event(EventType::TaskAccepted, data, record.created_at);
    events.insert(0, accepted);
    events.extend(ended(record));
    events
}

fn event(event_type: EventType, data: Value, timestamp: Timestamp) -> Event {
    Event {
        event_type,
        data,
        timestamp,
        source: ORCHESTRATOR.to_owned(),
    }
}

fn dispatched(task: &TaskId, id: &StepId, step: &StepRecord) -> Event {
    event(
        EventType::StepDispatched,
        json!({"task_id": task, "step_id": id, "agent": step.agent, "status": "dispatched"}),
        step.dispatched_at.unwrap_or(step.time),
    )
}

fn settled(task: &TaskId, id: &StepId, step: &StepRecord) -> Option<Event> {
    let event_type = match step.status {
        StepStatus::Pending | StepStatus::Waiting | StepStatus::Dispatched => return None,
        StepStatus::Completed => EventType::StepCompleted,
        StepStatus::Failed => EventType::StepFailed,
        StepStatus::Skipped | StepStatus::Cancelled => EventType::StepSkipped,
    };
    let at = step.finished_at.unwrap_or(step.time);
    let begun = step.started_at.or(step.dispatched_at);
    // Results stay out: they can be large, and whoever may read them asks for the task.
    let mut data = json!({
        "task_id": task,
        "step_id": id,
        "agent": step.agent,
        "status": step.status,
    });
    if let Value::Object(data) = &mut data {
        if let Some(begun) = begun {
            let ms = u64::try_from(at.since(begun).as_millis()).unwrap_or(u64::MAX);
            data.insert("duration_ms".to_owned(), ms.into());
        }
        if let Some(error) = &step.error {
            data.insert("error".to_owned(), json!(error));
        }
    }
    Some(event(event_type, data, at))
}

fn ended(record: &RunRecord) -> Option<Event> {
    let end = End {
        status: record.status,
        error: record.error.clone(),
        at: record.finished_at.unwrap_or(record.created_at),
    };
    of_end(&record.task_id, &end, record.client_task_id.as_deref())
}
