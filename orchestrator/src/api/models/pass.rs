//! One call of an agent to the model: checked, in its turn, passed on, its answer streamed as it comes.
//!
//! ```text
//!  body ─▶ shared model? ─▶ turn ─▶ server ─▶ whole answer, or lines ─▶ pump ─(16 lines)─▶ agent
//!                                                                         └─ agent gone, slow, or end: turn free
//! ```
//!
//! The pump is a task of its own, since the server of HTTP asks for more only when its client takes more: an
//! agent that stops reading would hold its turn for ever.

use super::super::failure::Failure;
use super::super::{Api, body};
use crate::ollama::client::{Fault, Lines, MAX_ANSWER, Part};
use crate::ollama::{Call, Consumer, Models, Refused};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use mesh_protocol::task::DEFAULT_PRIORITY;
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longest call; the sidecars on the way wait as long for the head of an answer.
const LONGEST: Duration = Duration::from_secs(300);
/// Longest pause within a stream, of the server or of the agent: loading a model and reading a long question
/// come before the first line.
const IDLE: Duration = Duration::from_secs(120);
/// Lines that an agent may be behind.
const BEHIND: usize = 16;

/// `POST /api/chat`.
pub async fn chat(
    State(api): State<Arc<Api>>,
    Extension(models): Extension<Arc<Models>>,
    Extension(consumer): Extension<Consumer>,
    request: Request,
) -> Response {
    let passed = pass(&api, models, consumer, request, "/api/chat", true);
    passed.await.unwrap_or_else(Failure::for_ollama)
}

/// `POST /api/generate`.
pub async fn generate(
    State(api): State<Arc<Api>>,
    Extension(models): Extension<Arc<Models>>,
    Extension(consumer): Extension<Consumer>,
    request: Request,
) -> Response {
    let passed = pass(&api, models, consumer, request, "/api/generate", true);
    passed.await.unwrap_or_else(Failure::for_ollama)
}

/// `POST /api/embed`.
pub async fn embed(
    State(api): State<Arc<Api>>,
    Extension(models): Extension<Arc<Models>>,
    Extension(consumer): Extension<Consumer>,
    request: Request,
) -> Response {
    let passed = pass(&api, models, consumer, request, "/api/embed", false);
    passed.await.unwrap_or_else(Failure::for_ollama)
}

