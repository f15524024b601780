//! What a client asks for.
//!
//! Requests are read field by field rather than derived, because a client must hear every fault at
//! once and by its field, and because the plan has two spellings (`task_type` and `task`).

use crate::problem::FieldError;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Priority when the request names none.
pub const DEFAULT_PRIORITY: u8 = 5;
/// Highest priority; 0 is the lowest.
pub const MAX_PRIORITY: u8 = 10;
/// Time budget of a task in seconds when the request names none.
pub const DEFAULT_TIMEOUT_S: u32 = 300;
/// Longest time budget of a task in seconds: a day.
pub const MAX_TIMEOUT_S: u32 = 86_400;
const MAX_TASK_TYPE: usize = 128;

/// A checked task request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRequest {
    /// What kind of work: 1 to 128 of `A-Z a-z 0-9 . _ -`.
    pub task_type: String,
    /// Input of the work, an object; empty when the request had none.
    #[serde(default)]
    pub payload: Map<String, Value>,
    /// 0 (lowest) to 10 (highest).
    pub priority: u8,
    /// Time budget of the whole task, in seconds.
    pub timeout: u32,
}

/// Why a body is no task request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The body is no JSON text.
    #[error("body is not JSON: {0}")]
    NotJson(String),
    /// The body is JSON and these fields are wrong.
    #[error("{} wrong field(s)", .0.len())]
    Fields(Vec<FieldError>),
}

impl TaskRequest {
    /// Reads `{task_type | task, payload, priority, timeout}`; other fields are passed over.
    ///
    /// `null` counts as absent. The length of `body` is the caller's to bound.
    ///
    /// # Errors
    /// Every wrong field at once.
    pub fn from_json(body: &[u8]) -> Result<Self, RequestError> {
        let value: Value =
            serde_json::from_slice(body).map_err(|e| RequestError::NotJson(e.to_string()))?;
        Self::from_value(value)
    }

    /// The same, of what was JSON.
    ///
    /// # Errors
    /// Every wrong field at once.
    pub fn from_value(value: Value) -> Result<Self, RequestError> {
        let Value::Object(mut object) = value else {
            return Err(RequestError::Fields(vec![FieldError::new(
                "",
                "wrong_type",
                "the body must be a JSON object with task_type and payload",
            )]));
        };
        object.retain(|_, v| !v.is_null());
        let mut faults = Vec::new();
        let task_type = task_type(&object, &mut faults);
        let payload = match object.remove("payload") {
            None => Map::new(),
            Some(Value::Object(map)) => map,
            Some(_) => {
                faults.push(FieldError::new(
                    "payload",
                    "wrong_type",
                    "payload must be an object",
                ));
                Map::new()
            }
        };
        let priority = integer(&object, "priority", 0, MAX_PRIORITY.into(), &mut faults)
            .map_or(DEFAULT_PRIORITY, |n| {
                u8::try_from(n).unwrap_or(MAX_PRIORITY)
            });
        let timeout = integer(&object, "timeout", 1, MAX_TIMEOUT_S.into(), &mut faults)
            .map_or(DEFAULT_TIMEOUT_S, |n| {
                u32::try_from(n).unwrap_or(MAX_TIMEOUT_S)
            });
        if faults.is_empty() {
            Ok(Self {
                task_type,
                payload,
                priority,
                timeout,
            })
        } else {
            Err(RequestError::Fields(faults))
        }
    }
}

fn task_type(object: &Map<String, Value>, faults: &mut Vec<FieldError>) -> String {
    let field = if object.contains_key("task_type") {
        "task_type"
    } else {
        "task"
    };
    match object.get(field) {
        None => faults.push(FieldError::new(
            "task_type",
            "missing",
            "task_type is required, for example \"system_optimization\"",
        )),
        Some(Value::String(name)) => {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            if !name.is_empty() && name.len() <= MAX_TASK_TYPE && name.bytes().all(legal) {
                return name.clone();
            }
            faults.push(FieldError::new(
                field,
                "invalid",
                format!("{field} must be 1 to {MAX_TASK_TYPE} letters, digits, '.', '_' or '-'"),
            ));
        }
        Some(_) => faults.push(FieldError::new(
            field,
            "wrong_type",
            format!("{field} must be a string"),
        )),
    }
    String::new()
}

fn integer(
    object: &Map<String, Value>,
    field: &str,
    low: u64,
    high: u64,
    faults: &mut Vec<FieldError>,
) -> Option<u64> {
    let value = object.get(field)?;
    let Value::Number(number) = value else {
        faults.push(FieldError::new(
            field,
            "wrong_type",
            format!("{field} must be an integer from {low} to {high}"),
        ));
        return None;
    };
    match number.as_u64() {
        Some(n) if (low..=high).contains(&n) => Some(n),
        _ => {
            faults.push(FieldError::new(
                field,
                "out_of_range",
                format!("{field} must be an integer from {low} to {high}, not {number}"),
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(body: &str) -> Vec<(String, String)> {
        match TaskRequest::from_json(body.as_bytes()) {
            Err(RequestError::Fields(faults)) => {
                faults.into_iter().map(|f| (f.field, f.code)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_spellings_and_defaults() {
        let long = TaskRequest::from_json(
            br#"{"task_type":"code_generation","payload":{"language":"python"},"priority":0,"timeout":1}"#,
        )
        .unwrap();
        assert_eq!((long.priority, long.timeout), (0, 1));
        let short =
            TaskRequest::from_json(br#"{"task":"complex_analysis","payload":null}"#).unwrap();
        assert_eq!(short.task_type, "complex_analysis");
        assert_eq!((short.priority, short.timeout), (5, 300));
        assert!(short.payload.is_empty());
    }

    #[test]
    fn every_fault_is_named() {
        let faults = fields(r#"{"task":3,"payload":[],"priority":11,"timeout":0}"#);
        let expected = [
            ("task", "wrong_type"),
            ("payload", "wrong_type"),
            ("priority", "out_of_range"),
            ("timeout", "out_of_range"),
        ];
        assert_eq!(faults, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn odd_numbers_and_bodies() {
        assert_eq!(fields("[]")[0].0, "");
        assert_eq!(fields("{}")[0], ("task_type".into(), "missing".into()));
        assert_eq!(
            fields(r#"{"task":"a","priority":5.5}"#)[0].1,
            "out_of_range"
        );
        assert_eq!(fields(r#"{"task":"a","priority":-1}"#)[0].1, "out_of_range");
        assert_eq!(fields(r#"{"task":"a","priority":"5"}"#)[0].1, "wrong_type");
        assert_eq!(fields(r#"{"task":"a\nb"}"#)[0].1, "invalid");
        assert!(matches!(
            TaskRequest::from_json(b"{\"task\":"),
            Err(RequestError::NotJson(_))
        ));
        let deep = "[".repeat(10_000);
        assert!(matches!(
            TaskRequest::from_json(deep.as_bytes()),
            Err(RequestError::NotJson(_))
        ));
    }
}
