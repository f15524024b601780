//! What every run store does about its log: what is written is logged, what is not is not; who publishes.

use super::{change, create, end, owner, sample, update};
use crate::run::events::{of_change, of_new};
use crate::run::machine::StepStatus;
use crate::store::log::{LogPart, Logged, Position, Published, Turn};
use crate::store::{Change, ReplicaId, ReplyTo, RunRecord, RunStore, TaskStatus, Updated};
use mesh_protocol::TaskId;
use mesh_protocol::event::EventType;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn all<M, F>(make: &M)
where
    M: Fn(Duration) -> F,
    F: Future<Output = Arc<dyn RunStore>>,
{
    let day = Duration::from_secs(86_400);
    every_change_is_logged_once(&*make(day).await).await;
    the_log_is_read_from_any_place(&*make(day).await).await;
    one_replica_publishes_at_a_time(&*make(day).await).await;
    what_was_published_is_not_told_again(&*make(day).await).await;
    whoever_waits_for_an_end_is_told_of(&*make(day).await).await;
}

#[allow(clippy::unwrap_used)]
async fn after(store: &dyn RunStore, position: Position) -> LogPart {
    store.log_after(position, 1000).await.unwrap()
}

fn told(changes: &[Logged], run: &RunRecord) -> Vec<String> {
    let events = changes.iter().flat_map(|change| &change.events);
    let of_run = events.filter(|e| e.task_id() == Some(run.task_id.as_str()));
    of_run.map(|event| event.id()).collect()
}

/// The change with what it tells.
fn telling(run: &RunRecord, mut change: Change) -> Change {
    change.events = of_change(run, &change);
    change
}

#[allow(clippy::unwrap_used)]
async fn every_change_is_logged_once(store: &dyn RunStore) {
    let start = after(store, Position::default()).await.end;
    let mut run = sample(Some(owner("logged")));
    for _ in 0..2 {
        create(store, &run).await;
    }
    let first = telling(&run, change(&run, 0, StepStatus::Completed));
    for _ in 0..2 {
        assert_eq!(update(store, &run, &first).await, Updated::Written);
    }
    // An older token, and a change that comes after one that was lost.
    assert_eq!(
        store.update(&run.task_id, 0, &first).await.unwrap(),
        Updated::Superseded
    );
    run.apply(first.clone());
    let mut ahead = telling(&run, end(&run, TaskStatus::Failed));
    ahead.version += 1;
    assert_eq!(update(store, &run, &ahead).await, Updated::Gone);
    let silent = Change {
        events: Vec::new(),
        ..change(&run, 1, StepStatus::Completed)
    };
    assert_eq!(update(store, &run, &silent).await, Updated::Written);
    run.apply(silent);
    let last = telling(&run, end(&run, TaskStatus::Cancelled));
    assert_eq!(update(store, &run, &last).await, Updated::Written);
    let late = telling(&run, change(&run, 2, StepStatus::Completed));
    assert_eq!(update(store, &run, &late).await, Updated::EndedBefore);

    let part = after(store, start).await;
    let id = &run.task_id;
    assert_eq!(
        told(&part.changes, &run),
        [
            format!("{id}:task.accepted"),
            format!("{id}:a:step.completed"),
            format!("{id}:task.cancelled"),
        ]
    );
    assert_eq!(part.missed, 0);
    for change in &part.changes {
        assert_eq!(change.owner, run.owner);
    }
    // What is told is what happened.
    let accepted = part.changes.first().unwrap();
    assert_eq!(accepted.events, of_new(&sample_again(&run)));
}

/// The run as it was created.
fn sample_again(run: &RunRecord) -> RunRecord {
    let mut new = RunRecord::new(
        run.task_id.clone(),
        run.request.clone(),
        run.plan.clone(),
        run.trace.clone(),
        run.created_at,
    );
    new.owner.clone_from(&run.owner);
    new
}

