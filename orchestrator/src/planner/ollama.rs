//! Plans by a model, over Ollama's API: `POST /api/chat`, not streamed, `format` = a JSON schema.
//!
//! Everything that comes back is bounded and doubted: the time of the whole answer, its size, its
//! status, its form. Calls at the same time are few, since a model server queues what it cannot do
//! and refuses (503) when the queue is full; waiting here counts against the same time limit.

use super::check::{Bounds, Finding};
use super::draft::{Draft, Usage, clip};
use super::{Catalog, Planner, PlannerError, prompt};
use crate::config;
use async_trait::async_trait;
use mesh_protocol::plan::PlanSource;
use mesh_protocol::task::TaskRequest;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Calls at the same time; Ollama's own default is four requests to a model in parallel.
const MAX_CALLS: usize = 4;
/// Largest answer, in bytes; 1024 tokens are some kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// The server and the model: what everything that is asked of them goes through.
pub struct Chat {
    client: reqwest::Client,
    url: reqwest::Url,
    config: config::Ollama,
    calls: Semaphore,
}

impl Chat {
    /// The server of `config`.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: config::Ollama) -> Result<Self, String> {
        let base = config.url.trim_end_matches('/');
        let url = reqwest::Url::parse(&format!("{base}/api/chat"))
            .map_err(|e| format!("planner.ollama.url: {e}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("planner.ollama.url: not an http or https URL".to_owned());
        }
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_millis(config.timeout_ms))
            .build()
            .map_err(|e| format!("planner.ollama: {e}"))?;
        Ok(Self {
            client,
            url,
            config,
            calls: Semaphore::new(MAX_CALLS),
        })
    }

    /// What the model answers to `user` under `system`: JSON, which is asked to have the form `schema`.
    ///
    /// # Errors
    /// Why there is no such answer, without the URL.
    pub async fn ask(
        &self,
        system: &str,
        user: &str,
        schema: &Value,
    ) -> Result<(Value, Usage), String> {
        let limit = Duration::from_millis(self.config.timeout_ms);
        match tokio::time::timeout(limit, self.call(system, user, schema)).await {
            Ok(answer) => answer,
            Err(_) => Err("no answer within the time limit".to_owned()),
        }
        .map_err(|e| format!("ollama: {e}"))
    }

    async fn call(
        &self,
        system: &str,
        user: &str,
        schema: &Value,
    ) -> Result<(Value, Usage), String> {
        let _turn = self
            .calls
            .acquire()
            .await
            .map_err(|_| "the model is gone".to_owned())?;
        let body = json!({
            "model": self.config.model,
            "stream": false,
            "format": schema,
            "options": {"temperature": 0, "num_predict": self.config.num_predict},
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": user},
            ],
        });
        let mut response = self
            .client
            .post(self.url.clone())
            .json(&body)
            .send()
            .await
            .map_err(|e| transport(&e))?;
        let status = response.status();
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| transport(&e))? {
            if answer.len() + chunk.len() > MAX_ANSWER {
                return Err(format!("answer is larger than {MAX_ANSWER} bytes"));
            }
            answer.extend_from_slice(&chunk);
        }
        if status != reqwest::StatusCode::OK {
            return Err(format!("answered {}", status.as_u16()));
        }
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

fn transport(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "no answer within the time limit".to_owned()
    } else if error.is_connect() {
        "cannot be reached".to_owned()
    } else {
        // Without the URL: it may hold credentials.
        "the connection broke".to_owned()
    }
}

#[async_trait]
impl Planner for OllamaPlanner {
    async fn draft(
        &self,
        request: &TaskRequest,
        findings: &[Finding],
    ) -> Result<Draft, PlannerError> {
        let user = prompt::task(request, findings);
        let asked = self.chat.ask(&self.system, &user, &self.schema).await;
        let (plan, usage) = asked.map_err(PlannerError::Model)?;
        Draft::from_json(&plan)
            .map(|draft| Draft { usage, ..draft })
            .map_err(|e| PlannerError::Model(format!("ollama: {e}")))
    }

    fn source(&self) -> PlanSource {
        PlanSource::Ollama
    }
}
