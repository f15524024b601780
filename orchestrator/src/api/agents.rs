//! `POST /register` and `GET /agents`: what agents say of themselves, and what is known of them.

use super::failure::Failure;
use super::submit::json;
use super::{Api, Caller, body};
use crate::coordination::hub::{HubError, MAX_REGISTERED, Registration, active, now, perfect};
use crate::coordination::plan::Company;
use crate::planner::{Catalog, Originator};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use mesh_protocol::AgentId;
use mesh_protocol::problem::FieldError;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Largest registration, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// Most capabilities, each of at most [`MAX_WORD`] bytes.
const MAX_CAPABILITIES: usize = 64;
/// Longest capability or status, in bytes.
const MAX_WORD: usize = 128;

#[derive(Serialize)]
struct Registered<'a> {
    status: &'static str,
    agent_id: &'a AgentId,
}

/// Keeps what an agent says of itself; in the plan's form.
pub async fn register(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, request_body) = request.into_parts();
    let most = MAX_BODY.min(api.limits.max_body_bytes);
    let bytes = body::read(&parts.headers, request_body, most).await?;
    let value = serde_json::from_slice(&bytes).map_err(|e| Failure::not_json(e.to_string()))?;
    let (agent, registration) = read(value).map_err(Failure::fields)?;
    if !caller.may_be(&agent) {
        return Err(Failure::not_this_agent(agent.as_str()));
    }
    let kept = api.sockets.hub().register(&agent, &registration).await;
    if !kept.map_err(|e| away(&e))? {
        return Err(Failure::unavailable(format!(
            "{MAX_REGISTERED} agents are registered, and no more can be"
        )));
    }
    let answer = Registered {
        status: "registered",
        agent_id: &agent,
    };
    Ok(json(StatusCode::OK, &answer))
}

/// That nothing is known of agents at the moment.
pub fn away(error: &HubError) -> Failure {
    tracing::warn!(%error, "agents cannot be looked up");
    Failure::unavailable("agents cannot be looked up at the moment")
}

fn read(value: Value) -> Result<(AgentId, Registration), Vec<FieldError>> {
    let Value::Object(mut object) = value else {
        let detail = "the body must be a JSON object with id, and perhaps capabilities";
        return Err(vec![FieldError::new("", "wrong_type", detail)]);
    };
    object.retain(|_, v| !v.is_null());
    let mut faults = Vec::new();
    let id = match object.get("id") {
        Some(Value::String(id)) => id
            .parse::<AgentId>()
            .map_err(|e| ("invalid", e.to_string())),
        Some(_) => Err(("wrong_type", "id must be a text".to_owned())),
        None => Err(("missing", "id is required: the agent's name".to_owned())),
    };
    let id = id.map_err(|(code, detail)| faults.push(FieldError::new("id", code, detail)));
    let capabilities = capabilities(&object, &mut faults);
    let status = match object.get("status") {
        None => active(),
        Some(Value::String(word)) if (1..=MAX_WORD).contains(&word.len()) => word.clone(),
        Some(_) => {
            let detail = format!("status must be a text of 1 to {MAX_WORD} bytes");
            faults.push(FieldError::new("status", "invalid", detail));
            active()
        }
    };
    let workload = match object.get("workload").map(Value::as_u64) {
        None => 0,
        Some(Some(workload)) => workload,
        Some(None) => {
            let detail = "workload must be a whole number from 0";
            faults.push(FieldError::new("workload", "out_of_range", detail));
            0
        }
    };
    let score = object.get("performance_score").map(Value::as_f64);
    let performance_score = match score {
        None => perfect(),
        Some(Some(score)) if (0.0..=1.0).contains(&score) => score,
        Some(_) => {
            let detail = "performance_score must be a number from 0 to 1";
            faults.push(FieldError::new("performance_score", "out_of_range", detail));
            perfect()
        }
    };
    match id {
        Ok(id) if faults.is_empty() => Ok((
            id,
            Registration {
                capabilities,
                status,
                registered_at: now(),
                workload,
                performance_score,
            },
        )),
        _ => Err(faults),
    }
}

fn capabilities(object: &Map<String, Value>, faults: &mut Vec<FieldError>) -> Vec<String> {
    let list = match object.get("capabilities") {
        None => return Vec::new(),
        Some(Value::Array(list)) if list.len() <= MAX_CAPABILITIES => list,
        Some(_) => {
            let detail = format!("capabilities must be a list of at most {MAX_CAPABILITIES} texts");
            faults.push(FieldError::new("capabilities", "wrong_type", detail));
            return Vec::new();
        }
    };
    let mut named = BTreeSet::new();
    for (place, capability) in list.iter().enumerate() {
        match capability {
            Value::String(name) if (1..=MAX_WORD).contains(&name.len()) => {
                named.insert(name.clone());
            }
            _ => {
                let field = format!("capabilities[{place}]");
                let detail = format!("a capability must be a text of 1 to {MAX_WORD} bytes");
                faults.push(FieldError::new(field, "invalid", detail));
                return Vec::new();
            }
        }
    }
    named.into_iter().collect()
}

