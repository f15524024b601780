//! An administrator's HTTP API: JSON in and out, bounded, with errors that say who answered what.

use anyhow::{Context, anyhow, bail};
use reqwest::{Client, Method, Url};
use serde_json::Value;
use std::time::Duration;

/// How long one answer may take; Kong reads a whole configuration before it answers.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest answer that is read, in bytes: 100,000 queues take about half of it.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Most of a refusal that is shown, in characters.
const MAX_SHOWN: usize = 600;

/// How a client shows who it is.
pub enum Auth {
    None,
    Basic { user: String, password: String },
    Consul(String),
}

/// One API.
pub struct Api {
    client: Client,
    base: Url,
    auth: Auth,
    /// Whose it is, for people.
    who: &'static str,
}

/// What was answered.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The answer in words.
    pub fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let read = serde_json::from_str::<Value>(&text).ok();
        // RabbitMQ's, Kong's; Consul answers with plain text.
        let word = |field: &str| read.as_ref()?.get(field)?.as_str();
        let said = word("reason").or(word("message")).unwrap_or(text.trim());
        let said: String = said.chars().take(MAX_SHOWN).collect();
        match said.is_empty() {
            true => format!("answers {}", self.status),
            false => format!("answers {}: {said}", self.status),
        }
    }
}

impl Api {
    pub fn new(client: Client, base: Url, auth: Auth, who: &'static str) -> Self {
        Self {
            client,
            base,
            auth,
            who,
        }
    }

    /// A question; what there is to it, or nothing where the answer is 404.
    pub async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> anyhow::Result<Option<Value>> {
        let answer = self.send(Method::GET, path, query, None).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        if !answer.is_success() {
            bail!("{} {} (GET /{})", self.who, answer.words(), path.join("/"));
        }
        let read = serde_json::from_slice(&answer.body);
        let value = read.map_err(|_| {
            anyhow!(
                "{}: the answer to GET /{} is no JSON",
                self.who,
                path.join("/")
            )
        })?;
        Ok(Some(value))
    }

    /// A change; an answer that is no success is an error.
    pub async fn change(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let deletes = method == Method::DELETE;
        let answer = self.send(method, path, query, body).await?;
        // Whoever deletes wants it gone.
        if answer.is_success() || deletes && answer.status == 404 {
            return Ok(answer);
        }
        bail!("{} {}", self.who, answer.words())
    }

    /// Any request, whatever the answer.
    pub async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow!("{} cannot be a base", self.base))?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.request(method, url).timeout(PATIENCE);
        request = match &self.auth {
            Auth::None => request,
            Auth::Basic { user, password } => request.basic_auth(user, Some(password)),
            Auth::Consul(token) => request.header("x-consul-token", token),
        };
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(|error| {
            let why = if error.is_timeout() {
                "no answer in time"
            } else if error.is_connect() {
                "nobody listens there, or it speaks another protocol"
            } else {
                "the connection broke"
            };
            anyhow!("{} at {}: {why}", self.who, self.base)
        })?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        let broke = || format!("{} at {}: the connection broke", self.who, self.base);
        while let Some(chunk) = response.chunk().await.with_context(broke)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER {
                bail!("{} answers with more than {MAX_ANSWER} bytes", self.who);
            }
        }
        if status >= 400 {
            // It is shown; who refuses may show what he was asked with.
            bytes = self.without_own(bytes);
        }
        Ok(Answer {
            status,
            body: bytes,
        })
    }

    /// An answer without what this client shows who it is with.
    fn without_own(&self, bytes: Vec<u8>) -> Vec<u8> {
        let own = match &self.auth {
            Auth::None => return bytes,
            Auth::Basic { password, .. } => password,
            Auth::Consul(token) => token,
        };
        // What is shorter stands in any text.
        if own.len() < 6 {
            return bytes;
        }
        let text = String::from_utf8_lossy(&bytes);
        text.replace(own.as_str(), "***").into_bytes()
    }
}
