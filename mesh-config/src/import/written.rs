//! The mesh.yaml that is written: its fields in the order in which people read them, defaults left out.

use mesh_declarative::{Plugin, Route, Upstream};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct File {
    pub version: u8,
    pub mesh: String,
    #[serde(skip_serializing_if = "Gateway::is_empty")]
    pub gateway: Gateway,
    /// Where ports are published, and which of the mesh's own parts run.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub deploy: BTreeMap<&'static str, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messaging: Option<Messaging>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<Agent>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Gateway {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Plugin>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Upstream>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

impl Gateway {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Auth {
    pub development: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Tls {
    pub certificates: Vec<Certificate>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Certificate {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snis: Vec<String>,
    pub cert: Text,
    pub key: Text,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// Text, or a reference to a variable.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Text {
    Plain(String),
    Variable { env: String },
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Messaging {
    pub backend: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vhost: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exchanges: Vec<Exchange>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queues: Vec<Queue>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Policy>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Exchange {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(skip_serializing_if = "Clone::clone")]
    pub durable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub auto_delete: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Queue {
    pub name: String,
    #[serde(skip_serializing_if = "Clone::clone")]
    pub durable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub auto_delete: bool,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<Binding>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Binding {
    pub exchange: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Policy {
    pub name: String,
    pub pattern: String,
    pub apply_to: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i64,
    pub definition: Map<String, Value>,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Service {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Route>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plugins: Vec<Plugin>,
    /// What Kong alone has.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub kong: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Container {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, Text>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<String, Condition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub compose: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Build {
    pub context: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Condition {
    pub condition: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Healthcheck {
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Agent {
    pub id: String,
    pub endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_kind: Option<&'static str>,
}
