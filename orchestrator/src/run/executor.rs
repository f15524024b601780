//! Begins runs, and knows those that go on in this process.

use super::actor::Actor;
use super::change::change_for;
use super::clock::Clock;
use super::events::Events;
use super::lane::Ready;
use super::machine::{Command, Event, Machine};
use super::outlet::Pressure;
use super::shown::{Input, RunHandle};
use super::tenure::{self, Tenure, failed};
use super::trace::Tracing;
use crate::config::Steps;
use crate::load::Load;
use crate::metrics::Metrics;
use crate::store::{
    Created, Earlier, NOT_ACCEPTED, ReplicaId, RunRecord, RunStore, StoreError, Updated,
};
use backon::BackoffBuilder;
use mesh_bus::Bus;
use mesh_protocol::outcome::StepError;
use mesh_protocol::{TaskId, Timestamp};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Most bytes of the request bodies of runs in flight: parsed, a body takes some times its length.
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// How long a new task waits for this replica's lease: at start, and when the store hesitated.
const LEASE_WAIT: Duration = Duration::from_secs(1);

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
    taken_up: watch::Sender<bool>,
    tasks: TaskTracker,
    replica: ReplicaId,
    clock: Clock,
    tenure: Tenure,
    pressure: Pressure,
    /// Runs that were refused to their clients and that the store may have.
    withdrawing: Mutex<HashSet<TaskId>>,
    /// When the store was found emptied last.
    emptied: Mutex<Option<Timestamp>>,
}

/// Why a run does not begin.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// As many runs as allowed are in flight.
    #[error("too many tasks are in flight")]
    Busy,
    /// The broker is away, or takes nothing: no step would go out.
    #[error("the broker takes no tasks")]
    Broker,
    /// This replica has no lease: what it began would be taken from it.
    #[error("the store does not renew this replica's lease")]
    NoLease,
    /// The run could not be kept, so it was not begun.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The plan is none that was checked.
    #[error("the plan is not sound: {0}")]
    Plan(String),
}

