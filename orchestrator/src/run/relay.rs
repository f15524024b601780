//! Tells the world what the log says: events on `ai.events`, and last answers to those who submitted over AMQP.
//!
//! ```text
//!  store: log, ended runs that wait ──turn──▶ publish, each until the broker has it ──▶ up to where, with the next turn
//! ```
//!
//! One replica at a time has the turn. What it had published and not yet said is published again by the next,
//! under the same ids: everything is told at least once, in the order of the log. While the broker is away the
//! log waits, and what falls out of it meanwhile is counted and told as a gap.

use super::events::of_end;
use super::executor::{Executor, pauses};
use crate::api::view;
use crate::store::{End, Logged, Published, RunRecord, StoreError};
use bytes::Bytes;
use futures_util::StreamExt;
use mesh_bus::{BusError, CloudEvent, Message, Properties};
use mesh_protocol::event::{Event, EventType};
use mesh_protocol::names::{EXCHANGE_EVENTS, ORCHESTRATOR};
use mesh_protocol::{TaskId, Timestamp};
use serde::Serialize;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Changes of one turn, some of hundred kilobytes; a quick broker has them in milliseconds.
const BATCH: usize = 256;
/// Publishes that wait for the broker's confirm at the same time; leaves the broker to the steps.
const IN_FLIGHT: usize = 64;
/// Between two turns with little to tell: what happens meanwhile goes together.
const GATHER: Duration = Duration::from_millis(20);
/// Between two looks for what other replicas log.
const LOOK: Duration = Duration::from_millis(250);
/// Between two looks whether another replica still has the turn.
const OTHERS_TURN: Duration = Duration::from_secs(1);
/// Before a submitter who could not be answered is answered again.
const ANSWER_AGAIN: Duration = Duration::from_secs(1);
/// How long a leaving process waits for the store to hear what it published.
const LAST_WORD: Duration = Duration::from_secs(2);
/// Longest pause after a failure.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Not a queue but a consumer (direct reply-to): for a broker a mandatory message to it goes nowhere.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// Publishes until the process leaves.
pub async fn publish(executor: Arc<Executor>) {
    let halt = executor.context().halt.clone();
    let mut said = Published::default();
    halt.run_until_cancelled(relay(&executor, &mut said)).await;
    // So that the next one does not begin with what is published.
    let last = executor.context().store.turn(executor.replica(), &said, 0);
    let _again = tokio::time::timeout(LAST_WORD, last).await;
}

