//! What the broker holds, as RabbitMQ's definitions file: `rabbitmqctl import_definitions`, `load_definitions`, or
//! `POST /api/definitions`.
//!
//! The mesh's own part is made of the same [`Topology`] and the same arguments that orchestrator and sidecars declare
//! when they start, so that neither can refuse what the other made. It is durable and needs no user; the mesh's user
//! stands in the secret form alone.

use super::RenderError;
use crate::broker::{ApplyTo, ExchangeKind};
use crate::broker_url::Place;
use crate::mesh::Mesh;
use crate::secret::{Secrets, Source};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mesh_bus::Topology;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// A definitions file. Fields that RabbitMQ does without are left out when empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Definitions {
    /// Who may log in; in the secret form alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<User>,
    /// The virtual host.
    pub vhosts: Vec<Vhost>,
    /// What users may do where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
    /// Policies.
    pub policies: Vec<Policy>,
    /// Exchanges.
    pub exchanges: Vec<Exchange>,
    /// Queues.
    pub queues: Vec<Queue>,
    /// Bindings.
    pub bindings: Vec<Binding>,
}

/// A user. The hash is the password's, as RabbitMQ keeps it: base64 of four bytes of salt and the SHA-256 of salt and
/// password.
#[derive(Clone, PartialEq, Serialize)]
pub struct User {
    /// Name.
    pub name: String,
    /// Its password's hash.
    pub password_hash: String,
    /// `rabbit_password_hashing_sha256`.
    pub hashing_algorithm: &'static str,
    /// `policymaker`: it may see and change what `mesh apply` sees and changes, and no user.
    pub tags: Vec<&'static str>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Vhost {
    /// Name.
    pub name: String,
}

/// What a user may do in a virtual host; regular expressions of names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Permission {
    /// The user.
    pub user: String,
    /// The virtual host.
    pub vhost: String,
    /// What it may declare and delete.
    pub configure: &'static str,
    /// What it may publish to.
    pub write: &'static str,
    /// What it may take from.
    pub read: &'static str,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Policy {
    /// The virtual host.
    pub vhost: String,
    /// Name.
    pub name: String,
    /// Regular expression of names.
    pub pattern: String,
    /// What it applies to.
    #[serde(rename = "apply-to")]
    pub apply_to: ApplyTo,
    /// What it says.
    pub definition: Map<String, Value>,
    /// Of those that match, the highest applies.
    pub priority: i32,
}

/// An exchange.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Exchange {
    /// Name.
    pub name: String,
    /// The virtual host.
    pub vhost: String,
    /// How it routes.
    #[serde(rename = "type")]
    pub kind: ExchangeKind,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
    /// Whether only exchanges publish to it.
    pub internal: bool,
    /// Arguments.
    pub arguments: Map<String, Value>,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Queue {
    /// Name.
    pub name: String,
    /// The virtual host.
    pub vhost: String,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// Arguments.
    pub arguments: Map<String, Value>,
}

/// A binding from an exchange to a queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Binding {
    /// The exchange.
    pub source: String,
    /// The virtual host.
    pub vhost: String,
    /// The queue.
    pub destination: String,
    /// `queue`.
    pub destination_type: &'static str,
    /// Key or pattern.
    pub routing_key: String,
    /// Arguments.
    pub arguments: Map<String, Value>,
}

/// Exchanges, queues and bindings that orchestrator and sidecars declare when they start.
pub fn topology(mesh: &Mesh) -> Topology {
    if !mesh.has_orchestrator() {
        return Topology::default();
    }
    let kind = mesh.messaging.queue_kind;
    let own = Topology::exchanges()
        .with_orchestrator(kind)
        .with_intake(kind);
    let all = mesh.agents.iter().fold(own, |all, agent| {
        let kind = agent.queue_kind;
        let queue = agent.id.task_queue();
        all.with_agent(&agent.id, kind)
            .with_delays(&queue, kind, &agent.delivery.delays())
    });
    all.bounded(mesh.messaging.max_length)
}

/// Renders the definitions: of everything but users without secrets, with them where secrets are known.
///
/// # Errors
/// [`RenderError::Secret`] for a `messaging.url` that is none, or names another virtual host than `messaging.vhost`.
pub fn rabbitmq(mesh: &Mesh, secrets: &Secrets) -> Result<Definitions, RenderError> {
    let place = place(mesh, secrets)?;
    let said = mesh.messaging.broker.vhost.clone();
    let vhost = said.or_else(|| Some(place.as_ref()?.vhost.clone()));
    let vhost = vhost.unwrap_or_else(|| "/".to_owned());
    let known = secrets.are_known();
    let user = place.filter(|_| known).map(|place| user(mesh, &place));
    let permissions = user.iter().map(|user| Permission {
        user: user.name.clone(),
        vhost: vhost.clone(),
        configure: ".*",
        write: ".*",
        read: ".*",
    });
    let policies = mesh.messaging.broker.policies.iter().map(|p| Policy {
        vhost: vhost.clone(),
        name: p.name.clone(),
        pattern: p.pattern.clone(),
        apply_to: p.apply_to,
        definition: p.definition.clone(),
        priority: p.priority,
    });
    let own = topology(mesh);
    Ok(Definitions {
        permissions: permissions.collect(),
        users: user.into_iter().collect(),
        policies: policies.collect(),
        exchanges: exchanges(mesh, &own, &vhost),
        queues: queues(mesh, &own, &vhost),
        bindings: bindings(mesh, &own, &vhost),
        vhosts: vec![Vhost { name: vhost }],
    })
}

