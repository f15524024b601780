//! Begins runs, takes up unfinished ones, and knows those that go on in this process.

use super::actor::Actor;
use super::change::change_for;
use super::events::Events;
use super::lane::Ready;
use super::machine::{Command, Event, Machine};
use super::shown::{Input, RunHandle};
use super::trace::Tracing;
use crate::config::Steps;
use crate::load::Load;
use crate::metrics::Metrics;
use crate::store::{Change, End, Owner, RunRecord, RunStore, StoreError, TaskStatus};
use backon::BackoffBuilder;
use futures_util::StreamExt;
use mesh_bus::Bus;
use mesh_protocol::outcome::StepError;
use mesh_protocol::{TaskId, Timestamp};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Results that wait in one run's inbox: all that the lane can have unsettled, and some cancels.
const INBOX: usize = super::lane::PREFETCH as usize + 16;
/// Most bytes of the request bodies of runs in flight: parsed, a body takes some times its length.
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// Runs loaded at the same time on start.
const TAKE_UP: usize = 16;

/// What runs need.
pub struct Context {
    /// Carries steps.
    pub bus: Arc<dyn Bus>,
    /// Keeps runs.
    pub store: Arc<dyn RunStore>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Hears of every change.
    pub events: Events,
    /// Hears of the steps that are under way.
    pub load: Arc<Load>,
    /// How steps are run.
    pub steps: Steps,
    /// Most runs in flight.
    pub max_runs: usize,
    /// Whether the queues stand.
    pub ready: watch::Receiver<Ready>,
    /// Begins the spans of messages.
    pub tracing: Tracing,
    /// Cancelled to leave: runs stay in the store as they are.
    pub halt: CancellationToken,
}

/// The runs of this process.
pub struct Executor {
    context: Context,
    runs: Mutex<HashMap<TaskId, Arc<RunHandle>>>,
    in_flight: AtomicUsize,
    bytes: AtomicUsize,
    taken_up: AtomicBool,
    tasks: TaskTracker,
}

/// Why a run does not begin.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// As many runs as allowed are in flight.
    #[error("too many tasks are in flight")]
    Busy,
    /// The run could not be kept, so it was not begun.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The plan is none that was checked.
    #[error("the plan is not sound: {0}")]
    Plan(String),
}

/// A place among the runs in flight; leaves it when dropped.
pub struct Slot {
    executor: Arc<Executor>,
    bytes: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.executor.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.executor.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.executor.context.metrics.in_flight.dec();
    }
}

impl Executor {
    /// An executor without runs.
    pub fn new(context: Context) -> Arc<Self> {
        Arc::new(Self {
            context,
            runs: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            taken_up: AtomicBool::new(false),
            tasks: TaskTracker::new(),
        })
    }

    /// What runs need.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// How many runs go on here.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether the unfinished runs of the store have been taken up.
    pub fn has_taken_up(&self) -> bool {
        self.taken_up.load(Ordering::Acquire)
    }

    /// The run, while it goes on here.
    pub fn find(&self, id: &TaskId) -> Option<Arc<RunHandle>> {
        self.map().get(id).cloned()
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<TaskId, Arc<RunHandle>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self, id: &TaskId) {
        self.map().remove(id);
    }

    /// A place for a run whose request has so many `bytes`.
    ///
    /// # Errors
    /// [`SubmitError::Busy`].
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Slot, SubmitError> {
        let runs = self.in_flight.load(Ordering::Relaxed);
        let held = self.bytes.load(Ordering::Relaxed);
        // Requests at the very same moment may pass together: they are as few as the threads.
        if runs >= self.context.max_runs || held.saturating_add(bytes) > MAX_BYTES {
            return Err(SubmitError::Busy);
        }
        Ok(self.take_place(bytes))
    }

    /// A place, over the bounds if need be.
    fn take_place(self: &Arc<Self>, bytes: usize) -> Slot {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.context.metrics.in_flight.inc();
        Slot {
            executor: Arc::clone(self),
            bytes,
        }
    }

