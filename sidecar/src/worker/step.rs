//! One delivery from beginning to end; the only place that settles one.

use super::again::{self, Later, Next};
use super::invoke::{Answer, Answered, NOT_ALLOWED};
use super::recent::Known;
use super::trace;
use super::wire::{self, Step};
use super::{Lane, announce, reply};
use crate::config::Secret;
use crate::metrics::{Metrics, Taken};
use crate::policy::{Origin, Refusal};
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_bus::{Delivery, Properties, Trail};
use mesh_protocol::Timestamp;
use mesh_protocol::message::{HEADER_IDEMPOTENCY_KEY, HEADER_TRACEPARENT};
use mesh_trace::{Context, Span};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::Instrument;

/// Longest idempotency key that is taken over from a message, in bytes: two ids and a hash fit.
const MAX_KEY: usize = 512;

/// Counts a step as in flight while it lives.
struct InFlight<'a> {
    metrics: &'a Metrics,
    _taken: Taken<'a>,
}

impl<'a> InFlight<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.in_flight.inc();
        Self {
            metrics,
            _taken: metrics.unsettled.take(),
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
    }
}

impl Lane {
    /// Has the agent carry out a delivery, reports the outcome, settles the delivery.
    pub(super) async fn carry_out(&self, delivery: Delivery) {
        let mut span = self.tracing.delivery(&delivery);
        let log = span.log_span();
        self.settle(delivery, &mut span).instrument(log).await;
    }

    async fn settle(&self, delivery: Delivery, span: &mut Span) {
        let in_flight = InFlight::new(&self.metrics);
        let trail = delivery.message.properties.trail.clone();
        let trail = trail.map(|trail| *trail).unwrap_or_default();
        if let Some(later) = self.again.part(trail.clone()) {
            return self.put_off(delivery, later).await;
        }
        if delivery.redelivered {
            self.metrics.redeliveries.inc();
        }
        let properties = &delivery.message.properties;
        let step = match wire::read(&delivery.message.body, &self.agent) {
            Ok(step) => step,
            Err(error) => {
                span.error("message");
                return self
                    .put_aside(delivery, "message", &error.to_string())
                    .await;
            }
        };
        self.tracing.step(span, &delivery.queue, &step);
        let first = !delivery.redelivered && trail == Trail::default();
        if let (true, Some(sent_at)) = (first, step.sent_at) {
            let waited = Timestamp::now().since(sent_at);
            self.metrics.queue_wait.observe(waited.as_secs_f64());
        }
        if let Err(refusal) = self.allowed(&step, properties) {
            span.error(NOT_ALLOWED);
            return self.refuse(delivery, &step, &refusal, span.context()).await;
        }
        let asking = Asking::new(&step, properties, trail, delivery.crashes);
        let held = (delivery, in_flight);
        let Some((answer, (mut delivery, _in_flight))) =
            self.held_until(held, &asking, span.context()).await
        else {
            return;
        };
        let properties = &delivery.message.properties;
        trace::answered(span, &answer);
        if self.is_for_others(&answer).await {
            return self.give_back(delivery).await;
        }
        let next = self
            .again
            .next(&step, &answer, &asking.trail, Timestamp::now());
        let keep = match next {
            Next::Later(later) => return self.put_off(delivery, later).await,
            Next::Keep(kind) => Some(kind),
            Next::Answer => None,
        };
        if asking.is_lead() {
            self.metrics.ended(match &answer.answered {
                Answered::Completed(_) => None,
                Answered::Failed(error) => Some(&error.code),
            });
        }
        if step.older && !self.announce(&step, &answer, properties).await {
            return self.give_back(delivery).await;
        }
        let message = reply::message(&self.agent, &step, &answer, properties, span.context());
        match reply::publish(self.bus.as_ref(), message, &self.give_up).await {
            reply::Published::Confirmed => {
                if let (Some(kind), Answered::Failed(error)) = (keep, &answer.answered) {
                    span.error(kind);
                    let trail = again::last(asking.trail, &answer);
                    delivery.message.properties.trail = Some(Box::new(trail));
                    return self.put_aside(delivery, kind, &error.to_string()).await;
                }
                if let Err(error) = delivery.ack().await {
                    // The broker delivers it again; the table of recent results answers it then.
                    tracing::debug!(task = %step.task_id, step = %step.step_id, %error, "step is not acknowledged");
                }
            }
            reply::Published::Unroutable(why) => {
                span.error("unroutable");
                self.put_aside(delivery, "unroutable", &why).await;
            }
            reply::Published::Refused(why) => {
                span.error("refused");
                self.put_aside(delivery, "refused", &why).await;
            }
            reply::Published::GivenUp => self.give_back(delivery).await,
        }
    }

