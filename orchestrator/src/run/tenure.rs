//! Keeps this replica's lease, and with it its runs: renews, takes over what nobody holds, hears of results
//! that other replicas were handed.
//!
//! ```text
//!  every RENEW: hold ─▶ claimed runs ─▶ take up        lease lapsed, store emptied ─▶ every run looks whether
//!                    └▶ handed results ─▶ inbox                                     it is still its own there
//!  listen ─▶ handed results ─▶ inbox
//! ```
//!
//! A replica that cannot renew goes on to serve and publishes nothing; what it writes meanwhile is refused
//! by the store where another replica has taken over.

use super::actor::Actor;
use super::events::of_end;
use super::executor::{Executor, pauses};
use super::machine::Machine;
use super::shown::{Input, RunHandle};
use crate::store::{Change, Claim, End, Hold, Owner, RunRecord, StoreError, TaskStatus};
use futures_util::StreamExt;
use mesh_protocol::outcome::{StepError, StepResult};
use mesh_protocol::{TaskId, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a lease lasts: two renewals may fail. With [`RENEW`], the runs of a replica that dies are taken
/// over within eight seconds.
const LEASE: Duration = Duration::from_secs(6);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(2);
/// How soon again after a failure.
const RETRY: Duration = Duration::from_millis(500);
/// Runs taken over by one renewal; the next follows at once. A claim holds the store for some microseconds.
const CLAIM: usize = 256;
/// Runs loaded at the same time.
const TAKE_UP: usize = 16;

/// Until when the lease holds for certain.
pub(super) struct Tenure(watch::Sender<Option<Instant>>);

impl Tenure {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Whether the lease holds.
    pub(super) fn is_held(&self) -> bool {
        holds(&self.0.borrow())
    }

    /// Returns once the lease holds.
    pub(super) async fn held(&self) {
        if !self.is_held() {
            // Fails with the sender, which is `self`.
            let mut until = self.0.subscribe();
            let _held = until.wait_for(holds).await;
        }
    }
}

fn holds(until: &Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

/// Keeps the lease until the process leaves.
pub(super) async fn keep(executor: Arc<Executor>) {
    let mut epoch: Option<String> = None;
    let mut unsure = false;
    loop {
        // From before the store could begin to count.
        let sent = Instant::now();
        let hold = Hold {
            replica: executor.replica(),
            lease: LEASE,
            claim: CLAIM,
            now: executor.clock().now(),
            all: unsure,
        };
        let halt = &executor.context().halt;
        let held = halt.run_until_cancelled(executor.context().store.hold(&hold));
        let held = match held.await {
            None => return,
            Some(Ok(held)) => held,
            Some(Err(error)) => {
                unsure = true;
                executor.context().metrics.store_errors.inc();
                tracing::warn!(%error, "the lease on this replica's tasks is not renewed, trying again");
                if executor.pause(RETRY).await {
                    return;
                }
                continue;
            }
        };
        executor.tenure().0.send_replace(Some(sent + LEASE));
        let before = epoch.replace(held.epoch.clone());
        if before.as_ref().is_some_and(|before| *before != held.epoch) {
            executor.store_was_emptied();
            executor.look_after_all();
        } else if held.lapsed && before.is_some() {
            tracing::warn!("the lease on this replica's tasks had run out");
            executor.look_after_all();
        }
        if !held.claimed.is_empty() {
            tracing::info!(tasks = held.claimed.len(), "taking up unfinished tasks");
        }
        let full = held.claimed.len() >= CLAIM;
        let claims = held.claimed.into_iter().chain(held.all);
        let taken = futures_util::stream::iter(claims)
            .map(|claim| executor.take_up(claim))
            .buffer_unordered(TAKE_UP);
        unsure = !taken.all(|taken| async move { taken }).await;
        for run in &held.handed {
            executor.fetch_handed(run).await;
        }
        if full {
            continue;
        }
        if !unsure {
            executor.has_now_taken_up();
        }
        let next = if unsure { sent + RETRY } else { sent + RENEW };
        if executor
            .pause(next.saturating_duration_since(Instant::now()))
            .await
        {
            return;
        }
    }
}

/// Hears of results that other replicas were handed, until the process leaves.
pub(super) async fn listen(executor: Arc<Executor>) {
    let halt = executor.context().halt.clone();
    let mut pauses = pauses();
    loop {
        let store = Arc::clone(&executor.context().store);
        let listening = store.listen(executor.replica());
        match halt.run_until_cancelled(listening).await {
            None => return,
            Some(Ok(mut results)) => {
                pauses = super::executor::pauses();
                loop {
                    match halt.run_until_cancelled(results.next()).await {
                        None => return,
                        Some(Some(result)) => executor.handed(result),
                        Some(None) => break,
                    }
                }
            }
            Some(Err(error)) => {
                executor.context().metrics.store_errors.inc();
                tracing::warn!(%error, "cannot listen for handed results, trying again");
            }
        }
        if executor.pause(pauses.next().unwrap_or(RENEW)).await {
            return;
        }
    }
}

impl Executor {
    /// Gives a result that was handed over to its run. What finds no room is told of again.
    fn handed(&self, result: StepResult) {
        if let Some(handle) = self.find(&result.task_id) {
            let input = Input::Result(Box::new((result, None)));
            let _told_again = handle.inbox().try_send(input);
        }
    }

    async fn fetch_handed(&self, run: &TaskId) {
        if self.find(run).is_none() {
            return;
        }
        match self.context().store.load(run).await {
            Ok(Some(record)) => record.handed.into_iter().for_each(|r| self.handed(r)),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(task_id = %run, %error, "handed results are not read, trying again");
            }
        }
    }

    /// Has every run see whether the store still has it, and as this replica's.
    fn look_after_all(&self) {
        for handle in self.all() {
            // No room: it is busy, and finds out by what it writes.
            let _busy = handle.inbox().try_send(Input::Look);
        }
    }

    /// Goes on with a run that is this replica's from now on. `false` when the store has to be asked again.
    async fn take_up(self: &Arc<Self>, claim: Claim) -> bool {
        let id = &claim.run;
        if self.is_withdrawing(id) {
            return true;
        }
        if let Some(handle) = self.find(id) {
            // Under an older token it was another's in between, and finds that out by what it writes next. It is
            // taken up anew when it is gone: nobody else would, for it is this replica's.
            let stale = handle.read(|run| run.fence < claim.fence);
            if stale {
                let _busy = handle.inbox().try_send(Input::Look);
            }
            return !stale;
        }
        let mut record = match self.context().store.load(id).await {
            Ok(Some(record)) => record,
            Ok(None) => {
                tracing::warn!(task_id = %id, "an unfinished task is no longer in the store");
                let error = StepError::new("lost", "the store lost the task");
                // Takes its id off the unfinished ones.
                return self.end_stored(&claim, failed(error, 0)).await;
            }
            Err(StoreError::Corrupt { detail, owner, .. }) => {
                return self.replace(&claim, &detail, owner).await;
            }
            Err(error) => {
                self.context().metrics.store_errors.inc();
                tracing::warn!(task_id = %id, %error, "cannot load a task, trying again");
                return false;
            }
        };
        if record.status.is_ended() || record.fence > claim.fence {
            return true;
        }
        let dag = match record.dag() {
            Ok(dag) => dag,
            Err(error) => {
                tracing::error!(task_id = %id, %error, "an unfinished task cannot be taken up");
                let error = StepError::new("corrupt", error.to_string());
                return self
                    .end_stored(&claim, failed(error, record.version + 1))
                    .await;
            }
        };
        record.fence = claim.fence;
        record.rebase(claim.ahead_ms);
        let handed = std::mem::take(&mut record.handed);
        let steps = &self.context().steps;
        let states = record.states(steps, self.context().desk.is_some());
        let machine = Machine::new(dag, states, steps.on_failure, record.deadline);
        // These tasks were accepted.
        let slot = self.take_place(record.size());
        let (handle, inbox) = RunHandle::new(record);
        let handle = Arc::new(handle);
        // Known already: begun here while it was loaded.
        if !self.insert(&handle) {
            return true;
        }
        let actor = Actor::new(Arc::clone(self), handle, machine, inbox, slot);
        self.spawn("run", actor.take_up());
        self.context().metrics.taken_up.inc();
        for result in handed {
            self.handed(result);
        }
        true
    }

    /// Writes the end of a stored run that cannot go on.
    async fn end_stored(&self, claim: &Claim, mut change: Change) -> bool {
        let end = change.end.as_ref();
        let event = end.and_then(|end| of_end(&claim.run, end, None));
        change.events.extend(event.map(Arc::new));
        let store = &self.context().store;
        let written = store.update(&claim.run, claim.fence, &change).await;
        if let Err(error) = &written {
            tracing::warn!(task_id = %claim.run, %error, "its end could not be stored");
        }
        written.is_ok()
    }

    /// Puts a failed run in the place of one that cannot be read, so that its client hears of it.
    async fn replace(&self, claim: &Claim, detail: &str, owner: Option<Owner>) -> bool {
        let id = &claim.run;
        tracing::error!(task_id = %id, detail, "an unfinished task cannot be read");
        let mut record = RunRecord::unreadable(id.clone(), owner, Timestamp::now());
        record.fence = claim.fence;
        let detail = format!("what was stored cannot be read: {detail}");
        record.apply(failed(StepError::new("corrupt", detail), 1));
        let written = self.context().store.create(&record, self.replica()).await;
        if let Err(error) = &written {
            tracing::warn!(task_id = %id, %error, "its end could not be stored");
        }
        written.is_ok()
    }
}

/// The change that ends a run for `error`, whatever its steps, as its `version`.
pub(super) fn failed(error: StepError, version: u64) -> Change {
    Change {
        steps: Vec::new(),
        completed: 0,
        end: Some(End {
            status: TaskStatus::Failed,
            error: Some(error),
            at: Timestamp::now(),
        }),
        version,
        handed: Vec::new(),
        events: Vec::new(),
    }
}
