//! What every run store does, whatever it is made of.
//!
//! `all` runs each case on a store of its own making, with ids that no other case uses: the backend
//! may be shared.

mod keys;
mod leases;
mod log;

pub use log::what_makes_room_is_counted;

use super::{
    Change, Created, End, Owner, Query, ReplicaId, RunRecord, RunStore, TaskStatus, Trace, Updated,
};
use crate::run::machine::StepStatus;
use crate::run::new_task_id;
use mesh_protocol::Timestamp;
use mesh_protocol::outcome::StepError;
use mesh_protocol::plan::{Plan, PlanSource, PlanStep, Resources};
use mesh_protocol::task::TaskRequest;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Runs every case on stores that `make` returns for a retention.
///
/// # Panics
/// When the store breaks the contract.
#[allow(clippy::unwrap_used, clippy::panic)]
pub async fn all<M, F>(make: M)
where
    M: Fn(Duration) -> F,
    F: Future<Output = Arc<dyn RunStore>>,
{
    let day = Duration::from_secs(86_400);
    keeps_a_run_whole(&*make(day).await).await;
    keeps_each_transition(&*make(day).await).await;
    ends_leave_the_unfinished(&*make(day).await).await;
    lists_newest_first_in_parts(&*make(day).await).await;
    lists_by_owner_and_status(&*make(day).await).await;
    writing_twice_changes_nothing(&*make(day).await).await;
    what_is_gone_is_said_to_be(&*make(day).await).await;
    an_end_stays(&*make(day).await).await;
    a_late_create_changes_nothing(&*make(day).await).await;
    what_is_behind_is_said_to_be(&*make(day).await).await;
    leases::all(&make).await;
    keys::all(&make).await;
    log::all(&make).await;
    forgets_after_the_retention(&*make(Duration::from_secs(1)).await).await;
}

/// A run of three steps, the third waiting for the others.
#[allow(clippy::unwrap_used)]
pub fn sample(owner: Option<Owner>) -> RunRecord {
    let step = |id: &str, dependencies: &[&str]| PlanStep {
        id: id.parse().unwrap(),
        agent: "data-processor".parse().unwrap(),
        action: "count".to_owned(),
        role: None,
        capability: None,
        dependencies: dependencies.iter().map(|d| d.parse().unwrap()).collect(),
        payload: None,
        timeout: Some(7),
        resources: Default::default(),
        assignment: None,
    };
    let plan = Plan {
        source: PlanSource::Rules,
        agents_required: vec!["data-processor".parse().unwrap()],
        execution_plan: vec![step("a", &[]), step("b", &[]), step("c", &["a", "b"])],
        resources: Resources::default(),
        estimated_time: 60.0,
        confidence: 0.7,
        risks: vec!["none".to_owned()],
        collaboration: None,
    };
    let request = TaskRequest {
        task_type: "data_processing".to_owned(),
        payload: json!({"text": "ü\n\"", "n": 1.5, "deep": {"a": [null, true]}})
            .as_object()
            .cloned()
            .unwrap(),
        priority: 5,
        timeout: 300,
    };
    let trace = Trace {
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        tracestate: None,
    };
    let mut run = RunRecord::new(new_task_id(), request, plan, trace, Timestamp::now());
    run.assertion = owner.as_ref().map(|_| "a.b.c".to_owned());
    run.owner = owner;
    run
}

fn change(run: &RunRecord, step: usize, status: StepStatus) -> Change {
    let mut record = run.steps[step].clone();
    record.status = status;
    record.finished_at = Some(Timestamp::now());
    match status {
        StepStatus::Completed => record.result = Some(json!({"rows": [1, 2]})),
        _ => record.error = Some(StepError::new("agent_timeout", "too slow")),
    }
    Change {
        steps: vec![(step, run.plan.execution_plan[step].id.clone(), record)],
        completed: run.completed() + usize::from(status == StepStatus::Completed),
        end: None,
        version: run.version + 1,
        handed: Vec::new(),
        events: Vec::new(),
    }
}

fn end(run: &RunRecord, status: TaskStatus) -> Change {
    Change {
        steps: Vec::new(),
        completed: 0,
        end: Some(End {
            status,
            error: (status == TaskStatus::Failed).then(|| StepError::new("x", "y")),
            at: Timestamp::now(),
        }),
        version: run.version + 1,
        handed: Vec::new(),
        events: Vec::new(),
    }
}

/// Keeps a run as its own replica would, none in particular.
#[allow(clippy::unwrap_used)]
async fn create(store: &dyn RunStore, run: &RunRecord) {
    let created = store.create(run, ReplicaId::random()).await.unwrap();
    assert_eq!(created, Created::Kept);
}

/// Writes a change under the run's own token.
#[allow(clippy::unwrap_used)]
async fn update(store: &dyn RunStore, run: &RunRecord, change: &Change) -> Updated {
    store.update(&run.task_id, run.fence, change).await.unwrap()
}

