//! Calls the agent for a step until there is an outcome.
//!
//! A call that brought no usable answer is made again, even if the agent may have begun: the step
//! carries an idempotency key. What an answer means is decided in [`super::verdict`].

use super::trace::Tracing;
use super::verdict::{Read, Verdict, judge, root};
use super::wire::Step;
use crate::config;
use crate::metrics::Metrics;
use crate::status::Status;
use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mesh_protocol::Timestamp;
use mesh_protocol::outcome::StepError;
use mesh_trace::{Context, Span};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long a connection is kept for the next step. Common agent servers close idle ones after two
/// seconds or more; staying below spares calls that meet a closing connection. A new one on loopback
/// costs little.
const IDLE: Duration = Duration::from_secs(1);
/// Longest pause between two calls that is of our own choosing.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Code of a step whose originator may not reach the agent.
pub(super) const NOT_ALLOWED: &str = "not_allowed";
/// Code of a step that ended whoever held it too often.
pub(super) const POISON: &str = "poison";

/// What came of a step.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) answered: Answered,
    /// Calls that were made.
    pub(super) attempts: u32,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
    /// Whether the agent would say the same again: a result, or its own refusal.
    pub(super) lasting: bool,
}

/// An agent's result or why there is none.
#[derive(Debug)]
pub(super) enum Answered {
    /// JSON that every reader can read.
    Completed(Bytes),
    Failed(StepError),
}

impl Answer {
    /// Whether the agent could not be reached at all.
    pub(super) fn did_not_arrive(&self) -> bool {
        matches!(&self.answered, Answered::Failed(error) if error.code == UNREACHABLE)
    }

    /// Bytes it holds.
    pub(super) fn size(&self) -> usize {
        match &self.answered {
            Answered::Completed(json) => json.len(),
            Answered::Failed(error) => error.code.len() + error.detail.len(),
        }
    }

    /// The answer to a step that is not carried out, and why it is not.
    pub(super) fn refused(why: &str) -> Self {
        Self::without_agent(NOT_ALLOWED, why, true)
    }

    /// The answer to a step that ended `crashes` holders.
    pub(super) fn poison(crashes: u32) -> Self {
        let why = format!(
            "the step was handed out {crashes} times, and whoever held it ended each time before it was done"
        );
        Self::without_agent(POISON, &why, false)
    }

    fn without_agent(code: &str, why: &str, lasting: bool) -> Self {
        let now = Timestamp::now();
        Self {
            answered: Answered::Failed(StepError::new(code, why)),
            attempts: 0,
            started_at: now,
            finished_at: now,
            lasting,
        }
    }

    #[cfg(test)]
    pub(super) fn completed(json: Bytes) -> Self {
        Self {
            answered: Answered::Completed(json),
            attempts: 1,
            started_at: Timestamp::from_millis(0),
            finished_at: Timestamp::from_millis(0),
            lasting: true,
        }
    }
}

/// Calls one agent.
pub(super) struct Invoker {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    timeout: Duration,
    max_attempts: u32,
    retry_base: Duration,
    max_answer: usize,
    unrecoverable: Vec<u16>,
    /// Most calls at the agent at once; deliveries of a lost connection count too.
    places: Semaphore,
    tracing: Arc<Tracing>,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
}

impl Invoker {
    pub(super) fn new(
        config: &config::Worker,
        uri: Uri,
        tracing: Arc<Tracing>,
        metrics: Arc<Metrics>,
        status: Arc<Status>,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(usize::from(config.concurrency))
            .build(connector);
        Self {
            client,
            uri,
            timeout: Duration::from_millis(config.timeout_ms),
            max_attempts: config.max_attempts,
            retry_base: Duration::from_millis(config.retry_base_ms),
            max_answer: config.max_answer_bytes,
            unrecoverable: config.delivery.unrecoverable.clone(),
            places: Semaphore::new(usize::from(config.concurrency)),
            tracing,
            metrics,
            status,
        }
    }

    /// Has the agent do `step`, at `place` in its trace, and does not outlast `deadline_ms`, since 1970.
    pub(super) async fn invoke(
        &self,
        step: &Step,
        deadline_ms: Option<u64>,
        headers: HeaderMap,
        place: Option<&Context>,
    ) -> Answer {
        let started_at = Timestamp::now();
        let begun = Instant::now();
        let (verdict, attempts) = match deadline_ms {
            None => self.calls(step, headers, place, None).await,
            Some(deadline) => {
                let left = Timestamp::from_millis(deadline).since(started_at);
                // A deadline beyond the clock's range is none.
                let end = begun.checked_add(left);
                self.calls(step, headers, place, end).await
            }
        };
        self.metrics.duration.observe(begun.elapsed().as_secs_f64());
        let (answered, lasting) = match verdict {
            Verdict::Completed(json) => (Answered::Completed(json), true),
            Verdict::Failed(error) => (Answered::Failed(error), true),
            Verdict::Again { error, .. } => (Answered::Failed(error), false),
        };
        Answer {
            answered,
            attempts,
            started_at,
            finished_at: Timestamp::now(),
            lasting,
        }
    }

