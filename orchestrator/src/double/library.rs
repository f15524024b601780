//! The models that the double has, and how it comes by others.

use super::{Shared, error, lock, not_found, read};
use crate::ollama::readiness::full;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use super::Gate;

/// Bytes of every model's one layer.
const SIZE: u64 = 1_000_000;
const DIGEST: &str = "sha256:2af3b81862c6be03c769683af18efdadb2c33f60ff32ab6f83e42c043d6c7816";

/// How a pull goes.
#[derive(Debug, Clone)]
pub enum Pull {
    /// To its end, from where it was.
    Whole,
    /// The same, with a pause before the last tenth that ends when the gate lets it pass.
    Gated(Gate),
    /// The connection breaks once so many bytes are there.
    BreaksAt(u64),
    /// There is no such model at the registry.
    Unknown,
}

#[derive(Default)]
pub(super) struct Library {
    /// `None` has every model.
    models: Mutex<Option<BTreeSet<String>>>,
    loaded: Mutex<BTreeSet<String>>,
    pulls: Mutex<VecDeque<Pull>>,
    /// Bytes that are there of what is pulled.
    partial: Mutex<BTreeMap<String, u64>>,
}

impl Library {
    pub(super) fn new(models: &[&str], pulls: Vec<Pull>) -> Self {
        Self {
            models: Mutex::new(Some(models.iter().map(|m| full(m)).collect())),
            pulls: Mutex::new(pulls.into()),
            ..Self::default()
        }
    }

    pub(super) fn has(&self, model: &str) -> bool {
        lock(&self.models)
            .as_ref()
            .is_none_or(|models| models.contains(&full(model)))
    }

    pub(super) fn remove(&self, model: &str) {
        if let Some(models) = &mut *lock(&self.models) {
            models.remove(&full(model));
        }
        lock(&self.partial).remove(&full(model));
    }

    pub(super) fn load(&self, model: &str, load: bool) {
        let mut loaded = lock(&self.loaded);
        if load {
            loaded.insert(full(model));
        } else {
            loaded.remove(&full(model));
        }
    }
}

fn details() -> Value {
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "1B",
        "quantization_level": "Q4_0",
    })
}

/// `GET /api/tags`. With every model there, the list holds those that were used.
pub(super) async fn tags(State(shared): State<Arc<Shared>>) -> Response {
    let models = lock(&shared.library.models).clone();
    let models = models.unwrap_or_else(|| lock(&shared.library.loaded).clone());
    let list: Vec<Value> = models
        .iter()
        .map(|name| {
            json!({
                "name": name,
                "model": name,
                "modified_at": "2026-11-01T12:00:00.000000001+00:00",
                "size": SIZE,
                "digest": DIGEST.trim_start_matches("sha256:"),
                "details": details(),
            })
        })
        .collect();
    Json(json!({"models": list})).into_response()
}

/// `GET /api/ps`.
pub(super) async fn ps(State(shared): State<Arc<Shared>>) -> Response {
    let list: Vec<Value> = lock(&shared.library.loaded)
        .iter()
        .map(|name| {
            json!({
                "name": name,
                "model": name,
                "size": SIZE,
                "digest": DIGEST.trim_start_matches("sha256:"),
                "details": details(),
                "expires_at": "2026-11-23T21:32:02.125Z",
                "size_vram": 0,
            })
        })
        .collect();
    Json(json!({"models": list})).into_response()
}

/// `POST /api/show`.
pub(super) async fn show(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    match read(&shared, "/api/show", &body) {
        Err(refused) => *refused,
        Ok((_, model)) if !shared.library.has(&model) => not_found(&model),
        Ok(_) => Json(json!({
            "modelfile": "FROM x",
            "template": "{{ .Prompt }}",
            "details": details(),
            "model_info": {"general.architecture": "llama"},
            "capabilities": ["completion"],
        }))
        .into_response(),
    }
}

/// `POST /api/pull`, streamed unless `stream` is false.
pub(super) async fn pull(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let (request, model) = match read(&shared, "/api/pull", &body) {
        Ok(read) => read,
        Err(refused) => return *refused,
    };
    if request.get("stream") == Some(&Value::Bool(false)) {
        return error(StatusCode::NOT_IMPLEMENTED, "the double streams its pulls");
    }
    let next = {
        let mut pulls = lock(&shared.library.pulls);
        if pulls.len() > 1 {
            pulls.pop_front()
        } else {
            pulls.front().cloned()
        }
    };
    let (gate, until) = match next {
        None | Some(Pull::Unknown) => {
            let lines = [
                json!({"status": "pulling manifest"}),
                json!({"error": "pull model manifest: file does not exist"}),
            ];
            let lines = lines.map(|line| Ok::<_, std::io::Error>(Bytes::from(format!("{line}\n"))));
            return ndjson(Body::from_stream(stream::iter(lines)));
        }
        Some(Pull::Whole) => (None, None),
        Some(Pull::Gated(gate)) => (Some(gate), None),
        Some(Pull::BreaksAt(bytes)) => (None, Some(bytes)),
    };
    let steps = stream::unfold(0_usize, move |step| {
        let (shared, model, gate) = (Arc::clone(&shared), model.clone(), gate.clone());
        async move {
            let line = match step {
                0 => json!({"status": "pulling manifest"}),
                1..=11 => {
                    let at = |step: usize| SIZE / 10 * (u64::try_from(step).unwrap_or(0) - 1);
                    let before = lock(&shared.library.partial).get(&model).copied();
                    // What is there already is told of at once.
                    let completed = at(step).max(before.unwrap_or(0));
                    if until.is_some_and(|until| completed > until) {
                        return Some((Err(std::io::Error::other("cut off")), 99));
                    }
                    if step == 11
                        && let Some(gate) = &gate
                        && let Ok(permit) = gate.acquire().await
                    {
                        permit.forget();
                    }
                    lock(&shared.library.partial).insert(model, completed);
                    json!({
                        "status": "pulling 2af3b81862c6",
                        "digest": DIGEST,
                        "total": SIZE,
                        "completed": completed,
                    })
                }
                12 => json!({"status": "verifying sha256 digest"}),
                13 => json!({"status": "writing manifest"}),
                14 => {
                    if let Some(models) = &mut *lock(&shared.library.models) {
                        models.insert(full(&model));
                    }
                    json!({"status": "success"})
                }
                _ => return None,
            };
            Some((Ok(Bytes::from(format!("{line}\n"))), step + 1))
        }
    });
    ndjson(Body::from_stream(steps.boxed()))
}

fn ndjson(body: Body) -> Response {
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}
