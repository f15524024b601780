//! What a filter reads of a task's body, without building what it does not look at.
//!
//! It reads as the orchestrator does (`mesh_protocol::task`): what is read here is a task there, with the
//! same type, priority and timeout. In three things it is stricter, all of them ways to show two readers
//! different tasks or one reader too much: a name that occurs twice in an object is refused wherever the
//! object is (RFC 7493, section 2.3), nesting has a bound, and so has a name that serde_json gives a
//! meaning of its own.
//!
//! The [`walk`] is serde_json's, which checks numbers and texts as it goes and stops at 128 levels by itself.

mod walk;

use mesh_protocol::problem::FieldError;
use mesh_protocol::task::{DEFAULT_PRIORITY, DEFAULT_TIMEOUT_S, MAX_PRIORITY, MAX_TIMEOUT_S};
use serde::de::DeserializeSeed;
use std::ops::Range;
use walk::{Fields, Kind, RESERVED_WORDS, TOO_DEEP, TWICE, Top, skip};

/// Most arrays and objects within each other that serde_json reads, and so the orchestrator.
pub const MAX_DEPTH: u8 = 127;
/// The longest task type, see `mesh_protocol::task`.
const MAX_TASK_TYPE: usize = 128;

/// A task request, as far as a gateway looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What kind of work.
    pub task_type: String,
    /// 0 (lowest) to 10 (highest).
    pub priority: u8,
    /// Where the body says the priority, as a number or as `null`; none where it does not.
    pub priority_at: Option<Range<usize>>,
    /// Time budget in seconds.
    pub timeout_s: u32,
}

/// Why a body is no task request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is no JSON text, or one that is refused as a whole; in words.
    NotJson(String),
    /// It is JSON and these fields are wrong.
    Fields(Vec<FieldError>),
}

/// Reads a task request with at most `max_depth` arrays and objects within each other.
///
/// # Errors
/// Every wrong field at once.
pub fn read(body: &[u8], max_depth: u8) -> Result<Task, Fault> {
    let mut names = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let fields = if first == Some(&b'{') {
        let top = Top {
            names: &mut names,
            body,
            left: max_depth,
        };
        top.deserialize(&mut deserializer).map(Some)
    } else {
        skip(&mut names, max_depth)
            .deserialize(&mut deserializer)
            .map(|_| None)
    };
    let fields = fields
        .and_then(|fields| deserializer.end().map(|()| fields))
        .map_err(|fault| Fault::NotJson(in_words(&fault)))?;
    match fields {
        Some(fields) => fields.check(),
        None => Err(Fault::Fields(vec![FieldError::new(
            "",
            "wrong_type",
            "the body must be a JSON object with task_type and payload",
        )])),
    }
}

/// What serde_json found, without what it quotes.
fn in_words(fault: &serde_json::Error) -> String {
    let (line, column) = (fault.line(), fault.column());
    let text = fault.to_string();
    let known = [TWICE, TOO_DEEP, RESERVED_WORDS];
    let what = if let Some(known) = known.into_iter().find(|known| text.starts_with(known)) {
        known
    } else if fault.is_eof() {
        "the text ends too early"
    } else if text.starts_with("recursion limit") {
        TOO_DEEP
    } else if text.starts_with("number out of range") {
        "a number is out of range"
    } else {
        "this is not JSON in UTF-8"
    };
    format!("{what}, see line {line} column {column}")
}

impl Fields<'_> {
    fn check(self) -> Result<Task, Fault> {
        let mut faults = Vec::new();
        let mut wrong = |field: &str, code: &str, detail: String| {
            faults.push(FieldError::new(field, code, detail));
        };
        // As the orchestrator: `null` is absent, and `task` counts where there is no `task_type`.
        let given = |value: &Kind<'_>| *value != Kind::Null;
        let (field, value) = match self.task_type.filter(given) {
            Some(value) => ("task_type", Some(value)),
            None => ("task", self.task.filter(given)),
        };
        let task_type = match value {
            Some(Kind::Text(name)) if is_task_type(&name) => name.into_owned(),
            other => {
                match other {
                    None => wrong(
                        "task_type",
                        "missing",
                        "task_type is required, for example \"system_optimization\"".to_owned(),
                    ),
                    Some(Kind::Text(_)) => wrong(
                        field,
                        "invalid",
                        format!(
                            "{field} must be 1 to {MAX_TASK_TYPE} letters, digits, '.', '_' or '-'"
                        ),
                    ),
                    Some(_) => wrong(field, "wrong_type", format!("{field} must be a string")),
                }
                String::new()
            }
        };
        if !matches!(self.payload, None | Some(Kind::Null | Kind::Object)) {
            wrong(
                "payload",
                "wrong_type",
                "payload must be an object".to_owned(),
            );
        }
        let mut integer = |field: &str, value: Option<Kind<'_>>, low: u32, high: u32| {
            let value = value.filter(given)?;
            if let Kind::Number(Some(number)) = value
                && let Ok(number) = u32::try_from(number)
                && (low..=high).contains(&number)
            {
                return Some(number);
            }
            let code = match value {
                Kind::Number(_) => "out_of_range",
                _ => "wrong_type",
            };
            wrong(
                field,
                code,
                format!("{field} must be an integer from {low} to {high}"),
            );
            None
        };
        let priority = integer("priority", self.priority, 0, MAX_PRIORITY.into());
        let timeout = integer("timeout", self.timeout, 1, MAX_TIMEOUT_S);
        if !faults.is_empty() {
            return Err(Fault::Fields(faults));
        }
        Ok(Task {
            task_type,
            priority: priority
                .and_then(|number| u8::try_from(number).ok())
                .unwrap_or(DEFAULT_PRIORITY),
            priority_at: self.priority_at,
            timeout_s: timeout.unwrap_or(DEFAULT_TIMEOUT_S),
        })
    }
}

/// Whether `name` is a task type's name.
pub(crate) fn is_task_type(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=MAX_TASK_TYPE).contains(&name.len()) && name.bytes().all(legal)
}

#[cfg(test)]
mod tests;