#[derive(Serialize)]
struct Agents {
    agents: Vec<Shown>,
}

/// What is known of an agent.
#[derive(Serialize)]
struct Shown {
    id: AgentId,
    capabilities: Vec<String>,
    description: String,
    /// Whether steps can be given to it: it is of the mesh, and has a queue.
    takes_steps: bool,
    /// Whether it is connected by WebSocket, anywhere; none when that cannot be told.
    present: Option<bool>,
    status: String,
    /// What it says of itself, or else the steps that this replica has sent to it.
    workload: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    performance_score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registered_at: Option<String>,
}

/// The agents of the mesh, then those that registered.
pub async fn list(State(api): State<Arc<Api>>) -> Response {
    let hub = api.sockets.hub();
    let (registered, present) = tokio::join!(hub.registered(), hub.present());
    // What the mesh says is shown all the same.
    let mut registered = known(registered);
    let present = present.ok();
    let depths = api.executor.context().load.depths();
    let own = api.planning.catalog().agents().iter().map(|agent| {
        let description = agent.description.clone();
        (
            agent.id.clone(),
            agent.capabilities.clone(),
            description,
            true,
        )
    });
    let own: Vec<_> = own.collect();
    let others: Vec<AgentId> = registered
        .keys()
        .filter(|id| api.planning.catalog().find(id).is_none())
        .cloned()
        .collect();
    let others = others
        .into_iter()
        .map(|id| (id, Vec::new(), String::new(), false));
    let agents = own.into_iter().chain(others);
    let agents = agents.map(|(id, capabilities, description, takes_steps)| {
        let said = registered.remove(&id);
        Shown {
            capabilities: joined(&capabilities, said.as_ref()),
            description,
            takes_steps,
            present: present.as_ref().map(|present| present.contains(&id)),
            status: said
                .as_ref()
                .map_or_else(active, |said| said.status.clone()),
            workload: said.as_ref().map_or_else(
                || depths.get(&id).copied().unwrap_or(0),
                |said| said.workload,
            ),
            performance_score: said.as_ref().map(|said| said.performance_score),
            registered_at: said.map(|said| said.registered_at),
            id,
        }
    });
    let agents = agents.collect();
    json(StatusCode::OK, &Agents { agents })
}

/// Who can take part in a collaboration of `originator` now.
pub async fn company(api: &Api, originator: &Originator) -> Company {
    let load = &api.executor.context().load;
    let (registered, glance) = tokio::join!(api.sockets.hub().registered(), load.glance());
    let registered = known(registered);
    let own = api.planning.catalog();
    let mut workload = load.depths();
    let absent = |id: &AgentId| glance.queues.get(id).is_some_and(|d| d.consumers == 0);
    let passed_over = own.agents().iter();
    let passed_over = passed_over.filter(|a| absent(&a.id) || !originator.reaches(a));
    let passed_over = passed_over.map(|agent| agent.id.clone()).collect();
    let mut agents = own.agents().to_vec();
    for agent in &mut agents {
        if let Some(said) = registered.get(&agent.id) {
            agent.capabilities = joined(&agent.capabilities, Some(said));
            let own = workload.entry(agent.id.clone()).or_default();
            *own = own.saturating_add(said.workload);
        }
    }
    let listeners = registered.into_keys().filter(|id| own.find(id).is_none());
    Company {
        listeners: listeners.collect(),
        catalog: Catalog::new(agents).with_resources(own.capacity().clone()),
        workload,
        passed_over,
    }
}

/// Those who registered; nobody, where that cannot be told.
fn known(
    registered: Result<BTreeMap<AgentId, Registration>, HubError>,
) -> BTreeMap<AgentId, Registration> {
    registered.unwrap_or_else(|error| {
        tracing::warn!(%error, "who registered cannot be looked up");
        BTreeMap::new()
    })
}

fn joined(own: &[String], said: Option<&Registration>) -> Vec<String> {
    let mut all = own.to_vec();
    for capability in said.into_iter().flat_map(|said| &said.capabilities) {
        if !all.contains(capability) {
            all.push(capability.clone());
        }
    }
    all
}
