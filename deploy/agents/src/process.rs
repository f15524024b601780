//! The one interface all agents here have: `POST /process`, `GET /health`.
//!
//! A request with an `Idempotency-Key` that was seen gets the first answer again, and one that comes
//! while the first is being worked on waits for it.

use axum::Router;
use axum::extract::{DefaultBodyLimit, State, rejection::BytesRejection};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// Longest request, in bytes: a step's payload plus what its predecessors said.
const MAX_REQUEST: usize = 16 * 1024 * 1024;
/// Longest key that is remembered, in bytes; longer ones are worked on each time.
const MAX_KEY: usize = 512;
/// Most answers remembered: redeliveries come within seconds, hundreds of steps at most.
const MAX_ANSWERS: usize = 1024;

/// What an agent is asked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Step {
    pub(crate) role: String,
    pub(crate) action: String,
    pub(crate) payload: Map<String, Value>,
    /// Results of earlier steps, by step id: `{agent, data}`.
    pub(crate) incoming_data: Map<String, Value>,
}

/// Why an agent does not do what it is asked: a 4xx answer with a code, a field and the mend.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    field: String,
    detail: String,
    figures: Option<Value>,
}

impl Refusal {
    /// 422: `field` is wrong.
    pub(crate) fn input(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            code: "invalid_input",
            field: field.into(),
            detail: detail.into(),
            figures: None,
        }
    }

    /// 409: the input is fine, the state of things forbids it; with the figures.
    pub(crate) fn conflict(code: &'static str, detail: impl Into<String>, figures: Value) -> Self {
        Self {
            status: StatusCode::CONFLICT,
            code,
            field: String::new(),
            detail: detail.into(),
            figures: Some(figures),
        }
    }

    #[cfg(test)]
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    fn answer(&self) -> Answer {
        let mut error = json!({"code": self.code, "detail": self.detail});
        if !self.field.is_empty() {
            error["field"] = json!(self.field);
        }
        if let Some(figures) = &self.figures {
            error["figures"] = figures.clone();
        }
        Answer::new(self.status, &json!({ "error": error }))
    }
}

/// An agent's work.
pub(crate) type Work =
    Arc<dyn Fn(Step) -> BoxFuture<'static, Result<Value, Refusal>> + Send + Sync>;

/// Work that computes or reads files, and so runs beside the threads that serve.
pub(crate) fn blocking<F>(work: F) -> Work
where
    F: Fn(Step) -> Result<Value, Refusal> + Send + Sync + 'static,
{
    let work = Arc::new(work);
    Arc::new(move |step| {
        let work = Arc::clone(&work);
        Box::pin(async move {
            match tokio::task::spawn_blocking(move || work(step)).await {
                Ok(result) => result,
                Err(error) => {
                    tracing::error!(%error, "work failed");
                    Err(Refusal {
                        status: StatusCode::INTERNAL_SERVER_ERROR,
                        code: "internal",
                        field: String::new(),
                        detail: "the work ended without a result".to_owned(),
                        figures: None,
                    })
                }
            }
        })
    })
}

/// The router of the agent `name` that does `work`.
pub(crate) fn router(name: &'static str, work: Work) -> Router {
    let agent = Arc::new(Agent {
        work,
        answers: Mutex::default(),
    });
    Router::new()
        .route("/process", post(process))
        .route(
            "/health",
            get(move || async move {
                Answer::new(StatusCode::OK, &json!({"status": "healthy", "agent": name}))
            }),
        )
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(agent)
}

struct Agent {
    work: Work,
    answers: Mutex<Answers>,
}

/// Answers by key, the oldest key first.
#[derive(Default)]
struct Answers {
    by_key: HashMap<Arc<str>, Arc<OnceCell<Answer>>>,
    order: VecDeque<Arc<str>>,
}

impl Answers {
    fn of(&mut self, key: &str) -> Arc<OnceCell<Answer>> {
        if let Some(cell) = self.by_key.get(key) {
            return Arc::clone(cell);
        }
        let key: Arc<str> = key.into();
        let cell = Arc::new(OnceCell::new());
        self.by_key.insert(Arc::clone(&key), Arc::clone(&cell));
        self.order.push_back(key);
        if self.order.len() > MAX_ANSWERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
        cell
    }

    /// Forgets an answer that a second try might better.
    fn forget(&mut self, key: &str) {
        self.by_key.remove(key);
        self.order.retain(|k| &**k != key);
    }
}

#[derive(Clone)]
struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Answer {
    fn new(status: StatusCode, body: &Value) -> Self {
        Self {
            status,
            body: body.to_string().into(),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (self.status, kind, self.body).into_response()
    }
}

async fn process(
    State(agent): State<Arc<Agent>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            let error = json!({"code": "unreadable_body", "detail": rejection.body_text()});
            return Answer::new(rejection.status(), &json!({ "error": error }));
        }
    };
    // Read by its fields' names only: an array would do for the derived reader as well.
    let step = serde_json::from_slice::<Map<String, Value>>(&body)
        .and_then(|fields| Step::deserialize(Value::Object(fields)));
    let step = match step {
        Ok(step) => step,
        Err(error) => return Refusal::input("", format!("body is no step: {error}")).answer(),
    };
    let key = headers
        .get("idempotency-key")
        .and_then(|key| key.to_str().ok())
        .filter(|key| !key.is_empty() && key.len() <= MAX_KEY);
    let Some(key) = key else {
        return agent.work(step).await;
    };
    let answers = || agent.answers.lock().unwrap_or_else(PoisonError::into_inner);
    let cell = answers().of(key);
    let answer = cell.get_or_init(|| agent.work(step)).await.clone();
    if answer.status.is_server_error() {
        answers().forget(key);
    }
    answer
}

impl Agent {
    async fn work(&self, step: Step) -> Answer {
        match (self.work)(step).await {
            Ok(value) => Answer::new(StatusCode::OK, &value),
            Err(refusal) => refusal.answer(),
        }
    }
}
