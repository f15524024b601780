//! Makes exchanges, queues and bindings exist.

use super::connection::{self, Link, Session};
use super::fault;
use super::properties::short;
use crate::topology::DELIVERY_LIMIT;
use crate::{BusError, DelayQueue, Depth, ExchangeKind, Queue, QueueKind, Topology};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use mesh_protocol::names::EXCHANGE_DEAD;
use tokio::time::Instant;

/// More deliveries than there will ever be.
const NO_LIMIT: u32 = i32::MAX.unsigned_abs();
/// Highest priority of classic queues, as the plan's intake queue has it.
const PRIORITIES: i32 = 10;

/// Declares `topology` and keeps it for later connections; waits for the broker until `deadline`.
///
/// It is kept, too, when the broker is only absent: then it exists before anyone is told that the
/// broker is there.
pub(super) async fn declare(
    link: &Link,
    topology: &Topology,
    deadline: Instant,
) -> Result<(), BusError> {
    let mut pauses = connection::pauses();
    loop {
        let session = match link.session(deadline).await {
            Ok(session) => session,
            Err(absent) => {
                if matches!(absent, BusError::Unavailable { .. }) && !link.closed.is_cancelled() {
                    link.remember(topology);
                }
                return Err(absent);
            }
        };
        match on(&session, topology).await {
            Ok(()) => {
                link.remember(topology);
                return Ok(());
            }
            Err(BusError::Unavailable { .. }) if Instant::now() < deadline => {
                session.pause(&mut pauses).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Declares `topology` over one connection, on a channel of its own: a refusal closes the channel.
pub(super) async fn on(session: &Session, topology: &Topology) -> Result<(), BusError> {
    let failed = |error: lapin::Error| fault::of("declaring", &error);
    let channel = session.connection.create_channel().await.map_err(failed)?;
    for exchange in &topology.exchanges {
        let kind = match exchange.kind {
            ExchangeKind::Topic => lapin::ExchangeKind::Topic,
            ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
            ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        };
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let name = short(&exchange.name)?;
        channel
            .exchange_declare(name, kind, options, FieldTable::default())
            .await
            .map_err(failed)?;
    }
    let queues = topology.queues.iter();
    let queues = queues.map(|q| (&q.name, arguments(q, topology.max_length)));
    let delays = topology.delays.iter().map(|q| (&q.name, waiting(q)));
    for (name, arguments) in queues.chain(delays) {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(short(name)?, options, arguments)
            .await
            .map_err(failed)?;
    }
    for binding in &topology.bindings {
        channel
            .queue_bind(
                short(&binding.queue)?,
                short(&binding.exchange)?,
                short(&binding.key)?,
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(failed)?;
    }
    channel.close(200, "declared".into()).await.map_err(failed)
}

/// How busy `queue` is: what the broker answers when it is declared passively, on a channel of its own,
/// since the answer to a queue that is not there closes the channel.
pub(super) async fn depth(link: &Link, queue: &str, deadline: Instant) -> Result<Depth, BusError> {
    let failed = |error: lapin::Error| fault::of("looking at a queue", &error);
    let session = link.session(deadline).await?;
    let channel = session.connection.create_channel().await.map_err(failed)?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let found = channel
        .queue_declare(short(queue)?, passive, FieldTable::default())
        .await
        .map_err(|error| {
            if fault::is_absence(&error) {
                BusError::NoQueue {
                    queue: queue.to_owned(),
                }
            } else {
                failed(error)
            }
        })?;
    let depth = Depth {
        messages: found.message_count(),
        consumers: found.consumer_count(),
    };
    channel.close(200, "seen".into()).await.map_err(failed)?;
    Ok(depth)
}

/// The arguments of a queue in which messages wait until they go elsewhere.
fn waiting(queue: &DelayQueue) -> FieldTable {
    let mut arguments = FieldTable::default();
    let delay = AMQPValue::LongUInt(queue.delay_ms);
    arguments.insert("x-message-ttl".into(), delay);
    // The default exchange leads to queues by name.
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(&queue.to));
    if queue.kind == QueueKind::Quorum {
        arguments.insert("x-queue-type".into(), text(queue.kind.as_str()));
        // It parts with a message when the other queue has confirmed it, which it can only where it takes no more
        // than it can hold.
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        arguments.insert("x-overflow".into(), text("reject-publish"));
    }
    arguments
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

fn arguments(queue: &Queue, max_length: Option<u32>) -> FieldTable {
    let mut arguments = FieldTable::default();
    match queue.kind {
        QueueKind::Quorum => {
            arguments.insert("x-queue-type".into(), text(queue.kind.as_str()));
            // Without a place for them, counted-out messages would be dropped: after twenty looks at the dead
            // letters, since 4.x has a limit where none is set. -1 for none is refused by 3.x.
            let limit = if queue.dead_letters {
                DELIVERY_LIMIT
            } else {
                NO_LIMIT
            };
            let limit = AMQPValue::LongUInt(limit);
            arguments.insert("x-delivery-limit".into(), limit);
        }
        // No x-queue-type: a queue that was declared without one is the same queue.
        QueueKind::Classic => {
            arguments.insert("x-max-priority".into(), AMQPValue::LongInt(PRIORITIES));
        }
    }
    if queue.dead_letters {
        if let Some(most) = max_length {
            // Dropping the oldest, which is what a broker does otherwise, buries steps that nobody answers for.
            arguments.insert("x-max-length".into(), AMQPValue::LongUInt(most));
            arguments.insert("x-overflow".into(), text("reject-publish"));
        }
        arguments.insert("x-dead-letter-exchange".into(), text(EXCHANGE_DEAD));
        arguments.insert("x-dead-letter-routing-key".into(), text(&queue.name));
    }
    arguments
}
