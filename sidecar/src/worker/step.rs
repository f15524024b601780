//! One delivery from beginning to end; the only place that settles one.

use super::invoke::{Answer, Answered, NOT_ALLOWED};
use super::recent::Known;
use super::wire::{self, Step};
use super::{Lane, reply};
use crate::config::Secret;
use crate::metrics::Metrics;
use crate::policy::{Origin, Refusal};
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_bus::{Delivery, Properties};
use mesh_protocol::Timestamp;
use mesh_protocol::message::{HEADER_IDEMPOTENCY_KEY, HEADER_TRACEPARENT};
use std::sync::Arc;

/// Longest idempotency key that is taken over from a message, in bytes: two ids and a hash fit.
const MAX_KEY: usize = 512;

/// Counts a step as in flight while it lives.
struct InFlight<'a>(&'a Metrics);

impl<'a> InFlight<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.in_flight.inc();
        Self(metrics)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

impl Lane {
    /// Has the agent carry out a delivery, reports the outcome, settles the delivery.
    pub(super) async fn carry_out(&self, delivery: Delivery) {
        let _in_flight = InFlight::new(&self.metrics);
        if delivery.redelivered {
            self.metrics.redeliveries.inc();
        }
        let properties = &delivery.message.properties;
        let step = match wire::read(&delivery.message.body, &self.agent) {
            Ok(step) => step,
            Err(error) => {
                return self
                    .put_aside(delivery, "message", &error.to_string())
                    .await;
            }
        };
        if let Err(refusal) = self.allowed(&step, properties) {
            return self.refuse(delivery, &step, &refusal).await;
        }
        let answer = tokio::select! {
            biased;
            () = self.give_up.cancelled() => None,
            answer = self.answer(&step, properties) => Some(answer),
        };
        let Some(answer) = answer else {
            return self.give_back(delivery).await;
        };
        let message = reply::message(&self.agent, &step, &answer, properties);
        match reply::publish(self.bus.as_ref(), message, &self.give_up).await {
            reply::Published::Confirmed => {
                if let Err(error) = delivery.ack().await {
                    // The broker delivers it again; the table of recent results answers it then.
                    tracing::debug!(task = %step.task_id, step = %step.step_id, %error, "step is not acknowledged");
                }
            }
            reply::Published::Unroutable(why) => {
                self.put_aside(delivery, "unroutable", &why).await;
            }
            reply::Published::Refused(why) => self.put_aside(delivery, "refused", &why).await,
            reply::Published::GivenUp => self.give_back(delivery).await,
        }
    }

    /// Whether the originator of `step` may reach this agent.
    fn allowed(&self, step: &Step, properties: &Properties) -> Result<(), Refusal> {
        let Some(policy) = &self.policy else {
            return Ok(());
        };
        let origin = Origin {
            task_id: &step.task_id,
            step_id: &step.step_id,
            assertion: step.assertion.as_ref().map(Secret::expose),
            submitted: step.submitted,
            traceparent: properties.traceparent.as_deref(),
        };
        policy.task(origin, Timestamp::now()).map(|_| ())
    }

    /// Says that a step is not carried out, so that its task ends, and only then puts the delivery aside: a dead
    /// letter without an answer would leave the task waiting for its deadline.
    async fn refuse(&self, delivery: Delivery, step: &Step, refusal: &Refusal) {
        let answer = Answer::refused(refusal.detail());
        if let Answered::Failed(error) = &answer.answered {
            self.metrics.ended(Some(&error.code));
        }
        let message = reply::message(&self.agent, step, &answer, &delivery.message.properties);
        match reply::publish(self.bus.as_ref(), message, &self.give_up).await {
            reply::Published::GivenUp => self.give_back(delivery).await,
            // An answer that nobody takes changes nothing: the step stays refused.
            _ => {
                let why = format!("not allowed: {}", refusal.detail());
                self.put_aside(delivery, NOT_ALLOWED, &why).await;
            }
        }
    }

    /// What the agent says to `step`, now or when it was asked before.
    async fn answer(&self, step: &Step, properties: &Properties) -> Arc<Answer> {
        let (key, header) = idempotency_key(step, properties);
        loop {
            match self.recent.begin(&key) {
                Known::Answered(answer) => {
                    self.metrics.repeats.inc();
                    return answer;
                }
                Known::AtAgent(mut answered) => {
                    self.metrics.repeats.inc();
                    if let Ok(answer) = answered.wait_for(Option::is_some).await
                        && let Some(answer) = answer.clone()
                    {
                        return answer;
                    }
                    // Whoever called the agent gave up without an answer: this delivery calls it.
                }
                Known::No(lead) => {
                    let headers = headers(header.clone(), properties);
                    let answer = Arc::new(self.invoker.invoke(step, headers).await);
                    lead.finish(&answer);
                    return answer;
                }
            }
        }
    }

    async fn put_aside(&self, delivery: Delivery, kind: &str, why: &str) {
        tracing::warn!(agent = %self.agent, kind, why, "delivery is put aside");
        self.metrics.dead_letter(kind);
        if let Err(error) = delivery.dead_letter(why).await {
            tracing::warn!(agent = %self.agent, %error, "dead letter is not written, the delivery will come again");
        }
    }

    async fn give_back(&self, delivery: Delivery) {
        if let Err(error) = delivery.give_back().await {
            tracing::debug!(agent = %self.agent, %error, "delivery goes back with the connection");
        }
    }
}

/// The key under which a step is known here and to the agent: the message's own, where it can be a
/// header, else the one that follows from the step.
fn idempotency_key(step: &Step, properties: &Properties) -> (String, HeaderValue) {
    let given = properties
        .idempotency_key
        .as_deref()
        .filter(|key| !key.is_empty() && key.len() <= MAX_KEY)
        .and_then(|key| Some((key.to_owned(), HeaderValue::from_str(key).ok()?)));
    given.unwrap_or_else(|| {
        let key = step.own_key();
        // Ids hold letters, digits and three signs: always a header value.
        let header =
            HeaderValue::from_str(&key).unwrap_or_else(|_| HeaderValue::from_static("step"));
        (key, header)
    })
}

fn headers(key: HeaderValue, properties: &Properties) -> HeaderMap {
    const KEY: HeaderName = HeaderName::from_static("idempotency-key");
    debug_assert!(HEADER_IDEMPOTENCY_KEY.eq_ignore_ascii_case(KEY.as_str()));
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(KEY, key);
    let traces = [
        (HEADER_TRACEPARENT, &properties.traceparent),
        ("tracestate", &properties.tracestate),
    ];
    for (name, value) in traces {
        if let Some(value) = value.as_deref().and_then(|v| HeaderValue::from_str(v).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}
