//! Whether the server has the models: looked for at the start and whenever it says that one is gone, pulled
//! where mesh.yaml says so, loaded into memory before the first task needs it.
//!
//! ```text
//!  Unknown ──▶ Ready ◀───────────────────────────────────┐
//!     │         │ a call says 404                        │ success
//!     │         ▼                                        │
//!     └─────▶ Missing ──pull: true──▶ Pulling ───────────┤
//!               ▲                        │ breaks off    │
//!               │                        ▼               │
//!               └── looked for again ── Failed ──again───┘   (the server goes on where it was)
//! ```
//!
//! Tasks never wait for it: until a model is there the rules plan. A server that cannot say what it has (it
//! speaks less of the API, or does not answer) is asked for plans all the same; the breaker looks after it.

use super::client::{Client, Fault, MAX_ANSWER};
use super::metrics::Metrics;
use super::pull;
use super::turn::Turns;
use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Time for a question about models.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for a model to be loaded: gigabytes from a slow disk.
const LOADING: Duration = Duration::from_secs(300);
/// First pause before a model is looked for or pulled again; doubled up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// Most models that are looked through in the server's list.
const MAX_LISTED: usize = 10_000;

/// What is known of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// The server was not asked yet, or cannot say.
    Unknown {
        /// Why; empty at the beginning.
        #[serde(skip_serializing_if = "String::is_empty")]
        detail: String,
    },
    /// It is there.
    Ready,
    /// The server does not have it.
    Missing,
    /// It is on its way.
    Pulling(Progress),
    /// It could not be pulled, and that is tried again.
    Failed {
        /// Why.
        detail: String,
    },
}

/// How far a pull is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What the server is doing, in its words.
    pub status: String,
    /// Bytes that it has of all layers that it spoke of.
    pub completed: u64,
    /// Bytes of those layers.
    pub total: u64,
}

impl State {
    /// Whether the model may be asked.
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Ready | Self::Unknown { .. })
    }

    /// Why it may not, for plans and answers.
    pub fn describe(&self) -> String {
        match self {
            Self::Unknown { .. } | Self::Ready => "it is there".to_owned(),
            Self::Missing => "the server does not have it".to_owned(),
            Self::Pulling(progress) if progress.total > 0 => format!(
                "it is being pulled, {} %",
                u128::from(progress.completed) * 100 / u128::from(progress.total)
            ),
            Self::Pulling(_) => "it is being pulled".to_owned(),
            Self::Failed { detail } => format!("it could not be pulled: {detail}"),
        }
    }
}

/// What is known of every model that is shared.
#[derive(Debug)]
pub struct Readiness {
    models: BTreeMap<String, Entry>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Entry {
    state: Mutex<State>,
    /// Told when the model is gone.
    look: Notify,
}

impl Entry {
    // Every change leaves it whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a model comes to be there.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whether it is pulled.
    pub pull: bool,
    /// The model that is loaded once it is there.
    pub preload: Option<String>,
    /// How long it stays in memory, in seconds.
    pub keep_alive_s: Option<i64>,
}

/// What looking after a model needs.
#[derive(Clone, Copy)]
struct Ground<'a> {
    client: &'a Client,
    turns: &'a Arc<Turns>,
    rules: &'a Rules,
}

#[derive(Deserialize)]
struct Tags {
    models: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    #[serde(default)]
    name: String,
    #[serde(default)]
    model: String,
}

