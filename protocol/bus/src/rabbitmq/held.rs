//! A delivery in somebody's hands: acknowledged, given back or moved.

use super::acks::{Acks, Tag};
use super::connection::Link;
use super::properties::Outgoing;
use super::{PATIENCE, fault, publish};
use crate::{BusError, Message, Settle, Verdict};
use async_trait::async_trait;
use lapin::options::{BasicNackOptions, BasicRejectOptions};
use lapin::{Acker, BasicProperties};
use mesh_protocol::names::EXCHANGE_DEAD;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A delivery that was handed out; goes back when it is dropped unsettled.
pub(super) struct Held {
    pub link: Arc<Link>,
    pub tag: Tag,
    pub acker: Acker,
    pub properties: BasicProperties,
    pub acks: Arc<Acks>,
    pub dropped: mpsc::Sender<(Tag, Acker)>,
    pub settled: AtomicBool,
}

#[async_trait]
impl Settle for Held {
    async fn settle(&self, verdict: Verdict) -> Result<(), BusError> {
        let settled = match verdict {
            Verdict::Ack => return self.ack().await,
            Verdict::GiveBack => {
                self.settled.store(true, Ordering::Relaxed);
                let options = BasicNackOptions {
                    requeue: true,
                    ..BasicNackOptions::default()
                };
                self.acker.nack(options).await
            }
            Verdict::Move { message } => {
                let dies = message.exchange == EXCHANGE_DEAD;
                let queue = message.routing_key.clone();
                // Boxed, since every settling carries this future and few move anything.
                match Box::pin(self.copy(*message)).await {
                    Ok(()) => return self.ack().await,
                    // The broker can still move the original, and gives its own word as the reason.
                    Err(error @ (BusError::Refused { .. } | BusError::TooLarge { .. }))
                        if dies && self.link.buries(&queue) =>
                    {
                        tracing::warn!(queue, %error, "no copy of a dead letter is taken, rejecting it");
                        self.settled.store(true, Ordering::Relaxed);
                        self.acker.reject(BasicRejectOptions::default()).await
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        self.acks.closed(self.tag);
        match settled {
            Ok(true) => Ok(()),
            // The library says false when the channel ended before.
            Ok(false) => Err(fault::went_back()),
            Err(error) => Err(fault::of("settling", &error)),
        }
    }
}

impl Held {
    async fn ack(&self) -> Result<(), BusError> {
        self.settled.store(true, Ordering::Relaxed);
        self.acks.ack(self.tag, &self.acker).await
    }

    /// Publishes the copy, over the connection that the delivery came from: after that it is unsettled
    /// no more.
    async fn copy(&self, message: Message) -> Result<(), BusError> {
        let Some(session) = self.link.current_session() else {
            return Err(fault::went_back());
        };
        let copy = Outgoing::copy(message, &self.acker, &self.properties, session.room())?;
        publish::publish(&self.link, copy, Instant::now() + PATIENCE).await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !*self.settled.get_mut() && self.acker.usable() {
            // Fails only when the channel is closed, and then the message is back already.
            let _ = self.dropped.try_send((self.tag, self.acker.clone()));
        }
    }
}