    /// Calls until an outcome stands, and how many calls that took.
    async fn calls(
        &self,
        step: &Step,
        headers: HeaderMap,
        place: Option<&Context>,
        deadline: Option<Instant>,
    ) -> (Verdict, u32) {
        let mut pauses = None;
        let mut attempts = 0;
        loop {
            if deadline.is_some_and(|end| Instant::now() >= end) {
                return (too_late(attempts), attempts);
            }
            let Some(turn) = within(deadline, self.places.acquire()).await else {
                return (too_late(attempts), attempts);
            };
            attempts += 1;
            let mut headers = headers.clone();
            let mut span = self.tracing.call(place, &self.uri, &mut headers);
            if attempts > 1 {
                span.set_number("http.request.resend_count", (attempts - 1).into());
            }
            let verdict = self.call(step, headers, deadline, &mut span).await;
            drop((span, turn));
            let Verdict::Again { error, pause } = verdict else {
                return (verdict, attempts);
            };
            tracing::debug!(task = %step.task_id, step = %step.step_id, attempts, %error, "call failed");
            if attempts >= self.max_attempts || error.code == DEADLINE {
                return (Verdict::Again { error, pause }, attempts);
            }
            let own = pauses
                .get_or_insert_with(|| {
                    ExponentialBuilder::default()
                        .with_min_delay(self.retry_base)
                        .with_max_delay(MAX_PAUSE)
                        .without_max_times()
                        .with_jitter()
                        .build()
                })
                .next()
                .unwrap_or(MAX_PAUSE);
            let pause = own.max(pause.unwrap_or_default());
            if deadline.is_some_and(|end| Instant::now() + pause >= end) {
                let detail = format!(
                    "{}; the deadline leaves no time for another call",
                    error.detail
                );
                let error = StepError::new(error.code, detail);
                return (Verdict::Again { error, pause: None }, attempts);
            }
            self.metrics.retries.inc();
            tokio::time::sleep(pause).await;
        }
    }

    /// One call, bounded by the call's time limit and the step's deadline.
    async fn call(
        &self,
        step: &Step,
        headers: HeaderMap,
        deadline: Option<Instant>,
        span: &mut Span,
    ) -> Verdict {
        let mut request = Request::new(Full::new(step.request.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        let limit = Instant::now() + self.timeout;
        let end = deadline.map_or(limit, |deadline| deadline.min(limit));
        let verdict = match tokio::time::timeout_at(end, self.exchange(request)).await {
            Ok(Ok(read)) => {
                self.status.agent_reached();
                span.http_answer(read.status);
                return judge(read, &self.unrecoverable);
            }
            Ok(Err(error)) => {
                let why = format!("agent cannot be reached: {}", root(&error));
                self.status.agent_away();
                Verdict::Again {
                    error: StepError::new(UNREACHABLE, why),
                    pause: None,
                }
            }
            Err(_) if end < limit => too_late(1),
            Err(_) => Verdict::Again {
                error: StepError::new(
                    "agent_timeout",
                    format!(
                        "agent did not answer within {} ms",
                        self.timeout.as_millis()
                    ),
                ),
                pause: None,
            },
        };
        if let Verdict::Again { error, .. } = &verdict {
            span.error(&error.code);
        }
        verdict
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Read, hyper_util::client::legacy::Error> {
        let response = self.client.request(request).await?;
        Ok(Read::from(response, self.max_answer).await)
    }
}

/// Nobody answered: no connection, or none that held.
const UNREACHABLE: &str = "agent_unreachable";
pub(super) const DEADLINE: &str = "deadline_exceeded";

fn too_late(attempts: u32) -> Verdict {
    let detail = if attempts == 0 {
        "the deadline had passed before the agent could be called"
    } else {
        "the deadline passed before the agent answered"
    };
    Verdict::Again {
        error: StepError::new(DEADLINE, detail),
        pause: None,
    }
}

/// `work`, unless `deadline` comes first. An acquired place of a closed semaphore cannot be.
async fn within<T, E>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, E>>,
) -> Option<T> {
    match deadline {
        None => work.await.ok(),
        Some(end) => tokio::time::timeout_at(end, work).await.ok()?.ok(),
    }
}
