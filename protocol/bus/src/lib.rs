//! The lane that tasks travel: one port, two backends (memory, RabbitMQ), one contract suite.
//!
//! A publisher hears of success only when the broker has taken charge of the message; a consumer
//! settles each delivery exactly once, after its effect stands. Connection loss is the backend's to
//! mend: consumers go on by themselves, publishers wait a bounded time and then hear
//! [`BusError::Unavailable`].

mod arguments;
mod cloud_event;
mod config;
#[cfg(feature = "contract")]
pub mod contract;
mod direct_reply;
pub mod memory;
mod outgoing;
mod rabbitmq;
mod topology;
mod trail;

pub use arguments::{Argument, Arguments};
pub use cloud_event::CloudEvent;
pub use config::{BrokerUrl, BusConfig, connect};
pub use outgoing::MAX_BODY_BYTES;
pub use topology::{
    Binding, DELIVERY_LIMIT, DelayQueue, Exchange, ExchangeKind, Queue, QueueKind, Topology, delays,
};
pub use trail::{Mishap, Trail};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use mesh_protocol::Timestamp;
use mesh_protocol::names::EXCHANGE_DEAD;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The port. Backends are chosen in [`connect`].
#[async_trait]
pub trait Bus: Send + Sync {
    /// Makes exchanges, queues and bindings exist; doing it again changes nothing.
    ///
    /// What was declared is declared again after a reconnect to a broker that forgot it.
    ///
    /// # Errors
    /// [`BusError::Mismatch`] when a thing exists with other arguments, by name and argument.
    async fn declare(&self, topology: &Topology) -> Result<(), BusError>;

    /// Publishes a persistent message and returns when the broker confirmed it.
    ///
    /// # Errors
    /// [`BusError::Unroutable`] when no queue took it and the message was `mandatory`,
    /// [`BusError::TooLarge`] when it is beyond what is sent or what the broker takes,
    /// [`BusError::Unavailable`] when no confirm came within the backend's time limit (the message
    /// may or may not have arrived: publish again under the same idempotency key).
    async fn publish(&self, message: Message) -> Result<(), BusError>;

    /// Begins to consume `queue`, with at most `prefetch` deliveries unsettled (0 counts as 1).
    ///
    /// # Errors
    /// [`BusError::Unavailable`], or [`BusError::NoQueue`] when the queue does not exist.
    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Deliveries, BusError>;

    /// How much waits in `queue`, and how many take from it: as the broker sees it at this moment.
    ///
    /// A broker that is away is waited for two seconds at most: later the answer is of no use.
    ///
    /// # Errors
    /// As [`Self::consume`].
    async fn depth(&self, queue: &str) -> Result<Depth, BusError>;

    /// Whether the broker can be reached, as it changes.
    fn connected(&self) -> watch::Receiver<bool>;

    /// Leaves the broker in an orderly way; unsettled deliveries go back to their queues.
    async fn close(&self);
}

/// How busy a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Messages that wait to be handed out; what was handed out and is unsettled does not count.
    pub messages: u32,
    /// Consumers of all connections.
    pub consumers: u32,
}

/// A message on its way out, or as it came in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// Exchange to publish to, or from which it came; empty for the default exchange.
    pub exchange: String,
    /// Routing key.
    pub routing_key: String,
    /// The body; JSON in this mesh.
    pub body: Bytes,
    /// Whether it is an error that no queue takes it.
    pub mandatory: bool,
    /// What travels beside the body.
    pub properties: Properties,
}

/// What travels beside a message's body. AMQP basic properties where AMQP has one, headers otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties {
    /// 0 (lowest) to 10; honoured by queues that were declared with priorities.
    pub priority: Option<u8>,
    /// Unique id of the message; one is made on publishing where it is absent.
    pub message_id: Option<String>,
    /// What the message belongs to; the task id for steps and results.
    pub correlation_id: Option<String>,
    /// Queue that wants the answer.
    pub reply_to: Option<String>,
    /// Milliseconds after which a queue drops the message.
    pub expiration_ms: Option<u64>,
    /// Header `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// Header `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// Header `tracestate` (W3C Trace Context).
    pub tracestate: Option<String>,
    /// Header `x-mesh-reason`: why the message was dead-lettered. Where a broker did that by itself,
    /// its own word for it: `delivery_limit`, `expired`, `rejected`.
    pub reason: Option<String>,
    /// Header `x-mesh-trail`: what befell the message before; few have one.
    pub trail: Option<Box<Trail>>,
    /// What the body is, where it is not `application/json`.
    pub content_type: Option<String>,
    /// Header `x-mesh-assertion`: who says that this is asked. One that is there and cannot be read is empty
    /// here, so that it is nobody's instead of none.
    pub assertion: Option<String>,
    /// Headers `cloudEvents:…`, of messages that tell of an event.
    pub cloud_event: Option<Box<CloudEvent>>,
}

/// A message that waits to be settled: [`Delivery::ack`] after its effect stands, or one of the others.
///
/// A delivery that is dropped unsettled goes back to its queue, as one whose holder failed: that counts against
/// [`DELIVERY_LIMIT`].
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Queue it came from.
    pub queue: String,
    /// Whether it was delivered before and not settled.
    pub redelivered: bool,
    /// How often it was handed out and came back because whoever held it ended; 0 on classic queues, which do not
    /// count. RabbitMQ before 4.3 counts what was given back in order too.
    pub crashes: u32,
    settle: Box<dyn Settle>,
}

/// What a backend does with a settled delivery.
#[async_trait]
pub(crate) trait Settle: Send + Sync {
    async fn settle(&self, verdict: Verdict) -> Result<(), BusError>;
}

