//! Asks a server that speaks Ollama's API. Everything that comes back is bounded and doubted: the time of a
//! whole answer and between two parts of it, its size, its lines.
//!
//! An answer is one JSON object, or a stream of them, one a line (`application/x-ndjson`); a fault is
//! `{"error": "…"}` with a status, or such a line in the middle of a stream.

use crate::config;
use bytes::{Buf, Bytes, BytesMut};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// Largest answer that is read whole, in bytes: a thousand embeddings of a thousand numbers.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Longest line of a stream, in bytes: a line is a token or two, the last one also holds the context.
pub const MAX_LINE: usize = 1024 * 1024;
/// Largest stream, in bytes: as many tokens as fit into the longest answer, with a line around each.
pub const MAX_STREAM: usize = 64 * 1024 * 1024;
/// Longest error text that is repeated, in characters.
const MAX_TEXT: usize = 300;

/// Why there is no answer, or no more of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing listens there.
    #[error("cannot be reached")]
    Unreachable,
    /// The answer is not there in time.
    #[error("no answer within the time limit")]
    Late,
    /// Nothing came for a while in the middle of a stream.
    #[error("nothing more came for {} s", .0.as_secs())]
    Silent(Duration),
    /// The connection broke.
    #[error("the connection broke")]
    Broken,
    /// The answer, or a line of it, is too large.
    #[error("answer is larger than {0} bytes")]
    TooLarge(usize),
    /// It answered with another status than 200.
    #[error("answered {status}{}", said(.text))]
    Status {
        /// The status.
        status: u16,
        /// Its `error`, cut; empty when there is none.
        text: String,
    },
    /// It is no JSON.
    #[error("answer is not JSON")]
    NotJson,
}

fn said(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

impl Fault {
    /// The word for it in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Late | Self::Silent(_) => "timeout",
            Self::Broken => "broken",
            Self::TooLarge(_) => "too_large",
            Self::Status { status: 503, .. } => "busy",
            Self::Status { status: 404, .. } => "no_model",
            Self::Status { .. } => "status",
            Self::NotJson => "not_json",
        }
    }

    /// Whether the server is at fault, rather than the question.
    pub fn is_servers(&self) -> bool {
        !matches!(self, Self::Status { status, .. } if *status < 500)
    }

    /// Whether the question may have brought it about, though the server should have known better.
    pub fn is_doubtful(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status != 503,
            Self::TooLarge(_) => true,
            _ => false,
        }
    }

    fn transport(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            Self::Late
        } else if error.is_connect() {
            Self::Unreachable
        } else {
            // Without the URL: it may hold credentials.
            Self::Broken
        }
    }
}

/// What an answer cost, as its last part says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the question.
    pub input: u64,
    /// Tokens of the answer.
    pub output: u64,
    /// Time to load the model, in nanoseconds.
    pub load_ns: Option<u64>,
    /// Time to read the question, in nanoseconds.
    pub prompt_ns: Option<u64>,
    /// Time to write the answer, in nanoseconds.
    pub eval_ns: Option<u64>,
}

/// The part of an answer, or of a line of one, that is looked at. What is there in another form counts as absent.
#[derive(Debug, Default, Deserialize)]
pub struct Part {
    #[serde(default)]
    prompt_eval_count: Value,
    #[serde(default)]
    eval_count: Value,
    #[serde(default)]
    load_duration: Value,
    #[serde(default)]
    prompt_eval_duration: Value,
    #[serde(default)]
    eval_duration: Value,
    #[serde(default)]
    done: Value,
    #[serde(default)]
    error: Value,
}

impl Part {
    /// Reads an answer or a line; `None` for what is no JSON object.
    pub fn read(line: &[u8]) -> Option<Self> {
        // serde takes an array for a struct as well: its fields in their order.
        if !line.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        serde_json::from_slice(line).ok()
    }

    /// Whether it is the last line.
    pub fn is_done(&self) -> bool {
        self.done == Value::Bool(true)
    }

    /// The fault that the server ends a stream with.
    pub fn error(&self) -> Option<String> {
        self.error.as_str().map(clip)
    }

    /// What the answer cost.
    pub fn usage(&self) -> Usage {
        Usage {
            input: self.prompt_eval_count.as_u64().unwrap_or(0),
            output: self.eval_count.as_u64().unwrap_or(0),
            load_ns: self.load_duration.as_u64(),
            prompt_ns: self.prompt_eval_duration.as_u64(),
            eval_ns: self.eval_duration.as_u64(),
        }
    }
}

