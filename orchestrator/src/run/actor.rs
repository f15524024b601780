//! One run as one task: hears results, cancels and the clock, one transition after the other.
//!
//! ```text
//!  inbox, confirms, clock ──▶ machine ──▶ store ──▶ shown + events ──▶ dispatch ──▶ ack
//! ```
//!
//! The order is the point. A result is acknowledged only when the store has it. A step is stored as
//! dispatched in the same write as what makes it ready, then published, then marked as published: with the
//! run's next change where that comes soon, so that a mark costs no write of its own.

mod inbox;
mod stakes;

use super::admission::Slot;
use super::change::{Report, change_for, mark_published};
use super::clock::Clock;
use super::events::of_change;
use super::executor::Executor;
use super::keep::{Kept, keep};
use super::machine::{Command, Event, Machine, StepStatus};
use super::message::step_message;
use super::outlet::{Sent, deliver};
use super::shown::{Input, RunHandle};
use crate::load::UnderWay;
use crate::resources::{Got, Stake};
use crate::store::Change;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use mesh_bus::{BusError, Delivery};
use mesh_protocol::{StepId, Timestamp};
use mesh_trace::Span;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Inputs that are taken into one transition; more wait for the next.
const BATCH: usize = 64;
/// How long a mark waits for a change that it can be written with: as long as the steps of a quick run take.
const MARK_AFTER: Duration = Duration::from_millis(100);

/// The task of one run.
pub(super) struct Actor {
    executor: Arc<Executor>,
    handle: Arc<RunHandle>,
    machine: Machine,
    inbox: mpsc::Receiver<Input>,
    places: HashMap<StepId, usize>,
    publishes: FuturesUnordered<BoxFuture<'static, (usize, Sent)>>,
    /// Steps that the broker has and of which the store does not know, and when it shall at the latest.
    published: BTreeMap<usize, Timestamp>,
    mark_at: Option<Instant>,
    /// What its steps take, or wait for.
    stakes: HashMap<usize, Stake>,
    grants: FuturesUnordered<BoxFuture<'static, (usize, Got)>>,
    ended_elsewhere: bool,
    under_way: UnderWay,
    _slot: Slot,
}

