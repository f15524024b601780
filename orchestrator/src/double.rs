//! A server that speaks as much of Ollama's API as the planner uses, for tests.
//!
//! Follows `POST /api/chat` of Ollama 0.12 (docs/api.md): not streamed answers with `model`,
//! `created_at`, `message`, `done`, `done_reason` and durations in nanoseconds; errors as
//! `{"error": "…"}` with their status; 503 when the queue is full.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::stream;
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One answer of the double.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A message whose content is this JSON.
    Plan(Value),
    /// A message whose content is this text.
    Text(String),
    /// The plan, cut off after some tokens: `done_reason` is `length`.
    Length(Value),
    /// The plan, after this time.
    Slow(Duration, Value),
    /// A status and a body, such as 503 with `{"error": "…"}`, or 200 with `{}`.
    Raw(u16, String),
    /// A body that breaks off in the middle.
    CutOff,
    /// A body that never ends.
    Endless,
}

/// The running double.
pub struct Ollama {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Value>>,
}

impl Ollama {
    /// Listens on a free port of loopback and gives `answers` in turn, the last one for ever.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(answers: Vec<Answer>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            answers: Mutex::new(answers.into()),
            asked: Mutex::default(),
        });
        let router = Router::new()
            .route("/api/chat", post(chat))
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

    /// The requests so far.
    pub fn asked(&self) -> Vec<Value> {
        self.shared
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Ollama {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn chat(State(shared): State<Arc<Shared>>, Json(request): Json<Value>) -> Response {
    let model = request.get("model").cloned().unwrap_or_default();
    shared
        .asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(request);
    let answer = {
        let mut answers = shared
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if answers.len() > 1 {
            answers.pop_front()
        } else {
            answers.front().cloned()
        }
    };
    match answer {
        None => (StatusCode::NOT_FOUND, r#"{"error":"model not found"}"#).into_response(),
        Some(Answer::Plan(plan)) => message(&model, &plan.to_string(), "stop"),
        Some(Answer::Text(text)) => message(&model, &text, "stop"),
        Some(Answer::Length(plan)) => {
            let text = plan.to_string();
            let half: String = text.chars().take(text.chars().count() / 2).collect();
            message(&model, &half, "length")
        }
        Some(Answer::Slow(time, plan)) => {
            tokio::time::sleep(time).await;
            message(&model, &plan.to_string(), "stop")
        }
        Some(Answer::Raw(status, body)) => (
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body,
        )
            .into_response(),
        Some(Answer::CutOff) => {
            let parts = [
                Ok(Bytes::from_static(
                    b"{\"model\":\"x\",\"message\":{\"role\":",
                )),
                Err(std::io::Error::other("cut off")),
            ];
            Body::from_stream(stream::iter(parts)).into_response()
        }
        Some(Answer::Endless) => {
            let part = Bytes::from(vec![b' '; 64 * 1024]);
            let parts = stream::repeat_with(move || Ok::<_, std::io::Error>(part.clone()));
            Body::from_stream(parts).into_response()
        }
    }
}

fn message(model: &Value, content: &str, done_reason: &str) -> Response {
    Json(json!({
        "model": model,
        "created_at": "2026-11-23T21:27:02.125Z",
        "message": {"role": "assistant", "content": content},
        "done_reason": done_reason,
        "done": true,
        "total_duration": 174_560_334_u64,
        "load_duration": 101_397_084_u64,
        "prompt_eval_count": 11,
        "prompt_eval_duration": 13_074_791_u64,
        "eval_count": 18,
        "eval_duration": 52_479_709_u64,
    }))
    .into_response()
}