/// Where the broker is, as far as that is known: a URL in mesh.yaml names its virtual host without any secret.
fn place(mesh: &Mesh, secrets: &Secrets) -> Result<Option<Place>, RenderError> {
    let url = mesh.messaging.rabbitmq.as_ref();
    let text = url.and_then(|source| match (secrets.value(source), source) {
        (Some(value), _) => Some(value),
        (None, Source::Inline(text)) => Some(text.as_str()),
        _ => None,
    });
    let Some(text) = text else { return Ok(None) };
    let refused = |path: &str, problem: &str| RenderError::Secret {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let place = Place::of(text)
        .ok_or_else(|| refused("messaging.url", "not an amqp:// or amqps:// URL"))?;
    match &mesh.messaging.broker.vhost {
        Some(vhost) if *vhost != place.vhost => Err(refused(
            "messaging.vhost",
            "messaging.url names another virtual host",
        )),
        _ => Ok(Some(place)),
    }
}

/// The mesh's user. The salt is not secret; it follows from names, so that the same mesh renders the same file.
fn user(mesh: &Mesh, place: &Place) -> User {
    let names = Sha256::digest(format!("{}\n{}", mesh.name, place.user).as_bytes());
    let mut hash: Vec<u8> = names.iter().take(4).copied().collect();
    let salted = [hash.as_slice(), place.password.as_bytes()].concat();
    hash.extend_from_slice(&Sha256::digest(salted));
    User {
        name: place.user.clone(),
        password_hash: STANDARD.encode(hash),
        hashing_algorithm: "rabbit_password_hashing_sha256",
        tags: vec!["policymaker"],
    }
}

fn exchanges(mesh: &Mesh, own: &Topology, vhost: &str) -> Vec<Exchange> {
    let own = own.exchanges.iter().map(|exchange| Exchange {
        name: exchange.name.clone(),
        vhost: vhost.to_owned(),
        kind: match exchange.kind {
            mesh_bus::ExchangeKind::Topic => ExchangeKind::Topic,
            mesh_bus::ExchangeKind::Fanout => ExchangeKind::Fanout,
            mesh_bus::ExchangeKind::Direct => ExchangeKind::Direct,
        },
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: Map::new(),
    });
    let further = mesh.messaging.broker.exchanges.iter();
    let further = further.map(|exchange| Exchange {
        name: exchange.name.clone(),
        vhost: vhost.to_owned(),
        kind: exchange.kind,
        durable: exchange.durable,
        auto_delete: exchange.auto_delete,
        internal: exchange.internal,
        arguments: exchange.arguments.clone(),
    });
    own.chain(further).collect()
}

fn queues(mesh: &Mesh, own: &Topology, vhost: &str) -> Vec<Queue> {
    let own = own.declared().map(|(name, arguments)| Queue {
        name: name.to_owned(),
        vhost: vhost.to_owned(),
        durable: true,
        auto_delete: false,
        arguments: arguments
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect(),
    });
    let further = mesh.messaging.broker.queues.iter().map(|queue| Queue {
        name: queue.name.clone(),
        vhost: vhost.to_owned(),
        durable: queue.durable,
        auto_delete: queue.auto_delete,
        arguments: queue.arguments.clone(),
    });
    own.chain(further).collect()
}

fn bindings(mesh: &Mesh, own: &Topology, vhost: &str) -> Vec<Binding> {
    let binding = |source: &str, destination: &str, key: &str, arguments: Map<_, _>| Binding {
        source: source.to_owned(),
        vhost: vhost.to_owned(),
        destination: destination.to_owned(),
        destination_type: "queue",
        routing_key: key.to_owned(),
        arguments,
    };
    let own = own
        .bindings
        .iter()
        .map(|b| binding(&b.exchange, &b.queue, &b.key, Map::new()));
    let further = mesh.messaging.broker.queues.iter().flat_map(|queue| {
        let each = queue.bindings.iter();
        each.map(|b| binding(&b.exchange, &queue.name, &b.key, b.arguments.clone()))
    });
    own.chain(further).collect()
}