#[allow(clippy::unwrap_used)]
async fn the_log_is_read_from_any_place(store: &dyn RunStore) {
    let mut runs = Vec::new();
    for _ in 0..5 {
        let run = sample(None);
        create(store, &run).await;
        runs.push(run);
    }
    let whole = after(store, Position::default()).await;
    let positions: Vec<_> = whole.changes.iter().map(|c| c.position).collect();
    assert!(positions.is_sorted());
    assert_eq!(positions.last(), Some(&whole.end));
    let numbers: Vec<_> = positions.iter().map(|p| p.number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    for (nth, position) in positions.iter().enumerate() {
        let rest = after(store, *position).await;
        assert_eq!(rest.changes, whole.changes[nth + 1..]);
        assert_eq!((rest.missed, rest.end), (0, whole.end));
        assert_eq!(rest.epoch, whole.epoch);
        let one = store.log_after(*position, 1).await.unwrap();
        assert_eq!(one.changes.first(), whole.changes.get(nth + 1));
        assert!(one.changes.len() <= 1);
    }
    let none = store.log_after(Position::default(), 0).await.unwrap();
    assert_eq!((none.changes.len(), none.end), (0, whole.end));
    // A place between two changes, whose number says that one is missing.
    let before = Position {
        number: 0,
        ..*positions.first().unwrap()
    };
    let rest = after(store, before).await;
    assert_eq!(rest.missed, rest.changes[0].position.number - 1);
}

#[allow(clippy::unwrap_used)]
async fn turn(store: &dyn RunStore, by: ReplicaId, published: &Published) -> Option<Turn> {
    store.turn(by, published, 100).await.unwrap()
}

#[allow(clippy::unwrap_used)]
async fn one_replica_publishes_at_a_time(store: &dyn RunStore) {
    let (one, two) = (ReplicaId::random(), ReplicaId::random());
    let nothing = Published::default();
    create(store, &sample(None)).await;
    let mine = turn(store, one, &nothing).await.unwrap();
    assert_eq!(mine.part.changes.len(), 1);
    assert_eq!(turn(store, two, &nothing).await, None);
    assert_eq!(turn(store, one, &nothing).await, Some(mine));
    // What another says meanwhile is not heard.
    let end = after(store, Position::default()).await.end;
    let said = Published {
        up_to: Some(end),
        ..Published::default()
    };
    assert_eq!(turn(store, two, &said).await, None);
    store.release(one).await.unwrap();
    let theirs = turn(store, two, &nothing).await.unwrap();
    assert_eq!(theirs.part.changes.len(), 1);
    assert_eq!(turn(store, one, &said).await, None);
}

#[allow(clippy::unwrap_used)]
async fn what_was_published_is_not_told_again(store: &dyn RunStore) {
    let by = ReplicaId::random();
    for _ in 0..3 {
        create(store, &sample(None)).await;
    }
    let first = store.turn(by, &Published::default(), 2).await.unwrap();
    let first = first.unwrap().part;
    assert_eq!((first.changes.len(), first.missed), (2, 0));
    let said = Published {
        up_to: first.changes.last().map(|change| change.position),
        ..Published::default()
    };
    let next = turn(store, by, &said).await.unwrap().part;
    assert_eq!(next.changes.len(), 1);
    assert_eq!(next.changes[0].position, next.end);
    // It stays so for whoever comes next.
    store.release(by).await.unwrap();
    let other = ReplicaId::random();
    let theirs = turn(store, other, &Published::default()).await;
    assert_eq!(theirs.unwrap().part.changes, next.changes);
}

/// On a store that keeps a few changes only: the oldest make room, and who was at them hears how many are missing.
///
/// # Panics
/// When the store breaks the contract.
#[allow(clippy::unwrap_used)]
pub async fn what_makes_room_is_counted(store: &dyn RunStore) {
    let mut positions = Vec::new();
    for _ in 0..400 {
        create(store, &sample(None)).await;
        positions.push(after(store, Position::default()).await.end);
    }
    let kept = after(store, positions[0]).await;
    let count = u64::try_from(kept.changes.len()).unwrap();
    assert!(count < 300, "{count} of 400 are kept");
    assert_eq!(kept.missed + count, 399);
    assert_eq!(after(store, positions[398]).await.missed, 0);
    let by = ReplicaId::random();
    let first = turn(store, by, &Published::default()).await.unwrap().part;
    assert_eq!(first.missed, 400 - count);
}

#[allow(clippy::unwrap_used)]
async fn whoever_waits_for_an_end_is_told_of(store: &dyn RunStore) {
    let by = ReplicaId::random();
    let waiting = || RunRecord {
        reply: Some(ReplyTo {
            queue: "answers".to_owned(),
            correlation_id: "mine".to_owned(),
        }),
        client_task_id: Some("task_1.5".to_owned()),
        ..sample(None)
    };
    let (first, second, silent, going) = (waiting(), waiting(), sample(None), waiting());
    for run in [&first, &second, &silent, &going] {
        create(store, run).await;
        assert_eq!(store.load(&run.task_id).await.unwrap().as_ref(), Some(run));
    }
    for run in [&first, &second, &silent] {
        let end = telling(run, end(run, TaskStatus::Completed));
        update(store, run, &end).await;
    }
    // One that ends as it is written again.
    let mut third = waiting();
    third.apply(end(&third, TaskStatus::Failed));
    create(store, &third).await;
    let replies = |turn: Option<Turn>| -> Vec<TaskId> { turn.unwrap().replies };
    let mut expected = vec![
        first.task_id.clone(),
        second.task_id.clone(),
        third.task_id.clone(),
    ];
    expected.sort();
    let heard = turn(store, by, &Published::default()).await;
    let named = heard.as_ref().unwrap().part.changes.iter();
    let events = named.flat_map(|change| &change.events);
    let ends = events.filter(|e| e.event_type.ends_task());
    let names = ends
        .filter_map(|e| e.data["client_task_id"].as_str())
        .count();
    assert_eq!(names, 3);
    assert_eq!(replies(heard), expected);
    // Who could not be answered comes last, and is not forgotten.
    let said = Published {
        up_to: None,
        answered: vec![second.task_id.clone()],
        unanswered: vec![first.task_id.clone()],
    };
    let heard = replies(turn(store, by, &said).await);
    assert_eq!(heard, [third.task_id.clone(), first.task_id.clone()]);
    // What is answered twice stays answered.
    let heard = replies(turn(store, by, &said).await);
    assert_eq!(heard, [third.task_id.clone(), first.task_id.clone()]);
    let said = Published {
        answered: heard,
        ..Published::default()
    };
    assert!(replies(turn(store, by, &said).await).is_empty());
    assert!(EventType::TaskFailed.ends_task() && !EventType::StepFailed.ends_task());
}
