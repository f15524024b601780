//! Plans by a model, over Ollama's API: `POST /api/chat`, not streamed, `format` = a JSON schema.
//!
//! It is one consumer of the model server among others ([`crate::ollama`]): what it waits for its turn counts
//! against its own time, and where it is refused the rules plan.

use super::check::{Bounds, Finding};
use super::draft::{Draft, Usage, clip};
use super::{Catalog, MODEL_SHARE, Planner, PlannerError, prompt};
use crate::ollama::{Consumer, Models};
use async_trait::async_trait;
use bytes::Bytes;
use mesh_protocol::plan::PlanSource;
use mesh_protocol::task::TaskRequest;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Largest answer, in bytes; 1024 tokens are some kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// A server that did not answer within so long is at fault, however little time the task has.
const ENOUGH: Duration = Duration::from_secs(10);

/// What the orchestrator asks the first of the shared models, for any plan.
pub struct Chat {
    models: Arc<Models>,
}

impl Chat {
    /// Questions to the first of `models`.
    pub fn new(models: Arc<Models>) -> Self {
        Self { models }
    }

    /// What the model answers to `user` under `system`: JSON, which is asked to have the form `schema`. `request`
    /// is what it is asked for: its priority holds in the line, and a part of its time for the whole call.
    ///
    /// # Errors
    /// Why there is no such answer, without the URL.
    pub async fn ask(
        &self,
        system: &str,
        user: &str,
        schema: &Value,
        request: &TaskRequest,
    ) -> Result<(Value, Usage), String> {
        let asked = self.call(system, user, schema, request).await;
        asked.map_err(|e| format!("ollama: {e}"))
    }

    async fn call(
        &self,
        system: &str,
        user: &str,
        schema: &Value,
        request: &TaskRequest,
    ) -> Result<(Value, Usage), String> {
        let config = self.models.config();
        let own = Duration::from_millis(config.timeout_ms);
        // A little less than the share, so that it is known here what came of the call.
        let share = Duration::from_secs(request.timeout.into()) / MODEL_SHARE * 19 / 20;
        let limit = own.min(share);
        let late = || {
            if share < own {
                "no plan within its share of the task's time".to_owned()
            } else {
                "no answer within the time limit".to_owned()
            }
        };
        let begun = Instant::now();
        let turn = self
            .models
            .begin(Consumer::Planner, request.priority, &config.model);
        let call = tokio::time::timeout(limit, turn).await;
        let call = call.map_err(|_| late())?.map_err(|e| e.to_string())?;
        let mut body = json!({
            "model": config.model,
            "stream": false,
            "format": schema,
            "options": {"temperature": 0, "num_predict": config.num_predict},
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": user},
            ],
        });
        if let Some(seconds) = config.keep_alive_s {
            body["keep_alive"] = json!(seconds);
        }
        let body = Bytes::from(body.to_string());
        let left = limit.saturating_sub(begun.elapsed());
        let answer = call.whole("/api/chat", body, MAX_ANSWER, left, own.min(ENOUGH));
        let answer = answer.await.map_err(|fault| match fault {
            crate::ollama::client::Fault::Late => late(),
            other => other.to_string(),
        })?;
        read(&answer)
    }
}

/// The planner.
pub struct OllamaPlanner {
    chat: Arc<Chat>,
    system: String,
    schema: Value,
}

impl OllamaPlanner {
    /// A planner that asks the model of `chat`.
    pub fn new(chat: Arc<Chat>, catalog: &Catalog, bounds: Bounds) -> Self {
        let schema = prompt::schema(catalog, bounds);
        Self {
            chat,
            system: prompt::system(catalog, bounds, &schema),
            schema,
        }
    }
}

/// The JSON in an answer of `/api/chat`, and what it cost.
fn read(answer: &[u8]) -> Result<(Value, Usage), String> {
    let answer: Value =
        serde_json::from_slice(answer).map_err(|_| "answer is not JSON".to_owned())?;
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        return Err(format!("says: {}", clip(error, 200)));
    }
    match answer.get("done_reason").and_then(Value::as_str) {
        None | Some("stop") => {}
        Some("length") => return Err("answer was cut off (done_reason length)".to_owned()),
        Some(other) => return Err(format!("answer ended with {}", clip(other, 40))),
    }
    if answer.get("done") != Some(&Value::Bool(true)) {
        return Err("answer is not done".to_owned());
    }
    let content = answer
        .get("message")
        .and_then(|m| m.get("content"))
        .and_then(Value::as_str)
        .ok_or_else(|| "answer has no message".to_owned())?;
    let plan: Value =
        serde_json::from_str(content).map_err(|_| "its message is not JSON".to_owned())?;
    let tokens = |field| answer.get(field).and_then(Value::as_u64).unwrap_or(0);
    let usage = Usage {
        input: tokens("prompt_eval_count"),
        output: tokens("eval_count"),
    };
    Ok((plan, usage))
}

#[async_trait]
impl Planner for OllamaPlanner {
    async fn draft(
        &self,
        request: &TaskRequest,
        findings: &[Finding],
    ) -> Result<Draft, PlannerError> {
        let user = prompt::task(request, findings);
        let asked = self
            .chat
            .ask(&self.system, &user, &self.schema, request)
            .await;
        let (plan, usage) = asked.map_err(PlannerError::Model)?;
        Draft::from_json(&plan)
            .map(|draft| Draft { usage, ..draft })
            .map_err(|e| PlannerError::Model(format!("ollama: {e}")))
    }

    fn source(&self) -> PlanSource {
        PlanSource::Ollama
    }
}
