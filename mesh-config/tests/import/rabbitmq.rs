//! RabbitMQ's definitions.

use crate::{import, lost};
use mesh_config::render;
use mesh_config::secret::Secrets;
use serde_json::{Value, json};

const FILE: &str = include_str!("definitions.json");

fn rendered(text: &str) -> Value {
    let (_, mesh) = import(text);
    let definitions = render::rabbitmq::rabbitmq(&mesh, &Secrets::none()).unwrap();
    serde_json::to_value(definitions).unwrap()
}

/// The entity of a list that has all of this.
fn has(rendered: &Value, list: &str, wanted: &Value) -> bool {
    let all = rendered[list].as_array().unwrap();
    all.iter().any(|one| {
        let wanted = wanted.as_object().unwrap();
        wanted.iter().all(|(key, value)| one[key] == *value)
    })
}

#[test]
fn what_is_carried_over_is_rendered_again() {
    let before: Value = serde_json::from_str(FILE).unwrap();
    let after = rendered(FILE);
    let carried = |list: &str, name: &str| {
        let all = before[list].as_array().unwrap();
        let one = all.iter().find(|one| one["name"] == name).unwrap();
        assert!(has(&after, list, one), "{name}: {after:#}");
    };
    for name in [
        "agent.orchestrator.tasks",
        "agent.task_assignment.events",
        "agent.task_assignment.coordination",
        "ai.priority.tasks",
        "reports",
    ] {
        carried("queues", name);
    }
    for name in ["ai.tasks", "ai.events", "reports.in"] {
        carried("exchanges", name);
    }
    carried("policies", "bound");
    for (number, binding) in before["bindings"].as_array().unwrap().iter().enumerate() {
        // The two that have no place.
        assert_eq!(
            has(&after, "bindings", binding),
            number != 3 && number != 7,
            "{binding}"
        );
    }
    // An agent's queue has its dead letters now.
    let queue = json!({"name": "agent.task_assignment.tasks", "durable": true});
    assert!(has(&after, "queues", &queue));
}

#[test]
fn agents_are_found_and_the_rest_is_named() {
    let (imported, mesh) = import(FILE);
    let agents: Vec<&str> = mesh.agents.iter().map(|a| a.id.as_str()).collect();
    assert_eq!(agents, ["metrics-exporter", "task-assignment"]);
    let kinds: Vec<&str> = mesh.agents.iter().map(|a| a.queue_kind.as_str()).collect();
    assert_eq!(kinds, ["quorum", "classic"]);
    let mut paths = lost(&imported);
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "bindings[3]",
            "bindings[7]",
            "exchanges[2]",
            "messaging.exchanges[1]",
            "permissions",
            "queues[4]",
            "queues[7]",
            "users",
            "vhosts[1]",
        ]
    );
    assert!(!imported.text.contains("hunter2"));
    let listed: Vec<&str> = imported
        .secrets
        .iter()
        .map(|s| s.variable.as_str())
        .collect();
    assert_eq!(listed, ["RABBITMQ_URL"]);
}

/// Of a broker without any agent all comes back, and nothing beside it.
#[test]
fn a_broker_alone_is_a_mesh_too() {
    let text = r#"{"vhosts": [{"name": "shop"}], "exchanges": [
      {"name": "orders", "vhost": "shop", "type": "topic", "durable": true, "auto_delete": false, "internal": false, "arguments": {}}],
      "queues": [{"name": "billing", "vhost": "shop", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "quorum"}}],
      "policies": [],
      "bindings": [{"source": "orders", "vhost": "shop", "destination": "billing", "destination_type": "queue", "routing_key": "order.#", "arguments": {}}]}"#;
    let (imported, _) = import(text);
    assert_eq!(lost(&imported), Vec::<&str>::new());
    let before: Value = serde_json::from_str(text).unwrap();
    assert_eq!(rendered(text), before);
}
