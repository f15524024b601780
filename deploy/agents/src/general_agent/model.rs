//! Asks a model over Ollama's `POST /api/chat`, bounded in time and length.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

/// How long a small model on a processor may take for the answer below.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Most tokens of an answer.
const MAX_TOKENS: u32 = 512;
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// A model on a server that speaks Ollama's API.
#[derive(Debug, Clone)]
pub struct Model {
    uri: Uri,
    name: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// Why a model was of no use.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The URL cannot be one of a model server.
    #[error("not a server's URL, such as http://127.0.0.1:11434")]
    Url,
    /// It cannot be reached.
    #[error("it cannot be reached")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    /// It took too long.
    #[error("it did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// It answered with an error.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// It answered with something else than a message, or with too much.
    #[error("its answer is no message")]
    Rubbish,
}

#[derive(Deserialize)]
struct Chat {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: String,
}

impl Model {
    /// The model `name` on the server at `url`, plain HTTP.
    ///
    /// # Errors
    /// [`ModelError::Url`].
    pub fn new(url: &str, name: &str) -> Result<Self, ModelError> {
        let uri: Uri = format!("{}/api/chat", url.trim_end_matches('/'))
            .parse()
            .map_err(|_| ModelError::Url)?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(ModelError::Url);
        }
        Ok(Self {
            uri,
            name: name.to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn ask(&self, question: &str) -> Result<String, ModelError> {
        tokio::time::timeout(TIMEOUT, self.chat(question))
            .await
            .unwrap_or(Err(ModelError::Timeout))
    }

    async fn chat(&self, question: &str) -> Result<String, ModelError> {
        let body = json!({
            "model": self.name,
            "stream": false,
            "messages": [{"role": "user", "content": question}],
            "options": {"num_predict": MAX_TOKENS, "temperature": 0},
        });
        let request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|_| ModelError::Url)?;
        let response = self.client.request(request).await?;
        if !response.status().is_success() {
            return Err(ModelError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|_| ModelError::Rubbish)?
            .to_bytes();
        let chat: Chat = serde_json::from_slice(&body).map_err(|_| ModelError::Rubbish)?;
        if chat.message.content.trim().is_empty() {
            return Err(ModelError::Rubbish);
        }
        Ok(chat.message.content)
    }
}
