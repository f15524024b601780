//! The model server that planner and agents share.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A server that speaks Ollama's API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ollama {
    /// Base URL.
    pub url: String,
    /// Model name, such as `tinyllama`.
    pub model: String,
    /// Time limit of one call for a plan, in milliseconds. There are at most two, which together get at most a
    /// third of the task's time; then the rules plan.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// Most tokens of an answer; a longer answer is a failed plan.
    #[serde(default = "num_predict")]
    pub num_predict: u32,
    /// How long the server keeps a model in memory after a call, in seconds; -1 is for ever. The server's own
    /// default when absent (five minutes, for Ollama).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive_s: Option<i64>,
    /// Whether a model that the server does not have is pulled.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pull: bool,
    /// Whether `model` is loaded into memory before the first task needs it.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub preload: bool,
    /// Calls at the same time, of planner and agents together.
    #[serde(default = "concurrency", skip_serializing_if = "is_usual_concurrency")]
    pub concurrency: usize,
    /// Calls that wait for their turn.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub queue: Queue,
    /// Tokens that consumers may use.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub budgets: Budgets,
    /// Plans that are used again.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub cache: Cache,
    /// Models that agents may use besides `model`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
}

/// Calls that wait for their turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// Most calls that wait; one more is refused.
    pub max: usize,
    /// Longest wait, in milliseconds.
    pub wait_ms: u64,
}

/// Tokens that consumers may use, by name: `planner`, `local`, or an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// Of every consumer that is not named, each for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Budget>,
    /// Of those that are.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub consumers: BTreeMap<String, Budget>,
}

/// Tokens within a time, read and written together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// So many tokens.
    pub tokens: u64,
    /// Within so many seconds.
    pub per_s: u64,
}

/// Plans that are used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// Most plans; none are kept with 0.
    pub entries: usize,
    /// How long a plan is good for, in seconds.
    pub ttl_s: u64,
}

impl Ollama {
    /// The model `model` of the server at `url`, and the usual for the rest.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            timeout_ms: timeout_ms(),
            num_predict: num_predict(),
            keep_alive_s: None,
            pull: false,
            preload: true,
            concurrency: concurrency(),
            queue: Queue::default(),
            budgets: Budgets::default(),
            cache: Cache::default(),
            models: Vec::new(),
        }
    }

    /// Every model that is shared, the planner's first.
    pub fn shared(&self) -> impl Iterator<Item = &str> {
        let others = self.models.iter().filter(|m| **m != self.model);
        std::iter::once(&self.model)
            .chain(others)
            .map(String::as_str)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            // Beside four at work, the last of them waits for sixteen others before it.
            max: 64,
            wait_ms: 30_000,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            // Some kilobytes each.
            entries: 1_000,
            ttl_s: 3_600,
        }
    }
}

fn timeout_ms() -> u64 {
    30_000
}

fn num_predict() -> u32 {
    1024
}

/// Ollama's own default is up to four requests to a model in parallel.
fn concurrency() -> usize {
    4
}

fn yes() -> bool {
    true
}

// serde hands over a reference.
fn is_true(value: &bool) -> bool {
    *value
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_usual_concurrency(value: &usize) -> bool {
    *value == concurrency()
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
