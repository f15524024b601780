//! What every run store does about submission keys: one key, one task, as long as the task is kept.

use super::{create, end, owner, sample, update};
use crate::store::{
    Created, Earlier, NOT_ACCEPTED, ReplicaId, RunRecord, RunStore, SubmissionKey, TaskStatus,
};
use mesh_protocol::outcome::StepError;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn all<M, F>(make: &M)
where
    M: Fn(Duration) -> F,
    F: Future<Output = Arc<dyn RunStore>>,
{
    let day = Duration::from_secs(86_400);
    a_key_has_one_task(&*make(day).await).await;
    a_task_that_was_withdrawn_gives_up_its_key(&*make(day).await).await;
    a_key_is_written_again_with_its_task(&*make(day).await).await;
    of_many_at_once_one_is_kept(make(day).await).await;
    a_key_is_kept_as_long_as_its_task(&*make(Duration::from_secs(1)).await).await;
}

/// A run under a key that no other case uses, or under that of `other`.
fn keyed(other: Option<&RunRecord>, payload: &str) -> RunRecord {
    let mut run = sample(other.map_or_else(|| Some(owner("frank")), |o| o.owner.clone()));
    let payload = payload.to_owned().into();
    run.request.payload.insert("text".to_owned(), payload);
    run.key = Some(SubmissionKey::new(run.owner.as_ref(), "k", &run.request));
    run
}

#[allow(clippy::unwrap_used)]
async fn earlier(store: &dyn RunStore, run: &RunRecord) -> Option<Earlier> {
    store.submitted(run.key.as_ref().unwrap()).await.unwrap()
}

#[allow(clippy::unwrap_used)]
async fn a_key_has_one_task(store: &dyn RunStore) {
    let mut first = keyed(None, "a");
    assert_eq!(earlier(store, &first).await, None);
    create(store, &first).await;
    // A call that is made again is not another task.
    create(store, &first).await;
    assert_eq!(store.load(&first.task_id).await.unwrap().unwrap(), first);
    for ends in [false, true] {
        if ends {
            let end = end(&first, TaskStatus::Completed);
            update(store, &first, &end).await;
            first.apply(end);
        }
        for (payload, same_body) in [("a", true), ("b", false)] {
            let again = keyed(Some(&first), payload);
            let expected = Earlier {
                run: first.task_id.clone(),
                same_body,
            };
            assert_eq!(earlier(store, &again).await.as_ref(), Some(&expected));
            let created = store.create(&again, ReplicaId::random()).await.unwrap();
            assert_eq!(created, Created::Earlier(expected));
            assert!(store.load(&again.task_id).await.unwrap().is_none());
        }
    }
    assert_eq!(store.load(&first.task_id).await.unwrap().unwrap(), first);
    // Another originator's is another key.
    create(store, &keyed(None, "a")).await;
}

#[allow(clippy::unwrap_used)]
async fn a_task_that_was_withdrawn_gives_up_its_key(store: &dyn RunStore) {
    let mut refused = keyed(None, "a");
    create(store, &refused).await;
    let mut withdrawal = end(&refused, TaskStatus::Failed);
    if let Some(end) = &mut withdrawal.end {
        end.error = Some(StepError::new(NOT_ACCEPTED, "too late"));
    }
    refused.apply(withdrawal);
    create(store, &refused).await;
    assert_eq!(earlier(store, &refused).await, None);
    let again = keyed(Some(&refused), "a");
    create(store, &again).await;
    // The withdrawal that arrives twice does not take the key away from the second.
    create(store, &refused).await;
    let kept = earlier(store, &again).await.unwrap();
    assert_eq!(kept.run, again.task_id);
}

#[allow(clippy::unwrap_used)]
async fn a_key_is_written_again_with_its_task(store: &dyn RunStore) {
    let mut run = keyed(None, "a");
    let end = end(&run, TaskStatus::Completed);
    // A store that lost it hears of it when it has ended.
    run.apply(end);
    create(store, &run).await;
    assert_eq!(earlier(store, &run).await.unwrap().run, run.task_id);
}

#[allow(clippy::unwrap_used)]
async fn of_many_at_once_one_is_kept(store: Arc<dyn RunStore>) {
    let first = keyed(None, "a");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (store, run) = (Arc::clone(&store), keyed(Some(&first), "a"));
        tasks.spawn(async move { store.create(&run, ReplicaId::random()).await.unwrap() });
    }
    let created = tasks.join_all().await;
    let kept = created.iter().filter(|c| **c == Created::Kept).count();
    assert_eq!(kept, 1, "{created:?}");
    let known = earlier(&*store, &first).await.unwrap();
    assert!(created.iter().all(|c| match c {
        Created::Earlier(earlier) => *earlier == known,
        other => *other == Created::Kept,
    }));
}

#[allow(clippy::unwrap_used)]
async fn a_key_is_kept_as_long_as_its_task(store: &dyn RunStore) {
    let run = keyed(None, "a");
    create(store, &run).await;
    update(store, &run, &end(&run, TaskStatus::Completed)).await;
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while store.load(&run.task_id).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited.await.unwrap();
    assert_eq!(earlier(store, &run).await, None);
    create(store, &keyed(Some(&run), "b")).await;
}
