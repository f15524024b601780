//! The spans of a step: its message, from being taken until it is settled, and each call of the agent.
//!
//! The agent is told of the call's span, and the orchestrator of the message's. Without traces both are told
//! what the message brought.

use super::invoke::{Answer, Answered};
use super::wire::Step;
use http::{HeaderMap, Method, Uri};
use mesh_bus::Delivery;
use mesh_trace::{Context, Kind, MessageOperation, Span, Tracer, method_name};
use std::net::SocketAddr;

/// Begins the spans of steps.
pub(super) struct Tracing {
    tracer: Tracer,
    system: &'static str,
}

impl Tracing {
    /// For messages on `system`, in OpenTelemetry's words.
    pub(super) fn new(tracer: Tracer, system: &'static str) -> Self {
        Self { tracer, system }
    }

    /// The span of a delivery, whose parent is whoever sent it.
    pub(super) fn delivery(&self, delivery: &Delivery) -> Span {
        if !self.tracer.is_on() {
            return Span::default();
        }
        let properties = &delivery.message.properties;
        let parent = properties.traceparent.as_deref();
        let parent = parent.and_then(|p| Context::parse(p, properties.tracestate.as_deref()));
        let mut span = self.tracer.start(Kind::Consumer, "process step", parent);
        span.set_flag("mesh.redelivered", delivery.redelivered);
        span
    }

    /// What `span` is for, once it is read.
    pub(super) fn step(&self, span: &mut Span, queue: &str, step: &Step) {
        let task = step.task_id.as_str();
        span.message(MessageOperation::Process, self.system, queue, task);
        span.set("mesh.task.id", task);
        span.set("mesh.step.id", step.step_id.as_str());
    }

    /// The span of one call, of which the agent is told.
    pub(super) fn call(&self, place: Option<&Context>, uri: &Uri, headers: &mut HeaderMap) -> Span {
        let Some(place) = place else {
            return Span::default();
        };
        let method = Method::POST;
        let mut span = self
            .tracer
            .start(Kind::Client, method_name(&method), Some(place.clone()));
        if let Some(context) = span.context() {
            context.to_headers(headers);
        }
        span.http_request(&method, "http", uri.path());
        let address = uri.authority().and_then(|a| a.as_str().parse().ok());
        if let Some(address) = address {
            let address: SocketAddr = address;
            span.server(address);
        }
        span
    }
}

/// What came of the step.
pub(super) fn answered(span: &mut Span, answer: &Answer) {
    span.set_number("mesh.attempts", answer.attempts.into());
    if let Answered::Failed(error) = &answer.answered {
        span.error(&error.code);
    }
}
