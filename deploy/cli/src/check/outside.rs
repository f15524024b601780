//! Services that the mesh does not bring and that speak of no more than themselves: model server, receiver of traces.

use super::ask::{PATIENCE, answer, client};
use super::finding::{Finding, Group};
use mesh_config::Mesh;
use serde_json::Value;
use tokio::net::TcpStream;

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

/// Whether somebody takes the mesh's traces.
pub async fn traces(mesh: &Mesh) -> Finding {
    let Some(endpoint) = mesh.trust.traces.endpoint.as_ref() else {
        return Finding::pass("traces go nowhere, as mesh.yaml says");
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
    match reached {
        Ok(Ok(_)) => Finding::pass(format!("somebody listens at {endpoint}")),
        _ => Finding::warn(
            "traces_unreachable",
            format!("nobody listens at {endpoint}"),
        )
        .mend("start the receiver, or mend traces.endpoint; nothing waits for it"),
    }
}
