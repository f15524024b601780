//! Which exchanges, queues and bindings the mesh needs; pure data.

use mesh_protocol::AgentId;
use mesh_protocol::names::{
    EXCHANGE_COORDINATION, EXCHANGE_DEAD, EXCHANGE_EVENTS, EXCHANGE_TASKS, ORCHESTRATOR,
    QUEUE_PRIORITY_DEAD, QUEUE_PRIORITY_TASKS,
};
use serde::{Deserialize, Serialize};

/// How often a quorum queue delivers a message before it is dead-lettered by the broker.
///
/// The broker's own default since 4.0; set here so that 3.x brokers have it too.
pub const DELIVERY_LIMIT: u32 = 20;

/// The shortest delay that a queue is made for, in milliseconds; the others are twice, four times as long and so on.
const SHORTEST_DELAY_MS: u32 = 250;
/// Delays there are: the longest is 18 hours, and a task lives a day at most.
const DELAYS: u32 = 19;

/// A set of exchanges, queues and bindings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Exchanges; all durable.
    pub exchanges: Vec<Exchange>,
    /// Queues; all durable.
    pub queues: Vec<Queue>,
    /// Queues in which messages wait before they come back; all durable.
    pub delays: Vec<DelayQueue>,
    /// Bindings from an exchange above to a queue above.
    pub bindings: Vec<Binding>,
    /// Most messages that wait in any of the queues with dead letters. What is published to a full one is refused,
    /// never an older message put out for it.
    pub max_length: Option<u32>,
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

/// A durable queue that nobody consumes: what lies in it goes to another one after a while.
///
/// The time is the queue's, never a message's: a broker looks at the head alone, and behind a message that waits an
/// hour one that waits a second would wait an hour too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayQueue {
    /// Name.
    pub name: String,
    /// How the broker keeps it. A quorum queue parts with a message when the other queue has it; a classic one
    /// before, so that a broker that ends at that moment loses it.
    pub kind: QueueKind,
    /// How long, in milliseconds.
    pub delay_ms: u32,
    /// The queue that it goes to.
    pub to: String,
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

/// The delays that queues are made for between two times in milliseconds, shortest first: powers of two, so that a few
/// make up any length, and every policy has the same ones. The first is no longer than `shortest`, where there is such.
pub fn delays(shortest_ms: u64, longest_ms: u64) -> Vec<u32> {
    let all = (0..DELAYS).map(|n| SHORTEST_DELAY_MS << n);
    let first = all
        .clone()
        .take_while(|&delay| u64::from(delay) <= shortest_ms)
        .last()
        .unwrap_or(SHORTEST_DELAY_MS);
    let last = longest_ms.max(first.into());
    all.filter(|&delay| delay >= first && u64::from(delay) <= last)
        .collect()
}

/// The name of the queue in which messages of `queue` wait so long.
pub(crate) fn delay_queue(queue: &str, delay_ms: u32) -> String {
    format!("{queue}.delay.{delay_ms}")
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

    /// Bounds the queues that have dead letters.
    #[must_use]
    pub fn bounded(mut self, max_length: Option<u32>) -> Self {
        self.max_length = max_length;
        self
    }

    /// Adds where messages of `queue` wait that are put off, for each of `delays_ms` (see [`delays`]).
    #[must_use]
    pub fn with_delays(mut self, queue: &str, kind: QueueKind, delays_ms: &[u32]) -> Self {
        self.delays
            .extend(delays_ms.iter().map(|&delay_ms| DelayQueue {
                name: delay_queue(queue, delay_ms),
                kind,
                delay_ms,
                to: queue.to_owned(),
            }));
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

    /// Adds the intake of tasks, and where what is no task is put, in a queue of `kind`.
    ///
    /// The intake is declared as the plan's own set-up does: classic, with priorities and nothing else, whatever
    /// the others are.
    #[must_use]
    pub fn with_intake(mut self, kind: QueueKind) -> Self {
        let queue = |name: &str, kind| Queue {
            name: name.to_owned(),
            kind,
            dead_letters: false,
        };
        self.queues
            .push(queue(QUEUE_PRIORITY_TASKS, QueueKind::Classic));
        self.queues.push(queue(QUEUE_PRIORITY_DEAD, kind));
        let (dead, key) = (QUEUE_PRIORITY_DEAD, QUEUE_PRIORITY_TASKS);
        self.bind(EXCHANGE_DEAD, dead.to_owned(), key.to_owned());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_powers_of_two_within_their_bounds() {
        assert_eq!(delays(500, 4_000), [500, 1_000, 2_000, 4_000]);
        assert_eq!(delays(900, 5_000), [500, 1_000, 2_000, 4_000]);
        assert_eq!(delays(1, 1), [250]);
        let all = delays(0, u64::MAX);
        assert_eq!((all.len(), all.last()), (19, Some(&65_536_000)));
    }
}
