//! A server that speaks as much of Ollama's API as the mesh uses, for tests.
//!
//! Follows version 0.12 (docs/api.md, api/types.go): `/api/chat`, `/api/generate`, `/api/embed`, `/api/tags`,
//! `/api/show`, `/api/ps`, `/api/pull`, `/api/version`. Answers are streamed as NDJSON unless `stream` is false;
//! durations are nanoseconds; faults are `{"error": "…"}` with their status, in a stream a line of that form;
//! an empty request loads or unloads a model (`done_reason` `load`, `unload`); a model that is not there is 404.
//! A pull that broke off goes on where it was.

mod answer;
mod library;

pub use answer::{Answer, Gate};
pub use library::Pull;

use answer::Style;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use library::Library;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The version that is followed, and that `/api/version` answers.
pub const VERSION: &str = "0.12.6";

/// The running double.
pub struct Ollama {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Value>>,
    calls: Mutex<Vec<(String, Value)>>,
    library: Library,
    at_work: Arc<AtWork>,
}

/// Calls that are being answered.
#[derive(Default)]
struct AtWork {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// One of them; over when the body of its answer is.
struct Work(Arc<AtWork>);

impl AtWork {
    fn begin(self: &Arc<Self>) -> Work {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Work(Arc::clone(self))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ollama {
    /// Listens on a free port of loopback, has every model that it is asked for, and gives `answers` to chats and
    /// generations in turn, the last one for ever.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(answers: Vec<Answer>) -> std::io::Result<Self> {
        Self::serve(answers, Library::default()).await
    }

    /// The same with `models` alone; what is pulled comes as `pulls` say, in turn, the last one for ever.
    ///
    /// # Errors
    /// No port is free.
    pub async fn with_models(
        answers: Vec<Answer>,
        models: &[&str],
        pulls: Vec<Pull>,
    ) -> std::io::Result<Self> {
        Self::serve(answers, Library::new(models, pulls)).await
    }

    async fn serve(answers: Vec<Answer>, library: Library) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            answers: Mutex::new(answers.into()),
            library,
            ..Shared::default()
        });
        let router = Router::new()
            .route("/", get(async || "Ollama is running"))
            .route("/api/chat", post(chat))
            .route("/api/generate", post(generate))
            .route("/api/embed", post(embed))
            .route("/api/tags", get(library::tags))
            .route("/api/show", post(library::show))
            .route("/api/ps", get(library::ps))
            .route("/api/pull", post(library::pull))
            .route(
                "/api/version",
                get(async || Json(json!({"version": VERSION}))),
            )
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            // Serving ends with the test.
            let _ended = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    /// Base URL, for `planner.ollama.url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The chats so far that were more than a request to load.
    pub fn asked(&self) -> Vec<Value> {
        lock(&self.shared.asked).clone()
    }

    /// Every request with a body so far, with its path.
    pub fn calls(&self) -> Vec<(String, Value)> {
        lock(&self.shared.calls).clone()
    }

    /// Says something else from now on.
    pub fn answer(&self, answers: Vec<Answer>) {
        *lock(&self.shared.answers) = answers.into();
    }

    /// Calls that are being answered, and most that were at the same time.
    pub fn at_work(&self) -> (usize, usize) {
        let at_work = &self.shared.at_work;
        let read = |number: &AtomicUsize| number.load(Ordering::SeqCst);
        (read(&at_work.now), read(&at_work.most))
    }

    /// Takes a model away.
    pub fn remove(&self, model: &str) {
        self.shared.library.remove(model);
    }
}

impl Drop for Ollama {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// How Ollama says that something is wrong.
fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({"error": text}))).into_response()
}

/// Reads a request, and notes it.
fn read(shared: &Shared, path: &str, body: &Bytes) -> Result<(Value, String), Box<Response>> {
    let request: Value = serde_json::from_slice(body)
        .map_err(|e| Box::new(error(StatusCode::BAD_REQUEST, &e.to_string())))?;
    lock(&shared.calls).push((path.to_owned(), request.clone()));
    let named = |key| request.get(key).and_then(Value::as_str);
    let model = named("model").or_else(|| named("name")).unwrap_or_default();
    if model.is_empty() {
        let required = error(StatusCode::BAD_REQUEST, "model is required");
        return Err(Box::new(required));
    }
    let model = model.to_owned();
    Ok((request, model))
}

fn not_found(model: &str) -> Response {
    error(StatusCode::NOT_FOUND, &format!("model '{model}' not found"))
}

async fn chat(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let (request, model) = match read(&shared, "/api/chat", &body) {
        Ok(read) => read,
        Err(refused) => return *refused,
    };
    let empty = request
        .get("messages")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty);
    if !empty {
        lock(&shared.asked).push(request.clone());
    }
    respond(&shared, Style::Chat, &request, &model, empty).await
}

async fn generate(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let (request, model) = match read(&shared, "/api/generate", &body) {
        Ok(read) => read,
        Err(refused) => return *refused,
    };
    let prompt = request.get("prompt").and_then(Value::as_str);
    let empty = prompt.is_none_or(str::is_empty);
    respond(&shared, Style::Generate, &request, &model, empty).await
}

async fn respond(
    shared: &Shared,
    style: Style,
    request: &Value,
    model: &str,
    empty: bool,
) -> Response {
    if !shared.library.has(model) {
        return not_found(model);
    }
    if empty {
        let unload = request.get("keep_alive") == Some(&json!(0));
        shared.library.load(model, !unload);
        return answer::loaded(style, model, unload);
    }
    shared.library.load(model, true);
    let next = {
        let mut answers = lock(&shared.answers);
        if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().cloned()
        }
    };
    let Some(next) = next else {
        return not_found(model);
    };
    let streams = request.get("stream") != Some(&Value::Bool(false));
    answer::write(next, style, model, streams, shared.at_work.begin()).await
}

/// A vector for each text, of the text's length: the same text has the same vector.
async fn embed(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let (request, model) = match read(&shared, "/api/embed", &body) {
        Ok(read) => read,
        Err(refused) => return *refused,
    };
    if !shared.library.has(&model) {
        return not_found(&model);
    }
    let _work = shared.at_work.begin();
    let texts: Vec<&str> = match request.get("input") {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect(),
        None | Some(Value::Null) => Vec::new(),
        Some(_) => return error(StatusCode::BAD_REQUEST, "invalid input type"),
    };
    #[expect(clippy::cast_precision_loss, reason = "texts of tests are short")]
    let vector = |text: &&str| json!([text.len() as f64, 0.5, -0.25]);
    Json(json!({
        "model": model,
        "embeddings": texts.iter().map(vector).collect::<Vec<_>>(),
        "total_duration": 14_143_917_u64,
        "load_duration": 1_019_500_u64,
        "prompt_eval_count": texts.iter().map(|t| t.split_whitespace().count()).sum::<usize>(),
    }))
    .into_response()
}