    /// The answer, and the delivery with it; nothing when that had to go back before there was one.
    async fn held_until<'a>(
        &self,
        (delivery, in_flight): (Delivery, InFlight<'a>),
        asking: &Asking<'_>,
        place: Option<&Context>,
    ) -> Option<(Arc<Answer>, (Delivery, InFlight<'a>))> {
        let deadline = tokio::time::sleep(self.give_back_after);
        let mut answer = std::pin::pin!(self.answer(asking, place));
        tokio::select! {
            biased;
            () = self.give_up.cancelled() => self.give_back(delivery).await,
            answer = &mut answer => return Some((answer, (delivery, in_flight))),
            () = deadline => {
                // The broker would take it back soon, and everything on its channel with it. The agent goes on
                // meanwhile: whoever gets the delivery here joins the call, or finds what came of it.
                self.metrics.ack_deadline_returns.inc();
                self.give_back(delivery).await;
                drop(in_flight);
                if asking.is_lead() {
                    self.give_up.run_until_cancelled(answer).await;
                }
            }
        }
        None
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
    async fn refuse(
        &self,
        delivery: Delivery,
        step: &Step,
        refusal: &Refusal,
        place: Option<&Context>,
    ) {
        let answer = Answer::refused(refusal.detail());
        if let Answered::Failed(error) = &answer.answered {
            self.metrics.ended(Some(&error.code));
        }
        let properties = &delivery.message.properties;
        if step.older && !self.announce(step, &answer, properties).await {
            return self.give_back(delivery).await;
        }
        let message = reply::message(&self.agent, step, &answer, properties, place);
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
    async fn answer(&self, asking: &Asking<'_>, place: Option<&Context>) -> Arc<Answer> {
        loop {
            match self.recent.begin(&asking.key, asking.trail.replays > 0) {
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
                    asking.lead.store(true, Ordering::Relaxed);
                    // Only now: a step that is known here is not what ended its holders.
                    if self.again.is_poison(asking.crashes) {
                        return Arc::new(Answer::poison(asking.crashes));
                    }
                    let (step, headers) = (asking.step, asking.headers.clone());
                    let end = again::deadline(step, &asking.trail);
                    let mut answer = self.invoker.invoke(step, end, headers, place).await;
                    answer.attempts = answer.attempts.saturating_add(asking.trail.calls);
                    let answer = Arc::new(answer);
                    lead.finish(&answer).await;
                    return answer;
                }
            }
        }
    }

    /// Tells everybody what came of a step for which no orchestrator waits; `false` when the worker has to leave
    /// before the broker has it.
    async fn announce(&self, step: &Step, answer: &Answer, asked: &Properties) -> bool {
        let event = announce::message(&self.agent, step, answer, asked);
        let told = reply::publish(self.bus.as_ref(), event, &self.give_up).await;
        told != reply::Published::GivenUp
    }

    async fn put_off(&self, delivery: Delivery, later: Later) {
        self.metrics.delays.inc();
        if let Err(error) = delivery.put_off(later.delay_ms, later.trail).await {
            tracing::warn!(agent = %self.agent, %error, "delivery is not put off, it will come again");
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

/// What is asked of the agent, apart from the delivery, which may go back before there is an answer.
struct Asking<'a> {
    step: &'a Step,
    key: String,
    headers: HeaderMap,
    trail: Trail,
    crashes: u32,
    /// Whether it is this delivery that asks the agent.
    lead: AtomicBool,
}

impl<'a> Asking<'a> {
    fn new(step: &'a Step, properties: &Properties, trail: Trail, crashes: u32) -> Self {
        let (key, header) = idempotency_key(step, properties);
        Self {
            step,
            key,
            headers: headers(header, properties),
            trail,
            crashes,
            lead: AtomicBool::new(false),
        }
    }

    fn is_lead(&self) -> bool {
        self.lead.load(Ordering::Relaxed)
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
