//! What a mesh in one process tells Prometheus, where dashboards and alerts look for it.

use crate::running::Up;
use serde_json::Value;
use std::fs;

const YAML: &str = "version: 1\nmesh: test\n\
    gateway: {listen: \"127.0.0.1:0\", auth: {development: true}}\n\
    orchestrator: {listen: \"127.0.0.1:0\", planner: {general_agent: data-processor}}\n\
    agents: [{id: data-processor, capabilities: [data_processing], run: {builtin: data-processor}}]\n";

async fn metrics(address: &Value) -> String {
    let url = format!("http://{}/metrics", address.as_str().unwrap());
    reqwest::get(url).await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn who_takes_no_steps_says_nothing_of_the_broker() {
    let up = Up::start(YAML);
    let addresses = fs::read(up.dir().join(".mesh/up-test.json")).unwrap();
    let addresses: Value = serde_json::from_slice(&addresses).unwrap();
    // MeshBrokerAway is about every sidecar that shows this, and critical.
    for idle in ["gateway_sidecar", "orchestrator_sidecar"] {
        let said = metrics(&addresses[idle]).await;
        assert!(said.contains("sidecar_registry_up"), "{idle}: {said}");
        assert!(!said.contains("sidecar_bus_connected"), "{idle}: {said}");
    }
    let agent = metrics(&addresses["agents"][0]["admin"]).await;
    let line = "sidecar_bus_connected{agent=\"data-processor\"} 1";
    assert!(agent.contains(line), "{agent}");
}

#[tokio::test]
async fn what_the_process_takes_is_told_once() {
    let up = Up::start(YAML);
    let addresses = fs::read(up.dir().join(".mesh/up-test.json")).unwrap();
    let addresses: Value = serde_json::from_slice(&addresses).unwrap();
    let said = metrics(&addresses["orchestrator"]).await;
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(
            said.contains(&format!("\n{name} ")),
            "{name} is not in\n{said}"
        );
    }
}
