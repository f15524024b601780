//! A run as it is drawn: what the orchestrator answers, with the steps in the order in which they came to be.

use mesh_protocol::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A run.
pub struct Run {
    pub id: String,
    pub task_type: String,
    pub status: String,
    pub source: String,
    pub created: Timestamp,
    /// Milliseconds from its acceptance to its end.
    pub took: Option<u64>,
    pub deadline: Option<u64>,
    pub error: Option<String>,
    pub risks: Vec<String>,
    pub trace_id: Option<String>,
    /// In the order of the plan.
    pub steps: Vec<Step>,
}

/// A step; times in milliseconds since the task was accepted.
pub struct Step {
    pub id: String,
    pub agent: String,
    pub action: String,
    pub status: String,
    pub dependencies: Vec<String>,
    /// Place of the dependency that ended last: what it waited for.
    pub under: Option<usize>,
    pub waiting_for: Vec<String>,
    pub dispatched: Option<u64>,
    pub published: Option<u64>,
    pub started: Option<u64>,
    pub finished: Option<u64>,
    pub attempts: Option<u64>,
    pub error: Option<String>,
}

impl Step {
    /// From when the broker had it until its agent was called.
    pub fn queued(&self) -> Option<u64> {
        let sent = self.published.or(self.dispatched)?;
        Some(self.started?.saturating_sub(sent))
    }

    /// From the agent's first call until it was settled, pauses between calls included.
    pub fn at_the_agent(&self) -> Option<u64> {
        Some(self.finished?.saturating_sub(self.started?))
    }
}

fn text(value: &Value, field: &str) -> String {
    let text = value.get(field).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.get(field).and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn time(value: &Value, field: &str) -> Option<Timestamp> {
    serde_json::from_value(value.get(field)?.clone()).ok()
}

/// `CODE: detail`.
fn error(value: &Value) -> Option<String> {
    let error = value.get("error").filter(|error| error.is_object())?;
    Some(format!(
        "{}: {}",
        text(error, "code"),
        text(error, "detail")
    ))
}

impl Run {
    /// `None` for what is no answer of `GET /task/{id}`.
    pub fn read(task: &Value) -> Option<Self> {
        let created = time(task, "created_at")?;
        let since = |value: &Value, field: &str| {
            let at = time(value, field)?;
            Some(at.millis().saturating_sub(created.millis()))
        };
        let plan = task.get("plan")?;
        let records = task.get("steps")?.as_object()?;
        let mut steps: Vec<Step> = Vec::new();
        for planned in plan.get("execution_plan")?.as_array()? {
            let id = text(planned, "id");
            let none = Value::Null;
            let record = records.get(&id).unwrap_or(&none);
            steps.push(Step {
                agent: text(planned, "agent"),
                action: text(planned, "action"),
                dependencies: texts(planned, "dependencies"),
                under: None,
                status: text(record, "status"),
                waiting_for: texts(record, "waiting_for"),
                dispatched: since(record, "dispatched_at"),
                published: since(record, "published_at"),
                started: since(record, "started_at"),
                finished: since(record, "finished_at"),
                attempts: record.get("attempts").and_then(Value::as_u64),
                error: error(record),
                id,
            });
        }
        let mut run = Self {
            id: text(task, "task_id"),
            task_type: text(task, "task_type"),
            status: text(task, "status"),
            source: text(plan, "source"),
            created,
            took: since(task, "finished_at"),
            deadline: since(task, "deadline"),
            error: error(task),
            risks: texts(plan, "risks"),
            trace_id: task
                .get("trace_id")
                .and_then(Value::as_str)
                .map(str::to_owned),
            steps,
        };
        run.hang();
        Some(run)
    }

    /// Hangs each step under the dependency that it waited for longest. Dependencies of a plan lead to steps before
    /// it in some order, so this is a tree; what leads nowhere hangs nowhere.
    fn hang(&mut self) {
        let places: BTreeMap<String, usize> = self
            .steps
            .iter()
            .enumerate()
            .map(|(place, step)| (step.id.clone(), place))
            .collect();
        let ended: Vec<u64> = self
            .steps
            .iter()
            .map(|step| step.finished.unwrap_or(u64::MAX))
            .collect();
        for step in &mut self.steps {
            let known = step.dependencies.iter().filter_map(|id| places.get(id));
            step.under = known
                .copied()
                .max_by_key(|place| (ended.get(*place).copied(), *place));
        }
    }

    /// The last moment that is drawn, in milliseconds since it was accepted.
    pub fn end(&self) -> u64 {
        let steps = self
            .steps
            .iter()
            .flat_map(|s| [s.finished, s.started, s.dispatched]);
        self.took.or(steps.flatten().max()).unwrap_or(0)
    }

    pub fn json(&self, url: Option<&str>) -> Value {
        let steps: Vec<Value> = self.steps.iter().map(|step| self.step(step)).collect();
        json!({
            "task_id": self.id,
            "task_type": self.task_type,
            "status": self.status,
            "plan": self.source,
            "risks": self.risks,
            "created_at": self.created,
            "duration_ms": self.took,
            "deadline_ms": self.deadline,
            "error": self.error,
            "trace_id": self.trace_id,
            "trace_url": url,
            "steps": steps,
        })
    }

    fn step(&self, step: &Step) -> Value {
        let under = step.under.and_then(|place| self.steps.get(place));
        json!({
            "id": step.id,
            "agent": step.agent,
            "action": step.action,
            "status": step.status,
            "dependencies": step.dependencies,
            "under": under.map(|step| &step.id),
            "waiting_for": step.waiting_for,
            "dispatched_ms": step.dispatched,
            "published_ms": step.published,
            "started_ms": step.started,
            "finished_ms": step.finished,
            "queue_ms": step.queued(),
            "agent_ms": step.at_the_agent(),
            "calls": step.attempts,
            "error": step.error,
        })
    }
}
