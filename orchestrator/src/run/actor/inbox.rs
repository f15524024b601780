//! What reaches a run from outside.

use super::{Actor, Report, Round};
use crate::assign::Lesson;
use crate::run::machine::{Event, Illegal};
use crate::run::shown::Input;
use mesh_bus::Delivery;
use mesh_protocol::outcome::StepResult;
use tokio::time::Instant;

impl Actor {
    /// Settles what is still in the inbox: given back when the run goes on elsewhere or later.
    pub(super) async fn leave(mut self) {
        self.inbox.close();
        let over = self.machine.is_over() || self.ended_elsewhere;
        while let Ok(input) = self.inbox.try_recv() {
            if let Input::Result(result) = input
                && let (_, Some(delivery)) = *result
            {
                let settled = if over {
                    self.executor.context().metrics.results("duplicate");
                    delivery.ack().await
                } else {
                    delivery.give_back().await
                };
                self.settled(settled);
            }
        }
    }

    pub(super) fn input(&mut self, input: Input, round: &mut Round) {
        match input {
            Input::Cancel => self.event(Event::Cancel, round),
            Input::Look => round.look = true,
            Input::Result(result) => {
                let (result, delivery) = *result;
                self.result(result, delivery, round);
            }
        }
    }

    fn result(&mut self, result: StepResult, delivery: Option<Delivery>, round: &mut Round) {
        let context = self.executor.context();
        if let Some(delivery) = &delivery {
            round.spans.push(context.tracing.result(&result, delivery));
        }
        if delivery.is_none() {
            round.handed.push(result.step_id.clone());
        }
        let metrics = &context.metrics;
        let task = result.task_id.clone();
        let refuse = |delivery: Option<Delivery>, reason: String, round: &mut Round| {
            metrics.results("garbage");
            match delivery {
                Some(delivery) => round.refused.push((delivery, reason)),
                None => tracing::warn!(task_id = %task, reason, "a handed result is refused"),
            }
        };
        let Some(&step) = self.places.get(&result.step_id) else {
            let reason = format!("task {} has no step {}", result.task_id, result.step_id);
            return refuse(delivery, reason, round);
        };
        let agent = self
            .handle
            .read(|run| run.steps.get(step).map(|s| s.agent.clone()));
        if agent.as_ref() != Some(&result.agent) {
            let reason = format!("step {} is not for agent {}", result.step_id, result.agent);
            return refuse(delivery, reason, round);
        }
        let lesson = Lesson::of(&result);
        let event = Event::Answered {
            step,
            outcome: result.outcome,
        };
        match self.machine.apply(event, self.executor.clock().now()) {
            Ok(commands) => {
                metrics.results("taken");
                if let Some(lesson) = lesson {
                    let scores = context.load.scores();
                    scores.learn(&result.agent, lesson, Instant::now());
                }
                round.commands.extend(commands);
                let report = Report {
                    started_at: result.started_at,
                    attempts: result.attempts,
                };
                round.reports.insert(step, report);
                round.taken.extend(delivery);
            }
            Err(Illegal::NotDispatched) => {
                let reason = format!("step {} was not dispatched yet", result.step_id);
                refuse(delivery, reason, round);
            }
            // A second answer, or one after a cancel or a deadline: known, and no use any more.
            Err(_) => {
                metrics.results("duplicate");
                round.taken.extend(delivery);
            }
        }
    }
}