/// How a delivery is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ack,
    GiveBack,
    /// A copy is published as `message` says, and the original taken off when that is confirmed.
    Move {
        message: Box<Message>,
    },
}

impl Delivery {
    /// Takes the message off its queue.
    ///
    /// # Errors
    /// [`BusError::Unavailable`]: the connection was lost, and the message will be delivered again.
    pub async fn ack(self) -> Result<(), BusError> {
        self.settle.settle(Verdict::Ack).await
    }

    /// Puts the message back at once, for this or another consumer; that is no failure of the message
    /// (`basic.nack`, which RabbitMQ does not count from 4.3 on).
    ///
    /// # Errors
    /// As [`Self::ack`].
    pub async fn give_back(self) -> Result<(), BusError> {
        self.settle.settle(Verdict::GiveBack).await
    }

    /// Moves the message to the dead-letter queue of its queue with `reason` beside it, unchanged but for
    /// headers of other publishers that leave no room for the reason.
    ///
    /// The copy is confirmed before the original is taken off, so nothing is lost in between. A broker
    /// that takes no copy moves the original by itself, and then the reason is `rejected`.
    ///
    /// # Errors
    /// As [`Self::ack`].
    pub async fn dead_letter(self, reason: &str) -> Result<(), BusError> {
        let now = Timestamp::now().millis();
        let mut trail = self.message.properties.trail.clone().unwrap_or_default();
        trail.note(now, reason);
        trail.dead_ms = Some(now);
        let (exchange, key) = (EXCHANGE_DEAD.to_owned(), self.queue.clone());
        let reason = Some(outgoing::fitting_reason(reason));
        self.move_to(exchange, key, reason, Some(trail)).await
    }

    /// Puts the message off: it comes back to its queue after `delay_ms`, which has to be one of [`delays`] and
    /// declared with [`Topology::with_delays`], with `trail` beside it and otherwise unchanged.
    ///
    /// The copy that waits is confirmed before the original is taken off.
    ///
    /// # Errors
    /// As [`Self::ack`]; [`BusError::Unroutable`] when the delay is not declared.
    pub async fn put_off(self, delay_ms: u32, trail: Trail) -> Result<(), BusError> {
        let key = topology::delay_queue(&self.queue, delay_ms);
        let trail = Some(Box::new(trail));
        self.move_to(String::new(), key, None, trail).await
    }

    /// Puts a dead letter back into `queue`, as it was before anything befell it, but for the count of replays.
    ///
    /// The copy is confirmed before the dead letter is taken off.
    ///
    /// # Errors
    /// As [`Self::ack`]; [`BusError::Unroutable`] when there is no such queue.
    pub async fn replay(self, queue: &str) -> Result<(), BusError> {
        let before = self.message.properties.trail.as_ref();
        let trail = Trail {
            replays: before.map_or(0, |trail| trail.replays).saturating_add(1),
            ..Trail::default()
        };
        let trail = Some(Box::new(trail));
        self.move_to(String::new(), queue.to_owned(), None, trail)
            .await
    }

    async fn move_to(
        self,
        exchange: String,
        routing_key: String,
        reason: Option<String>,
        trail: Option<Box<Trail>>,
    ) -> Result<(), BusError> {
        let mut message = self.message.clone();
        message.exchange = exchange;
        message.routing_key = routing_key;
        message.mandatory = true;
        message.properties.reason = reason;
        message.properties.trail = trail;
        message.properties.expiration_ms = None;
        let message = Box::new(message);
        self.settle.settle(Verdict::Move { message }).await
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("queue", &self.queue)
            .field("redelivered", &self.redelivered)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

/// The deliveries of one consumer.
pub struct Deliveries {
    stream: BoxStream<'static, Delivery>,
    stop: CancellationToken,
}

impl Deliveries {
    /// The next delivery; `None` after [`Self::stopper`] was cancelled or the bus was closed.
    pub async fn next(&mut self) -> Option<Delivery> {
        futures_util::StreamExt::next(&mut self.stream).await
    }

    /// Cancel this to stop consuming: what was not handed out goes back to its queue, what was
    /// handed out can still be settled.
    pub fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What can go wrong, as far as a caller acts differently.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The broker cannot be reached, or did not answer in time. Try again later.
    #[error("broker unavailable: {detail}")]
    Unavailable {
        /// What was being done, and what came back; without credentials.
        detail: String,
    },
    /// No queue is bound for the message. Trying again will not help.
    #[error("no queue takes {routing_key} on exchange {exchange}")]
    Unroutable {
        /// The exchange.
        exchange: String,
        /// The routing key.
        routing_key: String,
    },
    /// The queue to consume from does not exist.
    #[error("queue {queue} does not exist")]
    NoQueue {
        /// The queue.
        queue: String,
    },
    /// The broker has a thing of this name with other arguments.
    #[error("{object} exists with {argument} = {found}, this mesh wants {wanted}: {mend}")]
    Mismatch {
        /// The queue or exchange, such as `queue agent.data_processor.tasks`.
        object: String,
        /// The argument, such as `x-queue-type`.
        argument: String,
        /// What the broker has.
        found: String,
        /// What was asked for.
        wanted: String,
        /// What an operator can do.
        mend: String,
    },
    /// The message is larger than is sent, or than the broker takes. Only a smaller one will go.
    #[error("message too large: {detail}")]
    TooLarge {
        /// Which part of it, and the limit.
        detail: String,
    },
    /// The broker refuses for good: credentials, permissions, an invalid request.
    #[error("broker refuses: {detail}")]
    Refused {
        /// What the broker said; without credentials.
        detail: String,
    },
}
