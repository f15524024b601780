//! Publishing, many messages at a time on one channel.
//!
//! ```text
//!   publishers ──Job──▶ carry (one per connection, within the task "link") ──▶ channel ──▶ broker
//!        ▲                 │ owns every confirm that is awaited
//!        └── what became ──┘
//! ```
//!
//! One channel, since the broker confirms many messages of a channel at once, while each further
//! channel costs it a process and costs the client library a look at every frame.
//!
//! The broker returns an unroutable message before it confirms it. The client library hands each
//! returned message to whichever confirm of the channel it sees next, one to each. So:
//!
//! - a confirm that comes with nothing says that every message returned so far has been handed out;
//! - a confirm that comes with another's message says nothing yet about its own: that is decided by
//!   the next confirm that comes with nothing, or when no confirm is awaited any more.
//!
//! What was handed out earlier was woken earlier; therefore all that is ready is looked at before
//! anything is decided.

use super::properties::Outgoing;
use super::publish::Outcome;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Connection, Error};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Most messages that wait for their confirm; more wait in line. The broker's log takes some hundred
/// messages in one write, so more at a time would not be faster.
const MAX_AWAITED: usize = 512;
/// Messages in line; their publishers hold them anyway, so this is only about wake-ups.
const LINE: usize = 64;

/// Where publishers hand in their messages.
pub(super) struct Trunk(mpsc::Sender<Job>);

/// A message and who waits for what becomes of it.
pub(super) struct Job {
    message: Arc<Outgoing>,
    publisher: oneshot::Sender<Result<Outcome, Error>>,
}

/// A trunk and what [`carry`] takes from it.
pub(super) fn lay() -> (Trunk, mpsc::Receiver<Job>) {
    let (jobs, line) = mpsc::channel(LINE);
    (Trunk(jobs), line)
}

impl Trunk {
    /// What became of `message`; `None` when it is unknown: the channel broke, over this message or
    /// another.
    pub(super) async fn publish(&self, message: &Arc<Outgoing>) -> Option<Outcome> {
        let (publisher, outcome) = oneshot::channel();
        let message = Arc::clone(message);
        self.0.send(Job { message, publisher }).await.ok()?;
        match outcome.await.ok()? {
            Ok(outcome) => Some(outcome),
            Err(error) => {
                tracing::debug!(%error, "a publish broke off");
                None
            }
        }
    }
}

/// Publishes what is handed in, until it is dropped.
pub(super) async fn carry(connection: &Connection, mut line: mpsc::Receiver<Job>) {
    let mut channel: Option<Channel> = None;
    let mut awaited = FuturesUnordered::new();
    let mut returns = Returns::default();
    loop {
        tokio::select! {
            Some(job) = line.recv(), if awaited.len() < MAX_AWAITED => {
                match ready(connection, channel.take()).await {
                    Ok(open) => {
                        awaited.push(one(open.clone(), job));
                        channel = Some(open);
                    }
                    Err(error) => hear(job, Err(error)),
                }
            }
            Some(first) = awaited.next() => {
                let mut round = vec![first];
                while let Some(Some(next)) = awaited.next().now_or_never() {
                    round.push(next);
                }
                returns.decide(round, awaited.is_empty());
            }
            else => return,
        }
    }
}

/// `channel` if it still stands, or a new one.
async fn ready(connection: &Connection, channel: Option<Channel>) -> Result<Channel, Error> {
    if let Some(channel) = channel.filter(|c| c.status().connected()) {
        return Ok(channel);
    }
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

async fn one(channel: Channel, job: Job) -> (Job, Result<Confirmation, Error>) {
    let message = &job.message;
    let options = BasicPublishOptions {
        mandatory: message.mandatory,
        ..BasicPublishOptions::default()
    };
    let published = channel.basic_publish(
        message.exchange.clone(),
        message.routing_key.clone(),
        options,
        &message.body,
        message.properties.clone(),
    );
    let confirmed = match published.await {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    (job, confirmed)
}

fn hear(job: Job, outcome: Result<Outcome, Error>) {
    // A publisher that waits no longer does not need to know.
    let _ = job.publisher.send(outcome);
}

/// What tells a returned message from others in flight.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Mark {
    id: Option<ShortString>,
    exchange: ShortString,
    routing_key: ShortString,
}

impl Mark {
    fn sent(message: &Outgoing) -> Self {
        Self {
            id: message.properties.message_id().clone(),
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
        }
    }

    fn returned(message: &BasicReturnMessage) -> Self {
        Self {
            id: message.properties.message_id().clone(),
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
        }
    }
}

/// Messages that came back, and confirmed ones of which it is not yet known whether they did.
#[derive(Default)]
struct Returns {
    /// How often each came back and was not yet told its publisher; no more than are in flight.
    back: HashMap<Mark, usize>,
    open: Vec<Job>,
}

impl Returns {
    /// Tells publishers what became of their messages, as far as `round` decides it.
    ///
    /// `round` is all that was ready; `last` says that nothing is awaited after it.
    fn decide(&mut self, round: Vec<(Job, Result<Confirmation, Error>)>, last: bool) {
        let mut clear = Vec::with_capacity(round.len());
        let mut unclear = Vec::new();
        for (job, confirmed) in round {
            match confirmed {
                Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => clear.push(job),
                Ok(Confirmation::Ack(Some(returned))) => {
                    self.came_back(&returned);
                    unclear.push(job);
                }
                Ok(Confirmation::Nack(returned)) => {
                    if let Some(returned) = returned {
                        self.came_back(&returned);
                    }
                    hear(job, Ok(Outcome::NotTaken));
                }
                Err(error) => hear(job, Err(error)),
            }
        }
        // A confirm that came with nothing decides earlier rounds, not its own: within a round the
        // order is unknown.
        if !clear.is_empty() {
            for job in std::mem::take(&mut self.open) {
                self.tell(job);
            }
        }
        for job in clear {
            self.tell(job);
        }
        self.open.append(&mut unclear);
        for job in std::mem::take(&mut self.open) {
            if last || self.back.contains_key(&Mark::sent(&job.message)) {
                self.tell(job);
            } else {
                self.open.push(job);
            }
        }
        if last {
            // Left over are those whose publishers heard an error.
            self.back.clear();
        }
    }

    fn came_back(&mut self, message: &BasicReturnMessage) {
        *self.back.entry(Mark::returned(message)).or_default() += 1;
    }

    fn tell(&mut self, job: Job) {
        // Mostly there are none, and then nothing is looked up.
        let returned = !self.back.is_empty() && self.strike(&Mark::sent(&job.message));
        let outcome = if returned {
            Outcome::Returned
        } else {
            Outcome::Taken
        };
        hear(job, Ok(outcome));
    }

    fn strike(&mut self, mark: &Mark) -> bool {
        let Some(count) = self.back.get_mut(mark) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.back.remove(mark);
        }
        true
    }
}
