//! The bus over RabbitMQ 3.10 or newer (AMQP 0-9-1).
//!
//! ```text
//!   RabbitBus ──▶ Link ◀── task "link" (one per bus): connects, restores the topology, watches, again
//!                  │ Session (one per connection), over a stream that screens what comes  screen.rs
//!                  ├─ trunk: a channel in confirm mode for all publishes             trunk.rs
//!                  ├─ lanes: channels for single publishes, after an error           publish.rs
//!                  └─ intakes: one channel per consumer                                consume.rs
//!                        ▲ task "consumer" (one per consumer): opens it, again after a loss,
//!                        │ gives back what was dropped, cancels it
//!                        └ the stream of Deliveries polls it directly, so a delivery takes no hop
//! ```
//!
//! The connection is replaced as a whole when it is lost, rather than mended by the client library:
//! a broker that comes back empty needs the whole topology before the first consumer, and a publisher
//! must know which of its messages were on the lost connection.

mod acks;
mod buried;
mod connection;
mod consume;
mod declare;
mod fault;
mod held;
mod legible;
mod properties;
mod publish;
mod screen;
mod trunk;

use crate::{BrokerUrl, Bus, BusError, Deliveries, Depth, Message, Topology, outgoing::prepare};
use async_trait::async_trait;
use connection::Link;
use properties::Outgoing;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// How long an operation waits for the broker: a restart of RabbitMQ takes about eight seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a look at a queue may take: who asks wants to know how it is now.
const LOOK: Duration = Duration::from_secs(2);
/// How long after a queue was found gone it is declared anew: its consumers have to hear of it before.
const HEARD: Duration = Duration::from_secs(1);
/// How long an orderly leave may take; the broker returns unsettled deliveries without it too.
const LEAVE: Duration = Duration::from_secs(3);

/// A connection to RabbitMQ that mends itself.
pub(crate) struct RabbitBus {
    link: Arc<Link>,
    tasks: TaskTracker,
}

impl RabbitBus {
    /// Tries to connect once; goes on in the background when nobody answers.
    pub(crate) async fn connect(url: &BrokerUrl) -> Result<Self, BusError> {
        let link = Arc::new(Link::new(url)?);
        let first = link.first_connection().await?;
        let tasks = TaskTracker::new();
        let span = tracing::info_span!("bus", broker = %url);
        tasks.spawn(link.clone().run(first).instrument(span));
        Ok(Self { link, tasks })
    }
}

#[async_trait]
impl Bus for RabbitBus {
    async fn declare(&self, topology: &Topology) -> Result<(), BusError> {
        declare::declare(&self.link, topology, Instant::now() + PATIENCE).await
    }

    async fn publish(&self, message: Message) -> Result<(), BusError> {
        let message = Outgoing::try_from(prepare(message)?)?;
        publish::publish(&self.link, message, Instant::now() + PATIENCE).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Deliveries, BusError> {
        consume::consume(&self.link, &self.tasks, queue, prefetch.max(1)).await
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BusError> {
        let deadline = Instant::now() + LOOK;
        let look = declare::depth(&self.link, queue, deadline);
        let late = || BusError::Unavailable {
            detail: "looking at a queue: no answer in time".to_owned(),
        };
        tokio::time::timeout_at(deadline, look)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.link.connected()
    }

    async fn close(&self) {
        self.link.closed.cancel();
        self.tasks.close();
        if tokio::time::timeout(LEAVE * 2, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("the broker did not answer while leaving");
        }
    }
}

impl Drop for RabbitBus {
    fn drop(&mut self) {
        self.link.closed.cancel();
    }
}
