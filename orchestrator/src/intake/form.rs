//! What a message in the intake says, in three forms:
//!
//! 1. the body of `POST /orchestrate`;
//! 2. `{task_id, task: {...}, timestamp}`, the plan's wrapper: `task` names the type (`task_type`, `task`, `type` or
//!    `action`), and is the payload itself where it has none;
//! 3. `{task_id, agent, action, timestamp}`: one step for one agent.
//!
//! Where the body has no priority, the message's own counts.

use mesh_protocol::problem::FieldError;
use mesh_protocol::task::{MAX_PRIORITY, RequestError, TaskRequest};
use mesh_protocol::{AgentId, TaskId};
use serde_json::{Map, Value, json};

/// A message, read.
#[derive(Debug, PartialEq)]
pub(super) struct Form {
    pub(super) task: TaskRequest,
    /// The agent that is to do it, and what.
    pub(super) agent: Option<(AgentId, String)>,
    /// What its sender calls it.
    pub(super) task_id: Option<String>,
}

/// Longest action that names what an agent is to do; it is for people and models.
const MAX_ACTION: usize = 1000;

/// Reads a message of one of the three forms.
///
/// # Errors
/// Every wrong field.
pub(super) fn read(body: &[u8], priority: Option<u8>) -> Result<Form, RequestError> {
    let value: Value =
        serde_json::from_slice(body).map_err(|e| RequestError::NotJson(e.to_string()))?;
    let Value::Object(mut object) = value else {
        // Says what is wanted instead.
        return Err(match TaskRequest::from_value(value) {
            Err(error) => error,
            Ok(_) => RequestError::NotJson("no object".to_owned()),
        });
    };
    object.retain(|_, value| !value.is_null());
    let task_id = name(&object)?;
    let (mut flat, agent) = match object.remove("task") {
        Some(Value::Object(task)) => (unwrapped(task), None),
        task => {
            object.extend(task.map(|task| ("task".to_owned(), task)));
            one_step(object)?
        }
    };
    if let Some(priority) = priority {
        let priority = priority.min(MAX_PRIORITY);
        flat.entry("priority").or_insert_with(|| priority.into());
    }
    Ok(Form {
        task: TaskRequest::from_value(Value::Object(flat))?,
        agent,
        task_id,
    })
}

fn fault(field: &str, code: &str, detail: impl Into<String>) -> RequestError {
    RequestError::Fields(vec![FieldError::new(field, code, detail)])
}

fn name(object: &Map<String, Value>) -> Result<Option<String>, RequestError> {
    match object.get("task_id") {
        None => Ok(None),
        Some(Value::String(text)) => match text.parse::<TaskId>() {
            Ok(id) => Ok(Some(id.to_string())),
            Err(error) => Err(fault("task_id", "invalid", error.to_string())),
        },
        Some(_) => Err(fault("task_id", "wrong_type", "task_id must be a string")),
    }
}

/// The task in a wrapper as the body of `POST /orchestrate`.
fn unwrapped(mut task: Map<String, Value>) -> Map<String, Value> {
    task.retain(|_, value| !value.is_null());
    let mut flat = Map::new();
    let kind = ["task_type", "task", "type", "action"];
    if let Some(kind) = kind.iter().find_map(|name| task.get(*name)) {
        flat.insert("task_type".to_owned(), kind.clone());
    }
    for field in ["priority", "timeout"] {
        flat.extend(
            task.get(field)
                .map(|value| (field.to_owned(), value.clone())),
        );
    }
    let payload = task.remove("payload").unwrap_or(Value::Object(task));
    flat.insert("payload".to_owned(), payload);
    flat
}

type OneStep = (Map<String, Value>, Option<(AgentId, String)>);

