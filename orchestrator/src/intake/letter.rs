//! Answers to who submitted: taken, or why not. How the task ended is the relay's to say.
//!
//! They go to the queue that the message names, over the default exchange, once: a queue that is gone or full holds
//! up nothing, and a message that comes again is answered again.

use crate::api::{Failure, Found, view};
use crate::run::executor::Executor;
use crate::run::relay;
use crate::store::ReplyTo;
use mesh_bus::{BusError, Message, Properties};
use mesh_protocol::event::EventType;
use mesh_protocol::names;
use mesh_protocol::problem::{self, Problem};
use serde::Serialize;

/// The first answer: what `POST /orchestrate` answers.
#[derive(Serialize)]
struct Accepted<'a> {
    event_type: EventType,
    #[serde(flatten)]
    task: view::Submitted<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_task_id: Option<&'a str>,
}

/// Where answers to a message go, and what they belong to: what the message says of that, or its name. Nowhere, where the
/// mesh would take them for work.
pub(super) fn reply_to(properties: &Properties, task_id: Option<&str>) -> Option<ReplyTo> {
    let queue = properties
        .reply_to
        .clone()
        .filter(|queue| !queue.is_empty())?;
    if names::takes_work(&queue) {
        tracing::warn!(
            queue,
            "an answer is asked for where it would be taken for work, and not sent"
        );
        return None;
    }
    let correlation_id = properties.correlation_id.as_deref();
    let named = correlation_id
        .or(task_id)
        .or(properties.message_id.as_deref());
    Some(ReplyTo {
        queue,
        correlation_id: named.unwrap_or_default().to_owned(),
    })
}

/// Says that the task is taken.
pub(super) async fn accepted(executor: &Executor, asked: &Properties, run: &Found) {
    let Some((body, name)) = run.read(|run| {
        let accepted = Accepted {
            event_type: EventType::TaskAccepted,
            // A message that comes again may find that it has ended.
            task: view::submitted(run, run.status.is_ended()),
            client_task_id: run.client_task_id.as_deref(),
        };
        let body = serde_json::to_vec(&accepted).ok()?;
        Some((body, run.client_task_id.clone()))
    }) else {
        return;
    };
    let reply = reply_to(asked, name.as_deref());
    send(executor, asked, reply, body, None).await;
}

/// Says that the task never will be taken.
pub(super) async fn refused(executor: &Executor, asked: &Properties, failure: &Failure) {
    let body = serde_json::to_vec(failure.problem()).unwrap_or_default();
    let kind = Some(problem::CONTENT_TYPE.to_owned());
    send(executor, asked, reply_to(asked, None), body, kind).await;
}

async fn send(
    executor: &Executor,
    asked: &Properties,
    reply: Option<ReplyTo>,
    body: Vec<u8>,
    content_type: Option<String>,
) {
    let Some(reply) = reply else { return };
    let message = Message {
        routing_key: reply.queue,
        body: body.into(),
        properties: Properties {
            correlation_id: Some(reply.correlation_id),
            traceparent: asked.traceparent.clone(),
            tracestate: asked.tracestate.clone(),
            content_type,
            ..Properties::default()
        },
        ..Message::default()
    };
    let sent = relay::send(executor, message).await;
    executor.context().metrics.reply(match &sent {
        Ok(()) => "sent",
        Err(BusError::Unroutable { .. }) => "nobody",
        Err(_) => "refused",
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "an answer to a message is not taken");
    }
}

/// A problem in one line, fit to be a dead letter's reason.
pub(super) fn reason(problem: &Problem) -> String {
    let mut parts = vec![problem.title.clone()];
    parts.extend(problem.detail.clone());
    let errors = problem.errors.iter();
    parts.extend(errors.map(|error| format!("{}: {}", error.field, error.detail)));
    parts.join("; ")
}
