//! The orchestrator's side of the bus: declares the queues, hears results, hands them to their runs.
//!
//! Replicas take results from one queue, whosever run they are of. A result of a run that does not go on
//! here goes into that run in the store, and only then is its delivery acknowledged: whoever runs it, now or
//! later, has it. Nothing is consumed before the runs that nobody holds are taken up, so that few go that way.

use super::executor::{Executor, pauses};
use super::message::results_queue;
use super::shown::Input;
use crate::config::{Agent, Config};
use crate::store::{HandedOver, StoreError};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mesh_bus::{BusError, Deliveries, Delivery, QueueKind, Topology};
use mesh_protocol::outcome::StepResult;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::watch;

/// Results that are with us unsettled: enough for some hundred runs to store theirs at once.
pub const PREFETCH: u16 = 256;
/// How often queues with wrong arguments are looked at again: an operator mends them by hand.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long a task may be gone from the store before it is unknown: renewals of a lease find out that a store was
/// emptied, and are two seconds apart.
const GONE: Duration = Duration::from_secs(5);

/// Whether the queues stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// Not declared yet, and why not.
    Waiting(String),
    /// All stand.
    Declared,
    /// These exist with other arguments; the others stand.
    Mismatch(Vec<String>),
}

impl Ready {
    /// Whether a message that no queue takes now will never be taken.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Waiting(_))
    }
}

/// What is to be declared, part by part, so that one wrong queue does not hide the others.
pub struct Parts(Vec<Topology>);

impl Parts {
    /// What `config` needs.
    pub fn new(config: &Config) -> Self {
        let kind: QueueKind = config.queue_kind;
        let own = Topology::exchanges().with_orchestrator(kind);
        let intake = Topology::exchanges().with_intake(kind);
        let most = config.max_queue_length;
        let with = |agent: &Agent| {
            let kind = agent.queue_kind.unwrap_or(kind);
            Topology::exchanges()
                .with_agent(&agent.id, kind)
                .bounded(most)
        };
        let agents = config.agents.iter().map(with);
        Self([own, intake].into_iter().chain(agents).collect())
    }

    /// The parts; an exchange may stand in several.
    pub fn topologies(&self) -> &[Topology] {
        &self.0
    }
}