impl Readiness {
    /// Nothing is known of `models` yet.
    pub fn new<'a>(models: impl Iterator<Item = &'a str>, metrics: Arc<Metrics>) -> Self {
        let entry = |model: &str| {
            metrics.ready(model, false);
            let entry = Entry {
                state: Mutex::new(State::Unknown {
                    detail: String::new(),
                }),
                look: Notify::new(),
            };
            (model.to_owned(), entry)
        };
        Self {
            models: models.map(entry).collect(),
            metrics,
        }
    }

    /// What is known of every model.
    pub fn all(&self) -> BTreeMap<&str, State> {
        let all = self.models.iter();
        all.map(|(model, entry)| (model.as_str(), entry.state().clone()))
            .collect()
    }

    /// What is known of `model`; `None` when it is not shared.
    pub fn of(&self, model: &str) -> Option<State> {
        self.models.get(model).map(|entry| entry.state().clone())
    }

    /// A call heard that the server does not have `model`.
    pub fn gone(&self, model: &str) {
        if self.of(model).is_some_and(|state| state.is_usable()) {
            self.set(model, State::Missing);
            if let Some(entry) = self.models.get(model) {
                entry.look.notify_one();
            }
        }
    }

    pub(super) fn set(&self, model: &str, state: State) {
        self.metrics.ready(model, state == State::Ready);
        if let State::Pulling(progress) = &state {
            self.metrics.pulled(model, progress.completed);
        }
        if let Some(entry) = self.models.get(model) {
            *entry.state() = state;
        }
    }

    /// Looks after every model until `stop`.
    pub async fn run(
        &self,
        client: &Client,
        turns: &Arc<Turns>,
        rules: &Rules,
        stop: CancellationToken,
    ) {
        let ground = Ground {
            client,
            turns,
            rules,
        };
        // Each by itself: one that takes hours to pull holds up no other.
        let all = self.models.iter();
        let all = join_all(all.map(|(model, entry)| self.keep(ground, model, entry)));
        tokio::select! {
            () = stop.cancelled() => {}
            _ = all => {}
        }
    }

    async fn keep(&self, ground: Ground<'_>, model: &str, entry: &Entry) {
        let mut pause = FIRST_PAUSE;
        loop {
            if self.see_to(ground, model).await {
                pause = FIRST_PAUSE;
                entry.look.notified().await;
                continue;
            }
            let again = tokio::time::timeout(pause, entry.look.notified()).await;
            pause = match again {
                Ok(()) => FIRST_PAUSE,
                Err(_) => (pause * 2).min(LAST_PAUSE),
            };
        }
    }

    /// Finds out about one model and does what is to be done; whether there is nothing more to do.
    async fn see_to(&self, ground: Ground<'_>, model: &str) -> bool {
        let Ground { client, rules, .. } = ground;
        let there = match is_there(client, model).await {
            Ok(there) => there,
            Err(fault) => {
                let detail = fault.to_string();
                let state = State::Unknown { detail };
                if self.of(model) != Some(state.clone()) {
                    tracing::warn!(model, %fault, "the model server does not say what models it has");
                }
                self.set(model, state);
                // One that answers, and not this, will not do so later.
                return match fault {
                    Fault::NotJson | Fault::TooLarge(_) => true,
                    fault => !fault.is_servers(),
                };
            }
        };
        if there {
            let before = self.of(model);
            self.set(model, State::Ready);
            if before != Some(State::Ready) {
                tracing::info!(model, "the model is there");
                load(ground, model).await;
            }
            return true;
        }
        if !rules.pull {
            if self.of(model) != Some(State::Missing) {
                tracing::warn!(
                    model,
                    "the model server does not have the model: the rules plan until it does \
                     (`ollama pull`, or `pull: true` in mesh.yaml)"
                );
            }
            self.set(model, State::Missing);
            return false;
        }
        match pull::pull(self, client, model).await {
            Ok(()) => {
                tracing::info!(model, "pulled");
                self.set(model, State::Ready);
                load(ground, model).await;
                true
            }
            Err(detail) => {
                tracing::warn!(
                    model,
                    detail,
                    "the model could not be pulled, and will be again"
                );
                self.set(model, State::Failed { detail });
                false
            }
        }
    }
}

/// An empty request loads a model and makes nothing.
async fn load(ground: Ground<'_>, model: &str) {
    let Ground {
        client,
        turns,
        rules,
    } = ground;
    if rules.preload.as_deref() != Some(model) {
        return;
    }
    let mut body = json!({"model": model, "stream": false});
    if let Some(seconds) = rules.keep_alive_s {
        body["keep_alive"] = json!(seconds);
    }
    // Whoever has work goes first, and loads it by that.
    let Ok(_turn) = turns.take("preload", 0).await else {
        return;
    };
    let body = Some(Bytes::from(body.to_string()));
    match client
        .whole("/api/generate", body, MAX_ANSWER, LOADING)
        .await
    {
        Ok(_) => tracing::info!(model, "the model is loaded"),
        Err(fault) => tracing::warn!(model, %fault, "the model could not be loaded beforehand"),
    }
}

/// Whether the server has `model`: in its list, or by a name that the list does not show.
async fn is_there(client: &Client, model: &str) -> Result<bool, Fault> {
    let list = client
        .whole("/api/tags", None, MAX_ANSWER, PATIENCE)
        .await?;
    let tags: Tags = serde_json::from_slice(&list).map_err(|_| Fault::NotJson)?;
    let wanted = full(model);
    let mut listed = tags.models.iter().take(MAX_LISTED);
    if listed.any(|tag| full(&tag.name) == wanted || full(&tag.model) == wanted) {
        return Ok(true);
    }
    let body = json!({"model": model, "name": model}).to_string();
    let shown = client.whole("/api/show", Some(body.into()), MAX_ANSWER, PATIENCE);
    match shown.await {
        Ok(_) => Ok(true),
        // Whether it says that there is no such model or no such path: the list has told.
        Err(Fault::Status { status, .. }) if status < 500 => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// A model's name with its tag: `x` is `x:latest`.
pub fn full(model: &str) -> String {
    let name = model.rsplit('/').next().unwrap_or(model);
    if name.contains(':') {
        model.to_owned()
    } else {
        format!("{model}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_is_the_latest() {
        assert_eq!(full("tinyllama"), "tinyllama:latest");
        assert_eq!(full("tinyllama:1b"), "tinyllama:1b");
        assert_eq!(full("host:5000/a/b"), "host:5000/a/b:latest");
        assert_eq!(full("host:5000/a/b:7b"), "host:5000/a/b:7b");
    }

    #[test]
    fn a_pull_says_how_far_it_is() {
        let pulling = |completed, total| {
            let status = "pulling".to_owned();
            State::Pulling(Progress {
                status,
                completed,
                total,
            })
            .describe()
        };
        assert_eq!(pulling(0, 0), "it is being pulled");
        assert_eq!(pulling(u64::MAX / 2, u64::MAX), "it is being pulled, 49 %");
    }
}
