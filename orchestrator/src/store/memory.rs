//! Runs in this process: for one-process meshes and tests. Empty after a restart.

mod leases;
mod log;

use super::{
    Change, Created, Earlier, Page, Query, ReplicaId, RunRecord, RunStore, StoreError,
    SubmissionKey, Updated, log::KEPT_CHANGES,
};
use crate::run::events;
use async_trait::async_trait;
use mesh_protocol::{TaskId, Timestamp};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most finished runs that are kept, whatever the retention: a process must not grow without end.
const MAX_FINISHED: usize = 100_000;
/// Most bytes of payloads and results that finished runs keep, for the same reason.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// The store.
pub struct MemoryStore {
    retention: Duration,
    kept_changes: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    // Task ids begin with their time, so the order of keys is the order of submission.
    runs: BTreeMap<TaskId, RunRecord>,
    /// Whose each is.
    unfinished: BTreeMap<TaskId, ReplicaId>,
    finished: VecDeque<Finished>,
    /// By the name of the key, as long as the task is kept.
    keys: HashMap<String, (TaskId, String)>,
    replicas: leases::Replicas,
    log: log::Log,
    /// Sum of what `finished` keeps.
    bytes: usize,
}

/// A finished run in the order of the ends.
struct Finished {
    at: Timestamp,
    id: TaskId,
    bytes: usize,
}

impl Inner {
    /// Counts a run among the finished ones.
    fn end(&mut self, at: Timestamp, id: &TaskId, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.finished.push_back(Finished {
            at,
            id: id.clone(),
            bytes,
        });
    }

    fn give_up_key(&mut self, run: &RunRecord) {
        if let Some(key) = &run.key
            && self
                .keys
                .get(&key.name)
                .is_some_and(|(id, _)| *id == run.task_id)
        {
            self.keys.remove(&key.name);
        }
    }

    fn earlier(&self, key: &SubmissionKey) -> Option<Earlier> {
        let (run, body) = self.keys.get(&key.name)?;
        Some(Earlier {
            run: run.clone(),
            same_body: *body == key.body,
        })
    }

    /// Forgets the runs whose time is over, and the oldest beyond the bounds.
    fn forget(&mut self, now: Timestamp, retention: Duration) {
        while let Some(oldest) = self.finished.front() {
            let room = self.finished.len() <= MAX_FINISHED && self.bytes <= MAX_BYTES;
            if room && now < oldest.at.plus(retention) {
                break;
            }
            if let Some(oldest) = self.finished.pop_front() {
                self.bytes = self.bytes.saturating_sub(oldest.bytes);
                if let Some(run) = self.runs.remove(&oldest.id) {
                    self.give_up_key(&run);
                }
            }
        }
    }
}

impl MemoryStore {
    /// An empty store that forgets runs `retention` after their end.
    pub fn new(retention: Duration) -> Self {
        Self {
            retention,
            kept_changes: KEPT_CHANGES,
            inner: Mutex::default(),
        }
    }

    /// The same with a log of so many changes.
    #[must_use]
    pub fn keeping(mut self, changes: usize) -> Self {
        self.kept_changes = changes;
        self
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.forget(Timestamp::now(), self.retention);
        inner
    }
}

#[async_trait]
impl RunStore for MemoryStore {
    async fn create(&self, run: &RunRecord, by: ReplicaId) -> Result<Created, StoreError> {
        let mut inner = self.lock();
        let id = &run.task_id;
        let ends = run.finished_at.filter(|_| run.status.is_ended());
        if let Some(there) = inner.runs.get(id) {
            if there.fence > run.fence {
                return Ok(Created::Superseded);
            }
            let newer = there.fence == run.fence && there.version >= run.version;
            if ends.is_none() && (there.status.is_ended() || newer) {
                return Ok(Created::Kept);
            }
        }
        if let Some(key) = &run.key {
            match inner.earlier(key).filter(|earlier| earlier.run != *id) {
                Some(earlier) if ends.is_none() => return Ok(Created::Earlier(earlier)),
                Some(_) => {}
                None if run.is_withdrawn() => inner.give_up_key(run),
                None => {
                    let value = (id.clone(), key.body.clone());
                    inner.keys.insert(key.name.clone(), value);
                }
            }
        }
        let told = events::of_new(run);
        inner.log.add(run.owner.clone(), told, self.kept_changes);
        if run.waits_for_reply() {
            inner.log.wants_reply(id.clone());
        }
        inner.runs.insert(id.clone(), run.clone());
        match ends {
            None => {
                inner.unfinished.insert(id.clone(), by);
            }
            Some(at) => {
                inner.unfinished.remove(id);
                let before = inner.finished.iter().position(|f| f.id == *id);
                if let Some(before) = before.and_then(|place| inner.finished.remove(place)) {
                    inner.bytes = inner.bytes.saturating_sub(before.bytes);
                }
                inner.end(at, id, run.size());
            }
        }
        Ok(Created::Kept)
    }

