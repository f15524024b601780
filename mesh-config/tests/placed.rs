//! A mesh in containers: what reaches what, and what a port that is published opens.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic)]

use mesh_config::render::{Rendered, TARGETS};
use mesh_config::secret::Secrets;
use mesh_config::{Options, compile_file};
use serde_json::Value;
use std::fs;

const BASE: &str = "version: 1\nmesh: m\ngateway: {auth: {development: true}}\n";

/// The files of a target, and the codes of the warnings.
fn rendered(target: &str, more: &str) -> (Result<Vec<Rendered>, String>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mesh.yaml");
    fs::write(&file, format!("{BASE}{more}")).unwrap();
    let options = Options {
        environment: None,
        variables: &|_| None,
        outside: false,
    };
    let compiled = compile_file(&file, &options).unwrap();
    let compiled = compiled.unwrap_or_else(|report| panic!("{report}"));
    let codes = compiled.warnings.findings.iter();
    let codes = codes.map(|warning| warning.code.to_string()).collect();
    let target = TARGETS.iter().find(|one| one.name == target).unwrap();
    let files = (target.render)(&compiled.mesh, &Secrets::none());
    (files.map_err(|error| error.to_string()), codes)
}

fn text(files: &[Rendered], name: &str) -> String {
    let file = files.iter().find(|file| file.name == name);
    file.unwrap_or_else(|| panic!("no {name}")).text.clone()
}

fn compose(more: &str) -> (Value, Vec<Rendered>, Vec<String>) {
    let (files, codes) = rendered("compose", more);
    let files = files.unwrap();
    let value = serde_saphyr::from_str(&text(&files, "docker-compose.yml")).unwrap();
    (value, files, codes)
}

const AGENT: &str = "agents: [{id: a, capabilities: [x], run: {builtin: general-agent}}]\n\
                     orchestrator: {planner: {general_agent: a}}\n";

#[test]
fn kongs_administration_is_on_loopback_until_its_port_is_published() {
    let said = |more: &str| {
        let (file, files, codes) = compose(&format!("{AGENT}{more}"));
        let kong = file["services"]["kong"].clone();
        let open = codes.contains(&"administration_open".to_owned());
        (kong, files, open)
    };
    let (kong, files, open) = said("deploy: {prometheus: true}\n");
    assert_eq!(kong["environment"]["KONG_ADMIN_LISTEN"], "127.0.0.1:8001");
    assert_eq!(kong["environment"]["KONG_STATUS_LISTEN"], "0.0.0.0:8100");
    assert_eq!(kong["ports"], serde_json::json!(["127.0.0.1:10005:8000"]));
    assert!(!open);
    // Prometheus reads what nobody can change.
    let scraped = text(&files, "prometheus/prometheus.yml");
    assert!(scraped.contains("- kong:8100"), "{scraped}");
    assert!(!scraped.contains(":10009"), "{scraped}");
    let (kong, _, open) = said("deploy: {gateway: {ports: [\"10005:8000\", \"8001:8001\"]}}\n");
    assert_eq!(kong["environment"]["KONG_ADMIN_LISTEN"], "0.0.0.0:8001");
    assert!(open);
}

#[test]
fn stores_have_no_way_out_unless_one_is_published() {
    let (file, ..) = compose(AGENT);
    assert_eq!(file["networks"]["data"]["internal"], true);
    assert!(file["networks"]["mesh"]["internal"].is_null());
    let qdrant = "services:\n  - {name: q, url: \"http://q:6333\", container: {image: \"q:1\", ports: [\"10101:6333\"], tier: data}}\n";
    let (file, ..) = compose(&format!("{AGENT}{qdrant}"));
    assert!(
        file["networks"]["data"]["internal"].is_null(),
        "Docker publishes nothing of a network without a way out"
    );
}

#[test]
fn prometheus_with_a_token_runs_the_file_that_has_it() {
    let consul = "registry: {backend: consul, url: \"http://consul:8500\", token: {env: T}}\n";
    let (file, ..) = compose(&format!("{AGENT}{consul}deploy: {{prometheus: true}}\n"));
    let prometheus = &file["services"]["prometheus"];
    let config = &prometheus["command"][0];
    assert_eq!(
        config,
        "--config.file=/etc/prometheus/prometheus.secret.yml"
    );
    // Its owner alone reads it.
    assert_eq!(prometheus["user"], file["services"]["kong"]["user"]);
    // A Consul that runs beside asks for one, too.
    let elsewhere = "registry: {backend: consul, url: \"http://consul.example:8500\"}\n";
    let (file, ..) = compose(&format!(
        "{AGENT}{elsewhere}deploy: {{prometheus: true, consul: false}}\n"
    ));
    let prometheus = &file["services"]["prometheus"];
    assert_eq!(
        prometheus["command"][0],
        "--config.file=/etc/prometheus/prometheus.yml"
    );
    assert_eq!(prometheus["user"], "65534:65534");
}

