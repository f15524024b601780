//! Runs in this process: for one-process meshes and tests. Empty after a restart.

use super::{Change, Page, Query, RunRecord, RunStore, StoreError};
use async_trait::async_trait;
use mesh_protocol::{TaskId, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most finished runs that are kept, whatever the retention: a process must not grow without end.
const MAX_FINISHED: usize = 100_000;

/// The store.
pub struct MemoryStore {
    retention: Duration,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    // Task ids begin with their time, so the order of keys is the order of submission.
    runs: BTreeMap<TaskId, RunRecord>,
    unfinished: BTreeSet<TaskId>,
    finished: VecDeque<(Timestamp, TaskId)>,
}

impl MemoryStore {
    /// An empty store that forgets runs `retention` after their end.
    pub fn new(retention: Duration) -> Self {
        Self {
            retention,
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timestamp::now();
        while let Some((at, _)) = inner.finished.front() {
            if inner.finished.len() <= MAX_FINISHED && now < at.plus(self.retention) {
                break;
            }
            if let Some((_, id)) = inner.finished.pop_front() {
                inner.runs.remove(&id);
            }
        }
        inner
    }
}

#[async_trait]
impl RunStore for MemoryStore {
    async fn create(&self, run: &RunRecord) -> Result<(), StoreError> {
        let mut inner = self.lock();
        inner.runs.insert(run.task_id.clone(), run.clone());
        inner.unfinished.insert(run.task_id.clone());
        Ok(())
    }

    async fn update(&self, run: &TaskId, change: &Change) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let Some(record) = inner.runs.get_mut(run) else {
            return Ok(());
        };
        record.apply(change.clone());
        if let Some(end) = &change.end
            && inner.unfinished.remove(run)
        {
            inner.finished.push_back((end.at, run.clone()));
        }
        Ok(())
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

    async fn unfinished(&self) -> Result<Vec<TaskId>, StoreError> {
        Ok(self.lock().unfinished.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn passes_the_contract() {
        super::super::contract::all(|retention| async move {
            Arc::new(MemoryStore::new(retention)) as Arc<dyn RunStore>
        })
        .await;
    }
}
