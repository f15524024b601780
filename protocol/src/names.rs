//! Ids, and the broker names that follow from them.
//!
//! An agent is written with `-` (`hardware-optimizer`), its queues with `_` as older publishers and
//! the broker definitions of the plan do (`agent.hardware_optimizer.tasks`). Both spellings parse to
//! the same [`AgentId`], and queues are bound under both, so a message of either spelling arrives.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Topic exchange that carries steps to agents, routing key `task.<agent>.<verb>`.
pub const EXCHANGE_TASKS: &str = "ai.tasks";
/// Fanout exchange that carries every change of state.
pub const EXCHANGE_EVENTS: &str = "ai.events";
/// Direct exchange that carries results and messages between agents, routing key = receiver.
pub const EXCHANGE_COORDINATION: &str = "ai.coordination";
/// Direct exchange for messages nobody could use, routing key = the queue they came from.
pub const EXCHANGE_DEAD: &str = "ai.dead";
/// Intake for tasks that are submitted over AMQP.
pub const QUEUE_PRIORITY_TASKS: &str = "ai.priority.tasks";
/// What lay in [`QUEUE_PRIORITY_TASKS`] and was no task.
pub const QUEUE_PRIORITY_DEAD: &str = "ai.priority.dead";
/// Receiver name of the orchestrator on [`EXCHANGE_COORDINATION`].
pub const ORCHESTRATOR: &str = "orchestrator";

/// Paths that machines ask every few seconds: a trace of each would bury the others, so none begins with them.
pub const POLLED: [&str; 5] = [
    "/health",
    "/ready",
    "/metrics",
    crate::quota::PATH,
    crate::load::PATH,
];

/// Whether the mesh takes what is put into `queue` for a task, a step or a result. An answer is none of them, whoever asks
/// for it there.
pub fn takes_work(queue: &str) -> bool {
    let of_agent = queue.strip_prefix("agent.");
    queue == QUEUE_PRIORITY_TASKS
        || of_agent.is_some_and(|rest| {
            let (_, kind) = rest.split_once('.').unwrap_or_default();
            kind == "tasks" || kind.starts_with("tasks.delay.")
        })
        || of_agent.and_then(|rest| rest.strip_suffix(".coordination")) == Some(ORCHESTRATOR)
}

const MAX_AGENT: usize = 63;
const MAX_ID: usize = 128;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text has no characters.
    #[error("{kind} is empty")]
    Empty {
        /// What the text should have been.
        kind: &'static str,
    },
    /// The text is longer than the broker names built from it may be.
    #[error("{kind} is longer than {max} characters")]
    TooLong {
        /// What the text should have been.
        kind: &'static str,
        /// The most characters allowed.
        max: usize,
    },
    /// The text holds a character that has a meaning in keys or paths.
    #[error("{kind} may hold {allowed} only")]
    Character {
        /// What the text should have been.
        kind: &'static str,
        /// The characters that are allowed, in words.
        allowed: &'static str,
    },
}

/// Name of an agent: 1 to 63 of `a-z 0-9 -`, beginning and ending with a letter or digit.
///
/// Parsing also takes `_` for `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentId(String);

impl AgentId {
    /// The id as written in mesh.yaml, with `-`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as it stands in queue names, with `_`.
    pub fn underscored(&self) -> String {
        self.0.replace('-', "_")
    }

    /// Queue that holds this agent's steps.
    pub fn task_queue(&self) -> String {
        format!("agent.{}.tasks", self.underscored())
    }

    /// Queue that holds what this agent could not use, see [`EXCHANGE_DEAD`].
    pub fn dead_queue(&self) -> String {
        format!("agent.{}.dead", self.underscored())
    }

    /// Queue that holds events for this agent.
    pub fn event_queue(&self) -> String {
        format!("agent.{}.events", self.underscored())
    }

    /// Queue that holds messages of other parts to this agent.
    pub fn coordination_queue(&self) -> String {
        format!("agent.{}.coordination", self.underscored())
    }

    /// Routing key of a step for this agent on [`EXCHANGE_TASKS`].
    pub fn execute_key(&self) -> String {
        format!("task.{}.execute", self.0)
    }

    /// Keys under which [`Self::task_queue`] is bound: both spellings, once each.
    pub fn task_binding_keys(&self) -> Vec<String> {
        self.spellings()
            .into_iter()
            .map(|name| format!("task.{name}.*"))
            .collect()
    }

