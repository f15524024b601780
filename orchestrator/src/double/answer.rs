//! What the double says to chats and generations.

use super::Work;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Lets one word pass for each permit.
pub type Gate = Arc<Semaphore>;

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
    /// The words, each of them when the gate lets it pass; the end needs one more permit.
    Gated(Gate, Vec<String>),
    /// A status and a body, such as 503 with `{"error": "…"}`, or 200 with `{}`.
    Raw(u16, String),
    /// A body that breaks off in the middle, in a stream after one line.
    CutOff,
    /// A body that never ends: spaces.
    Endless,
    /// A stream that ends after two lines with a fault of the server.
    Fails(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Chat,
    Generate,
}

type Parts = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// A line of a stream, or all of an answer.
fn part(style: Style, model: &str, content: &str) -> Value {
    let mut part = json!({
        "model": model,
        "created_at": "2026-11-23T21:27:02.125Z",
        "done": false,
    });
    match style {
        Style::Chat => part["message"] = json!({"role": "assistant", "content": content}),
        Style::Generate => part["response"] = json!(content),
    }
    part
}

fn done(style: Style, model: &str, content: &str, reason: &str) -> Value {
    let mut part = part(style, model, content);
    let last = json!({
        "done_reason": reason,
        "done": true,
        "total_duration": 174_560_334_u64,
        "load_duration": 101_397_084_u64,
        "prompt_eval_count": 11,
        "prompt_eval_duration": 13_074_791_u64,
        "eval_count": 18,
        "eval_duration": 52_479_709_u64,
    });
    if let (Some(part), Some(last)) = (part.as_object_mut(), last.as_object()) {
        part.extend(last.clone());
    }
    part
}

/// The answer to an empty request.
pub(super) fn loaded(style: Style, model: &str, unload: bool) -> Response {
    let mut answer = part(style, model, "");
    answer["done"] = json!(true);
    answer["done_reason"] = json!(if unload { "unload" } else { "load" });
    Json(answer).into_response()
}

pub(super) async fn write(
    answer: Answer,
    style: Style,
    model: &str,
    streams: bool,
    work: Work,
) -> Response {
    let (text, reason) = match answer {
        Answer::Plan(plan) => (plan.to_string(), "stop"),
        Answer::Text(text) => (text, "stop"),
        Answer::Length(plan) => {
            let text = plan.to_string();
            let half = text.chars().count() / 2;
            (text.chars().take(half).collect(), "length")
        }
        Answer::Slow(time, plan) => {
            tokio::time::sleep(time).await;
            (plan.to_string(), "stop")
        }
        Answer::Gated(gate, words) => return gated(gate, words, style, model, streams, work).await,
        Answer::Raw(status, body) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return (status, body).into_response();
        }
        Answer::CutOff => {
            let begun = if streams {
                line(&part(style, model, "Once"))
            } else {
                Bytes::from_static(b"{\"model\":\"x\",\"message\":{\"role\":")
            };
            let broken = stream::once(async {
                // What came before goes out where the next part is not there yet.
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut off"))
            });
            let parts = stream::iter([Ok(begun)]).chain(broken);
            return body(parts.boxed(), work);
        }
        Answer::Endless => {
            let spaces = Bytes::from(vec![b' '; 64 * 1024]);
            let parts = stream::repeat_with(move || Ok(spaces.clone()));
            return body(parts.boxed(), work);
        }
        Answer::Fails(text) => {
            let lines = [
                Ok(line(&part(style, model, "Once"))),
                Ok(line(&json!({"error": text}))),
            ];
            return body(stream::iter(lines).boxed(), work);
        }
    };
    if !streams {
        return Json(done(style, model, &text, reason)).into_response();
    }
    let mut lines: Vec<_> = text
        .split_inclusive(' ')
        .map(|word| Ok(line(&part(style, model, word))))
        .collect();
    lines.push(Ok(line(&done(style, model, "", reason))));
    body(stream::iter(lines).boxed(), work)
}

async fn gated(
    gate: Gate,
    words: Vec<String>,
    style: Style,
    model: &str,
    streams: bool,
    work: Work,
) -> Response {
    async fn pass(gate: &Gate) {
        if let Ok(permit) = gate.acquire().await {
            permit.forget();
        }
    }
    if !streams {
        for _ in 0..=words.len() {
            pass(&gate).await;
        }
        return Json(done(style, model, &words.concat(), "stop")).into_response();
    }
    let mut lines: Vec<Value> = words.iter().map(|w| part(style, model, w)).collect();
    lines.push(done(style, model, "", "stop"));
    let lines = stream::iter(lines).then(move |value| {
        let gate = Arc::clone(&gate);
        async move {
            pass(&gate).await;
            Ok(line(&value))
        }
    });
    body(lines.boxed(), work)
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

fn body(parts: Parts, work: Work) -> Response {
    let parts = parts.map(move |part| {
        let _until_its_end = &work;
        part
    });
    (
        [(CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(parts),
    )
        .into_response()
}
