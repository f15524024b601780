//! Settings of the bus that lose messages together, though each alone is good.

use super::{error, warning};
use crate::finding::Finding;
use crate::schema::{Agent, At, Delivery, File, Overflow};
use mesh_bus::{DELIVERY_LIMIT, QueueKind};
use mesh_orchestrator::config::Steps;
use mesh_sidecar::config::{self, Worker};
use std::collections::HashSet;
use std::time::Duration;

/// Every finding about how steps are delivered.
pub(super) fn run(file: &File, out: &mut Vec<Finding>) {
    overflow(file, out);
    let usual = file.messaging.delivery.as_ref();
    if let Some(usual) = usual {
        policy(file, None, usual, &usual.value, out);
    }
    let mut said = HashSet::new();
    for at in &file.agents {
        if let Some(own) = &at.value.delivery {
            let all = own.value.over(usual.map(|at| &at.value));
            policy(file, Some(&at.value), own, &all, out);
        }
        consumer_timeout(file, &at.value, &mut said, out);
    }
}

/// Whether the queue of `agent`, or of an agent that says nothing of its own, is a classic one.
fn is_classic(file: &File, agent: Option<&Agent>) -> bool {
    let own = agent.and_then(|agent| agent.queue_kind.as_ref());
    let kind = own.or(file.messaging.queue_kind.as_ref());
    kind.is_some_and(|kind| kind.value == QueueKind::Classic)
}

/// A full queue must neither put out steps nor lose those that come back from their delay.
fn overflow(file: &File, out: &mut Vec<Finding>) {
    let messaging = &file.messaging;
    if let Some(overflow) = &messaging.overflow {
        if overflow.value == Overflow::Bury {
            let message = format!(
                "{}: a full queue makes dead letters of steps, and nobody answers for those",
                overflow.path
            );
            out.push(error("overflow_loses", overflow, message).hint(
                "write reject-publish: the orchestrator hears that the queue is full, and tries again",
            ));
        } else if messaging.max_length.is_none() {
            let message = format!("{} has no effect without max_length", overflow.path);
            out.push(
                warning("no_effect", overflow, message).hint("add max_length, or leave it out"),
            );
        }
    }
    let usual = messaging.delivery.as_ref().map(|at| &at.value);
    let waits = |agent: &At<Agent>| {
        let own = agent.value.delivery.as_ref().map(|at| at.value.clone());
        let all = own.unwrap_or_default().over(usual);
        all.checked().delayed_retries > 0
    };
    if let Some(most) = &messaging.max_length
        && file
            .agents
            .iter()
            .any(|agent| is_classic(file, Some(&agent.value)) && waits(agent))
    {
        let message = format!(
            "{}: a classic queue that is full loses what comes back to it from a delay",
            most.path
        );
        out.push(error("overflow_loses", most, message).hint(
            "write queue_kind: quorum, or delivery: {delayed_retries: 0}, or leave max_length out",
        ));
    }
}

/// What is written in one `delivery`, of `agent` or of the mesh; `all` is that with what it takes over.
fn policy(
    file: &File,
    agent: Option<&Agent>,
    at: &At<Delivery>,
    all: &Delivery,
    out: &mut Vec<Finding>,
) {
    let (own, checked) = (&at.value, all.checked());
    if let Some(crashes) = &own.max_crashes {
        let most = config::Delivery::MAX_CRASHES;
        if crashes.value > most {
            let message = format!(
                "{}: after {DELIVERY_LIMIT} deliveries the broker itself takes a step away, and nobody answers for it",
                crashes.path
            );
            out.push(
                error("delivery_limit", crashes, message).hint(format!("write at most {most}")),
            );
        }
        if is_classic(file, agent) {
            let message = format!("{}: classic queues count no deliveries", crashes.path);
            out.push(
                warning("no_effect", crashes, message)
                    .hint("write queue_kind: quorum where steps may end their sidecar"),
            );
        }
    }
    // Where one of them is written: the other may be the mesh's.
    let bound = own.longest_delay.as_ref().or(own.first_delay.as_ref());
    if let Some(bound) = bound
        && checked.longest_delay_ms < checked.first_delay_ms
    {
        let message = format!(
            "{}: the first delay is {} ms and the longest {} ms",
            bound.path, checked.first_delay_ms, checked.longest_delay_ms
        );
        out.push(
            error("out_of_range", bound, message)
                .hint("make longest_delay at least as long as first_delay"),
        );
        return;
    }
    if own.delayed_retries.is_none() && bound.is_none() {
        return;
    }
    let waits = (0..checked.delayed_retries).map(|n| {
        let doubled = 1_u64.checked_shl(n).unwrap_or(u64::MAX);
        let full = checked.first_delay_ms.saturating_mul(doubled);
        full.min(checked.longest_delay_ms)
    });
    // Chance makes half of each delay of it at least.
    let least = Duration::from_millis(waits.fold(0, u64::saturating_add) / 2);
    let budget = budget(file);
    if least > budget {
        let path = &at.path;
        let message =
            format!("{path}: all delays take {least:?} at least, and a step has {budget:?}");
        out.push(warning("delays_never_reached", at, message).hint(
            "the last retries never come about: lengthen orchestrator.steps.timeout, or retry less",
        ));
    }
}

/// How long a step may take.
fn budget(file: &File) -> Duration {
    let own = file.orchestrator.step_timeout.as_ref();
    let usual = || Duration::from_millis(Steps::default().timeout_ms);
    own.map_or_else(usual, |at| at.value)
}

/// The broker takes back what is not acknowledged in its time, with everything on the same channel, while the agent
/// still works on it.
fn consumer_timeout<'f>(
    file: &'f File,
    agent: &'f Agent,
    said: &mut HashSet<&'f str>,
    out: &mut Vec<Finding>,
) {
    let usual = Worker::default();
    let limit = file.messaging.consumer_timeout.as_ref();
    let time = limit.map_or(Duration::from_millis(usual.ack_deadline_ms), |at| at.value);
    let call = agent.timeout.as_ref().map(|at| at.value);
    let call = call.unwrap_or(Duration::from_millis(usual.timeout_ms));
    let calls = agent.attempts.as_ref().map(|at| at.value);
    let held = call.saturating_mul(calls.unwrap_or(usual.max_attempts));
    let held = held.min(budget(file));
    if held < time {
        return;
    }
    let message = |path: &str| {
        format!(
            "{path}: an agent may hold a step for {held:?}, and the broker takes it back after {time:?}"
        )
    };
    let step_timeout = file.orchestrator.step_timeout.as_ref();
    let Some(at) = agent.timeout.as_ref().or(step_timeout).or(limit) else {
        return;
    };
    // One for all agents that say nothing of their own.
    if said.insert(&at.path) {
        out.push(
            error("consumer_timeout", at, message(&at.path)).hint(
                "shorten timeout, retries.attempts or orchestrator.steps.timeout, or raise consumer_timeout on the \
                 broker and in messaging",
            ),
        );
    }
}
