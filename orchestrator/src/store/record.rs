//! A run as it is kept: everything that a restart needs to go on with it, and what clients ask for.

mod step;

pub use step::{Change, End, StepRecord};

use crate::config::Steps;
use crate::run::dag::{Dag, DagError};
use crate::run::machine::{StepState, StepStatus};
use crate::store::{ReplyTo, SubmissionKey};
use mesh_protocol::outcome::{StepError, StepResult};
use mesh_protocol::plan::{Plan, PlanSource, Resources};
use mesh_protocol::task::TaskRequest;
use mesh_protocol::{StepId, TaskId, Timestamp};
use mesh_trace::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

/// Code of the error of a task that was withdrawn: it could not be kept in time, and its client heard so.
pub const NOT_ACCEPTED: &str = "not_accepted";

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Accepted, and no agent has been given a step yet.
    Pending,
    /// Steps are with agents.
    InProgress,
    /// Every step is completed.
    Completed,
    /// It ended without all its steps.
    Failed,
    /// The client called it off.
    Cancelled,
}

impl TaskStatus {
    /// All of them, in the order of a task's life.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::InProgress,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// Whether nothing more happens to the task.
    pub fn is_ended(self) -> bool {
        !matches!(self, Self::Pending | Self::InProgress)
    }
}

/// Whom a task belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The issuer that names the subject.
    pub origin: String,
    /// The subject; unique only together with its origin.
    pub sub: String,
}

/// The trace that a task belongs to (W3C Trace Context).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trace {
    /// Header `traceparent`.
    pub traceparent: String,
    /// Header `tracestate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl Trace {
    /// The place in the trace from which the task goes on.
    pub fn context(&self) -> Option<Context> {
        Context::parse(&self.traceparent, self.tracestate.as_deref())
    }
}

