//! From a task for several agents to a checked graph of them.
//!
//! ```text
//!  client's plan ───────────────┐
//!  model ─ findings, once ──────┤
//!  rules over capabilities ─────┴▶ Draft ─▶ check ─▶ Plan, with its graph
//! ```
//!
//! A client's plan is checked and refused with its findings; a model's is mended once, then the rules plan.

pub mod check;
pub mod draft;
pub mod finding;
pub mod graph;
mod model;
mod rules;

pub use finding::{Code, Finding};
pub use rules::NoCollaboration;

use crate::planner::{Catalog, CheckedPlan, Planning};
use check::Ground;
use draft::Draft;
use mesh_protocol::plan::PlanSource;
use mesh_protocol::task::TaskRequest;
use mesh_protocol::{AgentId, problem::FieldError};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A task for several agents.
#[derive(Debug, Clone, PartialEq)]
pub struct Joint {
    /// The task.
    pub request: TaskRequest,
    /// The client's own plan, unread.
    pub plan: Option<Value>,
    /// What the agents must be able to do, in the order in which their results flow.
    pub capabilities: Vec<String>,
}

/// Who is there.
pub struct Company {
    /// Those that steps can be given to, with what they said of themselves since.
    pub catalog: Catalog,
    /// Those that only registered: they hear messages and take no steps.
    pub listeners: BTreeSet<AgentId>,
    /// What each has to do.
    pub workload: BTreeMap<AgentId, u64>,
    /// Those that get nothing while others can do it: they are not there, or take no steps on the originator's behalf.
    pub passed_over: BTreeSet<AgentId>,
}

impl Company {
    /// The one of those who can do `capability` that is there and has the least to do; of several the first.
    fn chosen<'a>(&'a self, capability: &'a str) -> Option<&'a AgentId> {
        let rank = |agent: &&AgentId| {
            let busy = self.workload.get(*agent).copied();
            (self.passed_over.contains(*agent), busy)
        };
        let capable = self.catalog.capable(capability).map(|agent| &agent.id);
        capable.min_by_key(rank)
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Refused {
    /// The client's plan is wrong.
    Findings(Vec<Finding>),
    /// Nobody can do it.
    Nobody(NoCollaboration),
}

/// A checked plan for `joint`.
///
/// # Errors
/// [`Refused`].
pub async fn plan(
    planning: &Planning,
    joint: &Joint,
    company: &Company,
) -> Result<CheckedPlan, Refused> {
    let ground = Ground {
        catalog: &company.catalog,
        listeners: &company.listeners,
        bounds: planning.bounds(),
    };
    if let Some(plan) = &joint.plan {
        let draft = Draft::from_json(plan);
        return check::check(draft, PlanSource::Client, &ground).map_err(Refused::Findings);
    }
    let mut why_rules = None;
    if let Some(chat) = planning.chat() {
        match model::plan(planning, chat, joint, &ground).await {
            Ok(plan) => return Ok(plan),
            Err(reason) => why_rules = Some(reason),
        }
    }
    let mut draft = rules::draft(planning, joint, company).map_err(Refused::Nobody)?;
    if let Some(reason) = why_rules {
        tracing::warn!(reason, "a collaboration is planned by rules");
        draft.risks.push(format!(
            "planned by rules, since the model failed: {reason}"
        ));
    }
    check::check(draft, PlanSource::Rules, &ground).map_err(Refused::Findings)
}

impl Joint {
    /// Reads any JSON object: a task in the form of `/orchestrate`, or else all of it is the payload of one.
    ///
    /// # Errors
    /// Every wrong field at once.
    pub fn from_json(body: &[u8]) -> Result<Self, mesh_protocol::task::RequestError> {
        use mesh_protocol::task::RequestError;
        let value: Value =
            serde_json::from_slice(body).map_err(|e| RequestError::NotJson(e.to_string()))?;
        let Value::Object(mut object) = value else {
            return Err(RequestError::Fields(vec![FieldError::new(
                "",
                "wrong_type",
                "the body must be a JSON object: a task, and perhaps a plan",
            )]));
        };
        object.retain(|_, v| !v.is_null());
        let plan = object.remove("plan");
        let (capabilities, mut faults) = capabilities(object.remove("capabilities"));
        if !object.contains_key("task_type") && !object.contains_key("task") {
            let mut task = serde_json::Map::new();
            for name in ["priority", "timeout"] {
                if let Some(value) = object.remove(name) {
                    task.insert(name.to_owned(), value);
                }
            }
            if !matches!(object.get("payload"), Some(Value::Object(_))) || object.len() != 1 {
                let payload = Value::Object(std::mem::take(&mut object));
                object.insert("payload".to_owned(), payload);
            }
            object.append(&mut task);
            object.insert("task_type".to_owned(), UNNAMED.into());
        }
        // Serialises what was parsed.
        let text = serde_json::to_vec(&object).unwrap_or_default();
        match TaskRequest::from_json(&text) {
            Ok(request) if faults.is_empty() => Ok(Self {
                request,
                plan,
                capabilities,
            }),
            Ok(_) => Err(RequestError::Fields(faults)),
            Err(RequestError::Fields(mut more)) => {
                more.append(&mut faults);
                Err(RequestError::Fields(more))
            }
            Err(other) => Err(other),
        }
    }

    /// What tells two of them apart under one idempotency key: everything.
    pub fn whole(&self) -> TaskRequest {
        let mut whole = self.request.clone();
        let payload = std::mem::take(&mut whole.payload);
        whole.task_type = format!("coordinate {}", self.request.task_type);
        whole.payload.insert("payload".to_owned(), payload.into());
        whole
            .payload
            .insert("plan".to_owned(), self.plan.clone().unwrap_or_default());
        whole
            .payload
            .insert("capabilities".to_owned(), self.capabilities.clone().into());
        whole
    }
}

/// The type of a task that names none.
const UNNAMED: &str = "collaboration";
/// Most capabilities that a task can ask for, each of at most [`MAX_CAPABILITY`] characters.
const MAX_CAPABILITIES: usize = 64;
const MAX_CAPABILITY: usize = 128;

fn capabilities(value: Option<Value>) -> (Vec<String>, Vec<FieldError>) {
    let fault = |code: &str, detail: String| {
        let fault = FieldError::new("capabilities", code, detail);
        (Vec::new(), vec![fault])
    };
    let list = match value {
        None => return (Vec::new(), Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => {
            return fault(
                "wrong_type",
                "capabilities must be a list of texts".to_owned(),
            );
        }
    };
    if list.len() > MAX_CAPABILITIES {
        let detail = format!("name at most {MAX_CAPABILITIES} capabilities");
        return fault("too_many", detail);
    }
    let names = list.iter().map(|name| match name {
        Value::String(name) if (1..=MAX_CAPABILITY).contains(&name.len()) => Some(name.clone()),
        _ => None,
    });
    match names.collect::<Option<Vec<String>>>() {
        Some(names) => (names, Vec::new()),
        None => fault(
            "invalid",
            format!("each capability must be a text of 1 to {MAX_CAPABILITY} bytes"),
        ),
    }
}

#[cfg(test)]
mod tests;
