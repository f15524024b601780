//! A run in the form of the API: the plan's fields, and more.

use crate::run::machine::StepStatus;
use crate::store::{RunRecord, StepRecord, TaskStatus, progress};
use mesh_protocol::outcome::StepError;
use mesh_protocol::plan::Plan;
use mesh_protocol::{AgentId, StepId, TaskId, Timestamp};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Answer to `POST /orchestrate`.
#[derive(Serialize)]
pub struct Submitted<'a> {
    task_id: &'a TaskId,
    plan: &'a Plan,
    execution: Execution<'a>,
    #[serde(flatten)]
    end: Option<Outcome<'a>>,
}

#[derive(Serialize)]
struct Execution<'a> {
    task_id: &'a TaskId,
    execution_status: TaskStatus,
    steps: Vec<ExecutionStep<'a>>,
}

#[derive(Serialize)]
struct ExecutionStep<'a> {
    agent: &'a AgentId,
    status: StepStatus,
    action: &'a str,
    step_id: &'a StepId,
}

/// Where the task stands, and what came of it.
#[derive(Serialize)]
struct Outcome<'a> {
    status: TaskStatus,
    progress: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<BTreeMap<&'a StepId, &'a Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a StepError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
}

/// Answer to `GET /task/{id}`.
#[derive(Serialize)]
pub struct Shown<'a> {
    task_id: &'a TaskId,
    #[serde(flatten)]
    outcome: Outcome<'a>,
    task_type: &'a str,
    priority: u8,
    created_at: Timestamp,
    deadline: Timestamp,
    steps: BTreeMap<&'a StepId, &'a StepRecord>,
    plan: &'a Plan,
    /// The trace that it belongs to, whether or not it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

/// The answer to a submission; `waited` when the client waited for the end.
pub fn submitted(run: &RunRecord, waited: bool) -> Submitted<'_> {
    let steps = run
        .plan
        .execution_plan
        .iter()
        .zip(&run.steps)
        .map(|(planned, step)| ExecutionStep {
            agent: &step.agent,
            status: step.status,
            action: &planned.action,
            step_id: &planned.id,
        })
        .collect();
    Submitted {
        task_id: &run.task_id,
        plan: &run.plan,
        execution: Execution {
            task_id: &run.task_id,
            execution_status: run.status,
            steps,
        },
        end: waited.then(|| outcome(run)),
    }
}

/// The whole of a run.
pub fn shown(run: &RunRecord) -> Shown<'_> {
    Shown {
        task_id: &run.task_id,
        outcome: outcome(run),
        task_type: &run.request.task_type,
        priority: run.request.priority,
        created_at: run.created_at,
        deadline: run.deadline,
        steps: run
            .plan
            .execution_plan
            .iter()
            .map(|p| &p.id)
            .zip(&run.steps)
            .collect(),
        plan: &run.plan,
        trace_id: run
            .trace
            .context()
            .map(|context| context.trace_id_hex().to_string()),
    }
}

fn outcome(run: &RunRecord) -> Outcome<'_> {
    Outcome {
        status: run.status,
        progress: progress(run.completed(), run.steps.len()),
        results: run.status.is_ended().then(|| results(run)),
        error: run.error.as_ref(),
        finished_at: run.finished_at,
    }
}

/// What the last steps answered: those whose results no other step takes.
fn results(run: &RunRecord) -> BTreeMap<&StepId, &Value> {
    let taken: std::collections::HashSet<&StepId> = run
        .plan
        .execution_plan
        .iter()
        .flat_map(|p| &p.dependencies)
        .collect();
    run.plan
        .execution_plan
        .iter()
        .zip(&run.steps)
        .filter(|(planned, _)| !taken.contains(&planned.id))
        .filter_map(|(planned, step)| Some((&planned.id, step.result.as_ref()?)))
        .collect()
}