async fn pass(
    api: &Api,
    models: Arc<Models>,
    consumer: Consumer,
    request: Request,
    path: &'static str,
    streams: bool,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, api.limits.max_body_bytes).await?;
    let mut asked: Map<String, Value> =
        serde_json::from_slice(&bytes).map_err(|e| Failure::not_json(e.to_string()))?;
    drop(bytes);
    let model = match asked.get("model").and_then(Value::as_str) {
        None | Some("") => return Err(wrong("model is required")),
        Some(name) => match models.shared(name) {
            Some(model) => model.to_owned(),
            None => return Err(refused(&Refused::NotShared(name.to_owned()))),
        },
    };
    let streams = match asked.get("stream") {
        Some(Value::Bool(streamed)) => streams && *streamed,
        None | Some(Value::Null) => streams,
        Some(_) => return Err(wrong("stream must be true or false")),
    };
    asked.insert("model".to_owned(), model.as_str().into());
    // The mesh decides what stays in memory: with 0 one agent would unload it for all.
    match models.config().keep_alive_s {
        Some(seconds) => asked.insert("keep_alive".to_owned(), json!(seconds)),
        None => asked.remove("keep_alive"),
    };
    let question = Bytes::from(Value::Object(asked).to_string());
    let begun = models.begin(consumer, DEFAULT_PRIORITY, &model).await;
    let call = begun.map_err(|r| refused(&r))?;
    if streams {
        return streamed(api, call, path, question).await;
    }
    let answer = call.whole(path, question, MAX_ANSWER, LONGEST, Duration::ZERO);
    let answer = answer.await.map_err(|fault| faulted(&fault))?;
    if Part::read(&answer).is_none() {
        return Err(faulted(&Fault::NotJson));
    }
    Ok((
        [(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        answer,
    )
        .into_response())
}

async fn streamed(
    api: &Api,
    mut call: Call,
    path: &str,
    question: Bytes,
) -> Result<Response, Failure> {
    call.asks(&question);
    let until = Instant::now() + LONGEST;
    let head = call.client().ask(path, Some(question), LONGEST).await;
    let response = match head {
        Ok(response) => response,
        Err(fault) => {
            call.ended(Err(&fault), true).await;
            return Err(faulted(&fault));
        }
    };
    let (lines, taken) = mpsc::channel(BEHIND);
    let answer = Lines::new(response, until, IDLE);
    let pumping = pump(answer, call, lines, api.stopping.clone());
    api.executor.spawn("model stream", pumping);
    let body = stream::unfold(taken, async |mut taken| {
        let line: Bytes = taken.recv().await?;
        Some((Ok::<_, Infallible>(line), taken))
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    Ok(([(CONTENT_TYPE, kind)], Body::from_stream(body)).into_response())
}

/// Passes lines on until the last one, the first fault, or nobody takes them; then the turn is free.
async fn pump(
    mut answer: Lines,
    mut call: Call,
    lines: mpsc::Sender<Bytes>,
    stopping: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            biased;
            () = lines.closed() => return,
            () = stopping.cancelled() => {
                let _gone = lines.try_send(error_line("the orchestrator stops"));
                return;
            }
            next = answer.next() => next,
        };
        let (line, outcome) = match next {
            Ok(Some(line)) => match Part::read(&line) {
                None => (
                    error_line(&Fault::NotJson.to_string()),
                    Some(Err(Fault::NotJson)),
                ),
                Some(part) => {
                    call.seen += 1;
                    let outcome = match part.error() {
                        Some(text) => Some(Err(Fault::Status { status: 500, text })),
                        None => part.is_done().then(|| Ok(part.usage())),
                    };
                    (ended_line(&line), outcome)
                }
            },
            Ok(None) => (
                error_line(&Fault::Broken.to_string()),
                Some(Err(Fault::Broken)),
            ),
            Err(fault) => (error_line(&fault.to_string()), Some(Err(fault))),
        };
        if let Some(outcome) = outcome {
            call.ended(outcome.as_ref().map(|usage| *usage), true).await;
            // Whether somebody still takes it does not matter any more.
            let _taken = tokio::time::timeout(IDLE, lines.send(line)).await;
            return;
        }
        match tokio::time::timeout(IDLE, lines.send(line)).await {
            Ok(Ok(())) => {}
            // Gone, or too slow for all the others that wait.
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

fn ended_line(line: &[u8]) -> Bytes {
    let mut ended = BytesMut::with_capacity(line.len() + 1);
    ended.put_slice(line);
    ended.put_u8(b'\n');
    ended.freeze()
}

/// How a stream says that it went wrong.
fn error_line(said: &str) -> Bytes {
    let said = format!("the model server: {said}");
    ended_line(json!({"error": said}).to_string().as_bytes())
}

fn wrong(detail: &str) -> Failure {
    Failure::model(StatusCode::BAD_REQUEST, "malformed", detail, None)
}

fn refused(refused: &Refused) -> Failure {
    let status = match refused {
        Refused::NotShared(_) => StatusCode::NOT_FOUND,
        Refused::Exhausted { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refused::NotThere(_) | Refused::Open { .. } | Refused::NoTurn(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let code = refused.code();
    Failure::model(status, code, refused.to_string(), refused.retry_after())
}

/// What came of a call that the server did not answer well; its own refusals keep their status and words.
pub fn faulted(fault: &Fault) -> Failure {
    let (status, retry) = match fault {
        Fault::Status { status, .. } => (
            StatusCode::from_u16(*status)
                .ok()
                .filter(|status| status.is_client_error() || status.is_server_error())
                .unwrap_or(StatusCode::BAD_GATEWAY),
            (*status == 503).then_some(1),
        ),
        Fault::Late | Fault::Silent(_) => (StatusCode::GATEWAY_TIMEOUT, None),
        Fault::Unreachable | Fault::Broken | Fault::TooLarge(_) | Fault::NotJson => {
            (StatusCode::BAD_GATEWAY, None)
        }
    };
    let said = match fault {
        Fault::Status { text, .. } if !text.is_empty() => text.clone(),
        other => format!("the model server: {other}"),
    };
    Failure::model(status, fault.as_str(), said, retry)
}