#[test]
fn consul_does_nothing_without_a_token_that_only_sidecars_read() {
    let (file, files, _) = compose(AGENT);
    let consul = &file["services"]["consul"];
    assert_eq!(
        consul["command"].as_array().unwrap().last().unwrap(),
        "-config-file=/run/secrets/consul.hcl"
    );
    // Its start takes another user else, and ends where it is not root.
    assert_eq!(consul["environment"]["CONSUL_DISABLE_PERM_MGMT"], "true");
    let config = text(&files, "consul.hcl");
    assert!(config.contains("default_policy = \"deny\""), "{config}");
    assert!(config.contains("{env: MESH_CONSUL_TOKEN}"), "{config}");
    let sidecar = text(&files, "sidecar-a.json");
    assert!(sidecar.contains("{env: MESH_CONSUL_TOKEN}"), "{sidecar}");
    for (name, service) in file["services"].as_object().unwrap() {
        let reads = service["secrets"].to_string();
        let has_token = reads.contains("consul") || reads.contains("sidecar");
        let may = name == "consul" || name.ends_with("-sidecar");
        assert!(may || !has_token, "{name}: {reads}");
    }
    // One that runs elsewhere has a token of its owner's, or none.
    let elsewhere = "registry: {backend: consul, url: \"http://consul.example:8500\"}\n";
    let (file, files, _) = compose(&format!("{AGENT}{elsewhere}"));
    assert!(files.iter().all(|file| file.name != "consul.hcl"));
    assert!(!text(&files, "sidecar-a.json").contains("MESH_CONSUL_TOKEN"));
    let command = serde_json::to_string(&file["services"]["consul"]["command"]).unwrap();
    assert!(!command.contains("consul.hcl"), "{command}");
}

#[test]
fn in_kubernetes_what_is_leaned_on_is_reached() {
    let more = "identity: {source: vault, url: \"https://vault.example:8200\", role: mesh, token: {env: T}}\n\
        traces: {endpoint: \"http://collector:14317\"}\n\
        orchestrator: {planner: {general_agent: a, ollama: {url: \"http://ollama:10104\", model: m}}}\n\
        agents:\n  - {id: a, capabilities: [x], run: {builtin: general-agent}}\n  \
        - {id: b, capabilities: [y], endpoint: \"http://127.0.0.1:9000\", container: {image: \"b:1\", depends_on: [redis, ollama]}}\n\
        deploy: {ollama: true}\n";
    let (files, _) = rendered("kubernetes", more);
    let policies = text(&files.unwrap(), "base/network-policies.yaml");
    let of = |name: &str| {
        let mut policies = policies.split("---\n");
        let name = format!("\n  name: {name}\n");
        policies.find(|one| one.contains(&name)).unwrap().to_owned()
    };
    let reaches = |name: &str, port: u16| of(name).contains(&format!("port: {port}\n"));
    for name in ["kong", "orchestrator", "a", "b"] {
        assert!(reaches(name, 8200), "{name}: who signs its certificate");
        assert!(reaches(name, 14317), "{name}: who takes its traces");
    }
    for port in [6379, 10104] {
        assert!(reaches("b", port), "{port}: what it waits for");
        assert!(!reaches("a", port), "{port}: what it does not name");
    }
}

#[test]
fn a_queue_that_no_label_holds_is_no_silent_autoscaler() {
    let id = "a".repeat(52);
    let more = |container: &str| {
        format!(
            "orchestrator: {{planner: {{general_agent: {id}}}}}\n\
             agents: [{{id: {id}, endpoint: \"http://127.0.0.1:9000\", container: {{image: \"b:1\"{container}}}}}]\n"
        )
    };
    let refused = rendered("kubernetes", &more("")).0.err().unwrap();
    assert!(refused.contains(&id) && refused.contains("63"), "{refused}");
    assert!(refused.contains("max_replicas: 1"), "{refused}");
    assert!(rendered("kubernetes", &more(", max_replicas: 1")).0.is_ok());
}
