//! The checked side of what `messaging:` says of the broker itself.

use crate::secret::Source;
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::PathBuf;
use url::Url;

/// The broker beyond the agents' own queues.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Broker {
    /// The virtual host, where mesh.yaml names it; the one of `messaging.url` otherwise.
    pub vhost: Option<String>,
    /// Where it is managed.
    pub management: Option<Management>,
    /// Exchanges besides the mesh's own; names are unique.
    pub exchanges: Vec<Exchange>,
    /// Queues besides the mesh's own; names are unique.
    pub queues: Vec<Queue>,
    /// Policies; names are unique.
    pub policies: Vec<Policy>,
}

/// RabbitMQ's management API.
#[derive(Debug, Clone, PartialEq)]
pub struct Management {
    /// Base URL.
    pub url: Url,
    /// `user:password`; those of `messaging.url` when absent.
    pub credentials: Option<Source>,
    /// PEM of the authorities that signed its certificate, relative to mesh.yaml; the system's when absent.
    pub ca: Option<PathBuf>,
}

/// An exchange, as the broker has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Whether it outlives a restart of the broker.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
    /// Whether only other exchanges may publish to it.
    pub internal: bool,
    /// Arguments.
    pub arguments: Map<String, Value>,
}

/// A queue, as the broker has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Name.
    pub name: String,
    /// Whether it outlives a restart of the broker.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// Arguments, its type (`x-queue-type`) among them.
    pub arguments: Map<String, Value>,
    /// What leads there.
    pub bindings: Vec<Binding>,
}

/// What leads to a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// From this exchange.
    pub exchange: String,
    /// Under this key or pattern; empty for exchanges that ask for none.
    pub key: String,
    /// Arguments, such as the headers that an exchange of type `headers` looks at.
    pub arguments: Map<String, Value>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Name.
    pub name: String,
    /// Regular expression of the names that it applies to.
    pub pattern: String,
    /// What it applies to.
    pub apply_to: ApplyTo,
    /// Of those that match, the highest applies.
    pub priority: i32,
    /// What it says.
    pub definition: Map<String, Value>,
}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeKind {
    /// By pattern.
    Topic,
    /// To every bound queue.
    Fanout,
    /// By equal routing key.
    Direct,
    /// By headers.
    Headers,
}

impl ExchangeKind {
    /// Names in mesh.yaml.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("topic", Self::Topic),
        ("fanout", Self::Fanout),
        ("direct", Self::Direct),
        ("headers", Self::Headers),
    ];
}

/// What a policy applies to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyTo {
    /// Queues.
    #[default]
    Queues,
    /// Classic queues.
    ClassicQueues,
    /// Quorum queues.
    QuorumQueues,
    /// Streams.
    Streams,
    /// Exchanges.
    Exchanges,
    /// Queues and exchanges.
    All,
}

impl ApplyTo {
    /// Names in mesh.yaml.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("queues", Self::Queues),
        ("classic_queues", Self::ClassicQueues),
        ("quorum_queues", Self::QuorumQueues),
        ("streams", Self::Streams),
        ("exchanges", Self::Exchanges),
        ("all", Self::All),
    ];
}