/// The client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// A client of the server that `config` names.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: &config::Ollama) -> Result<Self, String> {
        let base = config.url.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&base).map_err(|e| format!("planner.ollama.url: {e}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("planner.ollama.url: not an http or https URL".to_owned());
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(2))
            .build()
            .map_err(|e| format!("planner.ollama: {e}"))?;
        Ok(Self { http, base })
    }

    /// Asks `path` (`/api/…`), by GET without a body, and returns the head of an answer with status 200.
    ///
    /// # Errors
    /// [`Fault`]; [`Fault::Late`] when the head is not there within `limit`.
    pub async fn ask(
        &self,
        path: &str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> Result<Response, Fault> {
        let url = format!("{}{path}", self.base);
        let request = match body {
            None => self.http.get(url),
            Some(body) => self
                .http
                .post(url)
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(body),
        };
        let begun = Instant::now();
        let answer = tokio::time::timeout(limit, request.send()).await;
        let response = answer
            .map_err(|_| Fault::Late)?
            .map_err(|e| Fault::transport(&e))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let left = limit.saturating_sub(begun.elapsed());
        // An error's text is short; where it is not, the status says enough.
        let text = whole(response, 64 * 1024, left).await.unwrap_or_default();
        let text = Part::read(&text).and_then(|part| part.error());
        Err(Fault::Status {
            status: status.as_u16(),
            text: text.unwrap_or_default(),
        })
    }

    /// Asks `path` and reads the answer whole: at most `most` bytes, all of it within `limit`.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn whole(
        &self,
        path: &str,
        body: Option<Bytes>,
        most: usize,
        limit: Duration,
    ) -> Result<Bytes, Fault> {
        let begun = Instant::now();
        let response = self.ask(path, body, limit).await?;
        whole(response, most, limit.saturating_sub(begun.elapsed())).await
    }
}

async fn whole(mut response: Response, most: usize, limit: Duration) -> Result<Bytes, Fault> {
    let reading = async {
        let mut answer = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| Fault::transport(&e))? {
            if answer.len() + chunk.len() > most {
                return Err(Fault::TooLarge(most));
            }
            answer.extend_from_slice(&chunk);
        }
        Ok(answer.freeze())
    };
    tokio::time::timeout(limit, reading)
        .await
        .unwrap_or(Err(Fault::Late))
}

/// A streamed answer, line by line.
#[derive(Debug)]
pub struct Lines {
    response: Response,
    buffer: BytesMut,
    /// How much of the buffer holds no end of a line.
    searched: usize,
    total: usize,
    until: Instant,
    idle: Duration,
    ended: bool,
}

impl Lines {
    /// Reads `response`: its end must come before `until`, each part of it within `idle` of the one before.
    pub fn new(response: Response, until: Instant, idle: Duration) -> Self {
        Self {
            response,
            buffer: BytesMut::new(),
            searched: 0,
            total: 0,
            until,
            idle,
            ended: false,
        }
    }

    /// The next line without its end, empty ones left out; `None` after the last.
    ///
    /// # Errors
    /// [`Fault`]; there is nothing more after one.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let unseen = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(end) = unseen.iter().position(|b| *b == b'\n') {
                let end = self.searched + end;
                self.searched = 0;
                let line = self.buffer.split_to(end).freeze();
                self.buffer.advance(1);
                let line = line.slice_ref(line.trim_ascii());
                if !line.is_empty() {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.searched > MAX_LINE {
                return Err(Fault::TooLarge(MAX_LINE));
            }
            if self.ended {
                // A last line may have no end.
                self.searched = 0;
                let rest = std::mem::take(&mut self.buffer).freeze();
                let rest = rest.slice_ref(rest.trim_ascii());
                return Ok((!rest.is_empty()).then_some(rest));
            }
            let now = Instant::now();
            let left = self.until.saturating_duration_since(now);
            let chunk = tokio::time::timeout(left.min(self.idle), self.response.chunk()).await;
            match chunk {
                Ok(Ok(Some(chunk))) => {
                    self.total += chunk.len();
                    if self.total > MAX_STREAM {
                        return Err(Fault::TooLarge(MAX_STREAM));
                    }
                    self.buffer.extend_from_slice(&chunk);
                }
                Ok(Ok(None)) => self.ended = true,
                Ok(Err(error)) => return Err(Fault::transport(&error)),
                Err(_) if left <= self.idle => return Err(Fault::Late),
                Err(_) => return Err(Fault::Silent(self.idle)),
            }
        }
    }
}

/// A text of the server, cut, on one line.
fn clip(text: &str) -> String {
    let shown = text.chars().take(MAX_TEXT);
    shown
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