async fn relay(executor: &Executor, said: &mut Published) {
    let context = executor.context();
    let mut tried: HashMap<TaskId, Instant> = HashMap::new();
    let mut failures = pauses();
    loop {
        let turn = match context.store.turn(executor.replica(), said, BATCH).await {
            Ok(turn) => turn,
            Err(error) => {
                context.metrics.store_errors.inc();
                tracing::debug!(%error, "the log is not read, trying again");
                tokio::time::sleep(failures.next().unwrap_or(MAX_PAUSE)).await;
                continue;
            }
        };
        failures = pauses();
        *said = Published::default();
        let Some(turn) = turn else {
            context.metrics.events_waiting.set(0);
            tokio::time::sleep(OTHERS_TURN).await;
            continue;
        };
        let part = turn.part;
        if part.missed > 0 {
            missed(executor, part.missed).await;
        }
        let last = part.changes.last().map(|change| change.position);
        let first = part.changes.first().map(|change| change.position.number);
        let waiting = first.map_or(0, |first| (part.end.number + 1).saturating_sub(first));
        let gauge = &context.metrics.events_waiting;
        gauge.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        let full = part.changes.len() >= BATCH;
        tell(executor, part.changes).await;
        said.up_to = last;

        let now = Instant::now();
        tried.retain(|_, at| now < *at + ANSWER_AGAIN);
        let due = turn.replies.into_iter();
        let due: Vec<TaskId> = due.filter(|run| !tried.contains_key(run)).collect();
        let answers = futures_util::stream::iter(due)
            .map(|run| answer(executor, run))
            .buffer_unordered(IN_FLIGHT);
        for (run, done) in answers.collect::<Vec<_>>().await {
            if done {
                said.answered.push(run);
            } else {
                tried.insert(run.clone(), now);
                said.unanswered.push(run);
            }
        }
        if full {
            continue;
        }
        if last.is_some() || !said.answered.is_empty() {
            tokio::time::sleep(GATHER).await;
        } else {
            tokio::select! {
                () = context.written.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

/// Publishes events in their order, and returns when the broker has all of them, or never will.
async fn tell(executor: &Executor, changes: Vec<Logged>) {
    let events = changes.into_iter().flat_map(|change| change.events);
    let mut told = futures_util::stream::iter(events)
        .map(|event| publish_event(executor, event))
        .buffered(IN_FLIGHT);
    while told.next().await.is_some() {}
}

async fn missed(executor: &Executor, count: u64) {
    executor.context().metrics.events_dropped.inc_by(count);
    tracing::error!(
        changes = count,
        "the log is too short for how long the broker was away: changes are not told on {EXCHANGE_EVENTS}"
    );
    let event = gap(count);
    publish_event(executor, Arc::new(event)).await;
}

/// Says that so many changes are no longer kept; 0 for an unknown number.
pub fn gap(changes: u64) -> Event {
    let known = (changes > 0).then_some(changes);
    Event {
        event_type: EventType::Gap,
        data: json!({"changes": known, "detail": "changes that are no longer kept were not told"}),
        timestamp: Timestamp::now(),
        source: ORCHESTRATOR.to_owned(),
    }
}

async fn publish_event(executor: &Executor, event: Arc<Event>) {
    let context = executor.context();
    let message = event_message(&event);
    let mut pauses = pauses();
    loop {
        match context.bus.publish(message.clone()).await {
            Ok(()) => return context.metrics.events_published.inc(),
            Err(error @ (BusError::TooLarge { .. } | BusError::Refused { .. })) => {
                tracing::error!(%error, id = event.id(), "an event is refused for good");
                return context.metrics.events_dropped.inc();
            }
            // Away, or its exchange is: that is declared again.
            Err(error) => {
                context.metrics.bus_error("event");
                tracing::debug!(%error, "an event is not published, trying again");
            }
        }
        tokio::time::sleep(pauses.next().unwrap_or(MAX_PAUSE)).await;
    }
}

fn event_message(event: &Event) -> Message {
    let task = event.task_id().unwrap_or_default();
    let (id, kind) = (event.id(), event.event_type.as_str());
    Message {
        exchange: EXCHANGE_EVENTS.to_owned(),
        routing_key: kind.to_owned(),
        // Texts, numbers and JSON values always serialise.
        body: Bytes::from(serde_json::to_vec(event).unwrap_or_default()),
        mandatory: false,
        properties: Properties {
            correlation_id: event.task_id().map(str::to_owned),
            message_id: Some(id.clone()),
            cloud_event: Some(Box::new(CloudEvent {
                id,
                kind: kind.to_owned(),
                source: event.source.clone(),
                time: event.timestamp.to_string(),
                subject: task.to_owned(),
            })),
            ..Properties::default()
        },
    }
}

/// The last answer: what the API shows of the task.
#[derive(Serialize)]
struct LastAnswer<'a> {
    event_type: EventType,
    #[serde(flatten)]
    task: view::Shown<'a>,
}

/// Tells the submitter of `run` how it ended; `false` when that is to be tried again.
async fn answer(executor: &Executor, run: TaskId) -> (TaskId, bool) {
    let context = executor.context();
    let record = match context.store.load(&run).await {
        Ok(Some(record)) => record,
        Ok(None) => return (run, true),
        Err(StoreError::Corrupt { detail, .. }) => {
            tracing::error!(task_id = %run, detail, "an ended task cannot be read, and its submitter hears nothing");
            return (run, true);
        }
        Err(_) => return (run, false),
    };
    let Some((event, message)) = last_answer(&record) else {
        return (run, true);
    };
    let mut sent = send(executor, message.clone()).await;
    if matches!(sent, Err(BusError::TooLarge { .. })) {
        // Without the results then; who wants them asks the API.
        let body = serde_json::to_vec(&event).unwrap_or_default().into();
        sent = send(executor, Message { body, ..message }).await;
    }
    let outcome = match &sent {
        Ok(()) => "sent",
        Err(BusError::Unroutable { .. }) => "nobody",
        Err(BusError::Unavailable { .. }) => "again",
        Err(_) => "refused",
    };
    context.metrics.reply(outcome);
    if let Err(error) = sent {
        tracing::debug!(task_id = %run, %error, "a last answer is not taken");
    }
    (run, outcome != "again")
}

/// Sends an answer, once.
///
/// # Errors
/// As [`mesh_bus::Bus::publish`]; [`BusError::Unroutable`] when its queue is gone.
pub(crate) async fn send(executor: &Executor, mut message: Message) -> Result<(), BusError> {
    message.mandatory = !message.routing_key.starts_with(DIRECT_REPLY);
    executor.context().bus.publish(message).await
}

fn last_answer(record: &RunRecord) -> Option<(Event, Message)> {
    let reply = record.reply.as_ref()?;
    let end = End {
        status: record.status,
        error: record.error.clone(),
        at: record.finished_at.unwrap_or(record.created_at),
    };
    let event = of_end(&record.task_id, &end, record.client_task_id.as_deref())?;
    let answer = LastAnswer {
        event_type: event.event_type,
        task: view::shown(record),
    };
    let message = Message {
        routing_key: reply.queue.clone(),
        body: serde_json::to_vec(&answer).unwrap_or_default().into(),
        properties: Properties {
            correlation_id: Some(reply.correlation_id.clone()),
            // Sent twice, it is the same answer twice.
            message_id: Some(event.id()),
            priority: Some(record.request.priority),
            traceparent: Some(record.trace.traceparent.clone()),
            tracestate: record.trace.tracestate.clone(),
            ..Properties::default()
        },
        ..Message::default()
    };
    Some((event, message))
}
