//! What the connections to one memory broker share: exchanges, queues, and what is unsettled.
//!
//! Plain data behind one lock; nothing here waits. Each message is in exactly one place: ready in a
//! queue, or unsettled under a tag.

mod delays;

use super::routing;
use crate::topology::DELIVERY_LIMIT;
use crate::{BusError, Depth, Exchange, ExchangeKind, Message, Queue, QueueKind, Topology};
use mesh_protocol::names::EXCHANGE_DEAD;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Most messages that wait in one queue. The orchestrator admits 50,000 runs; a queue that holds
/// twice that is not being consumed.
pub const MAX_QUEUED: usize = 100_000;
/// Most bytes that wait in one queue, so that large bodies cannot take the machine's memory.
pub const MAX_QUEUED_BYTES: usize = 256 * 1024 * 1024;

#[derive(Default)]
pub(super) struct State {
    exchanges: HashMap<String, Bound>,
    queues: HashMap<String, Stock>,
    /// The delay queues that lead to a queue, by its name.
    delays: HashMap<String, Vec<String>>,
    unsettled: HashMap<u64, Unsettled>,
    last_number: u64,
}

struct Bound {
    kind: ExchangeKind,
    /// Pattern and queue.
    bindings: Vec<(String, String)>,
}

struct Stock {
    spec: Queue,
    /// For a queue in which messages wait: how long, and where they go then.
    delay: Option<(Duration, String)>,
    max_length: usize,
    /// By descending urgency; oldest first within one.
    ready: BTreeMap<std::cmp::Reverse<u8>, VecDeque<Stored>>,
    count: usize,
    bytes: usize,
    arrived: Arc<Notify>,
    /// Cancelled when the consumer stops; those are left out when the next comes or is asked for.
    consumers: Vec<CancellationToken>,
}

/// A message in a queue.
struct Stored {
    /// Grows with each message of the broker: what comes back goes to its old place.
    number: u64,
    message: Message,
    returned: bool,
    crashes: u32,
    expires: Option<Instant>,
}

struct Unsettled {
    connection: u64,
    queue: String,
    stored: Stored,
    /// Given back to the consumer's prefetch when this is dropped.
    _permit: OwnedSemaphorePermit,
}

/// A message that was handed out.
pub(super) struct Taken {
    pub(super) tag: u64,
    pub(super) message: Message,
    pub(super) redelivered: bool,
    pub(super) crashes: u32,
}

/// Nothing was there to be handed out.
pub(super) struct Empty {
    pub(super) permit: OwnedSemaphorePermit,
    /// When the next message comes that waits.
    pub(super) due: Option<Instant>,
}

/// How a message comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Return {
    /// In order, by whoever had it; counted by no one.
    GivenBack,
    /// Whoever had it ended.
    Crashed,
}

impl State {
    pub(super) fn declare(&mut self, topology: &Topology) -> Result<(), BusError> {
        for exchange in &topology.exchanges {
            self.declare_exchange(exchange)?;
        }
        for queue in &topology.queues {
            self.declare_queue(queue)?;
            if let Some(stock) = self
                .queues
                .get_mut(&queue.name)
                .filter(|s| s.spec.dead_letters)
            {
                let most = topology
                    .max_length
                    .and_then(|most| usize::try_from(most).ok());
                stock.max_length = most.unwrap_or(MAX_QUEUED);
            }
        }
        for delay in &topology.delays {
            self.declare_delay(delay)?;
        }
        for binding in &topology.bindings {
            if !self.queues.contains_key(&binding.queue) {
                return Err(absent("queue", &binding.queue));
            }
            let Some(exchange) = self.exchanges.get_mut(&binding.exchange) else {
                return Err(absent("exchange", &binding.exchange));
            };
            let bound = (binding.key.clone(), binding.queue.clone());
            if !exchange.bindings.contains(&bound) {
                exchange.bindings.push(bound);
            }
        }
        Ok(())
    }

    fn declare_exchange(&mut self, wanted: &Exchange) -> Result<(), BusError> {
        let found = self
            .exchanges
            .entry(wanted.name.clone())
            .or_insert_with(|| Bound {
                kind: wanted.kind,
                bindings: Vec::new(),
            });
        if found.kind == wanted.kind {
            return Ok(());
        }
        Err(mismatch(
            format!("exchange {}", wanted.name),
            "type",
            found.kind.as_str(),
            wanted.kind.as_str(),
        ))
    }