/// What one round of inputs comes to.
#[derive(Default)]
struct Round {
    commands: Vec<Command>,
    reports: HashMap<usize, Report>,
    // To be acknowledged once the round is stored.
    taken: Vec<Delivery>,
    refused: Vec<(Delivery, String)>,
    // Settled results that lie in the store.
    handed: Vec<StepId>,
    // To be written though nothing changed, to see whether the store still has the run.
    look: bool,
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
            published: BTreeMap::new(),
            mark_at: None,
            stakes: HashMap::new(),
            grants: FuturesUnordered::new(),
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
            other => self.finish(other).await,
        }
    }

    /// Goes on with a run whose beginning is stored: carries out `first`.
    pub(super) async fn run(mut self, first: Vec<Command>) {
        self.act(&first);
        self.go_on().await;
    }

    async fn go_on(mut self) {
        let halt = self.executor.context().halt.clone();
        let clock = *self.executor.clock();
        while !self.machine.is_over() {
            let mut round = Round::default();
            tokio::select! {
                () = halt.cancelled() => {
                    // What the broker has is not to be published again by whoever takes the run up.
                    if !self.published.is_empty() {
                        round.look = true;
                        self.commit(round).await;
                    }
                    return self.finish(Kept::Leaving).await;
                }
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
                Some((step, sent)) = self.publishes.next(), if !self.publishes.is_empty() => {
                    self.sent(step, sent, &mut round);
                }
                Some((step, got)) = self.grants.next(), if !self.grants.is_empty() => {
                    self.got(step, got, &mut round);
                }
                () = until(clock, self.machine.next_deadline()) => {
                    self.event(Event::Clock, &mut round);
                }
                () = when(self.mark_at) => round.look = true,
            }
            match self.commit(round).await {
                Kept::Stands => {}
                other => return self.finish(other).await,
            }
        }
        self.finish(Kept::Stands).await;
    }

    /// Leaves the run, which is over, elsewhere, or stays in the store as it is.
    async fn finish(mut self, kept: Kept) {
        let id = self.handle.read(|run| run.task_id.clone());
        match kept {
            Kept::Stands => self.executor.forget(&id),
            Kept::Leaving => {}
            Kept::EndedElsewhere | Kept::Superseded => {
                // What others see of it from now on is what the store has.
                self.executor.forget(&id);
                self.handle.leave();
                if kept == Kept::Superseded {
                    self.executor.context().metrics.superseded.inc();
                    tracing::info!(task_id = %id, "another replica has taken the task over");
                } else {
                    tracing::info!(task_id = %id, "the task was ended by another process");
                    self.ended_elsewhere = true;
                    self.give_back_all();
                }
            }
        }
        self.leave().await;
    }

    /// What became of a step in the outbox.
    fn sent(&mut self, step: usize, sent: Sent, round: &mut Round) {
        match sent {
            Sent::Confirmed(at) => {
                if self.machine.status(step) == Some(StepStatus::Dispatched) {
                    self.published.insert(step, at);
                    self.mark_at
                        .get_or_insert_with(|| Instant::now() + MARK_AFTER);
                }
            }
            Sent::Undeliverable(error) => self.event(Event::Undeliverable { step, error }, round),
            Sent::Late => {}
        }
    }

    fn event(&mut self, event: Event, round: &mut Round) {
        // Settled meanwhile, or over: whoever was first has decided.
        if let Ok(commands) = self.machine.apply(event, self.executor.clock().now()) {
            round.commands.extend(commands);
        }
    }

    /// Stores, shows, acts, acknowledges.
    async fn commit(&mut self, round: Round) -> Kept {
        let Round {
            commands,
            reports,
            taken,
            refused,
            handed,
            look,
            spans: _held,
        } = round;
        // Most confirms change nothing.
        if look || !commands.is_empty() || !handed.is_empty() {
            let mut change = self
                .handle
                .read(|run| change_for(run, &commands, &reports, Timestamp::now()));
            change.handed = handed;
            match self.write(change, look).await {
                Kept::Stands => {}
                other => return other,
            }
            self.act(&commands);
        }
        let acks = join_all(taken.into_iter().map(Delivery::ack)).await;
        for ack in acks {
            self.settled(ack);
        }
        for (delivery, reason) in refused {
            let settled = delivery.dead_letter(&reason).await;
            self.settled(settled);
        }
        Kept::Stands
    }

    /// Stores and shows a change, and what the broker has by now with it.
    async fn write(&mut self, mut change: Change, look: bool) -> Kept {
        let changed = !change.steps.is_empty() || change.end.is_some() || !change.handed.is_empty();
        if !changed && !look {
            return Kept::Stands;
        }
        self.handle
            .read(|run| mark_published(&mut change, run, &self.published));
        if !changed && change.steps.is_empty() {
            // Nothing to write: only whether the store still has what was written last.
            change.version -= 1;
        }
        change.events = self.handle.read(|run| of_change(run, &change));
        let kept = keep(&self.executor, &self.handle, &change).await;
        if kept != Kept::Stands {
            return kept;
        }
        self.published.clear();
        self.mark_at = None;
        self.count(&change);
        if !change.events.is_empty() {
            self.executor.context().written.notify_one();
        }
        self.handle.show(change);
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
            if let Some(plans) = &self.executor.context().plans {
                self.handle
                    .read(|run| plans.ended(run, end, self.machine.dag()));
            }
        }
    }

    fn settled(&self, outcome: Result<(), BusError>) {
        if outcome.is_err() {
            // It will be delivered again, and counted as a duplicate then.
            self.executor.context().metrics.bus_error("settle");
        }
    }

    /// Carries out what is stored.
    fn act(&mut self, commands: &[Command]) {
        for command in commands {
            match *command {
                Command::Dispatch { step, deadline, .. } => self.dispatch(step, deadline),
                Command::Ask { step, .. } => self.ask(step, false),
                Command::Hold { step } => self.ask(step, true),
                Command::Settle { step, .. } => self.give_back(step),
                Command::End(_) => {}
            }
        }
    }

    fn dispatch(&mut self, step: usize, deadline: Timestamp) {
        if self.machine.status(step) != Some(StepStatus::Dispatched) {
            return;
        }
        let before = self.machine.dag().before(step);
        let clock = self.executor.clock();
        let (now, late) = (Timestamp::now(), clock.on_the_wall(deadline));
        let sent = self.handle.read(|run| {
            let mut message = step_message(run, step, before, late, now)?;
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
                let sent = deliver(&executor, message, deadline).await;
                if let Sent::Undeliverable(error) = &sent {
                    span.fail(&*error.code);
                }
                (step, sent)
            }));
        }
    }
}

async fn until(clock: Clock, deadline: Option<Timestamp>) {
    match deadline {
        None => std::future::pending().await,
        Some(deadline) => {
            // A millisecond more, since the timestamp's fraction is cut off.
            let left = deadline.since(clock.now()) + Duration::from_millis(1);
            tokio::time::sleep(left).await;
        }
    }
}

async fn when(at: Option<Instant>) {
    match at {
        None => std::future::pending().await,
        Some(at) => tokio::time::sleep_until(at).await,
    }
}
