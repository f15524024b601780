//! The spans of a run's messages: a step that goes out, a result that comes in.
//!
//! All belong to the trace of the request that submitted the task, which is stored with the run: one that
//! is taken up by another process goes on in the same trace.

use crate::store::RunRecord;
use mesh_bus::{Delivery, Message};
use mesh_protocol::outcome::StepResult;
use mesh_trace::{Context, Kind, MessageOperation, Span, Tracer};

/// Begins the spans of messages.
#[derive(Debug, Clone)]
pub struct Tracing {
    tracer: Tracer,
    system: &'static str,
}

impl Tracing {
    /// For messages on `system`, in OpenTelemetry's words.
    pub fn new(tracer: Tracer, system: &'static str) -> Self {
        Self { tracer, system }
    }

    /// What begins them, for other spans.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// The span of a step of `run` that is sent as `message`, which is told where it belongs.
    ///
    /// It ends when the broker has the message, or never will have it.
    pub fn send(&self, run: &RunRecord, step: usize, message: &mut Message) -> Span {
        if !self.tracer.is_on() {
            return Span::default();
        }
        let mut span = self
            .tracer
            .start(Kind::Producer, "send step", run.trace.context());
        if let Some(context) = span.context() {
            message.properties.traceparent = Some(context.traceparent());
            message.properties.tracestate.clone_from(&context.state);
        }
        if span.is_recording() {
            let destination = format!("{}:{}", message.exchange, message.routing_key);
            let task = run.task_id.as_str();
            span.message(MessageOperation::Send, self.system, &destination, task);
            span.set("mesh.task.id", task);
            if let Some(planned) = run.plan.execution_plan.get(step) {
                span.set("mesh.step.id", planned.id.as_str());
                span.set("mesh.agent", planned.agent.as_str());
            }
        }
        span
    }

    /// The span of a result, a child of the work that it reports.
    ///
    /// It ends when the result is stored, or refused.
    pub fn result(&self, result: &StepResult, delivery: &Delivery) -> Span {
        if !self.tracer.is_on() {
            return Span::default();
        }
        let properties = &delivery.message.properties;
        let parent = properties.traceparent.as_deref();
        let parent = parent.and_then(|p| Context::parse(p, properties.tracestate.as_deref()));
        let mut span = self.tracer.start(Kind::Consumer, "process result", parent);
        if span.is_recording() {
            let task = result.task_id.as_str();
            span.message(
                MessageOperation::Process,
                self.system,
                &delivery.queue,
                task,
            );
            span.set("mesh.task.id", task);
            span.set("mesh.step.id", result.step_id.as_str());
            span.set("mesh.agent", result.agent.as_str());
            span.set_flag("mesh.redelivered", delivery.redelivered);
        }
        span
    }
}
