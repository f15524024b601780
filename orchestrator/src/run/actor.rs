//! One run as one task: hears results, cancels and the clock, one transition after the other.
//!
//! ```text
//!  inbox, publishes, clock ──▶ machine ──▶ store ──▶ shown + events ──▶ dispatch ──▶ ack
//! ```
//!
//! The order is the point. A result is acknowledged only when the store has it; a step is marked as
//! dispatched before it is published, so that a restart publishes it again rather than never.

use super::change::{Report, change_for};
use super::executor::{Executor, Slot, pauses};
use super::machine::{Command, Event, Illegal, Machine, StepStatus};
use super::message::{lifetime_ms, step_message};
use super::shown::{Input, RunHandle};
use crate::load::UnderWay;
use crate::store::{Change, StoreError, Updated};
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use mesh_bus::{BusError, Delivery, Message};
use mesh_protocol::outcome::{StepError, StepResult};
use mesh_protocol::{StepId, Timestamp};
use mesh_trace::Span;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Inputs that are taken into one transition; more wait for the next.
const BATCH: usize = 64;
/// Longest sleep before the wall clock is looked at again: it may be set while we sleep.
const MAX_SLEEP: Duration = Duration::from_secs(10);

/// The task of one run.
pub(super) struct Actor {
    executor: Arc<Executor>,
    handle: Arc<RunHandle>,
    machine: Machine,
    inbox: mpsc::Receiver<Input>,
    places: HashMap<StepId, usize>,
    publishes: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
    ended_elsewhere: bool,
    under_way: UnderWay,
    _slot: Slot,
}

/// Whether a transition stands in the store.
enum Kept {
    Stands,
    /// The run had ended there before: nothing more happens to it here.
    EndedElsewhere,
    /// The process leaves, with nothing stored.
    Leaving,
}

/// What one round of inputs comes to.
#[derive(Default)]
struct Round {
    commands: Vec<Command>,
    reports: HashMap<usize, Report>,
    // To be acknowledged once the round is stored.
    taken: Vec<Delivery>,
    refused: Vec<(Delivery, String)>,
    // End with the round.
    spans: Vec<Span>,
}

impl Actor {
    pub(super) fn new(
        executor: Arc<Executor>,
        handle: Arc<RunHandle>,
        machine: Machine,
        inbox: mpsc::Receiver<Input>,
        slot: Slot,
    ) -> Self {
        let places = handle.read(|run| {
            run.plan
                .execution_plan
                .iter()
                .enumerate()
                .map(|(place, step)| (step.id.clone(), place))
                .collect()
        });
        let mut under_way = UnderWay::new(Arc::clone(&executor.context().load));
        handle.read(|run| {
            for (place, step) in run.steps.iter().enumerate() {
                under_way.see(place, step);
            }
        });
        Self {
            executor,
            handle,
            machine,
            inbox,
            places,
            publishes: FuturesUnordered::new(),
            ended_elsewhere: false,
            under_way,
            _slot: slot,
        }
    }

    /// Takes up a stored run: begins where it stood.
    pub(super) async fn take_up(mut self) {
        let mut round = Round::default();
        self.event(Event::Begin, &mut round);
        match self.commit(round).await {
            Kept::Stands => self.go_on().await,
            Kept::Leaving => {}
            Kept::EndedElsewhere => {
                let id = self.handle.read(|run| run.task_id.clone());
                self.executor.forget(&id);
            }
        }
    }

    /// Goes on with a run whose beginning is stored: carries out `first`.
    pub(super) async fn run(mut self, first: Vec<Command>) {
        self.dispatch(&first);
        self.go_on().await;
    }

