//! What every run store does about replicas: leases, fencing, takeover, results that are handed over.

use super::{change, end, sample};
use crate::run::machine::StepStatus;
use crate::run::new_task_id;
use crate::store::{
    Claim, Created, HandedOver, Held, Hold, ReplicaId, RunRecord, RunStore, TaskStatus, Updated,
};
use futures_util::StreamExt;
use mesh_protocol::Timestamp;
use mesh_protocol::outcome::{Outcome, StepResult};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Long enough to outlast a case, or so short that it has run out when the store answers.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(1);

pub(super) async fn all<M, F>(make: &M)
where
    M: Fn(Duration) -> F,
    F: Future<Output = Arc<dyn RunStore>>,
{
    let day = Duration::from_secs(86_400);
    what_nobody_holds_is_taken_over(&*make(day).await).await;
    an_old_token_is_refused(&*make(day).await).await;
    a_claim_is_bounded_and_misses_nothing(&*make(day).await).await;
    what_was_released_can_be_taken_at_once(&*make(day).await).await;
    deadlines_are_read_by_the_clock_that_wrote_them(&*make(day).await).await;
    results_are_handed_to_whoever_runs_the_run(&*make(day).await).await;
    a_result_is_handed_over_until_it_is_settled(&*make(day).await).await;
    a_result_for_nobody_is_said_to_be(&*make(day).await).await;
}

fn hold(replica: ReplicaId, lease: Duration) -> Hold {
    Hold {
        replica,
        lease,
        claim: 1000,
        now: Timestamp::now(),
        all: false,
    }
}

#[allow(clippy::unwrap_used)]
async fn renew(store: &dyn RunStore, replica: ReplicaId) -> Held {
    store.hold(&hold(replica, LONG)).await.unwrap()
}

/// Lets the lease of `replica` run out.
#[allow(clippy::unwrap_used)]
async fn lapse(store: &dyn RunStore, replica: ReplicaId) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        // One that renews late finds that its lease had run out.
        store.hold(&hold(replica, SHORT)).await.unwrap();
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let mut last = hold(replica, SHORT);
            last.claim = 0;
            if store.hold(&last).await.unwrap().lapsed {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    });
    waited.await.unwrap();
}

#[allow(clippy::unwrap_used)]
async fn begin(store: &dyn RunStore, by: ReplicaId) -> RunRecord {
    let run = sample(None);
    assert_eq!(store.create(&run, by).await.unwrap(), Created::Kept);
    run
}

fn of<'a>(claims: &'a [Claim], run: &RunRecord) -> Option<&'a Claim> {
    claims.iter().find(|claim| claim.run == run.task_id)
}

fn result(run: &RunRecord, step: usize, value: u64) -> StepResult {
    StepResult {
        task_id: run.task_id.clone(),
        step_id: run.plan.execution_plan[step].id.clone(),
        agent: run.plan.execution_plan[step].agent.clone(),
        outcome: Outcome::Completed {
            result: json!(value),
        },
        attempts: 1,
        started_at: Timestamp::now(),
        finished_at: Timestamp::now(),
    }
}

#[allow(clippy::unwrap_used)]
async fn what_nobody_holds_is_taken_over(store: &dyn RunStore) {
    let (dies, lives) = (ReplicaId::random(), ReplicaId::random());
    assert!(renew(store, dies).await.lapsed);
    let held = renew(store, dies).await;
    assert!(!held.lapsed);
    let (run, ended) = (begin(store, dies).await, begin(store, dies).await);
    let over = end(&ended, TaskStatus::Completed);
    store.update(&ended.task_id, 1, &over).await.unwrap();
    // Its own are not taken over, nor are those of one that lives.
    assert_eq!(renew(store, dies).await.claimed, []);
    let other = renew(store, lives).await;
    assert_eq!((other.claimed, &other.epoch), (vec![], &held.epoch));
    lapse(store, dies).await;
    let claimed = renew(store, lives).await.claimed;
    assert_eq!(of(&claimed, &run).map(|claim| claim.fence), Some(2));
    assert!(of(&claimed, &ended).is_none());
    // Once.
    assert_eq!(renew(store, lives).await.claimed, []);
    let stored = store.load(&run.task_id).await.unwrap().unwrap();
    assert_eq!(stored.fence, 2);
    // Who asks for all hears of it again.
    let mut all = hold(lives, LONG);
    all.all = true;
    let held = store.hold(&all).await.unwrap();
    assert_eq!(of(&held.all, &run).map(|claim| claim.fence), Some(2));
}

#[allow(clippy::unwrap_used)]
async fn an_old_token_is_refused(store: &dyn RunStore) {
    let (paused, lives) = (ReplicaId::random(), ReplicaId::random());
    renew(store, paused).await;
    let run = begin(store, paused).await;
    lapse(store, paused).await;
    assert!(of(&renew(store, lives).await.claimed, &run).is_some());
    let before = store.load(&run.task_id).await.unwrap().unwrap();
    // It wakes up, and does not know.
    assert!(renew(store, paused).await.lapsed);
    for late in [
        change(&run, 0, StepStatus::Completed),
        end(&run, TaskStatus::Failed),
    ] {
        let updated = store.update(&run.task_id, run.fence, &late).await;
        assert_eq!(updated.unwrap(), Updated::Superseded);
        let mut whole = run.clone();
        whole.apply(late);
        let created = store.create(&whole, paused).await.unwrap();
        assert_eq!(created, Created::Superseded);
    }
    assert_eq!(store.load(&run.task_id).await.unwrap().unwrap(), before);
    let taken = change(&before, 1, StepStatus::Completed);
    let updated = store.update(&run.task_id, before.fence, &taken).await;
    assert_eq!(updated.unwrap(), Updated::Written);
}

