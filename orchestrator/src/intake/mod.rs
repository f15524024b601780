//! Tasks that are submitted over the broker: `ai.priority.tasks`.
//!
//! ```text
//!  ai.priority.tasks ──▶ read ──▶ submission (the same as over HTTP) ──▶ "accepted" to reply_to ──▶ ack
//!                          │            │ not now: everything back in its order, a pause
//!                          └────────────┴─ never: problem to reply_to, dead letter with the reason
//! ```
//!
//! A message is acknowledged when its run is stored; one that comes again finds its run under its key. How the
//! task ended is told by the relay, from what the run says of its submitter.

mod form;
mod letter;

use crate::api::{Caller, Failure};
use crate::run::executor::{Executor, pauses};
use crate::store::SubmissionKey;
use crate::submission::{Asked, Submissions, Taken, wrong};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use mesh_bus::{BusError, Deliveries, Delivery, Properties};
use mesh_protocol::names::QUEUE_PRIORITY_TASKS;
use mesh_trace::Context;
use std::sync::Arc;
use std::time::Duration;

/// Tasks that are planned and stored at the same time; so many may go before one that is more urgent and comes
/// later.
const PREFETCH: u16 = 32;
/// Longest pause before the queue is looked at again.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks whether there is room.
const LOOK: Duration = Duration::from_millis(200);

/// Takes tasks until the process leaves.
pub async fn run(executor: Arc<Executor>, submissions: Arc<Submissions>) {
    let halt = &executor.context().halt;
    let mut pauses = pauses();
    loop {
        match halt.run_until_cancelled(begin(&executor)).await {
            None => return,
            Some(Ok(deliveries)) => {
                if take(&executor, &submissions, deliveries).await {
                    pauses = crate::run::executor::pauses();
                }
            }
            Some(Err(error)) => {
                executor.context().metrics.bus_error("consume");
                tracing::warn!(%error, QUEUE_PRIORITY_TASKS, "cannot take tasks, trying again");
            }
        }
        if executor.pause(pauses.next().unwrap_or(MAX_PAUSE)).await {
            return;
        }
    }
}

async fn begin(executor: &Executor) -> Result<Deliveries, BusError> {
    let mut ready = executor.context().ready.clone();
    // Fails with the lane, which ends with the process.
    drop(ready.wait_for(|r| r.is_settled()).await);
    // What cannot be taken stays in the queue, in the order of its urgency.
    while !executor.has_room() {
        tokio::time::sleep(LOOK).await;
    }
    let bus = &executor.context().bus;
    bus.consume(QUEUE_PRIORITY_TASKS, PREFETCH).await
}

/// Takes tasks until one cannot be taken now, or the queue ends; whether any was taken.
async fn take(executor: &Executor, submissions: &Submissions, mut deliveries: Deliveries) -> bool {
    let stopper = deliveries.stopper();
    let mut going: FuturesUnordered<BoxFuture<'_, bool>> = FuturesUnordered::new();
    let (mut any, mut wait) = (false, false);
    while !wait {
        tokio::select! {
            biased;
            // What is begun is finished: a message without a name would make a second task.
            () = executor.context().halt.cancelled() => break,
            Some(taken) = going.next(), if !going.is_empty() => {
                any |= taken;
                wait |= !taken;
            }
            delivery = deliveries.next() => match delivery {
                Some(delivery) => going.push(letter(executor, submissions, delivery).boxed()),
                None => break,
            },
        }
    }
    stopper.cancel();
    while let Some(taken) = going.next().await {
        any |= taken;
    }
    // Polled to its end, so that what was not looked at goes back.
    while let Some(delivery) = deliveries.next().await {
        give_back(executor, delivery).await;
    }
    any
}

/// Takes one task and settles its message; `false` when the queue is to rest.
async fn letter(executor: &Executor, submissions: &Submissions, delivery: Delivery) -> bool {
    let metrics = &executor.context().metrics;
    let settled = match submit(submissions, &delivery).await {
        Ok(taken) => {
            metrics.intake(if taken.repeated {
                "repeated"
            } else {
                "accepted"
            });
            letter::accepted(executor, &delivery.message.properties, &taken.run).await;
            delivery.ack().await
        }
        Err(failure) if failure.is_temporary() => {
            metrics.intake("deferred");
            give_back(executor, delivery).await;
            return false;
        }
        Err(failure) => {
            metrics.intake("refused");
            letter::refused(executor, &delivery.message.properties, &failure).await;
            let reason = letter::reason(failure.problem());
            tracing::warn!(reason, "a message in the intake is no task, and put aside");
            delivery.dead_letter(&reason).await
        }
    };
    if let Err(error) = &settled {
        metrics.bus_error("settle");
        tracing::debug!(%error, "a task's message will come again");
    }
    settled.is_ok()
}

async fn give_back(executor: &Executor, delivery: Delivery) {
    if delivery.give_back().await.is_err() {
        executor.context().metrics.bus_error("settle");
    }
}

async fn submit(submissions: &Submissions, delivery: &Delivery) -> Result<Taken, Failure> {
    let (body, properties) = (&delivery.message.body, &delivery.message.properties);
    let arrival = submissions.arrival();
    if body.len() > submissions.max_body_bytes {
        return Err(Failure::too_large(submissions.max_body_bytes));
    }
    // Whoever may write into this queue is let in by the broker, as a local caller is by the machine. An
    // assertion says for whom it is asked, and then it has to be a good one.
    let caller = match &properties.assertion {
        None => Caller::Local,
        // One that has expired stays so: unlike over HTTP, it is not tried again.
        Some(text) => submissions
            .asserted(text)
            .map_err(|e| Failure::unauthenticated(e.to_string()))?,
    };
    let form = form::read(body, properties.priority).map_err(wrong)?;
    let owner = caller.owner();
    let key = key(properties, form.task_id.as_deref())
        .map(|key| SubmissionKey::new(owner.as_ref(), &key, &form.task));
    let asked = Asked {
        task: form.task,
        bytes: body.len(),
        arrival,
        caller,
        key,
        place: place(properties),
        agent: form.agent,
        reply: letter::reply_to(properties, form.task_id.as_deref()),
        client_task_id: form.task_id,
    };
    submissions.submit(asked).await
}

/// What makes a message that comes again the same one. `Idempotency-Key` is the one of HTTP; names that others
/// give have a space of their own: no header of HTTP holds its first character.
fn key(properties: &Properties, task_id: Option<&str>) -> Option<String> {
    let present = |text: &&str| !text.is_empty();
    let given = properties.idempotency_key.as_deref().filter(present);
    let message = properties.message_id.as_deref().filter(present);
    given
        .map(str::to_owned)
        .or_else(|| message.map(|id| format!("\u{1}message {id}")))
        .or_else(|| task_id.map(|id| format!("\u{1}task {id}")))
}

fn place(properties: &Properties) -> Context {
    let parent = properties.traceparent.as_deref();
    parent
        .and_then(|p| Context::parse(p, properties.tracestate.as_deref()))
        .unwrap_or_else(Context::fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_messages_and_of_tasks_are_no_keys_of_http() {
        let mut properties = Properties::default();
        assert_eq!(key(&properties, None), None);
        assert_eq!(key(&properties, Some("x")).as_deref(), Some("\u{1}task x"));
        properties.message_id = Some("x".to_owned());
        assert_eq!(
            key(&properties, Some("x")).as_deref(),
            Some("\u{1}message x")
        );
        properties.idempotency_key = Some("x".to_owned());
        assert_eq!(key(&properties, Some("x")).as_deref(), Some("x"));
    }
}
