//! Asks the parts whether they are ready, over the same HTTP that anyone else uses.

use crate::{Addresses, LocalError};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// How long one part has for its answer. Readiness asks the store, which has two seconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two rounds while a mesh starts.
const ROUND: Duration = Duration::from_millis(50);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// A part of the mesh and where it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is: `gateway`, `orchestrator`, `sidecar`, `agent`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// The URL that is asked.
    pub url: String,
}

/// What a part answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The part.
    #[serde(flatten)]
    pub part: Part,
    /// Whether it works.
    pub up: bool,
    /// What it says, or why there is no answer.
    pub detail: String,
}

/// The parts of a mesh, front to back.
pub fn parts(addresses: &Addresses) -> Vec<Part> {
    let mut parts = vec![
        Part {
            kind: "gateway",
            name: "gateway".to_owned(),
            // Guarded like everything behind it: its refusal is the proof that it stands.
            url: format!("http://{}/agents", addresses.gateway),
        },
        Part {
            kind: "orchestrator",
            name: "orchestrator".to_owned(),
            url: format!("http://{}/ready", addresses.orchestrator),
        },
    ];
    for (name, admin) in [
        ("gateway", addresses.gateway_sidecar),
        ("orchestrator", addresses.orchestrator_sidecar),
    ] {
        parts.extend(admin.map(|admin| Part {
            kind: "sidecar",
            name: name.to_owned(),
            url: format!("http://{admin}/ready"),
        }));
    }
    for agent in &addresses.agents {
        parts.push(Part {
            kind: "sidecar",
            name: agent.id.to_string(),
            url: format!("http://{}/ready", agent.admin),
        });
        parts.push(Part {
            kind: "agent",
            name: agent.id.to_string(),
            url: agent.endpoint.clone(),
        });
    }
    parts
}

/// Asks one part.
pub async fn ask(client: &reqwest::Client, part: Part) -> Answer {
    let (up, detail) = match client.get(&part.url).timeout(PATIENCE).send().await {
        Ok(response) => judge(&part, response).await,
        Err(error) if error.is_timeout() => (false, "no answer in time".to_owned()),
        Err(error) if error.is_connect() => (false, "nobody listens there".to_owned()),
        Err(_) => (false, "the connection broke".to_owned()),
    };
    Answer { part, up, detail }
}

async fn judge(part: &Part, response: reqwest::Response) -> (bool, String) {
    let status = response.status();
    match part.kind {
        "gateway" => match status.as_u16() {
            401 => (true, "refuses without a token".to_owned()),
            503 => (
                false,
                "503: a filter or the orchestrator is not ready".to_owned(),
            ),
            200 => (false, "answers without a token: no filter runs".to_owned()),
            other => (false, format!("answers {other}")),
        },
        // Agents need no health page; that one answers HTTP at all is what counts.
        "agent" => (true, "answers".to_owned()),
        _ if status.is_success() => (true, "ready".to_owned()),
        _ => (false, reasons(response).await),
    }
}

async fn reasons(mut response: reqwest::Response) -> String {
    let status = response.status();
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            break;
        }
    }
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    let listed = value.get("reasons").and_then(Value::as_array);
    let texts: Vec<&str> = listed
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if texts.is_empty() {
        format!("answers {}", status.as_u16())
    } else {
        texts.join("; ")
    }
}

/// A client that goes nowhere but where it is told.
///
/// # Errors
/// [`LocalError::Part`] when the system has no means for one.
pub fn client() -> Result<reqwest::Client, LocalError> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| LocalError::Part {
            part: "http client".to_owned(),
            detail: e.to_string(),
        })
}

/// Waits until every part is ready.
///
/// # Errors
/// [`LocalError::NotReady`] with what is missing after `limit`.
pub async fn ready(addresses: &Addresses, limit: Duration) -> Result<(), LocalError> {
    let client = client()?;
    let end = Instant::now() + limit;
    let mut waiting = parts(addresses);
    loop {
        let mut missing = Vec::new();
        let mut still = Vec::new();
        for part in waiting {
            let answer = ask(&client, part).await;
            if !answer.up {
                let Part { kind, name, .. } = &answer.part;
                let who = if kind == name {
                    kind.to_string()
                } else {
                    format!("{kind} {name}")
                };
                missing.push(format!("{who}: {}", answer.detail));
                still.push(answer.part);
            }
        }
        if still.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(LocalError::NotReady(missing));
        }
        waiting = still;
        tokio::time::sleep(ROUND).await;
    }
}
