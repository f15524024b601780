//! What others may see of a run while it goes: its record and its events, as far as they are stored.

use super::machine::StepStatus;
use crate::store::{Change, RunRecord, StepRecord, TaskStatus};
use mesh_bus::Delivery;
use mesh_protocol::event::{Event, EventType};
use mesh_protocol::names::ORCHESTRATOR;
use mesh_protocol::outcome::StepResult;
use mesh_protocol::{StepId, TaskId, Timestamp};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};

/// What reaches a run from outside.
#[derive(Debug)]
pub enum Input {
    /// A result, and the delivery to settle once it is stored; none for one that another replica has put into
    /// the store.
    Result(Box<(StepResult, Option<Delivery>)>),
    /// The client calls the task off.
    Cancel,
    /// The store may have lost the run, or another replica taken it over: see.
    Look,
}

/// A run that goes on in this process.
#[derive(Debug)]
pub struct RunHandle {
    shown: Mutex<Shown>,
    version: watch::Sender<u64>,
    inbox: mpsc::Sender<Input>,
}

#[derive(Debug)]
struct Shown {
    record: RunRecord,
    log: Vec<Arc<Event>>,
    left: bool,
}

/// Results that wait in one run's inbox: all that the lane can have unsettled, and some cancels.
const INBOX: usize = super::lane::PREFETCH as usize + 16;

impl RunHandle {
    /// A handle on the run of `record`, and where the run hears.
    pub fn new(record: RunRecord) -> (Self, mpsc::Receiver<Input>) {
        let (inbox, receiver) = mpsc::channel(INBOX);
        let log = events_of(&record).into_iter().map(Arc::new).collect();
        let handle = Self {
            shown: Mutex::new(Shown {
                record,
                log,
                left: false,
            }),
            version: watch::Sender::new(0),
            inbox,
        };
        (handle, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the record. Short: others wait.
    pub fn read<T>(&self, look: impl FnOnce(&RunRecord) -> T) -> T {
        look(&self.lock().record)
    }

    /// The events from the place `from` on, and whether no more will come from here.
    pub fn events_from(&self, from: usize) -> (Vec<Arc<Event>>, bool) {
        let shown = self.lock();
        let events = shown.log.get(from..).unwrap_or_default().to_vec();
        (events, shown.left || shown.record.status.is_ended())
    }

    /// Whether the run goes on elsewhere, and what is shown here is old.
    pub fn has_left(&self) -> bool {
        self.lock().left
    }

    /// Says that the run goes on elsewhere.
    pub fn leave(&self) {
        self.lock().left = true;
        self.version.send_modify(|v| *v += 1);
    }

    /// Changes with every transition, and when the run leaves this process.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Where the run hears.
    pub fn inbox(&self) -> &mpsc::Sender<Input> {
        &self.inbox
    }

    /// Shows a stored change, and returns the events that tell of it.
    pub fn show(&self, change: Change) -> Vec<Arc<Event>> {
        let mut shown = self.lock();
        let mut fresh = Vec::new();
        for (place, id, step) in &change.steps {
            let before = shown.record.steps.get(*place);
            if step.dispatched_at.is_some() && before.is_none_or(|b| b.dispatched_at.is_none()) {
                fresh.push(dispatched(&shown.record.task_id, id, step));
            }
            if step.status.is_settled() {
                fresh.extend(settled(&shown.record.task_id, id, step));
            }
        }
        shown.record.apply(change);
        fresh.extend(ended(&shown.record));
        let fresh: Vec<Arc<Event>> = fresh.into_iter().map(Arc::new).collect();
        shown.log.extend(fresh.iter().cloned());
        drop(shown);
        self.version.send_modify(|v| *v += 1);
        fresh
    }
}

/// The events that led to `record`, in the order of their times.
pub fn events_of(record: &RunRecord) -> Vec<Event> {
    let mut events = Vec::new();
    for (planned, step) in record.plan.execution_plan.iter().zip(&record.steps) {
        if step.dispatched_at.is_some() {
            events.push(dispatched(&record.task_id, &planned.id, step));
        }
        events.extend(settled(&record.task_id, &planned.id, step));
    }
    events.sort_by_key(|e| e.timestamp);
    let accepted = event(
        EventType::TaskAccepted,
        json!({
            "task_id": record.task_id,
            "task_type": record.request.task_type,
            "steps": record.steps.len(),
        }),
        record.created_at,
    );
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
    let event_type = match record.status {
        TaskStatus::Pending | TaskStatus::InProgress => return None,
        TaskStatus::Completed => EventType::TaskCompleted,
        TaskStatus::Failed => EventType::TaskFailed,
        TaskStatus::Cancelled => EventType::TaskCancelled,
    };
    let mut data = json!({"task_id": record.task_id, "status": record.status});
    if let (Value::Object(data), Some(error)) = (&mut data, &record.error) {
        data.insert("error".to_owned(), json!(error));
    }
    let at = record.finished_at.unwrap_or(record.created_at);
    Some(event(event_type, data, at))
}
