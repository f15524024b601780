//! A task through the gateway: submit it, follow its events, fetch its end.

use crate::screen::plain;
use anyhow::{Context, bail};
use mesh_protocol::TaskId;
use mesh_protocol::event::{Event, EventType};
use mesh_protocol::problem::Problem;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

/// Longest answer that is read, in bytes; results repeat payloads, which are bounded at 8 MiB.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Longest line of an event stream, in bytes; events carry no results.
const MAX_LINE: usize = 256 * 1024;
/// How often a broken event stream is opened again before it counts as lost.
const REOPENED: u32 = 20;
const REOPEN_PAUSE: Duration = Duration::from_millis(250);
/// How often it is looked whether somebody listens, with that pause between.
const LOOKS: u32 = 5;
/// Longest time for an answer that is not waited with.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no end to report.
#[derive(Debug)]
pub enum Refused {
    /// The gateway or the orchestrator said no.
    Problem(Box<Problem>),
    /// Nobody answered.
    Unreachable(anyhow::Error),
}

/// Talks to one gateway with one token, or to an orchestrator on this machine without.
pub struct Gateway {
    client: Client,
    url: String,
    /// None where nobody is asked who calls.
    token: Option<String>,
}

/// What is asked for.
pub struct Request {
    pub task_type: String,
    pub payload: Value,
    pub priority: u8,
    pub timeout: u32,
}

/// A task that was accepted.
pub struct Accepted {
    pub task_id: String,
    /// The whole answer.
    pub answer: Value,
}

impl Accepted {
    /// The plan, or `null`.
    pub fn plan(&self) -> &Value {
        self.answer.get("plan").unwrap_or(&Value::Null)
    }
}

impl Gateway {
    /// # Errors
    /// For a URL or a token that cannot be used; neither is repeated, since both may hold a secret.
    pub fn new(url: &str, token: &str) -> anyhow::Result<Self> {
        let parsed = Url::parse(url.trim())
            .ok()
            .filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host())
            .context("the URL of the gateway is no http:// or https:// URL")?;
        // A client that finds a user in the URL sends that one, and the token is lost.
        if !parsed.username().is_empty() || parsed.password().is_some() {
            bail!(
                "the URL of the gateway must not hold a user or a password: the token says who calls"
            );
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            bail!("the URL of the gateway must not hold a query or a fragment");
        }
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            bail!("the token is no token");
        }
        Ok(Self {
            client: mesh_local::probe::client()?,
            url: parsed.as_str().trim_end_matches('/').to_owned(),
            token: Some(token.to_owned()),
        })
    }

    /// The orchestrator at an address of this machine, where it is open to whoever is there.
    ///
    /// # Errors
    /// When the system has no means for a client.
    pub fn local(orchestrator: std::net::SocketAddr) -> anyhow::Result<Self> {
        Ok(Self {
            client: mesh_local::probe::client()?,
            url: format!("http://{orchestrator}"),
            token: None,
        })
    }

    fn known(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Waits a moment for somebody to listen: a mesh that was never started loses no tasks, it is asked in vain.
    ///
    /// # Errors
    /// When nobody does. What is answered is no matter here.
    pub async fn found(&self) -> anyhow::Result<()> {
        for look in 0..LOOKS {
            let asked = self.client.get(&self.url).send().await;
            if !asked.is_err_and(|error| error.is_connect()) {
                return Ok(());
            }
            if look + 1 < LOOKS {
                tokio::time::sleep(REOPEN_PAUSE).await;
            }
        }
        bail!("{}", self.nobody())
    }

    fn nobody(&self) -> String {
        format!(
            "nobody listens at {}: start the mesh with mesh up",
            self.url
        )
    }

    /// Submits a task and comes back as soon as it is planned.
    pub async fn submit(&self, request: &Request) -> Result<Accepted, Refused> {
        self.accept(self.post(request)).await
    }

    /// Submits a task under an idempotency key and comes back when it has ended, or after `wait_s` seconds.
    pub async fn submit_held(
        &self,
        request: &Request,
        key: &str,
        wait_s: u32,
    ) -> Result<Accepted, Refused> {
        let prefer = format!("respond-async, wait={wait_s}");
        let longest = Duration::from_secs(wait_s.into()) + PATIENCE;
        let post = self.post(request).header("prefer", prefer).timeout(longest);
        self.accept(post.header("idempotency-key", key)).await
    }

    fn post(&self, request: &Request) -> RequestBuilder {
        let body = json!({
            "task_type": request.task_type,
            "payload": request.payload,
            "priority": request.priority,
            "timeout": request.timeout,
        });
        self.known(self.client.post(format!("{}/ai/orchestrate", self.url)))
            .json(&body)
    }

    async fn accept(&self, post: RequestBuilder) -> Result<Accepted, Refused> {
        let answer = self.read(post.send().await).await?;
        // It becomes part of a URL and of what is printed, so it must be one.
        match text(&answer, "task_id").parse::<TaskId>() {
            Ok(id) => Ok(Accepted {
                task_id: id.to_string(),
                answer,
            }),
            Err(_) => Err(Refused::Unreachable(anyhow::anyhow!(
                "the answer has no task_id: is this the gateway of a mesh?"
            ))),
        }
    }

    /// The whole of a task.
    pub async fn task(&self, id: &str) -> Result<Value, Refused> {
        let url = format!("{}/task/{id}", self.url);
        let get = self.known(self.client.get(url));
        self.read(get.timeout(PATIENCE).send().await).await
    }

    /// Hands each event of a task to `show`, once, until the task has ended.
    pub async fn follow(
        &self,
        id: &str,
        mut show: impl FnMut(&Event) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        // A stream that is opened again begins at the beginning.
        let mut seen = HashSet::new();
        for _ in 0..REOPENED {
            let url = format!("{}/task/{id}/events", self.url);
            let sent = self.known(self.client.get(url)).send().await;
            match sent {
                Ok(response) if response.status().is_success() => {
                    if read_events(response, &mut seen, &mut show).await? {
                        return Ok(());
                    }
                }
                // The stream is asked for again: as many clients as allowed follow tasks.
                Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => {}
                Ok(response) => bail!("events of {id}: the gateway answers {}", response.status()),
                Err(_) => {}
            }
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
        bail!("events of {id}: the stream broke {REOPENED} times; ask for /task/{id} later")
    }

    async fn read(&self, sent: reqwest::Result<Response>) -> Result<Value, Refused> {
        let lost = |error: anyhow::Error| Refused::Unreachable(error);
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                let what = if error.is_connect() {
                    self.nobody()
                } else {
                    format!("no answer from {}", self.url)
                };
                return Err(lost(anyhow::anyhow!(what)));
            }
        };
        let status = response.status();
        let body = bounded(response).await.map_err(lost)?;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let problem = serde_json::from_value(value).unwrap_or_else(|_| {
            let title = status.canonical_reason().unwrap_or("no reason given");
            Problem::new(status.as_u16(), "unknown", title)
        });
        Err(Refused::Problem(Box::new(problem)))
    }
}