/// Whether the run is among the unfinished ones.
#[allow(clippy::unwrap_used)]
async fn is_unfinished(store: &dyn RunStore, run: &RunRecord) -> bool {
    let query = Query {
        owner: run.owner.clone(),
        status: Some(TaskStatus::InProgress),
        before: None,
        limit: 1000,
    };
    let listed = store.list(&query).await.unwrap().tasks;
    listed.iter().any(|task| task.task_id == run.task_id)
}

fn owner(name: &str) -> Owner {
    Owner {
        origin: "https://issuer.example".to_owned(),
        // A name of its own for each run of the suite, since the backend may be shared.
        sub: format!("{name}-{}", new_task_id()),
    }
}

fn query(owner: &Owner) -> Query {
    Query {
        owner: Some(owner.clone()),
        status: None,
        before: None,
        limit: 50,
    }
}

#[allow(clippy::unwrap_used)]
async fn keeps_a_run_whole(store: &dyn RunStore) {
    for owner in [None, Some(owner("alice"))] {
        let run = sample(owner);
        create(store, &run).await;
        assert_eq!(store.load(&run.task_id).await.unwrap().unwrap(), run);
    }
    assert!(store.load(&new_task_id()).await.unwrap().is_none());
}

#[allow(clippy::unwrap_used)]
async fn keeps_each_transition(store: &dyn RunStore) {
    let mut run = sample(None);
    create(store, &run).await;
    for (step, status) in [
        (0, StepStatus::Completed),
        (1, StepStatus::Failed),
        (2, StepStatus::Skipped),
    ] {
        let change = change(&run, step, status);
        assert_eq!(update(store, &run, &change).await, Updated::Written);
        run.apply(change);
        assert_eq!(store.load(&run.task_id).await.unwrap().unwrap(), run);
    }
}

#[allow(clippy::unwrap_used)]
async fn ends_leave_the_unfinished(store: &dyn RunStore) {
    let (mut ended, going) = (sample(None), sample(None));
    create(store, &ended).await;
    create(store, &going).await;
    assert!(is_unfinished(store, &ended).await && is_unfinished(store, &going).await);
    let end = end(&ended, TaskStatus::Failed);
    update(store, &ended, &end).await;
    assert!(!is_unfinished(store, &ended).await && is_unfinished(store, &going).await);
    ended.apply(end);
    assert_eq!(store.load(&ended.task_id).await.unwrap().unwrap(), ended);
}