impl From<&Context> for Trace {
    fn from(context: &Context) -> Self {
        Self {
            traceparent: context.traceparent(),
            tracestate: context.state.clone(),
        }
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecord {
    /// The task.
    pub task_id: TaskId,
    /// What the client asked for.
    pub request: TaskRequest,
    /// The checked plan.
    pub plan: Plan,
    /// Whose it is; nobody's when it came without an assertion.
    pub owner: Option<Owner>,
    /// The assertion it came with, to travel with its steps.
    pub assertion: Option<String>,
    /// Its trace.
    pub trace: Trace,
    /// When the request arrived.
    pub created_at: Timestamp,
    /// When the task's time is up.
    pub deadline: Timestamp,
    /// Where it stands.
    pub status: TaskStatus,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<StepError>,
    /// Its steps, in the order of the plan.
    pub steps: Vec<StepRecord>,
    /// Under which key its client submitted it, if any.
    pub key: Option<SubmissionKey>,
    /// Where its submitter hears how it ended, if it asked for that.
    pub reply: Option<ReplyTo>,
    /// What its submitter calls it, if it named it.
    pub client_task_id: Option<String>,
    /// Grows with every replica that takes the run over.
    pub fence: u64,
    /// Grows with every change, so that a store that lost the last ones is found out.
    pub version: u64,
    /// Results that were handed over and are not settled yet; written by
    /// [`Leases::hand_over`](super::Leases::hand_over) alone.
    pub handed: Vec<StepResult>,
}

impl RunRecord {
    /// A run with every step pending.
    pub fn new(
        task_id: TaskId,
        request: TaskRequest,
        plan: Plan,
        trace: Trace,
        created_at: Timestamp,
    ) -> Self {
        let steps = plan
            .execution_plan
            .iter()
            .map(|step| StepRecord::pending(step.agent.clone(), created_at))
            .collect();
        Self {
            task_id,
            deadline: created_at.plus(Duration::from_secs(request.timeout.into())),
            request,
            plan,
            owner: None,
            assertion: None,
            trace,
            created_at,
            status: TaskStatus::InProgress,
            finished_at: None,
            error: None,
            steps,
            key: None,
            reply: None,
            client_task_id: None,
            fence: 1,
            version: 0,
            handed: Vec::new(),
        }
    }

    /// What stands for a stored run that cannot be read: nothing of it is known but its id and, at best,
    /// whose it is.
    pub fn unreadable(task_id: TaskId, owner: Option<Owner>, now: Timestamp) -> Self {
        let request = TaskRequest {
            task_type: "unreadable".to_owned(),
            payload: serde_json::Map::new(),
            priority: 0,
            timeout: 0,
        };
        let plan = Plan {
            source: PlanSource::Rules,
            agents_required: Vec::new(),
            execution_plan: Vec::new(),
            resources: Resources::default(),
            estimated_time: 0.0,
            confidence: 0.0,
            risks: Vec::new(),
            collaboration: None,
        };
        Self {
            owner,
            ..Self::new(task_id, request, plan, Trace::default(), now)
        }
    }

    /// The graph of the plan.
    ///
    /// # Errors
    /// The stored plan is none that was checked.
    pub fn dag(&self) -> Result<Dag, DagError> {
        plan_dag(&self.plan)
    }

    /// The steps as the machine is told of them; `arbitrated` where resources are declared.
    pub fn states(&self, defaults: &Steps, arbitrated: bool) -> Vec<StepState> {
        self.steps
            .iter()
            .zip(&self.plan.execution_plan)
            .map(|(record, step)| StepState {
                status: record.status,
                budget: step
                    .timeout
                    .map_or(Duration::from_millis(defaults.timeout_ms), |seconds| {
                        Duration::from_secs(seconds.into())
                    }),
                deadline: record.deadline,
                needs: arbitrated && !step.resources.is_empty(),
                published: record.published_at.is_some(),
                error: record.error.clone(),
            })
            .collect()
    }

    /// Moves what is still to come by `ahead_ms`: from the clock of the replica that wrote it to another's.
    pub fn rebase(&mut self, ahead_ms: i64) {
        let deadlines = self.steps.iter_mut().filter_map(|s| s.deadline.as_mut());
        for deadline in deadlines.chain([&mut self.deadline]) {
            *deadline = Timestamp::from_millis(deadline.millis().saturating_add_signed(ahead_ms));
        }
    }

    /// Makes `change` part of the record.
    pub fn apply(&mut self, change: Change) {
        self.version = change.version;
        self.handed.retain(|r| !change.handed.contains(&r.step_id));
        for (index, _, step) in change.steps {
            if let Some(slot) = self.steps.get_mut(index) {
                *slot = step;
            }
        }
        if let Some(end) = change.end {
            self.status = end.status;
            self.error = end.error;
            self.finished_at = Some(end.at);
        }
    }

    /// Whether it ended before its client heard of it.
    pub fn is_withdrawn(&self) -> bool {
        self.error.as_ref().is_some_and(|e| e.code == NOT_ACCEPTED)
    }

    /// Whether it has ended and its submitter is to hear of it. One that was not accepted is submitted again.
    pub fn waits_for_reply(&self) -> bool {
        self.reply.is_some() && self.status.is_ended() && !self.is_withdrawn()
    }

    /// Steps completed so far.
    pub fn completed(&self) -> usize {
        self.steps
            .iter()
            .filter(|s| s.status == StepStatus::Completed)
            .count()
    }

    /// Bytes of its payload and its results, near enough to bound what many runs hold.
    pub fn size(&self) -> usize {
        let payload = self.request.payload.iter();
        let payload = payload.map(|(name, value)| name.len() + value_size(value));
        let results = self.steps.iter().filter_map(|s| s.result.as_ref());
        payload.chain(results.map(value_size)).sum()
    }

    /// What a list shows of the run.
    pub fn summary(&self) -> Summary {
        Summary {
            task_id: self.task_id.clone(),
            task_type: self.request.task_type.clone(),
            status: self.status,
            progress: progress(self.completed(), self.steps.len()),
            created_at: self.created_at,
            finished_at: self.finished_at,
        }
    }
}

/// Bytes of a value in memory: what it holds, and itself.
fn value_size(value: &Value) -> usize {
    let held = match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(value_size).sum(),
        Value::Object(object) => object
            .iter()
            .map(|(name, value)| name.len() + value_size(value))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    held + size_of::<Value>()
}

/// The graph of a plan whose dependencies are step ids.
///
/// # Errors
/// Dependencies that do not exist, or a cycle.
pub fn plan_dag(plan: &Plan) -> Result<Dag, DagError> {
    let places: HashMap<&StepId, usize> = plan
        .execution_plan
        .iter()
        .enumerate()
        .map(|(place, step)| (&step.id, place))
        .collect();
    let missing = plan.execution_plan.len();
    let before = plan
        .execution_plan
        .iter()
        .map(|step| {
            step.dependencies
                .iter()
                .map(|id| places.get(id).copied().unwrap_or(missing))
                .collect()
        })
        .collect();
    Dag::new(before)
}

/// What a list shows of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The task.
    pub task_id: TaskId,
    /// What kind of work.
    pub task_type: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// Completed steps, in per cent of all.
    pub progress: f64,
    /// When the request arrived.
    pub created_at: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// Completed steps in per cent of all, to two places.
pub fn progress(completed: usize, total: usize) -> f64 {
    if total == 0 {
        return 0.0;
    }
    #[allow(clippy::cast_precision_loss)]
    let share = completed as f64 / total as f64;
    (share * 10_000.0).round() / 100.0
}
