//! `POST /coordinate`: a task that several agents share, run as every task is.

use super::failure::Failure;
use super::submit::json;
use super::tasks::Found;
use super::{Api, Caller, Preferences, agents, body, elsewhere, key, trace};
use crate::coordination::plan::graph::{self, GraphMetrics};
use crate::coordination::plan::{self, Finding, Joint, NoCollaboration, Refused};
use crate::planner::source_name;
use crate::run::machine::StepStatus;
use crate::run::new_collaboration_id;
use crate::store::{RunRecord, SubmissionKey, TaskStatus};
use crate::submission::{Asked, wrong};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use mesh_protocol::collaboration::Collaboration;
use mesh_protocol::outcome::StepError;
use mesh_protocol::plan::PlanSource;
use mesh_protocol::problem::FieldError;
use mesh_protocol::task::TaskRequest;
use mesh_protocol::{AgentId, TaskId};
use mesh_trace::Span;
use serde::Serialize;
use serde_json::{Value, json as value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Plans a collaboration, runs it, and answers with its results; at once where the client prefers that.
pub async fn coordinate(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Failure> {
    let arrival = api.submissions.arrival();
    let (parts, request_body) = request.into_parts();
    let bytes = body::read(&parts.headers, request_body, api.limits.max_body_bytes).await?;
    let joint = Joint::from_json(&bytes).map_err(wrong)?;
    let longest = Duration::from_secs(api.limits.max_wait_s.into());
    let mut preferences = Preferences::from_headers(&parts.headers, longest);
    if !preferences.respond_async && preferences.wait.is_none() {
        // The plan's clients expect the results.
        preferences.wait = Some(longest);
    }
    let owner = caller.owner();
    let key = key::from_headers(&parts.headers)?
        .map(|key| SubmissionKey::new(owner.as_ref(), key, &joint.whole()));
    let originator = caller.originator();
    let asked = Asked {
        task: joint.request.clone(),
        bytes: bytes.len(),
        arrival,
        caller,
        key,
        place: trace::of(&parts),
        agent: None,
        reply: None,
        client_task_id: None,
    };
    let plan = async |_: &TaskRequest, _: &mut Span| {
        let company = agents::company(&api, &originator).await;
        let planned = plan::plan(&api.planning, &joint, &company).await;
        planned.map_err(|why| refused(&why, &joint))
    };
    let id = new_collaboration_id();
    let taken = api.submissions.submit_planned(asked, id, plan).await?;
    let mut response = answer(&api, taken.run, preferences).await?;
    if taken.repeated {
        response
            .headers_mut()
            .insert(key::REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn refused(why: &Refused, joint: &Joint) -> Failure {
    match why {
        Refused::Findings(findings) if joint.plan.is_some() => {
            Failure::collaboration(findings.iter().map(Finding::field).collect())
        }
        Refused::Findings(findings) => {
            let each = findings
                .iter()
                .map(|f| format!("{}: {}", f.code.as_str(), f.detail));
            Failure::no_plan(each.collect::<Vec<_>>().join("; "))
        }
        Refused::Nobody(NoCollaboration::TaskType { known }) => {
            Failure::unknown_task_type(&joint.request.task_type, known)
        }
        Refused::Nobody(NoCollaboration::Capability { place, name, known }) => {
            let detail = format!(
                "no agent that takes steps can do {name:?}; known are {}",
                known.join(", ")
            );
            let field = format!("capabilities[{place}]");
            Failure::fields(vec![FieldError::new(field, "unknown", detail)])
        }
    }
}

/// The plan's answer, and what became of the task.
#[derive(Serialize)]
struct Coordinated<'a> {
    task_id: &'a TaskId,
    status: TaskStatus,
    execution_order: Vec<&'a AgentId>,
    results: BTreeMap<&'a AgentId, Cow<'a, Value>>,
    graph_metrics: GraphMetrics,
    plan: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a StepError>,
}

#[derive(Serialize)]
struct Shown<'a> {
    source: &'static str,
    #[serde(flatten)]
    collaboration: &'a Collaboration,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    risks: &'a [String],
}

async fn answer(api: &Api, mut run: Found, preferences: Preferences) -> Result<Response, Failure> {
    if let Some(wait) = preferences.wait {
        run = elsewhere::ended(api, run, Instant::now() + wait).await;
    }
    let (answered, id, ended) = run.read(|run| {
        let ended = run.status.is_ended();
        let status = if ended {
            StatusCode::OK
        } else {
            StatusCode::ACCEPTED
        };
        let answered = coordinated(run).map(|answer| json(status, &answer));
        (answered, run.task_id.clone(), ended)
    });
    // What was stored under another version, or is damaged.
    let mut response = answered.ok_or_else(Failure::corrupt)?;
    let headers = response.headers_mut();
    if !ended && let Ok(location) = HeaderValue::try_from(format!("/task/{id}")) {
        headers.insert(LOCATION, location);
    }
    if preferences.respond_async && !ended {
        headers.insert(
            "preference-applied",
            HeaderValue::from_static("respond-async"),
        );
    }
    Ok(response)
}

fn coordinated(run: &RunRecord) -> Option<Coordinated<'_>> {
    let collaboration = run.plan.collaboration.as_deref()?;
    let dag = run.dag().ok()?;
    let agent = |place: &usize| run.steps.get(*place).map(|step| &step.agent);
    let results = run.steps.iter().filter_map(|step| {
        let result = match (&step.result, &step.error, step.status) {
            (Some(result), ..) => Cow::Borrowed(result),
            // As in the plan: what failed says why.
            (None, Some(error), status) if status != StepStatus::Pending => {
                Cow::Owned(value!({"error": format!("{}: {}", error.code, error.detail)}))
            }
            _ => return None,
        };
        Some((&step.agent, result))
    });
    Some(Coordinated {
        task_id: &run.task_id,
        status: run.status,
        execution_order: dag.order().iter().filter_map(agent).collect(),
        results: results.collect(),
        graph_metrics: graph::metrics(collaboration, &dag),
        plan: Shown {
            source: source_of(run.plan.source),
            collaboration,
            risks: &run.plan.risks,
        },
        error: run.error.as_ref(),
    })
}

fn source_of(source: PlanSource) -> &'static str {
    source_name(source)
}
