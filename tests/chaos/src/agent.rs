//! An agent that honours idempotency keys, and writes down every effect that it has.
//!
//! An effect is one line, `key<TAB>task<TAB>step`, appended in one write: a `kill -9` leaves it whole or not there.
//! What is written down is known again after a restart, so a key has one effect over all lives of the agent. Were a
//! step handed out under two keys, it would have two effects: that is what is counted.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One step of so many comes after its deadline.
const LATE_ONE_IN: u64 = 500;

/// How an agent works.
#[derive(Debug, Clone)]
pub struct Work {
    /// Where its effects are written down.
    pub log: PathBuf,
    /// How long a step takes.
    pub takes: Duration,
    /// How long one step in [`LATE_ONE_IN`] takes; none does where it is left out.
    pub late: Option<Duration>,
}

struct Agent {
    work: Work,
    file: Mutex<File>,
    /// By key: whoever holds it works on the key; whether it is done.
    keys: Mutex<HashMap<String, Arc<tokio::sync::Mutex<bool>>>>,
}

/// Serves the agent until the process ends.
///
/// # Errors
/// The address or the log cannot be had.
pub async fn serve(listen: SocketAddr, work: Work) -> std::io::Result<()> {
    let done = effects(&work.log)?.into_iter().map(|effect| {
        let done = Arc::new(tokio::sync::Mutex::new(true));
        (effect.key, done)
    });
    let agent = Agent {
        file: Mutex::new(
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&work.log)?,
        ),
        keys: Mutex::new(done.collect()),
        work,
    };
    let router = Router::new()
        .route("/process", post(process))
        .route("/health", get(async || "well"))
        .with_state(Arc::new(agent));
    let listener = tokio::net::TcpListener::bind(listen).await?;
    axum::serve(listener, router).await
}

async fn process(
    State(agent): State<Arc<Agent>>,
    headers: HeaderMap,
    Json(step): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    let key = headers.get("idempotency-key").and_then(|k| k.to_str().ok());
    let key = key.ok_or(StatusCode::BAD_REQUEST)?.to_owned();
    let place = {
        let mut keys = agent.keys.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(keys.entry(key.clone()).or_default())
    };
    // A second call for a key waits for the first one.
    let mut done = place.lock().await;
    if !*done {
        tokio::time::sleep(agent.takes(&key)).await;
        agent
            .effect(&key, &step)
            .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        *done = true;
    }
    Ok(Json(json!({"done": key})))
}

impl Agent {
    fn takes(&self, key: &str) -> Duration {
        let chance = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        match self.work.late {
            Some(late) if chance.is_multiple_of(LATE_ONE_IN) => late,
            _ => self.work.takes,
        }
    }

    fn effect(&self, key: &str, step: &Value) -> std::io::Result<()> {
        let text = |name: &str| step.get(name).and_then(Value::as_str).unwrap_or("?");
        let line = format!("{key}\t{}\t{}\n", text("task_id"), text("step_id"));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes())
    }
}

/// One effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Effect {
    /// The idempotency key.
    pub key: String,
    /// The task.
    pub task: String,
    /// The step.
    pub step: String,
}

/// The effects that an agent has written down at `log`, which need not be there.
///
/// # Errors
/// It cannot be read.
pub fn effects(log: &Path) -> std::io::Result<Vec<Effect>> {
    let text = match std::fs::read_to_string(log) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let effects = text.lines().filter_map(|line| {
        let mut parts = line.split('\t').map(str::to_owned);
        Some(Effect {
            key: parts.next()?,
            task: parts.next()?,
            step: parts.next()?,
        })
    });
    Ok(effects.collect())
}

/// How many effects were had more than once: the same step of the same task.
pub fn doubled(effects: &[Effect]) -> usize {
    let once: HashSet<_> = effects.iter().map(|e| (&e.task, &e.step)).collect();
    effects.len() - once.len()
}
