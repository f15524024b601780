//! The bus within one process: for meshes that run in one process, and for tests.
//!
//! It keeps the promises of a broker as far as a process can: routing, confirms, prefetch, return of
//! what was not settled, priorities, delivery limits, dead letters. What it cannot keep is messages
//! across a restart.

mod broker;
mod routing;
#[cfg(test)]
mod tests;

pub use broker::{MAX_QUEUED, MAX_QUEUED_BYTES};

use crate::{
    Bus, BusError, Deliveries, Delivery, Depth, Message, Settle, Topology, Verdict,
    outgoing::prepare,
};
use async_trait::async_trait;
use broker::{Empty, Return, State};
use futures_util::StreamExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A connection to a broker in this process.
///
/// [`MemoryBus::new`] makes a new, empty broker; a clone is a further connection to the same one.
/// Closing a connection ends its own consumers only.
pub struct MemoryBus {
    broker: Arc<Broker>,
    connection: u64,
    connected: watch::Sender<bool>,
    closed: CancellationToken,
}

#[derive(Default)]
struct Broker {
    state: Mutex<State>,
    last_connection: AtomicU64,
}

impl Broker {
    /// A panic elsewhere leaves the state whole: no step of it is half done between two statements
    /// that can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryBus {
    /// A connection to a new, empty broker.
    pub fn new() -> Self {
        Self::connection_to(Arc::new(Broker::default()))
    }

    fn connection_to(broker: Arc<Broker>) -> Self {
        Self {
            connection: broker.last_connection.fetch_add(1, Ordering::Relaxed),
            broker,
            connected: watch::Sender::new(true),
            closed: CancellationToken::new(),
        }
    }

    fn check_open(&self) -> Result<(), BusError> {
        if self.closed.is_cancelled() {
            return Err(BusError::Unavailable {
                detail: "the bus was closed".to_owned(),
            });
        }
        Ok(())
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for MemoryBus {
    fn clone(&self) -> Self {
        Self::connection_to(self.broker.clone())
    }
}

#[async_trait]
impl Bus for MemoryBus {
    async fn declare(&self, topology: &Topology) -> Result<(), BusError> {
        self.check_open()?;
        self.broker.lock().declare(topology)
    }

    async fn publish(&self, message: Message) -> Result<(), BusError> {
        self.check_open()?;
        let message = prepare(message)?;
        self.broker.lock().publish(&message)
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Deliveries, BusError> {
        self.check_open()?;
        let stop = self.closed.child_token();
        let arrived = self.broker.lock().take_from(queue, stop.clone());
        let Some(arrived) = arrived else {
            return Err(no_queue(queue));
        };
        let consumer = Consumer {
            broker: self.broker.clone(),
            connection: self.connection,
            queue: queue.to_owned(),
            prefetch: Arc::new(Semaphore::new(usize::from(prefetch.max(1)))),
            arrived,
            stop: stop.clone(),
        };
        let stream = futures_util::stream::unfold(consumer, |consumer| async move {
            let delivery = consumer.stop.run_until_cancelled(consumer.next()).await??;
            Some((delivery, consumer))
        });
        Ok(Deliveries {
            stream: stream.boxed(),
            stop,
        })
    }

    async fn depth(&self, queue: &str) -> Result<Depth, BusError> {
        self.check_open()?;
        let depth = self.broker.lock().depth(queue);
        depth.ok_or_else(|| no_queue(queue))
    }

    fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    async fn close(&self) {
        self.closed.cancel();
        self.connected.send_replace(false);
        self.broker.lock().put_back_all(self.connection);
    }
}

impl Drop for MemoryBus {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

fn no_queue(queue: &str) -> BusError {
    BusError::NoQueue {
        queue: queue.to_owned(),
    }
}

struct Consumer {
    broker: Arc<Broker>,
    connection: u64,
    queue: String,
    prefetch: Arc<Semaphore>,
    arrived: Arc<Notify>,
    stop: CancellationToken,
}

impl Consumer {
    async fn next(&self) -> Option<Delivery> {
        // The semaphore is never closed.
        let mut permit = self.prefetch.clone().acquire_owned().await.ok()?;
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            let next: Option<Instant>;
            let taken = {
                let mut state = self.broker.lock();
                // Under the lock, so that nothing is handed out after `close` put everything back.
                if self.stop.is_cancelled() {
                    return None;
                }
                state.take(&self.queue, self.connection, permit)
            };
            match taken {
                Ok(taken) => {
                    return Some(Delivery {
                        message: taken.message,
                        queue: self.queue.clone(),
                        redelivered: taken.redelivered,
                        crashes: taken.crashes,
                        settle: Box::new(Held {
                            broker: self.broker.clone(),
                            tag: taken.tag,
                        }),
                    });
                }
                Err(Empty { permit: back, due }) => {
                    permit = back;
                    next = due;
                }
            }
            match next {
                None => arrived.await,
                // Early or in vain, it looks again.
                Some(due) => tokio::select! {
                    () = arrived => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }
}

/// A message that was handed out; goes back when it is dropped unsettled.
struct Held {
    broker: Arc<Broker>,
    tag: u64,
}

#[async_trait]
impl Settle for Held {
    async fn settle(&self, verdict: Verdict) -> Result<(), BusError> {
        let mut state = self.broker.lock();
        let held = match verdict {
            Verdict::Ack => state.remove(self.tag),
            Verdict::GiveBack => state.put_back(self.tag, Return::GivenBack),
            Verdict::Move { message } => {
                let held = state.holds(self.tag);
                if held {
                    state.publish(&prepare(*message)?)?;
                    state.remove(self.tag);
                }
                held
            }
        };
        if held {
            Ok(())
        } else {
            Err(BusError::Unavailable {
                detail: "the delivery went back to its queue when the bus was closed".to_owned(),
            })
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.broker.lock().put_back(self.tag, Return::Crashed);
    }
}