    async fn go_on(mut self) {
        let id = self.handle.read(|run| run.task_id.clone());
        let halt = self.executor.context().halt.clone();
        while !self.machine.is_over() {
            let mut round = Round::default();
            tokio::select! {
                () = halt.cancelled() => return self.leave().await,
                input = self.inbox.recv() => {
                    if let Some(input) = input {
                        self.input(input, &mut round);
                    }
                    for _ in 1..BATCH {
                        match self.inbox.try_recv() {
                            Ok(input) => self.input(input, &mut round),
                            Err(_) => break,
                        }
                    }
                }
                Some(event) = self.publishes.next(), if !self.publishes.is_empty() => {
                    if let Some(event) = event {
                        self.event(event, &mut round);
                    }
                }
                () = until(self.machine.next_deadline()) => {
                    self.event(Event::Clock, &mut round);
                }
            }
            match self.commit(round).await {
                Kept::Stands => {}
                Kept::Leaving => return self.leave().await,
                Kept::EndedElsewhere => {
                    // What others see of it from now on is what the store has.
                    tracing::warn!(task_id = %id, "the task was ended by another process");
                    self.ended_elsewhere = true;
                    break;
                }
            }
        }
        self.executor.forget(&id);
        self.leave().await;
    }

    /// Settles what is still in the inbox: given back when the run goes on elsewhere or later.
    async fn leave(mut self) {
        self.inbox.close();
        let over = self.machine.is_over() || self.ended_elsewhere;
        while let Ok(input) = self.inbox.try_recv() {
            if let Input::Result(result) = input {
                let (_, delivery) = *result;
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

    fn input(&mut self, input: Input, round: &mut Round) {
        match input {
            Input::Cancel => self.event(Event::Cancel, round),
            Input::Result(result) => {
                let (result, delivery) = *result;
                self.result(result, delivery, round);
            }
        }
    }

    fn result(&mut self, result: StepResult, delivery: Delivery, round: &mut Round) {
        let context = self.executor.context();
        round.spans.push(context.tracing.result(&result, &delivery));
        let metrics = &context.metrics;
        let Some(&step) = self.places.get(&result.step_id) else {
            metrics.results("garbage");
            let reason = format!("task {} has no step {}", result.task_id, result.step_id);
            round.refused.push((delivery, reason));
            return;
        };
        let agent = self
            .handle
            .read(|run| run.steps.get(step).map(|s| s.agent.clone()));
        if agent.as_ref() != Some(&result.agent) {
            metrics.results("garbage");
            let reason = format!("step {} is not for agent {}", result.step_id, result.agent);
            round.refused.push((delivery, reason));
            return;
        }
        let event = Event::Answered {
            step,
            outcome: result.outcome,
        };
        match self.machine.apply(event, Timestamp::now()) {
            Ok(commands) => {
                metrics.results("taken");
                round.commands.extend(commands);
                let report = Report {
                    started_at: result.started_at,
                    attempts: result.attempts,
                };
                round.reports.insert(step, report);
                round.taken.push(delivery);
            }
            Err(Illegal::NotDispatched) => {
                metrics.results("garbage");
                let reason = format!("step {} was not dispatched yet", result.step_id);
                round.refused.push((delivery, reason));
            }
            // A second answer, or one after a cancel or a deadline: known, and no use any more.
            Err(_) => {
                metrics.results("duplicate");
                round.taken.push(delivery);
            }
        }
    }

    fn event(&mut self, event: Event, round: &mut Round) {
        // Settled meanwhile, or over: whoever was first has decided.
        if let Ok(commands) = self.machine.apply(event, Timestamp::now()) {
            round.commands.extend(commands);
        }
    }

    /// Stores, shows, acts, acknowledges.
    async fn commit(&mut self, round: Round) -> Kept {
        let now = Timestamp::now();
        if !round.commands.is_empty() {
            let change = self
                .handle
                .read(|run| change_for(run, &round.commands, &round.reports, now));
            let changed = !change.steps.is_empty() || change.end.is_some();
            if changed {
                match store(&self.executor, &self.handle, &change).await {
                    Kept::Stands => {}
                    other => return other,
                }
            }
            self.count(&change);
            let events = self.handle.show(change);
            self.executor.context().events.send(events);
            self.dispatch(&round.commands);
        }
        let acks = join_all(round.taken.into_iter().map(Delivery::ack)).await;
        for ack in acks {
            self.settled(ack);
        }
        for (delivery, reason) in round.refused {
            let settled = delivery.dead_letter(&reason).await;
            self.settled(settled);
        }
        Kept::Stands
    }

    fn count(&mut self, change: &Change) {
        let metrics = &self.executor.context().metrics;
        for (place, _, step) in &change.steps {
            self.under_way.see(*place, step);
            if step.status.is_settled() {
                metrics.step(&step.agent, step.status.as_str());
            }
        }
        if let Some(end) = &change.end {
            metrics.task(end.status.as_str());
        }
    }

    fn settled(&self, outcome: Result<(), BusError>) {
        if outcome.is_err() {
            // It will be delivered again, and counted as a duplicate then.
            self.executor.context().metrics.bus_error("settle");
        }
    }

    fn dispatch(&mut self, commands: &[Command]) {
        for command in commands {
            let &Command::Dispatch { step, deadline, .. } = command else {
                continue;
            };
            if self.machine.status(step) != Some(StepStatus::Dispatched) {
                continue;
            }
            let before = self.machine.dag().before(step);
            let sent = self.handle.read(|run| {
                let mut message = step_message(run, step, before, deadline, Timestamp::now())?;
                let span = self
                    .executor
                    .context()
                    .tracing
                    .send(run, step, &mut message);
                Some((message, span))
            });
            if let Some((message, mut span)) = sent {
                let executor = Arc::clone(&self.executor);
                self.publishes.push(Box::pin(async move {
                    let error = deliver(&executor, message, deadline).await?;
                    span.fail(&*error.code);
                    Some(Event::Undeliverable { step, error })
                }));
            }
        }
    }
}

/// Writes `change` until it stands.
///
/// A store that has lost the run, or has something else in its place, gets the whole of it again: this
/// process knows better.
async fn store(executor: &Executor, handle: &RunHandle, change: &Change) -> Kept {
    let context = executor.context();
    let id = handle.read(|run| run.task_id.clone());
    let mut pauses = pauses();
    loop {
        let written = match context.store.update(&id, change).await {
            Ok(Updated::Written) => return Kept::Stands,
            Ok(Updated::EndedBefore) => return Kept::EndedElsewhere,
            Ok(Updated::Gone) | Err(StoreError::Corrupt { .. }) => {
                tracing::warn!(task_id = %id, "the store has lost a task that goes on, and gets it again");
                let mut whole = handle.read(Clone::clone);
                whole.apply(change.clone());
                context.store.create(&whole).await
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => return Kept::Stands,
            Err(error) => {
                context.metrics.store_errors.inc();
                tracing::warn!(task_id = %id, %error, "a change is not stored, trying again");
            }
        }
        let pause = pauses.next().unwrap_or(MAX_SLEEP);
        tokio::select! {
            () = context.halt.cancelled() => return Kept::Leaving,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Publishes until the broker has the message, or the deadline; the error if it never will have it.
async fn deliver(
    executor: &Executor,
    mut message: Message,
    deadline: Timestamp,
) -> Option<StepError> {
    let context = executor.context();
    let mut ready = context.ready.clone();
    // While the queues are being declared, unroutable means nothing. The deadline ends the wait:
    // the run's clock fails the step, and this future is dropped or harmless.
    ready.wait_for(|r| r.is_settled()).await.ok()?;
    let mut pauses = pauses();
    loop {
        let now = Timestamp::now();
        if now >= deadline {
            return None;
        }
        message.properties.expiration_ms = Some(lifetime_ms(deadline, now));
        match context.bus.publish(message.clone()).await {
            Ok(()) => return None,
            Err(BusError::Unavailable { detail }) => {
                context.metrics.bus_error("unavailable");
                tracing::debug!(detail, "a step is not published, trying again");
            }
            Err(error @ BusError::Unroutable { .. }) => {
                context.metrics.bus_error("unroutable");
                return Some(StepError::new("unroutable", error.to_string()));
            }
            Err(error @ BusError::TooLarge { .. }) => {
                context.metrics.bus_error("too_large");
                return Some(StepError::new("step_too_large", error.to_string()));
            }
            Err(error) => {
                context.metrics.bus_error("refused");
                return Some(StepError::new("broker_refused", error.to_string()));
            }
        }
        tokio::time::sleep(pauses.next().unwrap_or(MAX_SLEEP)).await;
    }
}

async fn until(deadline: Option<Timestamp>) {
    match deadline {
        None => std::future::pending().await,
        Some(deadline) => {
            // A millisecond more, since the timestamp's fraction is cut off.
            let left = deadline.since(Timestamp::now()) + Duration::from_millis(1);
            tokio::time::sleep(left.min(MAX_SLEEP)).await;
        }
    }
}
