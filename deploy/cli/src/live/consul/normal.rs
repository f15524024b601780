//! The normal form of what Consul holds: without what it adds, in one spelling.

use crate::live::resource::{pruned, text};
use mesh_config::render::consul::{Check, ServiceDefinition};
use serde_json::{Map, Value, json};

/// Whether a Consul of this version, such as `1.8.7` or `1.20.1+ent`, has config entries of kind service-intentions.
pub fn has_service_intentions(version: &str) -> bool {
    let mut parts = version
        .split(['.', '+', '-'])
        .map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (1, 9)
}

/// A config entry in its normal form: without what the store adds, and what is the default of an edition without
/// namespaces.
pub fn config_entry(entry: Value) -> Value {
    let mut entry = pruned(entry);
    if let Some(fields) = entry.as_object_mut() {
        for field in ["Kind", "Name", "CreateIndex", "ModifyIndex", "Hash"] {
            fields.remove(field);
        }
        without_defaults(fields);
        if let Some(Value::Array(sources)) = fields.get_mut("Sources") {
            for source in sources.iter_mut().filter_map(Value::as_object_mut) {
                source.retain(|field, _| field != "Precedence" && !field.starts_with("Legacy"));
                if source.get("Type").is_some_and(|kind| kind == "consul") {
                    source.remove("Type");
                }
                without_defaults(source);
            }
            sources.sort_by(|a, b| text(a, "Name").cmp(text(b, "Name")));
        }
    }
    entry
}

fn without_defaults(fields: &mut Map<String, Value>) {
    fields.retain(|field, value| {
        !(matches!(field.as_str(), "Namespace" | "Partition") && value == "default")
    });
}

/// A service in its normal form; `name` is where its name stands.
pub fn service_body(service: &Value, name: &str, mut checks: Vec<Value>) -> Value {
    checks.sort_by(|a, b| text(a, "CheckID").cmp(text(b, "CheckID")));
    let mut tags: Vec<&str> = service
        .get("Tags")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    tags.sort_unstable();
    pruned(json!({
        "Service": service.get(name),
        "Address": service.get("Address"),
        "Port": service.get("Port"),
        "Tags": tags,
        "Meta": service.get("Meta"),
        "Weights": service.get("Weights"),
        "Checks": checks,
    }))
}

pub fn wanted_check(check: &Check) -> Value {
    let kind = match (&check.http, &check.tcp) {
        (Some(_), _) => "http",
        (None, Some(_)) => "tcp",
        (None, None) => "ttl",
    };
    pruned(json!({"CheckID": check.id, "Name": check.name, "Notes": check.notes, "Type": kind}))
}

/// The body of a registration: the definition in the spelling of the API.
pub fn register(service: &ServiceDefinition) -> Value {
    let checks = service.checks.iter().map(|check| {
        pruned(json!({
            "CheckID": check.id,
            "Name": check.name,
            "Notes": check.notes,
            "HTTP": check.http,
            "TCP": check.tcp,
            "TTL": check.ttl,
            "Interval": check.interval,
            "Timeout": check.timeout,
            "Status": check.status,
            "DeregisterCriticalServiceAfter": check.deregister_critical_service_after,
        }))
    });
    let weights = service.weights.as_ref();
    pruned(json!({
        "ID": service.id,
        "Name": service.name,
        "Address": service.address,
        "Port": service.port,
        "Tags": service.tags,
        "Meta": service.meta,
        "Weights": weights.map(|w| json!({"Passing": w.passing, "Warning": w.warning})),
        "Checks": checks.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_1_9_know_intentions_by_themselves_alone() {
        for (version, modern) in [
            ("1.8.7", false),
            ("1.9.0", true),
            ("1.20.1+ent", true),
            ("2.0.0-dev", true),
        ] {
            assert_eq!(has_service_intentions(version), modern, "{version}");
        }
    }

    /// What Consul 1.20 answers, as its documentation of `GET /v1/config/service-intentions` has it.
    #[test]
    fn what_a_newer_consul_adds_to_intentions_is_no_difference() {
        let held = json!({
            "Kind": "service-intentions",
            "Name": "orchestrator",
            "Partition": "default",
            "Namespace": "default",
            "Sources": [
                {"Name": "gateway", "Partition": "default", "Namespace": "default", "Action": "allow", "Precedence": 9, "Type": "consul"},
                {"Name": "*", "Partition": "default", "Namespace": "default", "Action": "deny", "Precedence": 8, "Type": "consul", "LegacyID": "", "LegacyMeta": {}},
            ],
            "Meta": {"mesh": "m"},
            "Hash": 8,
            "CreateIndex": 5,
            "ModifyIndex": 7,
        });
        let wanted = json!({
            "Kind": "service-intentions",
            "Name": "orchestrator",
            "Sources": [{"Name": "gateway", "Action": "allow"}, {"Name": "*", "Action": "deny"}],
            "Meta": {"mesh": "m"},
        });
        assert_eq!(config_entry(held.clone()), config_entry(wanted));
        assert_eq!(text(&config_entry(held)["Sources"][0], "Name"), "*");
    }
}
