//! The arguments that queues are declared with; pure data, for the client library and for a file of definitions alike,
//! so that what is declared at run time and what was imported before it cannot differ.

use crate::topology::DELIVERY_LIMIT;
use crate::{DelayQueue, Queue, QueueKind, Topology};
use mesh_protocol::names::EXCHANGE_DEAD;
use serde::Serialize;

/// More deliveries than there will ever be.
const NO_LIMIT: u32 = i32::MAX.unsigned_abs();
/// Highest priority of classic queues, as the plan's intake queue has it.
const PRIORITIES: u32 = 10;

/// The value of an argument; in JSON text or a number. The broker compares numbers by value, whatever their width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Argument<'a> {
    /// A text.
    Text(&'a str),
    /// A number.
    Number(u32),
}

/// Arguments by name, each name once.
pub type Arguments<'a> = Vec<(&'static str, Argument<'a>)>;

impl Topology {
    /// Every queue with its arguments; all are durable, none is exclusive or deleted by itself.
    pub fn declared(&self) -> impl Iterator<Item = (&str, Arguments<'_>)> {
        let queues = self.queues.iter();
        let queues = queues.map(|q| (q.name.as_str(), q.arguments(self.max_length)));
        let delays = self.delays.iter();
        queues.chain(delays.map(|q| (q.name.as_str(), q.arguments())))
    }
}

impl Queue {
    /// What it is declared with, where the queues with dead letters are bounded by `max_length`.
    pub fn arguments(&self, max_length: Option<u32>) -> Arguments<'_> {
        let mut all = match self.kind {
            QueueKind::Quorum => vec![
                ("x-queue-type", Argument::Text(self.kind.as_str())),
                // Without a place for them, counted-out messages would be dropped: after twenty looks at the dead
                // letters, since 4.x has a limit where none is set. -1 for none is refused by 3.x.
                (
                    "x-delivery-limit",
                    Argument::Number(if self.dead_letters {
                        DELIVERY_LIMIT
                    } else {
                        NO_LIMIT
                    }),
                ),
            ],
            // No x-queue-type: a queue that was declared without one is the same queue.
            QueueKind::Classic => vec![("x-max-priority", Argument::Number(PRIORITIES))],
        };
        if self.dead_letters {
            if let Some(most) = max_length {
                // Dropping the oldest, which is what a broker does otherwise, buries steps that nobody answers for.
                all.push(("x-max-length", Argument::Number(most)));
                all.push(("x-overflow", Argument::Text("reject-publish")));
            }
            all.push(("x-dead-letter-exchange", Argument::Text(EXCHANGE_DEAD)));
            all.push(("x-dead-letter-routing-key", Argument::Text(&self.name)));
        }
        all
    }
}

impl DelayQueue {
    /// What it is declared with.
    pub fn arguments(&self) -> Arguments<'_> {
        let mut all = vec![
            ("x-message-ttl", Argument::Number(self.delay_ms)),
            // The default exchange leads to queues by name.
            ("x-dead-letter-exchange", Argument::Text("")),
            ("x-dead-letter-routing-key", Argument::Text(&self.to)),
        ];
        if self.kind == QueueKind::Quorum {
            all.push(("x-queue-type", Argument::Text(self.kind.as_str())));
            // It parts with a message when the other queue has confirmed it, which it can only where it takes no
            // more than it can hold.
            all.push(("x-dead-letter-strategy", Argument::Text("at-least-once")));
            all.push(("x-overflow", Argument::Text("reject-publish")));
        }
        all
    }
}

impl From<Argument<'_>> for serde_json::Value {
    fn from(argument: Argument<'_>) -> Self {
        match argument {
            Argument::Text(text) => text.into(),
            Argument::Number(number) => number.into(),
        }
    }
}