/// The body of `POST /orchestrate`, or what one agent is to do.
fn one_step(mut object: Map<String, Value>) -> Result<OneStep, RequestError> {
    let typed = ["task_type", "task"]
        .iter()
        .any(|name| object.contains_key(*name));
    if typed || !object.contains_key("agent") {
        return Ok((object, None));
    }
    let text = |name: &str| match object.get(name) {
        Some(Value::String(text)) if !text.is_empty() && text.len() <= MAX_ACTION => Ok(text),
        Some(Value::String(_)) => {
            let detail = format!("{name} must have 1 to {MAX_ACTION} bytes");
            Err(fault(name, "invalid", detail))
        }
        Some(_) => Err(fault(
            name,
            "wrong_type",
            format!("{name} must be a string"),
        )),
        None => Err(fault(
            name,
            "missing",
            format!("{name} is required beside agent"),
        )),
    };
    let action = text("action")?.clone();
    let agent: AgentId = text("agent")?
        .parse()
        .map_err(|e: mesh_protocol::names::NameError| fault("agent", "invalid", e.to_string()))?;
    // The type says whom it is for; the action is part of what makes two messages the same.
    object.insert("task_type".to_owned(), agent.as_str().into());
    object
        .entry("payload")
        .or_insert_with(|| json!({"action": action}));
    Ok((object, Some((agent, action))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(body: &str) -> Form {
        read(body.as_bytes(), Some(7)).unwrap()
    }

    #[test]
    fn the_body_of_http() {
        let plain = form(r#"{"task":"scan","payload":{"a":1},"priority":2,"timeout":9}"#);
        assert_eq!(plain.task.task_type, "scan");
        assert_eq!((plain.task.priority, plain.task.timeout), (2, 9));
        assert_eq!((plain.agent, plain.task_id), (None, None));
        assert_eq!(form(r#"{"task_type":"scan","agent":"x"}"#).agent, None);
        // The message's priority, where the body has none.
        assert_eq!(form(r#"{"task_type":"scan"}"#).task.priority, 7);
        let high = read(br#"{"task":"scan"}"#, Some(255)).unwrap();
        assert_eq!(high.task.priority, 10);
        assert_eq!(read(br#"{"task":"scan"}"#, None).unwrap().task.priority, 5);
    }

    #[test]
    fn the_wrapper() {
        let whole = form(
            r#"{"task_id":"task_1.5","task":{"type":"scan","depth":2,"priority":9},"timestamp":"x"}"#,
        );
        assert_eq!(whole.task.task_type, "scan");
        assert_eq!(whole.task.priority, 9);
        assert_eq!(whole.task.payload["depth"], 2);
        assert_eq!(whole.task_id.as_deref(), Some("task_1.5"));
        let inner = form(r#"{"task_id":"t","task":{"task_type":"scan","payload":{"x":1}}}"#);
        assert_eq!(Value::Object(inner.task.payload), json!({"x": 1}));
    }

    #[test]
    fn one_step_for_one_agent() {
        let step = form(r#"{"task_id":"t","agent":"hardware_optimizer","action":"Process x"}"#);
        let (agent, action) = step.agent.unwrap();
        assert_eq!(agent.as_str(), "hardware-optimizer");
        assert_eq!(action, "Process x");
        assert_eq!(step.task.payload["action"], "Process x");
    }

    #[test]
    fn what_is_none_of_them_says_why() {
        let field = |body: &str| match read(body.as_bytes(), None) {
            Err(RequestError::Fields(faults)) => faults[0].field.clone(),
            other => panic!("{body}: {other:?}"),
        };
        assert!(matches!(read(b"{", None), Err(RequestError::NotJson(_))));
        for (body, expected) in [
            ("[]", ""),
            ("{}", "task_type"),
            (r#"{"task_id":"a/b","task":"x"}"#, "task_id"),
            (r#"{"task_id":7,"task":"x"}"#, "task_id"),
            (r#"{"task_id":"t","task":{"depth":2}}"#, "task_type"),
            (
                r#"{"task_id":"t","task":{"type":"x","payload":[]}}"#,
                "payload",
            ),
            (r#"{"task_id":"t","agent":"x"}"#, "action"),
            (r#"{"task_id":"t","agent":"X!","action":"a"}"#, "agent"),
            (r#"{"task_id":"t","agent":"x","action":""}"#, "action"),
        ] {
            assert_eq!(field(body), expected, "{body}");
        }
    }
}