/// Declares and consumes until the process leaves.
pub async fn run(executor: Arc<Executor>, parts: Parts, ready: watch::Sender<Ready>) {
    // A broker or a store that does not answer must not hold up the leaving.
    let halt = executor.context().halt.clone();
    let begun = async { tokio::join!(executor.taken_up(), declare(&executor, &parts, &ready)) };
    if halt.run_until_cancelled(begun).await.is_none() {
        return;
    }
    let mut pauses = pauses();
    loop {
        let declared = declare(&executor, &parts, &ready);
        if halt.run_until_cancelled(declared).await.is_none() {
            return;
        }
        if ready.borrow().is_settled() {
            let queue = results_queue();
            let consuming = executor.context().bus.consume(&queue, PREFETCH);
            match halt.run_until_cancelled(consuming).await {
                None => return,
                Some(Ok(deliveries)) => {
                    pauses = super::executor::pauses();
                    consume(&executor, &parts, &ready, deliveries).await;
                }
                Some(Err(error)) => {
                    executor.context().metrics.bus_error("consume");
                    tracing::warn!(%error, queue, "cannot consume results, trying again");
                }
            }
        }
        let pause = pauses.next().unwrap_or(LOOK_AGAIN);
        tokio::select! {
            () = halt.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn declare(executor: &Executor, parts: &Parts, ready: &watch::Sender<Ready>) {
    let mut wrong = Vec::new();
    for part in &parts.0 {
        match executor.context().bus.declare(part).await {
            Ok(()) => {}
            Err(error @ (BusError::Mismatch { .. } | BusError::Refused { .. })) => {
                wrong.push(error.to_string());
            }
            Err(error) => {
                executor.context().metrics.bus_error("declare");
                // A broker that went away does not undo what stood.
                if !ready.borrow().is_settled() {
                    ready.send_replace(Ready::Waiting(error.to_string()));
                }
                return;
            }
        }
    }
    let now = if wrong.is_empty() {
        Ready::Declared
    } else {
        Ready::Mismatch(wrong)
    };
    if *ready.borrow() != now {
        if let Ready::Mismatch(faults) = &now {
            for fault in faults {
                tracing::error!(fault, "the broker's topology is not this mesh's");
            }
        }
        ready.send_replace(now);
    }
}

async fn consume(
    executor: &Arc<Executor>,
    parts: &Parts,
    ready: &watch::Sender<Ready>,
    mut deliveries: Deliveries,
) {
    let stopper = deliveries.stopper();
    // At most PREFETCH at a time, since each holds an unsettled delivery.
    let mut settling = FuturesUnordered::new();
    let mut look_again = tokio::time::interval(LOOK_AGAIN);
    look_again.reset();
    loop {
        tokio::select! {
            () = executor.context().halt.cancelled() => {
                stopper.cancel();
                break;
            }
            delivery = deliveries.next() => {
                let Some(delivery) = delivery else { break };
                if let Some((delivery, how)) = route(executor, delivery) {
                    settling.push(settle(Arc::clone(executor), delivery, how));
                }
            }
            Some(()) = settling.next(), if !settling.is_empty() => {}
            _ = look_again.tick() => {
                if matches!(*ready.borrow(), Ready::Mismatch(_)) {
                    declare(executor, parts, ready).await;
                }
            }
        }
    }
    while settling.next().await.is_some() {}
}

enum How {
    Ack,
    GiveBack,
    /// The result of a run that does not go on here.
    Elsewhere(Box<StepResult>),
    DeadLetter(String),
}

/// Hands a result to its run, which settles it; what no run takes is to be settled here.
fn route(executor: &Executor, delivery: Delivery) -> Option<(Delivery, How)> {
    let metrics = &executor.context().metrics;
    let result: StepResult = match serde_json::from_slice(&delivery.message.body) {
        Ok(result) => result,
        Err(error) => {
            metrics.results("garbage");
            let reason = format!("message is no result: {error}");
            return Some((delivery, How::DeadLetter(reason)));
        }
    };
    let Some(handle) = executor.find(&result.task_id) else {
        return Some((delivery, How::Elsewhere(Box::new(result))));
    };
    let input = Input::Result(Box::new((result, Some(delivery))));
    let (result, how) = match handle.inbox().try_send(input) {
        // It left a moment ago: over, or elsewhere.
        Err(TrySendError::Closed(Input::Result(result))) => (result, None),
        Err(TrySendError::Full(Input::Result(result))) => (result, Some(How::GiveBack)),
        _ => return None,
    };
    let (result, delivery) = *result;
    let how = how.unwrap_or_else(|| How::Elsewhere(Box::new(result)));
    Some((delivery?, how))
}

/// Puts a result into its run in the store. One that is over has no use for it; one that nobody knows is a
/// riddle, for people to solve.
///
/// A mesh's steps are `keyed`, and so are their results.
///
/// Kept here while the store is away: a broker counts how often it delivers, and puts aside what comes back
/// too often.
async fn hand_over(executor: &Executor, result: &StepResult, keyed: bool) -> How {
    let metrics = &executor.context().metrics;
    let mut pauses = pauses();
    let begun = tokio::time::Instant::now();
    loop {
        match executor.context().store.hand_over(result).await {
            Ok(HandedOver::Kept) => {
                metrics.handed_over.inc();
                return How::Ack;
            }
            Ok(HandedOver::Ended) => {
                metrics.results("duplicate");
                return How::Ack;
            }
            // Of a step that no orchestrator made: an older publisher's, which hears of it by itself.
            Ok(HandedOver::Gone) if !keyed => {
                metrics.results("foreign");
                return How::Ack;
            }
            // Of a store that was emptied: whoever runs the task writes it again, within a renewal of its lease.
            Ok(HandedOver::Gone) if begun.elapsed() < GONE => {}
            Ok(HandedOver::Gone) => {
                metrics.results("unknown");
                let reason = format!("task {} is not in the store", result.task_id);
                return How::DeadLetter(reason);
            }
            Err(StoreError::Unavailable { detail, .. }) => {
                metrics.store_errors.inc();
                tracing::debug!(detail, "a result is not handed over, trying again");
            }
            Err(error) => {
                metrics.store_errors.inc();
                return How::DeadLetter(error.to_string());
            }
        }
        if executor.pause(pauses.next().unwrap_or(LOOK_AGAIN)).await {
            return How::GiveBack;
        }
    }
}

async fn settle(executor: Arc<Executor>, delivery: Delivery, how: How) {
    let how = match how {
        How::Elsewhere(result) => {
            let keyed = delivery.message.properties.idempotency_key.is_some();
            hand_over(&executor, &result, keyed).await
        }
        how => how,
    };
    let settled = match how {
        // Decided above.
        How::Elsewhere(_) => return,
        How::Ack => delivery.ack().await,
        How::GiveBack => delivery.give_back().await,
        How::DeadLetter(reason) => {
            tracing::warn!(reason, "a result that nobody waits for is put aside");
            delivery.dead_letter(&reason).await
        }
    };
    if settled.is_err() {
        executor.context().metrics.bus_error("settle");
    }
}