    async fn update(
        &self,
        run: &TaskId,
        fence: u64,
        change: &Change,
    ) -> Result<Updated, StoreError> {
        let mut inner = self.lock();
        let Some(record) = inner.runs.get_mut(run) else {
            return Ok(Updated::Gone);
        };
        if let Some(at) = record.finished_at {
            let same = change.end.as_ref().is_some_and(|end| end.at == at);
            return Ok(if same {
                Updated::Written
            } else {
                Updated::EndedBefore
            });
        }
        if record.fence > fence {
            return Ok(Updated::Superseded);
        }
        if record.fence == fence && record.version == change.version {
            return Ok(Updated::Written);
        }
        if record.fence < fence || record.version + 1 != change.version {
            return Ok(Updated::Gone);
        }
        record.apply(change.clone());
        let (bytes, owner, waits) = (
            record.size(),
            record.owner.clone(),
            record.waits_for_reply(),
        );
        let told = change.events.clone();
        inner.log.add(owner, told, self.kept_changes);
        if waits {
            inner.log.wants_reply(run.clone());
        }
        if let Some(end) = &change.end {
            inner.unfinished.remove(run);
            inner.end(end.at, run, bytes);
        }
        Ok(Updated::Written)
    }

    async fn load(&self, run: &TaskId) -> Result<Option<RunRecord>, StoreError> {
        Ok(self.lock().runs.get(run).cloned())
    }

    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        let inner = self.lock();
        let upper = match &query.before {
            Some(id) => std::ops::Bound::Excluded(id.clone()),
            None => std::ops::Bound::Unbounded,
        };
        let mut matching = inner
            .runs
            .range((std::ops::Bound::Unbounded, upper))
            .rev()
            .map(|(_, run)| run)
            .filter(|run| query.owner.is_none() || run.owner == query.owner)
            .filter(|run| query.status.is_none_or(|status| run.status == status));
        let tasks: Vec<_> = matching
            .by_ref()
            .take(query.limit)
            .map(RunRecord::summary)
            .collect();
        let next = match matching.next() {
            Some(_) => tasks.last().map(|t| t.task_id.clone()),
            None => None,
        };
        Ok(Page { tasks, next })
    }

    async fn submitted(&self, key: &SubmissionKey) -> Result<Option<Earlier>, StoreError> {
        Ok(self.lock().earlier(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::sample;
    use crate::store::{End, TaskStatus};
    use std::sync::Arc;

    #[tokio::test]
    async fn finished_runs_are_bounded_by_what_they_hold() {
        let store = MemoryStore::new(Duration::from_secs(3600));
        let large = "x".repeat(MAX_BYTES / 4);
        let (by, mut ids) = (ReplicaId::random(), Vec::new());
        for _ in 0..6 {
            let mut record = sample(None);
            record
                .request
                .payload
                .insert("text".to_owned(), large.clone().into());
            store.create(&record, by).await.unwrap();
            let change = Change {
                steps: Vec::new(),
                completed: 0,
                version: 1,
                handed: Vec::new(),
                events: Vec::new(),
                end: Some(End {
                    status: TaskStatus::Completed,
                    error: None,
                    at: Timestamp::now(),
                }),
            };
            store.update(&record.task_id, 1, &change).await.unwrap();
            ids.push(record.task_id);
        }
        let mut kept = Vec::new();
        for id in &ids {
            kept.push(store.load(id).await.unwrap().is_some());
        }
        assert_eq!(kept, [false, false, false, true, true, true]);
    }

    #[tokio::test]
    async fn the_log_is_bounded() {
        let store = MemoryStore::new(Duration::from_secs(3600)).keeping(100);
        super::super::contract::what_makes_room_is_counted(&store).await;
    }

    #[tokio::test]
    async fn passes_the_contract() {
        super::super::contract::all(|retention| async move {
            Arc::new(MemoryStore::new(retention)) as Arc<dyn RunStore>
        })
        .await;
    }
}
