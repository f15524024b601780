//! Makes exchanges, queues and bindings exist.

use super::connection::{self, Link, Session};
use super::fault;
use super::properties::short;
use crate::{Argument, Arguments, BusError, Depth, ExchangeKind, Topology};
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use tokio::time::Instant;

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
    for (name, arguments) in topology.declared() {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(short(name)?, options, table(arguments))
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

/// The arguments as the client library has them.
fn table(arguments: Arguments<'_>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, argument) in arguments {
        let value = match argument {
            Argument::Text(text) => AMQPValue::LongString(LongString::from(text)),
            Argument::Number(number) => AMQPValue::LongUInt(number),
        };
        table.insert(name.into(), value);
    }
    table
}
