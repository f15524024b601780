//! Whether steps can travel, and whether anybody takes them.

use super::finding::{Finding, Group};
use super::management::Asked;
use crate::load::{Loaded, count};
use mesh_bus::{BrokerUrl, Bus, BusConfig, BusError, Message, Properties};
use mesh_config::secret::Secrets;
use mesh_protocol::AgentId;
use mesh_protocol::names::{ORCHESTRATOR, QUEUE_PRIORITY_DEAD, QUEUE_PRIORITY_TASKS};
use std::sync::Arc;
use std::time::Duration;

/// Routing key of a message for nobody.
const NOWHERE: &str = "mesh.check.nowhere";
/// How long a broker has to take a message.
const PATIENCE: Duration = Duration::from_secs(3);
/// Steps that wait for an agent before that is worth a word.
const MANY: u32 = 1_000;

pub async fn check(loaded: &Loaded, secrets: &Secrets, pre: bool) -> Group {
    let mesh = &loaded.mesh;
    let mut group = Group::new("broker");
    let Some(source) = &mesh.messaging.rabbitmq else {
        return group.with(Finding::pass("steps stay within the process"));
    };
    let broker = secrets.value(source).unwrap_or_default().to_owned();
    let url = match BrokerUrl::try_from(broker.clone()) {
        Ok(url) => url,
        Err(why) => {
            return group.with(Finding::fail("broker_url", format!("messaging.url: {why}")));
        }
    };
    let bus = match mesh_bus::connect(&BusConfig::Rabbitmq { url }).await {
        Ok(bus) => bus,
        Err(error) => return group.with(unreachable(&error)),
    };
    if let Err(error) = reached(&bus).await {
        group.push(unreachable(&error));
    } else {
        group.push(Finding::pass("RabbitMQ answers"));
        if !pre {
            let results = format!("agent.{ORCHESTRATOR}.coordination");
            taken(&*bus, &results, "results", &mut group).await;
            taken(
                &*bus,
                QUEUE_PRIORITY_TASKS,
                "tasks over the broker",
                &mut group,
            )
            .await;
            let dead = format!("agent.{ORCHESTRATOR}.dead");
            dead_letters(&*bus, &dead, "orchestrator", &mut group).await;
            dead_letters(&*bus, QUEUE_PRIORITY_DEAD, "intake", &mut group).await;
            for agent in &mesh.agents {
                queue(&*bus, &agent.id, &mut group).await;
            }
        }
        // Last: a broker that takes no message stops reading from whoever sent one.
        group.push(takes(&bus).await);
    }
    // One that is blocked does not say goodbye either.
    let _ = tokio::time::timeout(PATIENCE, bus.close()).await;
    if let Some(management) = &mesh.messaging.broker.management {
        match Asked::new(management, &loaded.base, secrets, &broker) {
            Ok(asked) => group.findings.extend(asked.check().await),
            Err(why) => group.push(
                Finding::fail(
                    "management_unusable",
                    format!("messaging.management: {why}"),
                )
                .mend("mend messaging.management"),
            ),
        }
    }
    group
}

/// Whether the broker takes messages: with an alarm of memory or disk it takes none, and goes on answering.
///
/// The messages lead to no queue, so that they are gone as soon as they are taken. They are two: the first may still
/// be taken, and is what makes RabbitMQ stop reading.
async fn takes(bus: &Arc<dyn Bus>) -> Finding {
    let message = || Message {
        exchange: String::new(),
        routing_key: NOWHERE.to_owned(),
        body: Default::default(),
        mandatory: false,
        properties: Properties::default(),
    };
    let both = async {
        bus.publish(message()).await?;
        bus.publish(message()).await
    };
    match tokio::time::timeout(PATIENCE, both).await {
        Ok(Ok(())) => Finding::pass("it takes messages"),
        // It answered a moment ago.
        Ok(Err(BusError::Unavailable { .. })) | Err(_) => Finding::fail(
            "broker_blocked",
            "RabbitMQ answers and takes no message: it has an alarm of memory or disk space",
        )
        .mend("rabbitmq-diagnostics alarms says which; free disk space, or let queues be emptied"),
        Ok(Err(error)) => unreachable(&error),
    }
}

/// Whether anything can be asked; that there is no such queue is an answer.
async fn reached(bus: &Arc<dyn Bus>) -> Result<(), BusError> {
    match bus.depth("agent.orchestrator.coordination").await {
        Ok(_) | Err(BusError::NoQueue { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn unreachable(error: &BusError) -> Finding {
    Finding::fail("broker_unreachable", error.to_string())
        .mend("start RabbitMQ, or mend messaging.url; until then no task is accepted")
}

/// Whether the orchestrator takes from its queues.
async fn taken(bus: &dyn Bus, queue: &str, what: &str, group: &mut Group) {
    group.push(match bus.depth(queue).await {
        Ok(depth) if depth.consumers > 0 => Finding::pass(format!("{what} are taken")),
        Ok(_) | Err(BusError::NoQueue { .. }) => {
            Finding::fail("not_taken", format!("nobody takes from {queue}"))
                .mend("start the orchestrator")
        }
        Err(error) => unreachable(&error),
    });
}

async fn dead_letters(bus: &dyn Bus, queue: &str, whose: &str, group: &mut Group) {
    if let Ok(dead) = bus.depth(queue).await
        && dead.messages > 0
    {
        let dead = count(dead.messages as usize, "dead letter");
        group.push(
            Finding::warn("dead_letters", format!("{whose} has {dead}"))
                .mend(format!("mesh dlq list --agent {whose}")),
        );
    }
}

async fn queue(bus: &dyn Bus, agent: &AgentId, group: &mut Group) {
    let depth = match bus.depth(&agent.task_queue()).await {
        Ok(depth) => depth,
        Err(BusError::NoQueue { queue }) => {
            return group.push(
                Finding::fail("queue_missing", format!("{queue} is not there"))
                    .mend("start the orchestrator or the agent's sidecar: both declare it"),
            );
        }
        Err(error) => return group.push(unreachable(&error)),
    };
    group.push(if depth.consumers == 0 {
        Finding::fail(
            "no_consumer",
            format!(
                "nobody takes steps for {agent}, and {} wait",
                depth.messages
            ),
        )
        .mend("start its sidecar; what waits is kept")
    } else if depth.messages > MANY {
        let waiting = count(depth.messages as usize, "step");
        Finding::warn("queue_long", format!("{waiting} wait for {agent}"))
            .mend("give it more instances or a higher concurrency")
    } else {
        let takers = count(depth.consumers as usize, "consumer");
        Finding::pass(format!("{agent}: {takers}, {} waiting", depth.messages))
    });
    dead_letters(bus, &agent.dead_queue(), agent.as_str(), group).await;
}