#[allow(clippy::unwrap_used)]
async fn a_claim_is_bounded_and_misses_nothing(store: &dyn RunStore) {
    let (first, second, lives) = (
        ReplicaId::random(),
        ReplicaId::random(),
        ReplicaId::random(),
    );
    let mut left = HashSet::new();
    for replica in [first, second] {
        renew(store, replica).await;
        for _ in 0..5 {
            left.insert(begin(store, replica).await.task_id);
        }
    }
    lapse(store, first).await;
    lapse(store, second).await;
    let mut bounded = hold(lives, LONG);
    bounded.claim = 3;
    while !left.is_empty() {
        let claimed = store.hold(&bounded).await.unwrap().claimed;
        assert!((1..=3).contains(&claimed.len()), "{claimed:?}");
        for claim in claimed {
            assert!(left.remove(&claim.run), "{claim:?} twice");
        }
    }
}

#[allow(clippy::unwrap_used)]
async fn what_was_released_can_be_taken_at_once(store: &dyn RunStore) {
    let (leaves, stays) = (ReplicaId::random(), ReplicaId::random());
    renew(store, leaves).await;
    let run = begin(store, leaves).await;
    store.release(leaves).await.unwrap();
    assert!(of(&renew(store, stays).await.claimed, &run).is_some());
}

/// Two replicas whose clocks are an hour apart: what one wrote, the other reads an hour later.
#[allow(clippy::unwrap_used)]
async fn deadlines_are_read_by_the_clock_that_wrote_them(store: &dyn RunStore) {
    let (behind, ahead) = (ReplicaId::random(), ReplicaId::random());
    let hour = Duration::from_secs(3600);
    let early = hold(behind, LONG);
    let mut late = hold(ahead, LONG);
    late.now = early.now.plus(hour);
    store.hold(&early).await.unwrap();
    let run = begin(store, behind).await;
    store.release(behind).await.unwrap();
    let claimed = store.hold(&late).await.unwrap().claimed;
    let ahead_ms = of(&claimed, &run).unwrap().ahead_ms;
    // A store of one process knows one clock only.
    let expected = if renew(store, ahead).await.epoch == "memory" {
        0
    } else {
        3_600_000
    };
    assert!((ahead_ms - expected).abs() < 60_000, "{ahead_ms}");
    let mut moved = run.clone();
    moved.rebase(3_600_000);
    assert_eq!(moved.deadline, run.deadline.plus(hour));
}

#[allow(clippy::unwrap_used)]
async fn results_are_handed_to_whoever_runs_the_run(store: &dyn RunStore) {
    let (runs, takes) = (ReplicaId::random(), ReplicaId::random());
    renew(store, runs).await;
    let mut told = store.listen(runs).await.unwrap();
    let run = begin(store, runs).await;
    let handed = result(&run, 0, 1);
    let kept = store.hand_over(&handed).await.unwrap();
    assert_eq!(kept, HandedOver::Kept);
    let heard = tokio::time::timeout(Duration::from_secs(10), told.next());
    assert_eq!(heard.await.unwrap(), Some(handed.clone()));
    // Whoever did not listen hears of it with the lease, until it is settled.
    for _ in 0..2 {
        let ids = renew(store, runs).await.handed;
        assert_eq!(ids, std::slice::from_ref(&run.task_id));
    }
    // Whoever takes the run over has it with the run.
    store.release(runs).await.unwrap();
    assert!(of(&renew(store, takes).await.claimed, &run).is_some());
    let stored = store.load(&run.task_id).await.unwrap().unwrap();
    assert_eq!(stored.handed, [handed]);
    // One that comes later is told to the new one.
    store.hand_over(&result(&run, 1, 2)).await.unwrap();
    let ids = renew(store, takes).await.handed;
    assert_eq!(ids, std::slice::from_ref(&run.task_id));
}

#[allow(clippy::unwrap_used)]
async fn a_result_is_handed_over_until_it_is_settled(store: &dyn RunStore) {
    let replica = ReplicaId::random();
    renew(store, replica).await;
    let run = begin(store, replica).await;
    let (first, second) = (result(&run, 0, 1), result(&run, 1, 2));
    for handed in [&first, &second, &first] {
        store.hand_over(handed).await.unwrap();
    }
    let mut settled = change(&run, 0, StepStatus::Completed);
    settled.handed = vec![first.step_id.clone()];
    store.update(&run.task_id, 1, &settled).await.unwrap();
    let mut stored = store.load(&run.task_id).await.unwrap().unwrap();
    assert_eq!(stored.handed, std::slice::from_ref(&second));
    assert_eq!(renew(store, replica).await.handed.len(), 1);
    // The end of the run leaves nothing to be told of.
    stored.handed.clear();
    let over = end(&stored, TaskStatus::Cancelled);
    store.update(&run.task_id, 1, &over).await.unwrap();
    assert_eq!(renew(store, replica).await.handed, []);
    let late = store.hand_over(&second).await.unwrap();
    assert_eq!(late, HandedOver::Ended);
}

#[allow(clippy::unwrap_used)]
async fn a_result_for_nobody_is_said_to_be(store: &dyn RunStore) {
    let mut run = sample(None);
    run.task_id = new_task_id();
    let gone = store.hand_over(&result(&run, 0, 1)).await.unwrap();
    assert_eq!(gone, HandedOver::Gone);
    assert!(store.load(&run.task_id).await.unwrap().is_none());
}
