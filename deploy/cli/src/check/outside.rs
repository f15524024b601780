//! Services that the mesh does not bring: registry, model server, receiver of traces.

use super::finding::{Finding, Group};
use mesh_config::Mesh;
use mesh_config::secret::Secrets;
use mesh_local::probe;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

pub async fn registry(mesh: &Mesh, secrets: &Secrets, pre: bool) -> Group {
    let mut group = Group::new("registry");
    let Some(consul) = &mesh.trust.registry.consul else {
        return group.with(Finding::pass("services find each other within the process"));
    };
    let base = consul.url.as_str().trim_end_matches('/').to_owned();
    let client = match client(consul.ca.as_deref()) {
        Ok(client) => client,
        Err(why) => return group.with(Finding::fail("registry_ca", why)),
    };
    let token = consul.token.as_ref().and_then(|token| secrets.value(token));
    let ask = |path: &str| {
        let request = client.get(format!("{base}{path}"));
        match token {
            Some(token) => request.header("x-consul-token", token),
            None => request,
        }
    };
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
    let mut services = vec!["gateway".to_owned(), "orchestrator".to_owned()];
    services.extend(mesh.agents.iter().map(|agent| agent.id.to_string()));
    for service in services {
        let asked = answer(ask(&format!("/v1/health/service/{service}?passing"))).await;
        let healthy = asked.map(|found| found.as_array().map_or(0, Vec::len));
        group.push(match healthy {
            Ok(0) => Finding::fail(
                "not_registered",
                format!("no healthy instance of {service} is registered"),
            )
            .mend("its sidecar's /ready says why"),
            Ok(n) => Finding::pass(format!("{service}: {n} healthy")),
            Err(why) => Finding::fail("registry_unreachable", format!("{service}: {why}")),
        });
    }
    group
}

pub async fn planner(mesh: &Mesh) -> Group {
    let mut group = Group::new("planner");
    let Some(ollama) = &mesh.orchestrator.ollama else {
        return group.with(Finding::pass("plans are made by rules"));
    };
    let base = ollama.url.as_str().trim_end_matches('/');
    let asked = match client(None) {
        Ok(client) => answer(client.get(format!("{base}/api/tags"))).await,
        Err(why) => Err(why),
    };
    let models = match asked {
        Ok(answer) => answer,
        Err(why) => {
            group.push(
                Finding::warn("model_unreachable", format!("{base}: {why}")).mend(
                    "start the model server, or mend planner.ollama.url; rules plan meanwhile",
                ),
            );
            return group;
        }
    };
    group.push(Finding::pass("the model server answers"));
    let names: Vec<&str> = models
        .get("models")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|m| m.get("name")?.as_str())
        .collect();
    for model in ollama.shared() {
        // A name without a tag means the tag `latest`.
        let is_it = |name: &&str| *name == model || *name == format!("{model}:latest");
        if names.iter().any(is_it) {
            group.push(Finding::pass(format!("{model} is there")));
            continue;
        }
        let missing = Finding::warn("model_missing", format!("{model} is not there"));
        group.push(missing.mend(if ollama.pull {
            "the orchestrator pulls it; rules plan meanwhile".to_owned()
        } else {
            format!("ollama pull {model}, or planner.ollama.pull: true; rules plan meanwhile")
        }));
    }
    group
}

pub async fn telemetry(mesh: &Mesh) -> Group {
    let group = Group::new("telemetry");
    let Some(endpoint) = mesh.trust.traces.endpoint.as_ref() else {
        return group.with(Finding::pass("traces go nowhere, as mesh.yaml says"));
    };
    let endpoint = endpoint.to_string();
    let place = reqwest::Url::parse(&endpoint).ok().and_then(|url| {
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        Some((host, url.port_or_known_default()?))
    });
    let reached = match place {
        Some(place) => tokio::time::timeout(PATIENCE, TcpStream::connect(place)).await,
        None => Ok(Err(std::io::ErrorKind::InvalidInput.into())),
    };
    group.with(match reached {
        Ok(Ok(_)) => Finding::pass(format!("somebody listens at {endpoint}")),
        _ => Finding::warn(
            "traces_unreachable",
            format!("nobody listens at {endpoint}"),
        )
        .mend("start the receiver, or mend traces.endpoint; nothing waits for it"),
    })
}

/// A client that follows nobody, and believes `ca` alone where it is given.
pub fn client(ca: Option<&std::path::Path>) -> Result<Client, String> {
    let Some(ca) = ca else {
        return probe::client().map_err(|e| e.to_string());
    };
    let pem = std::fs::read(ca).map_err(|e| format!("cannot read {}: {e}", ca.display()))?;
    let authorities = reqwest::Certificate::from_pem_bundle(&pem);
    let authorities = authorities.map_err(|_| format!("{} is no PEM", ca.display()))?;
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only(authorities)
        .build()
        .map_err(|e| e.to_string())
}

/// The answer in JSON; otherwise why there is none.
async fn answer(request: RequestBuilder) -> Result<Value, String> {
    let mut response = request.timeout(PATIENCE).send().await.map_err(|error| {
        let why = if error.is_timeout() {
            "no answer in time"
        } else if error.is_connect() {
            "nobody listens there"
        } else {
            "the connection broke"
        };
        why.to_owned()
    })?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("answers {}", status.as_u16()));
    }
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err("its answer is too long".to_owned());
        }
    }
    serde_json::from_slice(&body).map_err(|_| "its answer is no JSON".to_owned())
}
