//! A step as a message on its way to its agent; pure.

use crate::store::RunRecord;
use bytes::Bytes;
use mesh_bus::{Message, Properties};
use mesh_protocol::Timestamp;
use mesh_protocol::collaboration::Collaboration;
use mesh_protocol::message::StepTask;
use mesh_protocol::names::{EXCHANGE_TASKS, ORCHESTRATOR, idempotency_key};
use serde_json::{Map, Value, json};

/// Queue in which the orchestrator hears results.
pub fn results_queue() -> String {
    format!("agent.{ORCHESTRATOR}.coordination")
}

/// Results of the steps that `step` waits for: `{step_id: {agent, data}}`. In a collaboration those that edges
/// lead from, with what they are: `{agent, data, type}`; who is only waited for gives nothing.
pub fn incoming_data(run: &RunRecord, step: usize, before: &[usize]) -> Map<String, Value> {
    if let Some(collaboration) = &run.plan.collaboration {
        return flowing(run, collaboration, step);
    }
    before
        .iter()
        .filter_map(|&place| {
            let step = run.plan.execution_plan.get(place)?;
            let data = run.steps.get(place)?.result.clone()?;
            let entry = json!({"agent": step.agent, "data": data});
            Some((step.id.as_str().to_owned(), entry))
        })
        .collect()
}

fn flowing(run: &RunRecord, collaboration: &Collaboration, step: usize) -> Map<String, Value> {
    let Some(agent) = run.steps.get(step).map(|step| &step.agent) else {
        return Map::new();
    };
    collaboration
        .edges_to(agent)
        .filter_map(|edge| {
            let from = run.steps.iter().find(|step| step.agent == edge.from)?;
            let entry =
                json!({"agent": edge.from, "data": from.result.as_ref()?, "type": edge.data});
            Some((edge.from.to_string(), entry))
        })
        .collect()
}

/// The message that hands `step` to its agent; `None` when there is no such step. Its times are the wall
/// clock's, and the time that it lives in its queue is for whoever publishes it to say.
pub fn step_message(
    run: &RunRecord,
    step: usize,
    before: &[usize],
    deadline: Timestamp,
    now: Timestamp,
) -> Option<Message> {
    let planned = run.plan.execution_plan.get(step)?;
    let task = StepTask {
        task_id: run.task_id.clone(),
        step_id: planned.id.clone(),
        agent: planned.agent.clone(),
        action: planned.action.clone(),
        role: planned
            .role
            .clone()
            .unwrap_or_else(|| planned.action.clone()),
        payload: planned
            .payload
            .clone()
            .unwrap_or_else(|| run.request.payload.clone()),
        incoming_data: incoming_data(run, step, before),
        timestamp: now.to_string(),
        deadline_ms: Some(deadline.millis()),
        submitted_ms: Some(run.created_at.millis()),
        assertion: run.assertion.clone(),
    };
    let key = idempotency_key(&run.task_id, &planned.id);
    let collaboration = run.plan.collaboration.as_ref();
    let part = collaboration.and_then(|c| c.node(&planned.agent));
    Some(Message {
        exchange: EXCHANGE_TASKS.to_owned(),
        routing_key: planned.agent.execute_key(),
        body: Bytes::from(serde_json::to_vec(&task).ok()?),
        mandatory: true,
        properties: Properties {
            priority: Some(part.map_or(run.request.priority, |part| part.priority)),
            correlation_id: Some(run.task_id.to_string()),
            reply_to: Some(results_queue()),
            expiration_ms: Some(lifetime_ms(deadline, now)),
            // Published twice, it is the same message twice.
            message_id: Some(key.clone()),
            idempotency_key: Some(key),
            traceparent: Some(run.trace.traceparent.clone()),
            tracestate: run.trace.tracestate.clone(),
            ..Properties::default()
        },
    })
}

/// What is left until `deadline`, in milliseconds.
pub fn lifetime_ms(deadline: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(deadline.since(now).as_millis()).unwrap_or(u64::MAX)
}