async fn bounded(mut response: Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            bail!("the answer is longer than {MAX_ANSWER} bytes");
        }
    }
    Ok(body)
}

/// Reads one event stream; whether the task's end was among it.
async fn read_events(
    mut response: Response,
    seen: &mut HashSet<(EventType, String)>,
    show: &mut impl FnMut(&Event) -> std::io::Result<()>,
) -> anyhow::Result<bool> {
    let mut rest: Vec<u8> = Vec::new();
    // A broken stream is opened again by the caller.
    while let Ok(Some(chunk)) = response.chunk().await {
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let Some(event) = event(&line) else {
                continue;
            };
            let step = text(&event.data, "step_id").to_owned();
            if seen.insert((event.event_type, step)) {
                show(&event)?;
            }
            if matches!(
                event.event_type,
                EventType::TaskCompleted | EventType::TaskFailed | EventType::TaskCancelled
            ) {
                return Ok(true);
            }
        }
        if rest.len() > MAX_LINE {
            bail!("a line of the event stream is longer than {MAX_LINE} bytes");
        }
    }
    Ok(false)
}

/// The event of a `data:` line.
fn event(line: &[u8]) -> Option<Event> {
    let data = line.strip_prefix(b"data:")?;
    serde_json::from_slice(data).ok()
}

/// A text in an object, or nothing.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The same as it may stand on a terminal.
pub fn shown(value: &Value, field: &str) -> String {
    plain(text(value, field))
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "{error:#}"),
            Self::Problem(problem) => {
                write!(f, "{} {}", problem.status, plain(&problem.title))?;
                if let Some(detail) = &problem.detail {
                    write!(f, ": {}", plain(detail))?;
                }
                for error in &problem.errors {
                    write!(f, "\n  {}: {}", plain(&error.field), plain(&error.detail))?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Refused {}
