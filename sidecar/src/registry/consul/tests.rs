//! What is made of Consul's answers; the rest is tested with a Consul, and with a double of one.

use super::wire::{Entry, Registration, Report, instances};
use crate::config::{self, Registration as Configured};
use crate::registry::{Health, Instance, Registered};
use serde_json::{Value, json};

fn read(entries: Value) -> Vec<Instance> {
    let entries: Vec<Entry> = serde_json::from_value(entries).unwrap();
    instances(entries)
}

fn entry(id: &str, address: &str, port: u32) -> Value {
    json!({
        "Node": {"Node": "n", "Address": "127.0.0.9", "Datacenter": "dc1", "Meta": null},
        "Service": {"ID": id, "Service": "a", "Address": address, "Port": port, "Meta": null, "Tags": null},
        "Checks": [],
    })
}

#[test]
fn an_instance_has_an_address_of_its_own_or_its_nodes() {
    let list = read(json!([
        entry("own", "127.0.0.2", 1),
        entry("node", "", 2),
        entry("six", "::1", 3),
        // Not to be reached: a name, no port, a port that is none.
        entry("name", "agent.example", 4),
        entry("none", "127.0.0.2", 0),
        entry("beyond", "127.0.0.2", 65_536),
    ]));
    let shown: Vec<_> = list
        .iter()
        .map(|i| format!("{} {} {}", i.id, i.address, i.weight))
        .collect();
    assert_eq!(
        shown,
        ["node 127.0.0.9:2 1", "own 127.0.0.2:1 1", "six [::1]:3 1"]
    );
}

#[test]
fn a_zone_is_the_narrowest_place_that_is_named() {
    let mut entries = Vec::new();
    for (number, (node, service, zone)) in [
        (json!({}), json!({}), "dc1"),
        (json!({"Meta": {"region": "r"}}), json!({}), "r"),
        (
            json!({"Meta": {"region": "r", "zone": "z"}}),
            json!({}),
            "z",
        ),
        (json!({"Meta": {"zone": ""}}), json!({}), "dc1"),
        (
            json!({"Locality": {"Region": "r", "Zone": "y"}}),
            json!({}),
            "y",
        ),
        (
            json!({"Locality": {"Region": "r", "Zone": "y"}}),
            json!({"Locality": {"Region": "r", "Zone": "x"}}),
            "x",
        ),
        (
            json!({"Locality": {"Region": "q"}}),
            json!({"Locality": null}),
            "q",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut made = entry(&format!("{number}-{zone}"), "127.0.0.1", 1);
        for (part, more) in [("Node", node), ("Service", service)] {
            let more = more.as_object().unwrap().clone();
            made[part].as_object_mut().unwrap().extend(more);
        }
        entries.push(made);
    }
    for instance in read(Value::Array(entries)) {
        let (_, zone) = instance.id.split_once('-').unwrap();
        assert_eq!(instance.zone.as_deref(), Some(zone), "{}", instance.id);
    }
}

#[test]
fn what_instances_have_in_common_is_there_once() {
    let entries = (0..100).map(|number| {
        let mut made = entry(&format!("i{number:03}"), "127.0.0.1", 1000 + number);
        made["Service"]["Meta"] = json!({"version": "1", "protocol": "h2"});
        made["Service"]["Weights"] = json!({"Passing": 70_000 * (number % 2), "Warning": 1});
        made
    });
    let list = read(entries.collect());
    let [first, second, ..] = &list[..] else {
        panic!("{list:?}")
    };
    assert_eq!((first.weight, second.weight), (1, u16::MAX));
    let zone = |i: &Instance| i.zone.as_ref().map(|zone| zone.as_ptr());
    for instance in &list {
        assert!(std::sync::Arc::ptr_eq(&instance.meta, &first.meta));
        assert_eq!(zone(instance), zone(second));
    }
}

#[test]
fn ids_of_several_nodes_are_told_apart() {
    let list = read(json!([
        entry("same", "127.0.0.3", 1),
        entry("same", "127.0.0.2", 1),
        entry("same", "127.0.0.2", 1),
        entry("other", "127.0.0.2", 1),
    ]));
    let ids: Vec<_> = list.iter().map(|i| &*i.id).collect();
    assert_eq!(
        ids,
        ["other", "same", "same@127.0.0.2:1", "same@127.0.0.3:1"]
    );
    assert!(list.is_sorted_by(|a, b| a.id < b.id));
}

#[test]
fn a_registration_says_what_is_configured() {
    let configured: Configured = serde_json::from_value(json!({
        "tags": ["mesh"], "capabilities": ["a", "b"], "version": "2", "weight": 3,
        "meta": {"team": "x", "protocol": "overwritten"}, "ttl_ms": 1500,
    }))
    .unwrap();
    let made = Registered::new(
        &"optimizer".parse().unwrap(),
        &configured,
        "127.0.0.1:8443".parse().unwrap(),
        "http2",
        9100,
    );
    let body = serde_json::to_value(Registration::new(&made)).unwrap();
    assert_eq!(
        body,
        json!({
            "ID": "optimizer-127-0-0-1-8443", "Name": "optimizer",
            "Address": "127.0.0.1", "Port": 8443, "Tags": ["mesh"],
            "Meta": {"capabilities": "a,b", "version": "2", "team": "x", "protocol": "http2", "metrics_port": "9100"},
            "Weights": {"Passing": 3, "Warning": 1},
            "Check": {
                "CheckID": "service:optimizer-127-0-0-1-8443",
                "Name": "the agent's health, as its sidecar finds it",
                "TTL": "1500ms", "Status": "critical", "DeregisterCriticalServiceAfter": "60000ms",
            },
        })
    );
    let six = Registered::new(
        &"a--b".parse().unwrap(),
        &Configured {
            id: None,
            ..configured
        },
        "[::1]:1".parse().unwrap(),
        "http1",
        1,
    );
    assert_eq!(six.id, "a--b----1--1");
}

#[test]
fn a_reason_is_cut_between_characters() {
    let health = Health::Critical("ü".repeat(2000));
    let report = serde_json::to_value(Report::new(&health)).unwrap();
    assert_eq!(report["Output"].as_str().unwrap().len(), 1024);
    assert_eq!(report["Status"], "critical");
}

#[test]
fn a_configuration_that_cannot_work_is_refused_without_its_secrets() {
    let home = mesh_tests::server::directory("consul-config");
    let empty = home.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let at = || config::Consul::at("https://127.0.0.1:8501");
    let token = |text: &str| Some(config::Secret::from(text.to_owned()));
    for (config, words) in [
        (
            config::Consul {
                ca_file: Some(home.path().join("none.pem")),
                ..at()
            },
            "none.pem",
        ),
        (
            config::Consul {
                ca_file: Some(empty),
                ..at()
            },
            "certificate",
        ),
        (
            config::Consul {
                token: token("s3cret\n"),
                ..at()
            },
            "token",
        ),
    ] {
        let error = super::Consul::new(&config).err().unwrap().to_string();
        assert!(
            error.contains(words) && !error.contains("s3cret"),
            "{error}"
        );
    }
    assert!(!format!("{:?}", token("s3cret")).contains("s3cret"));
}
