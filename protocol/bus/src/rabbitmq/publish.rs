//! Publishing: together with others first, alone where that broke.
//!
//! An error that closes a channel hits every message in flight on it and says not which one caused
//! it. So a message whose channel broke is published again on a channel that it has for itself: what
//! happens there, happens to it.

use super::connection::{self, Link, Session};
use super::fault;
use super::properties::Outgoing;
use crate::BusError;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Most messages that are published alone at the same time; more wait. Each takes a channel, and it
/// is trouble that brings them here.
const MAX_LANES: usize = 16;

/// Channels in confirm mode, each for one message at a time.
pub(super) struct Lanes {
    free: Mutex<Vec<Channel>>,
    slots: Semaphore,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            free: Mutex::new(Vec::new()),
            slots: Semaphore::new(MAX_LANES),
        }
    }
}

/// What became of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken,
    Returned,
    NotTaken,
}

/// Publishes `message`, over further connections if need be, until `deadline`.
pub(super) async fn publish(
    link: &Link,
    message: Outgoing,
    deadline: Instant,
) -> Result<(), BusError> {
    tokio::time::timeout_at(deadline, attempts(link, &Arc::new(message)))
        .await
        .unwrap_or_else(|_| Err(link.why_down()))
}

/// What seldom happens is boxed: every publish carries this future, and it is to stay small.
async fn attempts(link: &Link, message: &Arc<Outgoing>) -> Result<(), BusError> {
    let unroutable = || BusError::Unroutable {
        exchange: message.exchange.to_string(),
        routing_key: message.routing_key.to_string(),
    };
    let mut pauses = None;
    let mut together = true;
    loop {
        let session = match link.current_session() {
            Some(session) => session,
            None => Box::pin(link.next_session()).await?,
        };
        let attempt = if together {
            match session.trunk.publish(message).await {
                Some(outcome) => Ok(outcome),
                None => {
                    // With a lost connection it was nobody's message.
                    together = !session.usable();
                    continue;
                }
            }
        } else {
            Box::pin(alone(&session, message)).await
        };
        match attempt {
            Ok(Outcome::Taken) => return Ok(()),
            Ok(Outcome::Returned) => return Err(unroutable()),
            Ok(Outcome::NotTaken) => {
                return Err(BusError::Unavailable {
                    detail: "the broker did not take the message".to_owned(),
                });
            }
            Err(error) if fault::is_absence(&error) => return Err(unroutable()),
            Err(error) => match fault::of("publishing", &error) {
                BusError::Unavailable { detail } => {
                    tracing::debug!(detail, "publishing again");
                    let pauses = pauses.get_or_insert_with(connection::pauses);
                    Box::pin(session.pause(pauses)).await;
                }
                other => return Err(other),
            },
        }
    }
}

async fn alone(session: &Session, message: &Outgoing) -> Result<Outcome, lapin::Error> {
    // Never closed; without a slot the broker's own limit on channels holds.
    let _slot = session.lanes.slots.acquire().await.ok();
    let channel = session.lane().await?;
    let options = BasicPublishOptions {
        mandatory: message.mandatory,
        ..BasicPublishOptions::default()
    };
    let confirm = channel
        .basic_publish(
            message.exchange.clone(),
            message.routing_key.clone(),
            options,
            &message.body,
            message.properties.clone(),
        )
        .await?
        .await?;
    // A channel whose confirm was not awaited, or that failed, is dropped and thereby closed.
    session.lanes.lock().push(channel);
    Ok(match confirm {
        Confirmation::Ack(None) | Confirmation::NotRequested => Outcome::Taken,
        Confirmation::Ack(Some(_)) => Outcome::Returned,
        Confirmation::Nack(_) => Outcome::NotTaken,
    })
}

impl Lanes {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    async fn lane(&self) -> Result<Channel, lapin::Error> {
        loop {
            let free = self.lanes.lock().pop();
            match free {
                Some(channel) if channel.status().connected() => return Ok(channel),
                Some(_) => {}
                None => break,
            }
        }
        let channel = self.connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(channel)
    }
}
