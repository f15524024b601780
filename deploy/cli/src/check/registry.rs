//! Whether services find each other, and whether the registry says of them what mesh.yaml does.

use super::ask::{answer, client};
use super::finding::{Finding, Group};
use super::intentions;
use crate::load::Loaded;
use mesh_config::mesh::GATEWAY;
use mesh_config::secret::Secrets;
use mesh_protocol::names::ORCHESTRATOR;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

/// Where Consul says what a token may do.
const RIGHTS: &str = "/v1/internal/acl/authorize";

pub async fn check(loaded: &Loaded, secrets: &Secrets, pre: bool) -> Group {
    let mesh = &loaded.mesh;
    let mut group = Group::new("registry");
    let Some(consul) = &mesh.trust.registry.consul else {
        return group.with(Finding::pass("services find each other within the process"));
    };
    let base = consul.url.as_str().trim_end_matches('/').to_owned();
    let ca = consul.ca.as_ref().map(|ca| loaded.base.join(ca));
    let client = match client(ca.as_deref()) {
        Ok(client) => client,
        Err(why) => return group.with(Finding::fail("registry_ca", why)),
    };
    let token = consul.token.as_ref().and_then(|token| secrets.value(token));
    let as_us = |request: RequestBuilder| match token {
        Some(token) => request.header("x-consul-token", token),
        None => request,
    };
    let ask = |path: &str| as_us(client.get(format!("{base}{path}")));
    match answer(ask("/v1/status/leader")).await {
        Ok(Value::String(leader)) if !leader.is_empty() => {
            group.push(Finding::pass("Consul answers, and has a leader"));
        }
        Ok(_) => {
            return group.with(
                Finding::fail("registry_leaderless", "Consul has no leader")
                    .mend("start enough of its servers; what is known is served meanwhile"),
            );
        }
        Err(why) => {
            return group.with(
                Finding::fail("registry_unreachable", format!("Consul: {why}"))
                    .mend("start Consul, or mend registry.url, its token or its authority"),
            );
        }
    }
    if pre {
        return group;
    }
    let mut services = vec![GATEWAY.to_owned(), ORCHESTRATOR.to_owned()];
    services.extend(mesh.agents.iter().map(|agent| agent.id.to_string()));
    for service in &services {
        let asked = answer(ask(&format!("/v1/health/service/{service}?passing"))).await;
        let healthy = asked.map(|found| found.as_array().map_or(0, Vec::len));
        group.push(match healthy {
            Ok(0) if hidden(service, as_us(client.post(format!("{base}{RIGHTS}")))).await => {
                Finding::fail(
                    "registry_unreachable",
                    format!("Consul does not show {service} to this token"),
                )
                .mend("give registry.token the right service:read on the mesh's services")
            }
            Ok(0) => Finding::fail(
                "not_registered",
                format!("no healthy instance of {service} is registered"),
            )
            .mend("its sidecar's /ready says why"),
            Ok(n) => Finding::pass(format!("{service}: {n} healthy")),
            Err(why) => Finding::fail("registry_unreachable", format!("{service}: {why}")),
        });
    }
    match answer(ask("/v1/connect/intentions")).await {
        Ok(live) => group.findings.extend(intentions::compare(mesh, &live)),
        // Where Connect is off there are none.
        Err(why) if why == "answers 403" => group.push(
            Finding::warn(
                "intentions_unreadable",
                "Consul does not say which intentions it has",
            )
            .mend("give registry.token the right intentions:read on the mesh's services"),
        ),
        Err(_) => {}
    }
    group
}

/// Whether a service is left out because the token may not read it: Consul says nothing of that by itself.
async fn hidden(service: &str, asked: RequestBuilder) -> bool {
    let right = json!([{"Resource": "service", "Segment": service, "Access": "read"}]);
    let said = answer(asked.json(&right)).await.unwrap_or_default();
    said.pointer("/0/Allow") == Some(&Value::Bool(false))
}
