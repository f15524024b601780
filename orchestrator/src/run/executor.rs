//! Begins runs, and knows those that go on in this process.

use super::actor::Actor;
use super::admission::{Places, Slot, SubmitError};
use super::change::change_for;
use super::clock::Clock;
use super::events::of_change;
use super::lane::Ready;
use super::machine::{Command, Event, Machine};
use super::outlet::Pressure;
use super::shown::{Input, RunHandle};
use super::tenure::{self, Tenure, failed};
use super::trace::Tracing;
use crate::config::Steps;
use crate::load::Load;
use crate::metrics::Metrics;
use crate::ollama::cache::PlanCache;
use crate::resources::Desk;
use crate::store::{
    Created, Earlier, NOT_ACCEPTED, ReplicaId, RunRecord, RunStore, StoreError, Updated,
};
use backon::BackoffBuilder;
use mesh_bus::Bus;
use mesh_protocol::outcome::StepError;
use mesh_protocol::{TaskId, Timestamp};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// What runs need.
pub struct Context {
    /// Carries steps.
    pub bus: Arc<dyn Bus>,
    /// Keeps runs.
    pub store: Arc<dyn RunStore>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Told whenever something was logged, for whoever publishes it.
    pub written: Arc<Notify>,
    /// Hears of the steps that are under way.
    pub load: Arc<Load>,
    /// Asks for resources, where this mesh declares any.
    pub desk: Option<Arc<Desk>>,
    /// How steps are run.
    pub steps: Steps,
    /// Most runs in flight.
    pub max_runs: usize,
    /// Whether the queues stand.
    pub ready: watch::Receiver<Ready>,
    /// Begins the spans of messages.
    pub tracing: Tracing,
    /// Hears how the runs of plans end, where plans are used again.
    pub plans: Option<Arc<PlanCache>>,
    /// Cancelled to leave: runs stay in the store as they are.
    pub halt: CancellationToken,
}

/// The runs of this process.
pub struct Executor {
    context: Context,
    runs: Mutex<HashMap<TaskId, Arc<RunHandle>>>,
    places: Places,
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

/// What became of a submission.
pub enum Submitted {
    /// The run goes on here.
    Begun(Arc<RunHandle>),
    /// It was submitted before, under the same key.
    Earlier(Earlier),
}

impl Executor {
    /// An executor without runs.
    pub fn new(context: Context) -> Arc<Self> {
        Arc::new(Self {
            context,
            runs: Mutex::default(),
            places: Places::default(),
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
        if let Some(desk) = &self.context.desk {
            let halt = &self.context.halt;
            self.spawn("resources", Arc::clone(desk).keep(halt.clone()));
            self.spawn("grants", Arc::clone(desk).listen(halt.clone()));
        }
    }

    /// Which replica this is.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The clock of deadlines.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn tenure(&self) -> &Tenure {
        &self.tenure
    }

    pub(super) fn pressure(&self) -> &Pressure {
        &self.pressure
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
        let states = record.states(&self.context.steps, self.context.desk.is_some());
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
        self.context.written.notify_one();
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
        let states = record.states(&self.context.steps, self.context.desk.is_some());
        let mut machine = Machine::new(dag, states, self.context.steps.on_failure, record.deadline);
        let now = Timestamp::now();
        let mut commands = Vec::new();
        // Its time may be up: then it ends by that.
        for event in [Event::Begin, Event::Cancel] {
            commands.extend(machine.apply(event, self.clock.now()).unwrap_or_default());
        }
        commands.retain(|c| matches!(c, Command::Settle { .. } | Command::End(_)));
        let mut change = change_for(record, &commands, &HashMap::new(), now);
        change.events = of_change(record, &change);
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
    pub(crate) async fn pause(&self, pause: Duration) -> bool {
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
pub(crate) fn pauses() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build()
}