/// What became of a submission.
pub enum Submitted {
    /// The run goes on here.
    Begun(Arc<RunHandle>),
    /// It was submitted before, under the same key.
    Earlier(Earlier),
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
            taken_up: watch::Sender::new(false),
            tasks: TaskTracker::new(),
            replica: ReplicaId::random(),
            clock: Clock::start(),
            tenure: Tenure::new(),
            pressure: Pressure::new(),
            withdrawing: Mutex::default(),
            emptied: Mutex::default(),
        })
    }

    /// Begins to keep this replica's lease, and the runs that come with it.
    pub fn start(self: &Arc<Self>) {
        self.spawn("tenure", tenure::keep(Arc::clone(self)));
        self.spawn("handed", tenure::listen(Arc::clone(self)));
    }

    /// Which replica this is.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The clock of deadlines.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn tenure(&self) -> &Tenure {
        &self.tenure
    }

    pub(super) fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// Why a task that is submitted now would be refused, if it would.
    pub fn obstacle(&self) -> Option<SubmitError> {
        if !*self.context.bus.connected().borrow() || self.pressure.is_stalled() {
            return Some(SubmitError::Broker);
        }
        (!self.tenure.is_held()).then_some(SubmitError::NoLease)
    }

    /// When the store was found emptied last, if it was.
    pub fn emptied(&self) -> Option<Timestamp> {
        *self.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn store_was_emptied(&self) {
        let runs = self.in_flight();
        tracing::error!(
            runs,
            "the store was emptied: the runs of this replica are written again, all others are lost"
        );
        self.context.metrics.store_emptied.inc();
        *self.emptied.lock().unwrap_or_else(PoisonError::into_inner) = Some(Timestamp::now());
    }

    pub(super) fn has_now_taken_up(&self) {
        self.taken_up.send_replace(true);
    }

    /// What runs need.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// How many runs go on here.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether the runs of the store that nobody held have been taken up.
    pub fn has_taken_up(&self) -> bool {
        *self.taken_up.borrow()
    }

    /// Returns once [`Self::has_taken_up`].
    pub(super) async fn taken_up(&self) {
        // Fails with the sender, which is `self`.
        let mut taken_up = self.taken_up.subscribe();
        let _taken_up = taken_up.wait_for(|taken| *taken).await;
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

    pub(super) fn all(&self) -> Vec<Arc<RunHandle>> {
        self.map().values().cloned().collect()
    }

    /// Knows the run from now on; `false` when it did before.
    pub(super) fn insert(&self, handle: &Arc<RunHandle>) -> bool {
        let id = handle.read(|run| run.task_id.clone());
        match self.map().entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(Arc::clone(handle));
                true
            }
        }
    }

    fn withdrawn(&self) -> std::sync::MutexGuard<'_, HashSet<TaskId>> {
        self.withdrawing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the run was refused to its client, and is not to go on.
    pub fn is_withdrawing(&self, id: &TaskId) -> bool {
        self.withdrawn().contains(id)
    }

    /// A place for a run whose request has so many `bytes`, if it could begin now.
    ///
    /// # Errors
    /// [`SubmitError::Busy`], [`SubmitError::Broker`], [`SubmitError::NoLease`].
    pub async fn admit(self: &Arc<Self>, bytes: usize) -> Result<Slot, SubmitError> {
        if let Some(obstacle) = self.obstacle() {
            let held = tokio::time::timeout(LEASE_WAIT, self.tenure.held()).await;
            if held.is_err() || !matches!(obstacle, SubmitError::NoLease) {
                return Err(obstacle);
            }
        }
        self.reserve(bytes)
    }

    fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Slot, SubmitError> {
        let runs = self.in_flight.load(Ordering::Relaxed);
        let held = self.bytes.load(Ordering::Relaxed);
        // Requests at the very same moment may pass together: they are as few as the threads.
        if runs >= self.context.max_runs || held.saturating_add(bytes) > MAX_BYTES {
            return Err(SubmitError::Busy);
        }
        Ok(self.take_place(bytes))
    }

    /// A place, over the bounds if need be.
    pub(super) fn take_place(self: &Arc<Self>, bytes: usize) -> Slot {
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
    ) -> Result<Submitted, SubmitError> {
        let dag = record.dag().map_err(|e| SubmitError::Plan(e.to_string()))?;
        let states = record.states(&self.context.steps);
        let mut machine = Machine::new(dag, states, self.context.steps.on_failure, record.deadline);
        let now = Timestamp::now();
        let commands = machine
            .apply(Event::Begin, self.clock.now())
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
    ) -> Result<Submitted, SubmitError> {
        let id = record.task_id.clone();
        let (handle, receiver) = RunHandle::new(record);
        let handle = Arc::new(handle);
        // Known before it is stored, so that taking up unfinished runs never begins it twice.
        self.insert(&handle);
        let record = handle.read(RunRecord::clone);
        match self.context.store.create(&record, self.replica).await {
            Ok(Created::Kept) => {}
            Ok(Created::Earlier(earlier)) => {
                self.forget(&id);
                return Ok(Submitted::Earlier(earlier));
            }
            Ok(Created::Superseded) => {
                self.forget(&id);
                return Err(SubmitError::NoLease);
            }
            Err(error) => {
                self.context.metrics.store_errors.inc();
                if let StoreError::Unavailable { reached: true, .. } = &error {
                    self.withdrawn().insert(id.clone());
                    self.spawn("withdraw", Arc::clone(&self).withdraw(record, slot));
                }
                self.forget(&id);
                return Err(error.into());
            }
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
        Ok(Submitted::Begun(handle))
    }

    /// The client heard that its task is not accepted, but the store may have it, or may yet get it. There
    /// it ends, so that no later start takes it up. Holds its place until then.
    async fn withdraw(self: Arc<Self>, mut record: RunRecord, _slot: Slot) {
        let error = StepError::new(NOT_ACCEPTED, "the task could not be kept in time");
        record.apply(failed(error, record.version + 1));
        let mut pauses = pauses();
        let id = &record.task_id;
        while let Err(error) = self.context.store.create(&record, self.replica).await {
            tracing::debug!(task_id = %id, %error, "a task is not withdrawn, trying again");
            let pause = pauses.next().unwrap_or(Duration::from_secs(5));
            if self.pause(pause).await {
                return;
            }
        }
        self.withdrawn().remove(id);
    }

    /// Ends a stored run that does not go on here, at its client's wish, under the fencing token that it
    /// had: whoever runs it finds it ended. `false` when it has changed meanwhile.
    ///
    /// # Errors
    /// [`SubmitError`], when it cannot be ended.
    pub async fn call_off(&self, record: &RunRecord) -> Result<bool, SubmitError> {
        let dag = record.dag().map_err(|e| SubmitError::Plan(e.to_string()))?;
        let states = record.states(&self.context.steps);
        let mut machine = Machine::new(dag, states, self.context.steps.on_failure, record.deadline);
        let now = Timestamp::now();
        let mut commands = Vec::new();
        // Its time may be up: then it ends by that.
        for event in [Event::Begin, Event::Cancel] {
            commands.extend(machine.apply(event, self.clock.now()).unwrap_or_default());
        }
        commands.retain(|command| !matches!(command, Command::Dispatch { .. }));
        let change = change_for(record, &commands, &HashMap::new(), now);
        let store = &self.context.store;
        let updated = store.update(&record.task_id, record.fence, &change).await?;
        Ok(matches!(updated, Updated::Written | Updated::EndedBefore))
    }

    /// Calls a run off. `false` when it does not go on here.
    pub async fn cancel(&self, id: &TaskId) -> bool {
        match self.find(id) {
            Some(handle) => handle.inbox().send(Input::Cancel).await.is_ok(),
            None => false,
        }
    }

    /// Waits a while; `true` when the process is leaving.
    pub(super) async fn pause(&self, pause: Duration) -> bool {
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

    /// Returns when every run has left, after [`Context::halt`] was cancelled, and others may take them up.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        if let Err(error) = self.context.store.release(self.replica).await {
            tracing::warn!(%error, "the lease is not given up, and runs out by itself");
        }
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
