//! Which exchanges, queues and bindings the mesh needs; pure data.

use mesh_protocol::AgentId;
use mesh_protocol::names::{
    EXCHANGE_COORDINATION, EXCHANGE_DEAD, EXCHANGE_EVENTS, EXCHANGE_TASKS, ORCHESTRATOR,
};
use serde::{Deserialize, Serialize};

/// How often a quorum queue delivers a message before it is dead-lettered by the broker.
///
/// The broker's own default since 4.0; set here so that 3.x brokers have it too.
pub const DELIVERY_LIMIT: u32 = 20;

/// A set of exchanges, queues and bindings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Exchanges; all durable.
    pub exchanges: Vec<Exchange>,
    /// Queues; all durable.
    pub queues: Vec<Queue>,
    /// Bindings from an exchange above to a queue above.
    pub bindings: Vec<Binding>,
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By pattern: `*` is one word, `#` any number of words.
    Topic,
    /// To every bound queue.
    Fanout,
    /// By equal routing key.
    Direct,
}

/// A durable queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Name.
    pub name: String,
    /// How the broker keeps it.
    pub kind: QueueKind,
    /// Whether what is rejected or delivered too often goes to [`EXCHANGE_DEAD`] under the queue's name.
    pub dead_letters: bool,
}

/// How the broker keeps a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueKind {
    /// Replicated by Raft, counts deliveries, no priorities (RabbitMQ 4.x: two classes).
    #[default]
    Quorum,
    /// One node, priorities 0 to 10.
    Classic,
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// From this exchange.
    pub exchange: String,
    /// To this queue.
    pub queue: String,
    /// Under this key or pattern.
    pub key: String,
}

impl ExchangeKind {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Fanout => "fanout",
            Self::Direct => "direct",
        }
    }
}

impl QueueKind {
    /// The value of `x-queue-type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        }
    }
}

impl Topology {
    /// The exchanges that every part declares, since parts start in any order.
    pub fn exchanges() -> Self {
        let exchange = |name: &str, kind| Exchange {
            name: name.to_owned(),
            kind,
        };
        Self {
            exchanges: vec![
                exchange(EXCHANGE_TASKS, ExchangeKind::Topic),
                exchange(EXCHANGE_EVENTS, ExchangeKind::Fanout),
                exchange(EXCHANGE_COORDINATION, ExchangeKind::Direct),
                exchange(EXCHANGE_DEAD, ExchangeKind::Direct),
            ],
            ..Self::default()
        }
    }

    /// Adds what one agent needs: its task queue under both spellings, and where its dead letters go.
    #[must_use]
    pub fn with_agent(mut self, agent: &AgentId, kind: QueueKind) -> Self {
        self.add_queue(agent.task_queue(), kind, agent.dead_queue());
        for key in agent.task_binding_keys() {
            self.bind(EXCHANGE_TASKS, agent.task_queue(), key);
        }
        self
    }

    /// Adds where the orchestrator hears results, and where it puts what is no result.
    #[must_use]
    pub fn with_orchestrator(mut self, kind: QueueKind) -> Self {
        let queue = format!("agent.{ORCHESTRATOR}.coordination");
        let dead = format!("agent.{ORCHESTRATOR}.dead");
        self.add_queue(queue.clone(), kind, dead);
        self.bind(EXCHANGE_COORDINATION, queue, ORCHESTRATOR.to_owned());
        self
    }

    fn add_queue(&mut self, name: String, kind: QueueKind, dead: String) {
        self.bind(EXCHANGE_DEAD, dead.clone(), name.clone());
        self.queues.push(Queue {
            name,
            kind,
            dead_letters: true,
        });
        self.queues.push(Queue {
            name: dead,
            kind,
            dead_letters: false,
        });
    }

    fn bind(&mut self, exchange: &str, queue: String, key: String) {
        self.bindings.push(Binding {
            exchange: exchange.to_owned(),
            queue,
            key,
        });
    }
}