    fn declare_queue(&mut self, wanted: &Queue) -> Result<(), BusError> {
        let Some(found) = self.queues.get(&wanted.name) else {
            let stock = Stock {
                spec: wanted.clone(),
                delay: None,
                max_length: MAX_QUEUED,
                ready: BTreeMap::new(),
                count: 0,
                bytes: 0,
                arrived: Arc::new(Notify::new()),
                consumers: Vec::new(),
            };
            self.queues.insert(wanted.name.clone(), stock);
            return Ok(());
        };
        let object = format!("queue {}", wanted.name);
        if found.spec.kind != wanted.kind {
            let (found, wanted) = (found.spec.kind.as_str(), wanted.kind.as_str());
            return Err(mismatch(object, "x-queue-type", found, wanted));
        }
        if found.spec.dead_letters != wanted.dead_letters {
            let exchange = |yes| if yes { EXCHANGE_DEAD } else { "none" };
            let found = exchange(found.spec.dead_letters);
            let wanted = exchange(wanted.dead_letters);
            return Err(mismatch(object, "x-dead-letter-exchange", found, wanted));
        }
        Ok(())
    }

    /// Puts `message` into every queue that takes it, or into none.
    pub(super) fn publish(&mut self, message: &Message) -> Result<(), BusError> {
        let queues = self.route(message)?;
        if queues.is_empty() && message.mandatory {
            return Err(unroutable(message));
        }
        let full = queues.iter().find(|name| {
            self.queues
                .get(*name)
                .is_some_and(|stock| !stock.has_room(message))
        });
        if let Some(name) = full {
            return Err(BusError::Unavailable {
                detail: format!("queue {name} is full"),
            });
        }
        for name in queues {
            self.last_number += 1;
            let number = self.last_number;
            let Some(stock) = self.queues.get_mut(&name) else {
                continue;
            };
            let own = message.properties.expiration_ms.map(Duration::from_millis);
            let life = stock.delay.as_ref().map(|(delay, _)| *delay).or(own);
            stock.put(Stored {
                number,
                message: message.clone(),
                returned: false,
                crashes: 0,
                expires: life.and_then(|life| Instant::now().checked_add(life)),
            });
            // Whoever waits there has to wait for this one, too.
            let to = stock.delay.as_ref().map(|(_, to)| to.clone());
            if let Some(stock) = to.and_then(|to| self.queues.get(&to)) {
                stock.arrived.notify_waiters();
            }
        }
        Ok(())
    }

    fn route(&self, message: &Message) -> Result<Vec<String>, BusError> {
        let key = &message.routing_key;
        if message.exchange.is_empty() {
            let queue = self.queues.contains_key(key).then(|| key.clone());
            return Ok(queue.into_iter().collect());
        }
        let Some(exchange) = self.exchanges.get(&message.exchange) else {
            return Err(unroutable(message));
        };
        let mut queues: Vec<String> = Vec::new();
        for (pattern, queue) in &exchange.bindings {
            if !queues.contains(queue) && routing::takes(exchange.kind, pattern, key) {
                queues.push(queue.clone());
            }
        }
        Ok(queues)
    }

    /// Counts a consumer of `queue` until `stop`; what tells it of arrivals, if the queue exists.
    pub(super) fn take_from(
        &mut self,
        queue: &str,
        stop: CancellationToken,
    ) -> Option<Arc<Notify>> {
        let stock = self.queues.get_mut(queue)?;
        stock.consumers.retain(|stop| !stop.is_cancelled());
        stock.consumers.push(stop);
        Some(stock.arrived.clone())
    }

    /// How busy `queue` is, if it exists.
    pub(super) fn depth(&mut self, queue: &str) -> Option<Depth> {
        self.ripen(queue);
        let stock = self.queues.get_mut(queue)?;
        stock.consumers.retain(|stop| !stop.is_cancelled());
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(Depth {
            messages: count(stock.count),
            consumers: count(stock.consumers.len()),
        })
    }

    /// Hands out the next message of `queue` to `connection`; keeps `permit` until it is settled.
    pub(super) fn take(
        &mut self,
        queue: &str,
        connection: u64,
        permit: OwnedSemaphorePermit,
    ) -> Result<Taken, Empty> {
        let due = self.ripen(queue);
        let stored = loop {
            let Some(stored) = self.queues.get_mut(queue).and_then(Stock::next) else {
                return Err(Empty { permit, due });
            };
            match stored.expires {
                Some(at) if at <= Instant::now() => self.bury(queue, stored.message, "expired"),
                _ => break stored,
            }
        };
        self.last_number += 1;
        let taken = Taken {
            tag: self.last_number,
            message: stored.message.clone(),
            redelivered: stored.returned,
            crashes: stored.crashes,
        };
        self.unsettled.insert(
            taken.tag,
            Unsettled {
                connection,
                queue: queue.to_owned(),
                stored,
                _permit: permit,
            },
        );
        Ok(taken)
    }