    /// Keys under which [`Self::coordination_queue`] is bound: both spellings, once each.
    pub fn coordination_binding_keys(&self) -> Vec<String> {
        self.spellings()
    }

    fn spellings(&self) -> Vec<String> {
        let mut both = vec![self.0.clone()];
        if self.0.contains('-') {
            both.push(self.underscored());
        }
        both
    }
}

impl FromStr for AgentId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        const KIND: &str = "agent id";
        check_length(KIND, text, MAX_AGENT)?;
        let name = text.replace('_', "-");
        let inner = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !inner || name.starts_with('-') || name.ends_with('-') {
            return Err(NameError::Character {
                kind: KIND,
                allowed: "lower-case letters, digits and inner hyphens",
            });
        }
        Ok(Self(name))
    }
}

/// Id of a task, as handed to the client: 1 to 128 of `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(String);

impl TaskId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Key of the hash that holds this task in Redis.
    pub fn redis_key(&self) -> String {
        format!("task:{}", self.0)
    }
}

impl FromStr for TaskId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_id("task id", text).map(Self)
    }
}

/// Id of a step within its task: 1 to 128 of `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StepId(String);

impl StepId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Field of the task's Redis hash that holds this step.
    pub fn redis_field(&self) -> String {
        format!("step:{}", self.0)
    }
}

impl FromStr for StepId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_id("step id", text).map(Self)
    }
}

/// Key by which an agent recognises a step that it was handed before: `<task>:<step>`.
pub fn idempotency_key(task: &TaskId, step: &StepId) -> String {
    format!("{task}:{step}")
}

fn check_length(kind: &'static str, text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if text.len() > max {
        return Err(NameError::TooLong { kind, max });
    }
    Ok(())
}

fn check_id(kind: &'static str, text: &str) -> Result<String, NameError> {
    check_length(kind, text, MAX_ID)?;
    if !text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    {
        return Err(NameError::Character {
            kind,
            allowed: "letters, digits, '.', '_' and '-'",
        });
    }
    Ok(text.to_owned())
}

macro_rules! text_id {
    ($($id:ident),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $id {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> String {
                id.0
            }
        }
    )*};
}

text_id!(AgentId, TaskId, StepId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_no_work() {
        let agent: AgentId = "data-processor".parse().unwrap();
        let delayed = format!("{}.delay.250", agent.task_queue());
        let results = "agent.orchestrator.coordination";
        for queue in [QUEUE_PRIORITY_TASKS, &agent.task_queue(), &delayed, results] {
            assert!(takes_work(queue), "{queue}");
        }
        for queue in [
            "",
            "replies",
            "ai.priority.tasks.mine",
            "amq.gen-x",
            "agent.tasks",
            "my.agent.tasks",
            &agent.coordination_queue(),
            &agent.event_queue(),
        ] {
            assert!(!takes_work(queue), "{queue}");
        }
    }

    #[test]
    fn both_spellings_are_one_agent() {
        let hyphen: AgentId = "hardware-optimizer".parse().unwrap();
        let underscore: AgentId = "hardware_optimizer".parse().unwrap();
        assert_eq!(hyphen, underscore);
        assert_eq!(hyphen.task_queue(), "agent.hardware_optimizer.tasks");
        assert_eq!(
            hyphen.task_binding_keys(),
            ["task.hardware-optimizer.*", "task.hardware_optimizer.*"]
        );
        assert_eq!(hyphen.execute_key(), "task.hardware-optimizer.execute");
    }

    #[test]
    fn a_name_without_hyphen_is_bound_once() {
        let agent: AgentId = "planner".parse().unwrap();
        assert_eq!(agent.task_binding_keys(), ["task.planner.*"]);
    }

    #[test]
    fn names_that_would_change_a_routing_key_are_refused() {
        for bad in [
            "",
            "a.b",
            "a*",
            "#",
            "A",
            "-a",
            "a-",
            "a b",
            "ü",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<AgentId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn task_ids_of_older_clients_parse() {
        assert!("task_1732300000.123456".parse::<TaskId>().is_ok());
        assert!("a:b".parse::<TaskId>().is_err());
        assert!("a/b".parse::<TaskId>().is_err());
    }
}
