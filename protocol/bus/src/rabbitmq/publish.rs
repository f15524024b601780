//! Publishing: together with others first, alone where that broke.
//!
//! An error that closes a channel hits every message in flight on it and says not which one caused
//! it. So a message whose channel broke is published again on a channel that it has for itself: what
//! happens there, happens to it. Likewise with an error that closes the connection, for a message that
//! was in flight when it did so before: it is published with no other beside it.
//!
//! An exchange or a queue that was declared here may be deleted while the connection stands. Who misses one declares
//! everything anew, and publishes once more.

use super::connection::{self, Link, Session};
use super::properties::Outgoing;
use super::{buried, fault};
use crate::{BusError, direct_reply};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Most messages that are published alone at the same time; more wait. Each takes a channel, and it
/// is trouble that brings them here.
const MAX_LANES: u32 = 16;
/// Connections that are lost over a message before it is suspected.
const SUSPICIOUS: u32 = 2;

/// Channels in confirm mode, each for one message at a time.
pub(super) struct Lanes {
    free: Mutex<Vec<Channel>>,
    slots: Semaphore,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            free: Mutex::new(Vec::new()),
            slots: Semaphore::new(MAX_LANES as usize),
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
    let header = buried::size(&message.properties);
    let mut pauses = None;
    let mut losses = 0;
    // In a lane of its own, an error is known to be its own.
    let direct = message.exchange.as_str().is_empty()
        && direct_reply::is_address(message.routing_key.as_str());
    // Lanes that the message takes, none for the trunk, all so that no other is beside it.
    let mut lanes = u32::from(direct);
    let mut mends = link.expects(message.exchange.as_str(), message.routing_key.as_str());
    loop {
        let session = match link.current_session() {
            Some(session) => session,
            None if message.original.is_some() => return Err(fault::went_back()),
            None => Box::pin(link.next_session()).await?,
        };
        if message.is_moot() {
            return Err(fault::went_back());
        }
        // The broker would close the connection over it.
        if header > session.room() {
            return Err(BusError::TooLarge {
                detail: format!(
                    "the message's properties have {header} bytes, at most {} are sent",
                    session.room()
                ),
            });
        }
        let begun = Instant::now();
        let attempt = if lanes == 0 {
            session.trunk.publish(message).await.map(Ok)
        } else {
            Some(Box::pin(alone(&session, message, lanes)).await)
        };
        let apart = lanes == MAX_LANES;
        // An error of a channel leaves the connection, and is known in a lane to be this message's. A
        // lost connection was nobody's message, unless it happens again.
        if !matches!(attempt, Some(Ok(_))) {
            losses += u32::from(!session.usable());
            lanes = match losses {
                0 => 1,
                SUSPICIOUS.. => MAX_LANES,
                _ => 0,
            };
        }
        let Some(attempt) = attempt else { continue };
        let nowhere = match &attempt {
            Ok(outcome) => *outcome == Outcome::Returned,
            Err(error) => fault::is_absence(error),
        };
        if nowhere && std::mem::take(&mut mends) {
            tracing::warn!(
                exchange = %message.exchange, key = %message.routing_key,
                "what was declared is gone, declaring it anew"
            );
            Box::pin(link.mend(&session, begun)).await;
            continue;
        }
        match attempt {
            Ok(Outcome::Taken) => return Ok(()),
            Ok(Outcome::Returned) => return Err(unroutable()),
            Ok(Outcome::NotTaken) => {
                return Err(BusError::Unavailable {
                    detail: "the broker did not take the message".to_owned(),
                });
            }
            Err(error) if fault::is_absence(&error) => return Err(unroutable()),
            // A broker may break over the address of a process of another broker, or of an earlier life of its own.
            Err(error) if direct && fault::is_internal_error(&error) => return Err(unroutable()),
            Err(error) if apart && fault::is_frame_error(&error) => {
                return Err(BusError::Refused {
                    detail: format!("publishing: {}", fault::text(&error)),
                });
            }
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

async fn alone(session: &Session, message: &Outgoing, lanes: u32) -> Result<Outcome, lapin::Error> {
    // Never closed; without a slot the broker's own limit on channels holds.
    let _slots = session.lanes.slots.acquire_many(lanes).await.ok();
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
