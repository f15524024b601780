//! What the orchestrator reads; `mesh-config` writes it from mesh.yaml.

mod ollama;
mod token;

pub use ollama::{Budget, Budgets, Cache, Ollama, Queue};
pub use token::InternalToken;

use crate::coordination::socket::Settings;
use crate::resources::Amounts;
use mesh_bus::{BusConfig, QueueKind};
use mesh_protocol::AgentId;
use mesh_protocol::assertion::{Assertions, Claims};
use mesh_protocol::callers::Callers;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The orchestrator's configuration file (JSON or YAML of the same shape).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the API listens. `PORT` in the environment overrides the port.
    pub listen: SocketAddr,
    /// The agents of this mesh.
    pub agents: Vec<Agent>,
    /// How much there is of what steps share, by name; where nothing is, nobody asks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: Amounts,
    /// How tasks become plans.
    pub planner: Planner,
    /// Bounds on what clients may ask for.
    #[serde(default)]
    pub limits: Limits,
    /// How steps are run.
    #[serde(default)]
    pub steps: Steps,
    /// The broker. `RABBITMQ_URL` in the environment overrides it.
    pub bus: BusConfig,
    /// How queues are declared.
    #[serde(default)]
    pub queue_kind: QueueKind,
    /// Most messages that wait in an agent's queue, where it is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queue_length: Option<u32>,
    /// Where runs are kept. `REDIS_URL` in the environment overrides it.
    pub store: Store,
    /// Whose assertions are believed; requests that are not local need one.
    pub assertions: Assertions,
    /// What gateways' filters bring to `/internal/…`; without it, there is nothing at these paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_token: Option<InternalToken>,
    /// Whether the sidecar beside this orchestrator says which service is calling
    /// ([`crate::api::HEADER_PEER`]); without it, nobody is believed to be a service.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub peers_by_certificate: bool,
    /// How agents are connected.
    #[serde(default, skip_serializing_if = "Settings::is_default")]
    pub coordination: Settings,
    /// Spans over OTLP.
    #[serde(default, skip_serializing_if = "mesh_trace::Config::is_default")]
    pub traces: mesh_trace::Config,
}

/// An agent that steps can be given to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its name.
    pub id: AgentId,
    /// What it can do; a task type counts as a capability of the same name.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// For planners and people.
    #[serde(default)]
    pub description: String,
    /// How its queue is declared, where otherwise than the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_kind: Option<QueueKind>,
    /// Steps that each of its instances does at the same time, to reckon when one would be done.
    #[serde(default = "concurrency", skip_serializing_if = "is_usual_concurrency")]
    pub concurrency: u16,
    /// What one of its steps takes of [`Config::resources`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: Amounts,
    /// On whose behalf its sidecar takes steps; everybody's, where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originators: Option<Vec<Originators>>,
}

/// Some on whose behalf an agent takes steps, or does not: what an intention says of the way from the orchestrator to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Originators {
    /// Whether they are those on whose behalf it does not, whatever else is said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub denied: bool,
    /// Whom the assertion must name; without this, anyone or no one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callers: Option<Callers>,
}

impl Agent {
    /// Whether its sidecar takes a step on behalf of whom `claims` name: nobody, where none are there.
    pub fn takes_from(&self, claims: Option<&Claims>) -> bool {
        let Some(originators) = &self.originators else {
            return true;
        };
        let holds = |of: &&Originators| match &of.callers {
            None => true,
            Some(callers) => claims.is_some_and(|claims| callers.hold_of(claims)),
        };
        let mut held = originators.iter().filter(holds).peekable();
        held.peek().is_some() && held.all(|of| !of.denied)
    }
}

/// How tasks become plans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planner {
    /// Task type to agents. Parsed leniently: names need not be agents of this mesh.
    #[serde(default = "plan_rules")]
    pub rules: BTreeMap<String, Vec<String>>,
    /// Takes what no rule and no capability covers; without it such a task is refused (422).
    #[serde(default)]
    pub general_agent: Option<AgentId>,
    /// The model that is asked first, if any. `OLLAMA_URL` in the environment overrides its URL.
    #[serde(default)]
    pub ollama: Option<Ollama>,
    /// Most steps of a plan.
    #[serde(default = "max_steps")]
    pub max_steps: usize,
    /// Most steps of a plan that can run at the same time.
    #[serde(default = "max_width")]
    pub max_width: usize,
}

/// Bounds on what clients may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Longest `Prefer: wait`, in seconds.
    pub max_wait_s: u32,
    /// Most runs in flight; more are answered 503 with `Retry-After`.
    pub max_runs: usize,
}

/// How steps are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Steps {
    /// Time budget of a step whose plan names none, in milliseconds.
    pub timeout_ms: u64,
    /// What a failed step does to its task.
    pub on_failure: OnFailure,
}

/// What a failed step does to its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The task fails; steps that have not begun are skipped.
    #[default]
    FailTask,
    /// Steps that do not depend on the failed one go on; the task fails at its end.
    Continue,
}

/// Where runs are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "backend", rename_all = "lowercase", deny_unknown_fields)]
pub enum Store {
    /// In this process, for one-process meshes and tests. Empty after a restart.
    Memory {
        /// Seconds that a finished task can be asked for.
        #[serde(default = "retention_s")]
        retention_s: u64,
    },
    /// Redis 6 or newer.
    Redis {
        /// `redis://` or `rediss://`.
        url: StoreUrl,
        /// Seconds that a finished task can be asked for.
        #[serde(default = "retention_s")]
        retention_s: u64,
    },
}

/// A `redis://` or `rediss://` URL; `Debug` leaves out the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreUrl(url::Url);

impl StoreUrl {
    /// The URL with its credentials, for the client library alone.
    pub(crate) fn expose(&self) -> &str {
        self.0.as_str()
    }
}

impl TryFrom<String> for StoreUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match url::Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "redis" | "rediss") && url.has_host() => {
                Ok(Self(url))
            }
            _ => Err("not a store URL, such as redis://:password@host:6379/0".to_owned()),
        }
    }
}

impl From<StoreUrl> for String {
    fn from(url: StoreUrl) -> String {
        url.0.into()
    }
}

impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = self.0.clone();
        if shown.password().is_some() && shown.set_password(Some("***")).is_err() {
            return f.write_str("redis://***");
        }
        std::fmt::Display::fmt(&shown, f)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The plan's request-size-limiting allows 10 MB; steps repeat the payload, so less here.
            max_body_bytes: 1024 * 1024,
            max_wait_s: 300,
            max_runs: 50_000,
        }
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            timeout_ms: 60_000,
            on_failure: OnFailure::default(),
        }
    }
}

/// The plan's task-type table.
pub fn plan_rules() -> BTreeMap<String, Vec<String>> {
    [
        ("code_generation", ["code-generator", "qa-validator"]),
        (
            "system_optimization",
            ["hardware-optimizer", "resource-arbitrator"],
        ),
        ("data_processing", ["data-processor", "vector-indexer"]),
        (
            "security_scan",
            ["security-scanner", "vulnerability-assessor"],
        ),
        ("deployment", ["deployment-agent", "monitoring-agent"]),
    ]
    .into_iter()
    .map(|(kind, agents)| (kind.to_owned(), agents.map(str::to_owned).to_vec()))
    .collect()
}

/// As a sidecar that is not told.
fn concurrency() -> u16 {
    16
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_usual_concurrency(concurrency: &u16) -> bool {
    *concurrency == self::concurrency()
}

fn max_steps() -> usize {
    100
}

fn max_width() -> usize {
    16
}

fn retention_s() -> u64 {
    86_400
}
