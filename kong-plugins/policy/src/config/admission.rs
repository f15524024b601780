//! Configuration of the `task_admission` filter.

use super::Load;
use mesh_protocol::task::{MAX_PRIORITY, MAX_TIMEOUT_S};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Configuration of the `task_admission` filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TaskAdmission {
    /// Revision of the mesh.yaml this was rendered from.
    #[serde(default)]
    pub revision: String,
    /// Longest body that is taken, in bytes; the gateway's buffer must hold as much.
    #[serde(default = "max_body_bytes")]
    pub max_body_bytes: u64,
    /// Most arrays and objects within each other, the body's own object included; what the orchestrator
    /// reads when left out.
    #[serde(default = "max_depth")]
    pub max_depth: u8,
    /// Who may ask for which type of task: a type is allowed if any of these allows it. None: every type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub task_types: Vec<TaskTypes>,
    /// How high a priority each caller may ask for; any when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Ceilings>,
    /// How much time a task may ask for.
    #[serde(default)]
    pub timeout: TimeoutBounds,
    /// Where the filter learns how busy the agents are; without it no task is refused for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

/// Types of task, and who may ask for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TaskTypes {
    /// The types; `*` stands for every one.
    pub types: Vec<String>,
    /// Scopes that the caller must all have; none: everybody may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// How high a priority may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Ceilings {
    /// In their order; the first that is about the caller counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ceilings: Vec<Ceiling>,
    /// Highest priority of everybody else.
    #[serde(default = "max_priority")]
    pub otherwise: u8,
    /// What becomes of a task above its ceiling.
    #[serde(default)]
    pub above: AboveCeiling,
}

/// How high a priority some callers may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// Highest priority, 0 to 10.
    pub max: u8,
    /// It is about callers who have all of these scopes,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// and each of these claims with this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
}

/// What becomes of a task above its ceiling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AboveCeiling {
    /// Its priority becomes the ceiling, also where it named none and the default is above.
    #[default]
    Lower,
    /// It is refused (403).
    Refuse,
}

/// How much time a task may ask for, in seconds; a task outside is refused (422).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TimeoutBounds {
    /// At least.
    #[serde(default = "min_timeout_s")]
    pub min_s: u32,
    /// At most; a task that asks for none has 300 and is held to it, too.
    #[serde(default = "max_timeout_s")]
    pub max_s: u32,
}

impl Default for TimeoutBounds {
    fn default() -> Self {
        Self {
            min_s: min_timeout_s(),
            max_s: max_timeout_s(),
        }
    }
}

fn max_body_bytes() -> u64 {
    1 << 20
}

fn max_depth() -> u8 {
    crate::task_body::MAX_DEPTH
}

fn max_priority() -> u8 {
    MAX_PRIORITY
}

fn min_timeout_s() -> u32 {
    1
}

fn max_timeout_s() -> u32 {
    MAX_TIMEOUT_S
}