    /// Keeps a new run in the store, with its first steps marked as dispatched, and begins it.
    ///
    /// One write: should this process die before those steps reach the broker, they are dispatched
    /// when the run is taken up.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit(
        self: &Arc<Self>,
        mut record: RunRecord,
        slot: Slot,
    ) -> Result<Arc<RunHandle>, SubmitError> {
        let dag = record.dag().map_err(|e| SubmitError::Plan(e.to_string()))?;
        let states = record.states(&self.context.steps);
        let mut machine = Machine::new(dag, states, self.context.steps.on_failure, record.deadline);
        let now = Timestamp::now();
        let commands = machine
            .apply(Event::Begin, now)
            .map_err(|e| SubmitError::Plan(e.to_string()))?;
        record.apply(change_for(&record, &commands, &HashMap::new(), now));
        // A client that goes away drops this future. What began goes on all the same: a run is stored
        // and begun, or neither.
        let begun = self
            .tasks
            .spawn(Arc::clone(self).begin(record, machine, commands, slot));
        begun.await.unwrap_or_else(|error| {
            let detail = error.to_string();
            let reached = true;
            Err(StoreError::Unavailable { detail, reached }.into())
        })
    }

    async fn begin(
        self: Arc<Self>,
        record: RunRecord,
        machine: Machine,
        commands: Vec<Command>,
        slot: Slot,
    ) -> Result<Arc<RunHandle>, SubmitError> {
        let id = record.task_id.clone();
        let (inbox, receiver) = mpsc::channel(INBOX);
        let handle = Arc::new(RunHandle::new(record, inbox));
        // Known before it is stored, so that taking up unfinished runs never begins it twice.
        self.map().insert(id.clone(), Arc::clone(&handle));
        let record = handle.read(RunRecord::clone);
        if let Err(error) = self.context.store.create(&record).await {
            self.forget(&id);
            self.context.metrics.store_errors.inc();
            if let StoreError::Unavailable { reached: true, .. } = &error {
                self.spawn("withdraw", Arc::clone(&self).withdraw(record, slot));
            }
            return Err(error.into());
        }
        self.context.events.send(handle.events_from(0).0);
        let actor = Actor::new(
            Arc::clone(&self),
            Arc::clone(&handle),
            machine,
            receiver,
            slot,
        );
        self.spawn("run", actor.run(commands));
        Ok(handle)
    }

    /// The client heard that its task is not accepted, but the store may have it, or may yet get it. There
    /// it ends, so that no later start takes it up. Holds its place until then.
    async fn withdraw(self: Arc<Self>, mut record: RunRecord, _slot: Slot) {
        let error = StepError::new("not_accepted", "the task could not be kept in time");
        record.apply(failed(error));
        let mut pauses = pauses();
        while let Err(error) = self.context.store.create(&record).await {
            let id = &record.task_id;
            tracing::debug!(task_id = %id, %error, "a task is not withdrawn, trying again");
            if self.pause(&mut pauses).await {
                return;
            }
        }
    }

    /// Ends a stored run that does not go on here, at its client's wish.
    ///
    /// # Errors
    /// [`SubmitError`], when it cannot be ended.
    pub async fn call_off(&self, record: &RunRecord) -> Result<(), SubmitError> {
        let dag = record.dag().map_err(|e| SubmitError::Plan(e.to_string()))?;
        let states = record.states(&self.context.steps);
        let mut machine = Machine::new(dag, states, self.context.steps.on_failure, record.deadline);
        let now = Timestamp::now();
        let mut commands = Vec::new();
        // Its time may be up: then it ends by that.
        for event in [Event::Begin, Event::Cancel] {
            commands.extend(machine.apply(event, now).unwrap_or_default());
        }
        commands.retain(|command| !matches!(command, Command::Dispatch { .. }));
        let change = change_for(record, &commands, &HashMap::new(), now);
        self.context.store.update(&record.task_id, &change).await?;
        Ok(())
    }

    /// Calls a run off. `false` when it does not go on here.
    pub async fn cancel(&self, id: &TaskId) -> bool {
        match self.find(id) {
            Some(handle) => handle.inbox().send(Input::Cancel).await.is_ok(),
            None => false,
        }
    }

    /// Takes up every unfinished run of the store; tries until the store answers.
    pub async fn take_up(self: Arc<Self>) {
        let mut pauses = pauses();
        let ids = loop {
            match self.context.store.unfinished().await {
                Ok(ids) => break ids,
                Err(error) => {
                    self.context.metrics.store_errors.inc();
                    tracing::warn!(%error, "cannot read the unfinished tasks, trying again");
                    if self.pause(&mut pauses).await {
                        return;
                    }
                }
            }
        };
        if !ids.is_empty() {
            tracing::info!(tasks = ids.len(), "taking up unfinished tasks");
        }
        futures_util::stream::iter(ids)
            .for_each_concurrent(TAKE_UP, |id| self.take_up_one(id))
            .await;
        self.taken_up.store(true, Ordering::Release);
    }

    async fn take_up_one(self: &Arc<Self>, id: TaskId) {
        if self.find(&id).is_some() {
            return;
        }
        let mut pauses = pauses();
        let record = loop {
            match self.context.store.load(&id).await {
                Ok(Some(record)) => break record,
                Ok(None) => {
                    tracing::warn!(task_id = %id, "an unfinished task is no longer in the store");
                    let error = StepError::new("lost", "the store lost the task");
                    // Takes its id off the unfinished ones.
                    return self.end_stored(&id, &failed(error)).await;
                }
                Err(StoreError::Unavailable { detail, .. }) => {
                    self.context.metrics.store_errors.inc();
                    tracing::warn!(task_id = %id, detail, "cannot load a task, trying again");
                    if self.pause(&mut pauses).await {
                        return;
                    }
                }
                Err(StoreError::Corrupt { detail, owner, .. }) => {
                    return self.replace(&id, &detail, owner).await;
                }
                Err(error) => {
                    tracing::error!(task_id = %id, %error, "an unfinished task cannot be taken up");
                    return;
                }
            }
        };
        if record.status.is_ended() {
            return;
        }
        let dag = match record.dag() {
            Ok(dag) => dag,
            Err(error) => {
                tracing::error!(task_id = %id, %error, "an unfinished task cannot be taken up");
                let error = StepError::new("corrupt", error.to_string());
                return self.end_stored(&id, &failed(error)).await;
            }
        };
        let states = record.states(&self.context.steps);
        let machine = Machine::new(dag, states, self.context.steps.on_failure, record.deadline);
        // These tasks were accepted.
        let slot = self.take_place(record.size());
        let (inbox, receiver) = mpsc::channel(INBOX);
        let handle = Arc::new(RunHandle::new(record, inbox));
        self.map().insert(id, Arc::clone(&handle));
        let actor = Actor::new(Arc::clone(self), handle, machine, receiver, slot);
        self.spawn("run", actor.take_up());
    }

    /// Writes the end of a stored run that cannot go on.
    async fn end_stored(&self, id: &TaskId, change: &Change) {
        if let Err(error) = self.context.store.update(id, change).await {
            tracing::warn!(task_id = %id, %error, "its end could not be stored");
        }
    }

    /// Puts a failed run in the place of one that cannot be read, so that its client hears of it.
    async fn replace(&self, id: &TaskId, detail: &str, owner: Option<Owner>) {
        tracing::error!(task_id = %id, detail, "an unfinished task cannot be read");
        let mut record = RunRecord::unreadable(id.clone(), owner, Timestamp::now());
        let detail = format!("what was stored cannot be read: {detail}");
        record.apply(failed(StepError::new("corrupt", detail)));
        if let Err(error) = self.context.store.create(&record).await {
            tracing::warn!(task_id = %id, %error, "its end could not be stored");
        }
    }

    /// Waits a while; `true` when the process is leaving.
    async fn pause(&self, pauses: &mut backon::ExponentialBackoff) -> bool {
        let pause = pauses.next().unwrap_or(Duration::from_secs(5));
        tokio::select! {
            () = self.context.halt.cancelled() => true,
            () = tokio::time::sleep(pause) => false,
        }
    }

    /// Runs `work` among this executor's tasks.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks
            .spawn(work.instrument(tracing::debug_span!("task", name)));
    }

    /// Returns when every run has left, after [`Context::halt`] was cancelled.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The change that ends a run for `error`, whatever its steps.
fn failed(error: StepError) -> Change {
    Change {
        steps: Vec::new(),
        completed: 0,
        end: Some(End {
            status: TaskStatus::Failed,
            error: Some(error),
            at: Timestamp::now(),
        }),
    }
}

/// Pauses between attempts that go on as long as they must.
pub(super) fn pauses() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build()
}