    /// Whether `tag` is still unsettled.
    pub(super) fn holds(&self, tag: u64) -> bool {
        self.unsettled.contains_key(&tag)
    }

    /// Forgets the message under `tag`; false when it was settled or returned before.
    pub(super) fn remove(&mut self, tag: u64) -> bool {
        self.unsettled.remove(&tag).is_some()
    }

    /// Puts the message under `tag` back where it was; false when it was settled or returned before.
    pub(super) fn put_back(&mut self, tag: u64, how: Return) -> bool {
        let Some(unsettled) = self.unsettled.remove(&tag) else {
            return false;
        };
        let Unsettled {
            queue, mut stored, ..
        } = unsettled;
        stored.returned = true;
        let Some(stock) = self.queues.get_mut(&queue) else {
            return true;
        };
        if stock.spec.kind == QueueKind::Quorum && how == Return::Crashed {
            stored.crashes += 1;
        }
        if stock.spec.dead_letters && stored.crashes > DELIVERY_LIMIT {
            self.bury(&queue, stored.message, "delivery_limit");
        } else {
            stock.put(stored);
        }
        true
    }

    /// Puts back everything that `connection` has not settled.
    pub(super) fn put_back_all(&mut self, connection: u64) {
        let tags: Vec<u64> = self
            .unsettled
            .iter()
            .filter(|(_, unsettled)| unsettled.connection == connection)
            .map(|(tag, _)| *tag)
            .collect();
        for tag in tags {
            self.put_back(tag, Return::Crashed);
        }
    }

    /// What a broker does by itself with a message that outlived its queue's terms.
    fn bury(&mut self, queue: &str, mut message: Message, reason: &str) {
        let dead_letters = self
            .queues
            .get(queue)
            .is_some_and(|stock| stock.spec.dead_letters);
        if !dead_letters {
            return;
        }
        message.exchange = EXCHANGE_DEAD.to_owned();
        message.routing_key = queue.to_owned();
        message.mandatory = false;
        message.properties.expiration_ms = None;
        if message.properties.reason.is_none() {
            message.properties.reason = Some(reason.to_owned());
        }
        // As on a broker: what no queue takes, or finds no room, is gone.
        if let Err(error) = self.publish(&message) {
            tracing::warn!(queue, reason, %error, "dead letter dropped");
        }
    }
}

impl Stock {
    fn put(&mut self, stored: Stored) {
        let class = match self.spec.kind {
            // Where all wait equally long, the order is that of their ends.
            _ if self.delay.is_some() => 0,
            QueueKind::Classic => stored.message.properties.priority.unwrap_or(0),
            QueueKind::Quorum => 0,
        };
        self.count += 1;
        self.bytes += stored.message.body.len();
        let class = self.ready.entry(std::cmp::Reverse(class)).or_default();
        let place = class.partition_point(|other| other.number < stored.number);
        class.insert(place, stored);
        self.arrived.notify_waiters();
    }

    fn has_room(&self, message: &Message) -> bool {
        self.count < self.max_length.min(MAX_QUEUED)
            && self.bytes + message.body.len() <= MAX_QUEUED_BYTES
    }

    fn first(&self) -> Option<&Stored> {
        self.ready.values().find_map(VecDeque::front)
    }

    fn next(&mut self) -> Option<Stored> {
        let stored = self.ready.values_mut().find_map(VecDeque::pop_front)?;
        self.count -= 1;
        self.bytes -= stored.message.body.len();
        Some(stored)
    }
}

fn unroutable(message: &Message) -> BusError {
    BusError::Unroutable {
        exchange: message.exchange.clone(),
        routing_key: message.routing_key.clone(),
    }
}

fn absent(kind: &str, name: &str) -> BusError {
    BusError::Refused {
        detail: format!("{kind} {name} does not exist"),
    }
}

fn mismatch(object: String, argument: &str, found: &str, wanted: &str) -> BusError {
    BusError::Mismatch {
        object,
        argument: argument.to_owned(),
        found: found.to_owned(),
        wanted: wanted.to_owned(),
        mend: "declare it alike in every part of this process".to_owned(),
    }
}
