//! Has the server pull a model, and reads its progress.

use super::client::{Client, Lines};
use super::readiness::{Progress, Readiness, State};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Longest pull: forty gigabytes over a slow line.
const PULLING: Duration = Duration::from_secs(24 * 3600);
/// Longest silence of a pull; the server tells of its progress several times a second, and is silent while it
/// verifies a large layer.
const SILENCE: Duration = Duration::from_secs(120);
/// How often the log tells of a pull.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A line of a pull.
#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    status: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    total: u64,
    #[serde(default)]
    completed: u64,
    #[serde(default)]
    error: Option<String>,
}

/// Pulls `model`, and tells `readiness` how far it is.
///
/// # Errors
/// Why it is not there; another pull goes on where this one was, since the server keeps what it has.
pub(super) async fn pull(
    readiness: &Readiness,
    client: &Client,
    model: &str,
) -> Result<(), String> {
    readiness.set(model, State::Pulling(Progress::default()));
    tracing::info!(model, "pulling the model");
    // Both names of the field: servers know the one or the other.
    let body = json!({"model": model, "name": model, "stream": true}).to_string();
    let response = client
        .ask("/api/pull", Some(body.into()), SILENCE)
        .await
        .map_err(|fault| fault.to_string())?;
    let mut lines = Lines::new(response, Instant::now() + PULLING, SILENCE);
    let mut layers: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut logged = Instant::now();
    loop {
        let line = lines.next().await.map_err(|fault| fault.to_string())?;
        let Some(line) = line else {
            return Err("it broke off".to_owned());
        };
        let step: Step =
            serde_json::from_slice(&line).map_err(|_| "its progress is not JSON".to_owned())?;
        if let Some(error) = step.error {
            return Err(error.chars().take(200).collect());
        }
        if step.status == "success" {
            return Ok(());
        }
        // A model has some ten layers; bounded all the same.
        if step.total > 0 && (layers.len() < 1_000 || layers.contains_key(&step.digest)) {
            layers.insert(step.digest, (step.completed.min(step.total), step.total));
        }
        let sum = |of: fn(&(u64, u64)) -> u64| layers.values().map(of).fold(0, u64::saturating_add);
        let progress = Progress {
            status: step.status.chars().take(100).collect(),
            completed: sum(|layer| layer.0),
            total: sum(|layer| layer.1),
        };
        if logged.elapsed() >= LOG_EVERY {
            logged = Instant::now();
            tracing::info!(
                model,
                status = progress.status,
                completed = progress.completed,
                total = progress.total,
                "pulling the model"
            );
        }
        readiness.set(model, State::Pulling(progress));
    }
}