#[allow(clippy::unwrap_used)]
async fn lists_newest_first_in_parts(store: &dyn RunStore) {
    let owner = owner("bob");
    let mut ids = Vec::new();
    for _ in 0..7 {
        let run = sample(Some(owner.clone()));
        create(store, &run).await;
        ids.push(run.task_id);
    }
    ids.reverse();
    let mut query = Query {
        limit: 3,
        ..query(&owner)
    };
    let mut seen = Vec::new();
    loop {
        let page = store.list(&query).await.unwrap();
        assert!(page.tasks.len() <= 3);
        seen.extend(page.tasks.into_iter().map(|t| t.task_id));
        match page.next {
            Some(next) => query.before = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ids);
}

#[allow(clippy::unwrap_used)]
async fn lists_by_owner_and_status(store: &dyn RunStore) {
    let (alice, bob) = (owner("alice"), owner("bob"));
    let (mut done, going) = (sample(Some(alice.clone())), sample(Some(alice.clone())));
    create(store, &done).await;
    create(store, &going).await;
    let first = change(&done, 0, StepStatus::Completed);
    update(store, &done, &first).await;
    done.apply(first);
    let end = Change {
        completed: 1,
        ..end(&done, TaskStatus::Cancelled)
    };
    update(store, &done, &end).await;
    done.apply(end);
    let list = async |query: &Query| store.list(query).await.unwrap().tasks;
    assert_eq!(
        list(&query(&alice)).await,
        [going.summary(), done.summary()]
    );
    assert!(list(&query(&bob)).await.is_empty());
    for (status, expected) in [
        (TaskStatus::Cancelled, vec![done.summary()]),
        (TaskStatus::InProgress, vec![going.summary()]),
        (TaskStatus::Failed, vec![]),
    ] {
        let query = Query {
            status: Some(status),
            ..query(&alice)
        };
        assert_eq!(list(&query).await, expected);
    }
    let everyone = Query {
        owner: None,
        ..query(&alice)
    };
    assert!(list(&everyone).await.contains(&going.summary()));
}

#[allow(clippy::unwrap_used)]
async fn writing_twice_changes_nothing(store: &dyn RunStore) {
    let mut run = sample(None);
    for _ in 0..2 {
        create(store, &run).await;
    }
    let first = change(&run, 0, StepStatus::Completed);
    for _ in 0..2 {
        assert_eq!(update(store, &run, &first).await, Updated::Written);
    }
    run.apply(first);
    let end = Change {
        completed: 1,
        ..end(&run, TaskStatus::Failed)
    };
    for _ in 0..2 {
        assert_eq!(update(store, &run, &end).await, Updated::Written);
    }
    run.apply(end);
    assert_eq!(store.load(&run.task_id).await.unwrap().unwrap(), run);
    assert!(!is_unfinished(store, &run).await);
}

#[allow(clippy::unwrap_used)]
async fn what_is_gone_is_said_to_be(store: &dyn RunStore) {
    let run = sample(Some(owner("dave")));
    for change in [
        change(&run, 0, StepStatus::Completed),
        end(&run, TaskStatus::Failed),
    ] {
        assert_eq!(update(store, &run, &change).await, Updated::Gone);
        assert!(store.load(&run.task_id).await.unwrap().is_none());
    }
    // Whoever has the whole of it can keep it again, in the middle of its way.
    let mut run = run;
    run.apply(change(&run, 0, StepStatus::Completed));
    create(store, &run).await;
    assert_eq!(store.load(&run.task_id).await.unwrap().unwrap(), run);
    assert!(is_unfinished(store, &run).await);
}

/// A store that fell back behind what it had confirmed gets the whole again.
#[allow(clippy::unwrap_used)]
async fn what_is_behind_is_said_to_be(store: &dyn RunStore) {
    let mut run = sample(None);
    create(store, &run).await;
    // The store lost this one.
    run.apply(change(&run, 0, StepStatus::Completed));
    let second = change(&run, 1, StepStatus::Completed);
    assert_eq!(update(store, &run, &second).await, Updated::Gone);
    run.apply(second);
    create(store, &run).await;
    assert_eq!(store.load(&run.task_id).await.unwrap().unwrap(), run);
    // To ask is to write nothing under the version that is there.
    let nothing = Change {
        steps: Vec::new(),
        completed: run.completed(),
        end: None,
        version: run.version,
        handed: Vec::new(),
        events: Vec::new(),
    };
    assert_eq!(update(store, &run, &nothing).await, Updated::Written);
    assert_eq!(store.load(&run.task_id).await.unwrap().unwrap(), run);
}

#[allow(clippy::unwrap_used)]
async fn an_end_stays(store: &dyn RunStore) {
    let mut run = sample(None);
    create(store, &run).await;
    let end_of_it = end(&run, TaskStatus::Failed);
    assert_eq!(update(store, &run, &end_of_it).await, Updated::Written);
    run.apply(end_of_it);
    let mut later = end(&run, TaskStatus::Completed);
    if let Some(end) = &mut later.end {
        end.at = end.at.plus(Duration::from_secs(1));
    }
    for change in [change(&run, 0, StepStatus::Completed), later] {
        assert_eq!(update(store, &run, &change).await, Updated::EndedBefore);
    }
    assert_eq!(store.load(&run.task_id).await.unwrap().unwrap(), run);
}

#[allow(clippy::unwrap_used)]
async fn a_late_create_changes_nothing(store: &dyn RunStore) {
    let accepted = sample(Some(owner("erin")));
    let mut withdrawn = accepted.clone();
    withdrawn.apply(end(&accepted, TaskStatus::Failed));
    create(store, &withdrawn).await;
    create(store, &accepted).await;
    let id = &accepted.task_id;
    assert_eq!(store.load(id).await.unwrap().unwrap(), withdrawn);
    assert!(!is_unfinished(store, &withdrawn).await);
    // One that goes on keeps what has happened to it, and one that ended takes its place.
    let mut going = sample(None);
    create(store, &going).await;
    let id = going.task_id.clone();
    let first = change(&going, 0, StepStatus::Completed);
    update(store, &going, &first).await;
    create(store, &going).await;
    going.apply(first);
    assert_eq!(store.load(&id).await.unwrap().unwrap(), going);
    going.apply(end(&going, TaskStatus::Cancelled));
    create(store, &going).await;
    assert_eq!(store.load(&id).await.unwrap().unwrap(), going);
    assert!(!is_unfinished(store, &going).await);
}

#[allow(clippy::unwrap_used)]
async fn forgets_after_the_retention(store: &dyn RunStore) {
    let owner = owner("carol");
    let (ended, going) = (sample(Some(owner.clone())), sample(Some(owner.clone())));
    create(store, &ended).await;
    create(store, &going).await;
    update(store, &ended, &end(&ended, TaskStatus::Completed)).await;
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while store.load(&ended.task_id).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited.await.unwrap();
    let listed = store.list(&query(&owner)).await.unwrap().tasks;
    assert_eq!(listed, [going.summary()]);
    assert!(store.load(&going.task_id).await.unwrap().is_some());
}
