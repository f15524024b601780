//! Who waits, who goes first, who is refused.

use super::*;
use futures_util::FutureExt;
use std::pin::Pin;

type Waiting = Pin<Box<dyn Future<Output = Result<Turn, NoTurn>> + Send>>;

fn turns(most: usize, most_waiting: usize) -> Arc<Turns> {
    turns_for(most, most_waiting, Duration::from_secs(60))
}

fn turns_for(most: usize, most_waiting: usize, longest: Duration) -> Arc<Turns> {
    let gauge = |name: &str| IntGauge::new(name, "x").unwrap();
    Turns::new(most, most_waiting, longest, gauge("a"), gauge("b"))
}

/// Asks, and stands in the line from now on.
fn stand(turns: &Arc<Turns>, consumer: &'static str, priority: u8) -> Waiting {
    let turns = Arc::clone(turns);
    let mut waiting: Waiting = Box::pin(async move { turns.take(consumer, priority).await });
    assert!(waiting.as_mut().now_or_never().is_none(), "{consumer}");
    waiting
}

fn called(waiting: &mut Waiting) -> Option<Turn> {
    waiting.as_mut().now_or_never().map(Result::unwrap)
}

#[tokio::test]
async fn the_highest_priority_is_next_then_whoever_was_served_longest_ago() {
    let turns = turns(1, 10);
    let turn = turns.take("a", 5).await.unwrap();
    let mut a = stand(&turns, "a", 5);
    let mut b = stand(&turns, "b", 5);
    let mut c = stand(&turns, "a", 9);
    assert_eq!(turns.counts(), (1, 3));
    drop(turn);
    assert_eq!(turns.counts(), (1, 2));
    let turn = called(&mut c).unwrap();
    assert!(called(&mut a).is_none() && called(&mut b).is_none());
    drop(turn);
    // b came after a and was never served.
    let turn = called(&mut b).unwrap();
    assert!(called(&mut a).is_none());
    drop(turn);
    drop(called(&mut a).unwrap());
    assert_eq!(turns.counts(), (0, 0));
    drop(turns.take("a", 0).await.unwrap());
}

#[tokio::test]
async fn a_low_priority_does_not_starve() {
    let turns = turns(1, 10);
    let turn = turns.take("a", 5).await.unwrap();
    let mut low = stand(&turns, "low", 4);
    // It has waited for two priorities.
    for waiter in &mut turns.inner().waiters {
        waiter.since = waiter.since.checked_sub(RISE * 2).unwrap();
    }
    let mut high = stand(&turns, "high", 5);
    drop(turn);
    assert!(called(&mut high).is_none());
    drop(called(&mut low).unwrap());
    assert!(called(&mut high).is_some());
}

#[tokio::test]
async fn a_full_line_is_shared() {
    let turns = turns(1, 3);
    let _turn = turns.take("a", 5).await.unwrap();
    let mut greedy: Vec<Waiting> = (0..3).map(|_| stand(&turns, "a", 5)).collect();
    assert_eq!(turns.take("a", 10).await.unwrap_err(), NoTurn::Full);
    // Somebody else has less: the newest of a leaves.
    let _b = stand(&turns, "b", 0);
    let refused = greedy[2].as_mut().now_or_never().unwrap();
    assert_eq!(refused.unwrap_err(), NoTurn::Full);
    assert_eq!(turns.counts(), (1, 3));
    // Two to one is as fair as it gets.
    assert_eq!(turns.take("b", 10).await.unwrap_err(), NoTurn::Full);
}

#[tokio::test]
async fn nobody_waits_for_ever_and_who_gives_up_is_forgotten() {
    let brief = turns_for(1, 2, Duration::from_millis(20));
    let _held = brief.take("a", 5).await.unwrap();
    assert_eq!(brief.take("b", 5).await.unwrap_err(), NoTurn::Late);
    assert_eq!(brief.counts(), (1, 0));
    let turns = turns(1, 2);
    let turn = turns.take("a", 5).await.unwrap();
    let (gone, mut stays) = (stand(&turns, "b", 9), stand(&turns, "c", 5));
    drop(gone);
    assert_eq!(turns.counts(), (1, 1));
    drop(turn);
    assert!(called(&mut stays).is_some());
}

#[tokio::test]
async fn a_turn_that_was_called_and_not_fetched_is_not_lost() {
    let turns = turns(1, 10);
    let turn = turns.take("a", 5).await.unwrap();
    let (gone, mut next) = (stand(&turns, "b", 9), stand(&turns, "c", 5));
    drop(turn);
    // b was called, and goes without looking.
    drop(gone);
    assert!(called(&mut next).is_some());
    assert_eq!(turns.counts(), (0, 0));
}

#[tokio::test]
async fn never_more_at_the_same_time_than_allowed() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let turns = turns(3, 1_000);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let calls = (0..200).map(|n: u8| {
        let (turns, now, most) = (Arc::clone(&turns), Arc::clone(&now), Arc::clone(&most));
        tokio::spawn(async move {
            let take = turns.take(if n.is_multiple_of(3) { "a" } else { "b" }, n % 11);
            // Every seventh gives up at some point of its way.
            let patience = Duration::from_micros(if n.is_multiple_of(7) { 50 } else { 60_000_000 });
            let Ok(turn) = tokio::time::timeout(patience, take).await else {
                return;
            };
            let turn = turn.unwrap();
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
            drop(turn);
        })
    });
    for call in futures_util::future::join_all(calls).await {
        call.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(turns.counts(), (0, 0));
}
