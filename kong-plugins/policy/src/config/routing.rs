//! Configuration of the `agent_router` filter.

use super::Load;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Configuration of the `agent_router` filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AgentRouter {
    /// Revision of the mesh.yaml this was rendered from.
    #[serde(default)]
    pub revision: String,
    /// Every agent that a request can be sent to.
    pub agents: Vec<DeclaredAgent>,
    /// In their order; the first whose matchers all hold decides.
    pub rules: Vec<Rule>,
    /// What becomes of a request that no rule is about.
    #[serde(default)]
    pub otherwise: Otherwise,
    /// Where the filter learns which agents are there; without it all count as there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

/// An agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DeclaredAgent {
    /// Its id.
    pub id: String,
    /// What it can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Other names that a path may call it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// Which requests go where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which requests; all when left out.
    #[serde(default, rename = "match", skip_serializing_if = "Matchers::is_empty")]
    pub matchers: Matchers,
    /// Where to.
    pub to: Target,
}

/// What must hold of a request. What is left out holds of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Matchers {
    /// Its path, as the client sent it, without the query; other spellings of a path count as that path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// Headers that it carries, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// It is a task of one of these types. Costs reading the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub task_types: Vec<String>,
    /// Its caller has all of these scopes,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// and each of these claims with this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
}

impl Matchers {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A path, or how it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// This path.
    Exact(String),
    /// This path and those below it; with a `/` at its end, those below it alone.
    Prefix(String),
}

/// A header that a request carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// Its name in lower case.
    pub name: String,
    /// Its value, byte by byte; any when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// To this agent.
    Agent(String),
    /// To one of several.
    Weighted(Weighted),
    /// To the agent that the request names; one that is not declared is refused (404).
    Named(By),
    /// To one of the agents that have the capability that the request asks for; one that nobody has is
    /// refused (404).
    Capability(By),
}

/// Agents that share the requests of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Weighted {
    /// How many parts of the requests go to each agent; 0 for none.
    pub agents: BTreeMap<String, u32>,
    /// What makes requests go to the same agent again; each request is on its own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
}

/// What keeps requests together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Sticky {
    /// Their verified caller: issuer and subject. Requests without one are each on their own.
    Consumer,
    /// The value of this request header. Requests without it are each on their own.
    Header(String),
}

/// Where in a request a name stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// In the path, from the end of this prefix (`/agents/`) to the next `/`. The rule is about no path that
    /// does not begin so.
    Prefix(String),
    /// In this header. The rule is about no request without it.
    Header(String),
}

/// What becomes of a request that no rule is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// It is refused (404).
    #[default]
    Refuse,
    /// It passes without an agent.
    Pass,
}
