//! Sends a step's result home, and does not rest until the broker has it.

use super::invoke::{Answer, Answered};
use super::wire::{self, Step};
use backon::{BackoffBuilder, ExponentialBuilder};
use mesh_bus::{Bus, BusError, Message, Properties};
use mesh_protocol::AgentId;
use mesh_protocol::names::{EXCHANGE_COORDINATION, ORCHESTRATOR, takes_work};
use mesh_protocol::outcome::{Outcome, StepResult};
use mesh_trace::Context;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Not a queue but a consumer (direct reply-to): for a broker a mandatory message to it goes nowhere.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";
/// First pause before a result is published again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long a result waits for the orchestrator's queue where there is none: it was deleted and is declared anew within
/// half of this, or is about to be declared for the first time.
const QUEUE: Duration = Duration::from_secs(60);

/// What came of publishing a result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// The broker has taken charge of it.
    Confirmed,
    /// No queue takes it; why.
    Unroutable(String),
    /// The broker will never take it; why.
    Refused(String),
    /// The drain ended, or the bus, before the broker had it.
    GivenUp,
}

/// The result of `step` as a message to the orchestrator, or to whom the step wants answered; it belongs to
/// `place` in its trace, or to where the step did.
pub(super) fn message(
    agent: &AgentId,
    step: &Step,
    answer: &Answer,
    asked: &Properties,
    place: Option<&Context>,
) -> Message {
    let body = match &answer.answered {
        Answered::Completed(json) => wire::completed(agent, step, answer, json),
        Answered::Failed(error) => {
            let result = StepResult {
                task_id: step.task_id.clone(),
                step_id: step.step_id.clone(),
                agent: agent.clone(),
                outcome: Outcome::Failed {
                    error: error.clone(),
                },
                attempts: answer.attempts,
                started_at: answer.started_at,
                finished_at: answer.finished_at,
            };
            // Texts and numbers always serialise.
            serde_json::to_vec(&result).unwrap_or_default().into()
        }
    };
    let (exchange, routing_key) = match asked.reply_to.as_deref() {
        // The default exchange takes a queue's name as the key.
        Some(queue) if !queue.is_empty() && !takes_work(queue) => (String::new(), queue.to_owned()),
        _ => (EXCHANGE_COORDINATION.to_owned(), ORCHESTRATOR.to_owned()),
    };
    // What is there of an older publisher is its own affair; a consumer that is answered without a queue is none
    // that a broker could find.
    let mandatory = !step.older && !routing_key.starts_with(DIRECT_REPLY);
    Message {
        exchange,
        routing_key,
        body,
        mandatory,
        properties: Properties {
            priority: asked.priority,
            correlation_id: Some(match asked.correlation_id.as_deref() {
                // Whoever asked knows its question by that.
                Some(id) if step.older && !id.is_empty() => id.to_owned(),
                _ => step.task_id.as_str().to_owned(),
            }),
            // By its key an orchestrator tells the result of a step of the mesh.
            idempotency_key: asked.idempotency_key.clone().filter(|_| !step.older),
            traceparent: match place {
                Some(place) => Some(place.traceparent()),
                None => asked.traceparent.clone(),
            },
            tracestate: match place {
                Some(place) => place.state.clone(),
                None => asked.tracestate.clone(),
            },
            ..Properties::default()
        },
    }
}

/// Publishes `message`, again after every loss of the broker, until it stands or `give_up`.
pub(super) async fn publish(
    bus: &dyn Bus,
    message: Message,
    give_up: &CancellationToken,
) -> Published {
    let mut pauses = None;
    let home = message.exchange == EXCHANGE_COORDINATION;
    let begun = Instant::now();
    loop {
        let published = tokio::select! {
            biased;
            published = bus.publish(message.clone()) => published,
            () = give_up.cancelled() => return Published::GivenUp,
        };
        match published {
            Ok(()) => return Published::Confirmed,
            Err(error @ BusError::Unroutable { .. }) if home && begun.elapsed() < QUEUE => {
                tracing::warn!(%error, "nobody takes a result, it is published again");
            }
            Err(error @ BusError::Unroutable { .. }) => {
                return Published::Unroutable(error.to_string());
            }
            Err(BusError::Unavailable { detail }) => {
                tracing::warn!(detail, "result is not confirmed, it is published again");
            }
            Err(error) => return Published::Refused(error.to_string()),
        }
        let pause = pauses
            .get_or_insert_with(|| {
                ExponentialBuilder::default()
                    .with_min_delay(PAUSE.0)
                    .with_max_delay(PAUSE.1)
                    .without_max_times()
                    .with_jitter()
                    .build()
            })
            .next()
            .unwrap_or(PAUSE.1);
        let mut connected = bus.connected();
        let again = async {
            tokio::time::sleep(pause).await;
            connected.wait_for(|up| *up).await.is_ok()
        };
        let alive = tokio::select! {
            alive = again => alive,
            () = give_up.cancelled() => false,
        };
        if !alive {
            return Published::GivenUp;
        }
    }
}
