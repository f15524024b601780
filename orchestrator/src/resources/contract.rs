//! What every arbiter does, whatever it is made of.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the cases run in tests only"
)]

use super::{AGE, Amounts, Arbiter, Ask, Asked, Claim, Grant, Key, Times};
use crate::store::ReplicaId;
use futures_util::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Outlasts a case, and a store that nobody asks for a while.
const LONG: Duration = Duration::from_secs(600);
/// Of cases that wait for an end.
const SHORT: Duration = Duration::from_millis(600);
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs every case on arbiters that `make` returns for a capacity and times, each with a store of its own that has settled
/// or does with its first call.
///
/// # Panics
/// When the arbiter breaks the contract.
pub async fn all<M, F>(make: M)
where
    M: Fn(Amounts, Times) -> F,
    F: Future<Output = Arc<dyn Arbiter>>,
{
    let long = Times {
        life: LONG,
        settle: Duration::ZERO,
    };
    let short = Times {
        life: SHORT,
        settle: Duration::ZERO,
    };
    let one = amounts(&[("gpu", 1), ("memory", 1 << 34)]);
    let with = async |times| make(one.clone(), times).await;
    takes_all_or_nothing(&*with(long).await).await;
    what_there_is_not_is_said(&*with(long).await).await;
    higher_priority_goes_first(&*with(long).await).await;
    waiting_counts_as_priority(&*with(long).await).await;
    a_large_one_is_not_starved_by_small_ones(&*make(amounts(&[("cpu", 4)]), long).await).await;
    other_resources_are_not_held_up(&*with(long).await).await;
    asking_again_changes_nothing(&*with(long).await).await;
    an_old_generation_is_fenced(&*with(long).await).await;
    others_keys_open_nothing(&*with(long).await).await;
    work_that_goes_on_counts(&*with(long).await).await;
    whoever_waits_is_told(&*with(long).await).await;
    what_is_forgotten_is_asked_for_again(&*with(long).await).await;
    what_is_not_renewed_expires(&*with(short).await).await;
    whoever_waits_without_a_word_is_forgotten(&*with(short).await).await;
    never_more_than_there_is(make(amounts(&[("gpu", 3), ("cpu", 5)]), long).await).await;
}

/// Amounts by name.
pub fn amounts(of: &[(&str, u64)]) -> Amounts {
    let of = of
        .iter()
        .map(|(name, amount)| ((*name).to_owned(), *amount));
    of.collect()
}

/// Something that is asked for, as a run would.
pub fn ask(id: &str, needs: &[(&str, u64)]) -> Ask {
    Ask {
        key: Key {
            id: id.to_owned(),
            holder: String::new(),
            generation: 1,
        },
        owner: ReplicaId::random(),
        needs: amounts(needs),
        priority: 5,
        ttl: LONG,
        waited: Duration::ZERO,
        running: false,
    }
}

async fn granted(arbiter: &dyn Arbiter, ask: &Ask) -> u64 {
    match arbiter.ask(ask).await.unwrap() {
        Asked::Granted { token } => token,
        other => panic!("{} is {other:?}", ask.key.id),
    }
}

async fn waits(arbiter: &dyn Arbiter, ask: &Ask) {
    let asked = arbiter.ask(ask).await.unwrap();
    assert_eq!(asked, Asked::Waiting, "{}", ask.key.id);
}

async fn given_back(arbiter: &dyn Arbiter, ask: &Ask) {
    assert!(arbiter.give_back(&ask.key).await.unwrap(), "{}", ask.key.id);
}

async fn renew(arbiter: &dyn Arbiter, ask: &Ask, held: bool) -> super::Renewed {
    let key = ask.key.clone();
    arbiter
        .renew(&[Claim { key, held }], ask.ttl)
        .await
        .unwrap()
}

/// Whether what waited has been granted.
async fn has(arbiter: &dyn Arbiter, ask: &Ask) -> bool {
    let renewed = renew(arbiter, ask, false).await;
    assert!(renewed.gone.is_empty(), "{} is gone", ask.key.id);
    !renewed.granted.is_empty()
}

async fn in_use(arbiter: &dyn Arbiter, name: &str) -> (u64, u64) {
    let stand = arbiter.look().await.unwrap().resources[name];
    (stand.in_use, stand.waiting)
}

async fn takes_all_or_nothing(arbiter: &dyn Arbiter) {
    let (a, b) = (
        ask("a", &[("gpu", 1)]),
        ask("b", &[("gpu", 1), ("memory", 1 << 33)]),
    );
    let first = granted(arbiter, &a).await;
    waits(arbiter, &b).await;
    assert_eq!(in_use(arbiter, "memory").await, (0, 1));
    let standing = arbiter.look().await.unwrap();
    assert_eq!(standing.resources["gpu"].capacity, 1);
    assert_eq!(standing.waiting, 1);
    assert!(standing.oldest_wait.is_some());
    assert_eq!(standing.holders.len(), 1);
    assert_eq!(standing.holders[0].id, "a");
    assert_eq!(standing.holders[0].needs, a.needs);
    given_back(arbiter, &a).await;
    assert!(has(arbiter, &b).await);
    assert_eq!(in_use(arbiter, "memory").await, (1 << 33, 0));
    assert_eq!(in_use(arbiter, "gpu").await, (1, 0));
    given_back(arbiter, &b).await;
    assert_eq!(in_use(arbiter, "memory").await, (0, 0));
    assert!(!arbiter.give_back(&b.key).await.unwrap());
    // Tokens grow, also under a name that was used before.
    let second = granted(arbiter, &a).await;
    assert!(second > first);
    assert_eq!(arbiter.look().await.unwrap().oldest_wait, None);
}

async fn what_there_is_not_is_said(arbiter: &dyn Arbiter) {
    for needs in [
        &[("gpu", 2)][..],
        &[("tpu", 1)],
        &[("gpu", 1), ("x", 1)],
        &[],
    ] {
        let asked = arbiter.ask(&ask("a", needs)).await.unwrap();
        assert_eq!(asked, Asked::TooMuch, "{needs:?}");
    }
    assert_eq!(arbiter.look().await.unwrap().waiting, 0);
}

async fn higher_priority_goes_first(arbiter: &dyn Arbiter) {
    let holds = ask("holds", &[("gpu", 1)]);
    granted(arbiter, &holds).await;
    let mut waiting = Vec::new();
    for priority in [0, 10, 3, 7] {
        let mut ask = ask(&format!("p{priority}"), &[("gpu", 1)]);
        ask.priority = priority;
        waits(arbiter, &ask).await;
        waiting.push(ask);
    }
    waiting.sort_by_key(|ask| std::cmp::Reverse(ask.priority));
    let mut before = holds;
    for ask in waiting {
        given_back(arbiter, &before).await;
        assert!(has(arbiter, &ask).await, "{}", ask.key.id);
        before = ask;
    }
}

async fn waiting_counts_as_priority(arbiter: &dyn Arbiter) {
    let holds = ask("holds", &[("gpu", 1)]);
    granted(arbiter, &holds).await;
    let (mut old, mut new) = (ask("old", &[("gpu", 1)]), ask("new", &[("gpu", 1)]));
    (old.priority, old.waited) = (0, AGE * 11);
    new.priority = 10;
    waits(arbiter, &new).await;
    waits(arbiter, &old).await;
    given_back(arbiter, &holds).await;
    assert!(has(arbiter, &old).await);
    assert!(!has(arbiter, &new).await);
}

async fn a_large_one_is_not_starved_by_small_ones(arbiter: &dyn Arbiter) {
    let small: Vec<Ask> = (0..4)
        .map(|n| ask(&format!("s{n}"), &[("cpu", 1)]))
        .collect();
    for ask in &small {
        granted(arbiter, ask).await;
    }
    let large = ask("large", &[("cpu", 4)]);
    waits(arbiter, &large).await;
    // What is free meanwhile is not for those who came later.
    let mut later = Vec::new();
    for (n, done) in small.iter().enumerate() {
        let next = ask(&format!("l{n}"), &[("cpu", 1)]);
        waits(arbiter, &next).await;
        later.push(next);
        assert!(!has(arbiter, &large).await);
        given_back(arbiter, done).await;
    }
    assert!(has(arbiter, &large).await);
    given_back(arbiter, &large).await;
    for next in &later {
        assert!(has(arbiter, next).await);
    }
    // Leaving the queue lets the others on.
    waits(arbiter, &large).await;
    let mut behind = ask("behind", &[("cpu", 1)]);
    waits(arbiter, &behind).await;
    given_back(arbiter, &later[0]).await;
    assert!(!has(arbiter, &behind).await);
    given_back(arbiter, &large).await;
    assert!(has(arbiter, &behind).await);
    behind.key.id = "last".to_owned();
    waits(arbiter, &behind).await;
}

async fn other_resources_are_not_held_up(arbiter: &dyn Arbiter) {
    granted(arbiter, &ask("a", &[("gpu", 1)])).await;
    waits(arbiter, &ask("b", &[("gpu", 1)])).await;
    granted(arbiter, &ask("c", &[("memory", 1)])).await;
    // Behind b at the GPU, so d does not take memory that e could have, but keeps its place.
    waits(arbiter, &ask("d", &[("gpu", 1), ("memory", 1 << 34)])).await;
    waits(arbiter, &ask("e", &[("memory", 1)])).await;
}

async fn asking_again_changes_nothing(arbiter: &dyn Arbiter) {
    let (a, b, c) = (
        ask("a", &[("gpu", 1)]),
        ask("b", &[("gpu", 1)]),
        ask("c", &[("gpu", 1)]),
    );
    let token = granted(arbiter, &a).await;
    assert_eq!(granted(arbiter, &a).await, token);
    for _ in 0..2 {
        waits(arbiter, &b).await;
        waits(arbiter, &c).await;
        waits(arbiter, &b).await;
    }
    assert_eq!(in_use(arbiter, "gpu").await, (1, 2));
    given_back(arbiter, &a).await;
    assert!(has(arbiter, &b).await);
    assert!(!has(arbiter, &c).await);
}

async fn an_old_generation_is_fenced(arbiter: &dyn Arbiter) {
    let (mut old, mut waiting) = (ask("a", &[("gpu", 1)]), ask("b", &[("gpu", 1)]));
    let before = granted(arbiter, &old).await;
    waits(arbiter, &waiting).await;
    // The run is taken over, and the lease with it.
    let mut new = old.clone();
    new.key.generation = 2;
    let after = granted(arbiter, &new).await;
    assert!(after > before);
    assert_eq!(arbiter.ask(&old).await.unwrap(), Asked::Superseded);
    assert_eq!(renew(arbiter, &old, true).await.superseded, ["a"]);
    assert!(!arbiter.give_back(&old.key).await.unwrap());
    assert_eq!(in_use(arbiter, "gpu").await, (1, 1));
    // And so does a place in the queue.
    let mut third = ask("c", &[("gpu", 1)]);
    waits(arbiter, &third).await;
    let stale = waiting.clone();
    waiting.key.generation = 7;
    waits(arbiter, &waiting).await;
    assert_eq!(renew(arbiter, &stale, false).await.superseded, ["b"]);
    assert!(!arbiter.give_back(&stale.key).await.unwrap());
    given_back(arbiter, &new).await;
    assert!(has(arbiter, &waiting).await);
    third.key.generation = 1;
    assert!(!has(arbiter, &third).await);
    old.key.generation = 3;
    waits(arbiter, &old).await;
}

async fn others_keys_open_nothing(arbiter: &dyn Arbiter) {
    let mut mine = ask("lease_1", &[("gpu", 1)]);
    mine.key.holder = "caller:1".to_owned();
    granted(arbiter, &mine).await;
    let mut theirs = mine.clone();
    theirs.key.holder = "caller:2".to_owned();
    theirs.key.generation = 9;
    assert_eq!(arbiter.ask(&theirs).await.unwrap(), Asked::Superseded);
    assert_eq!(renew(arbiter, &theirs, true).await.superseded, ["lease_1"]);
    assert!(!arbiter.give_back(&theirs.key).await.unwrap());
    let holders = arbiter.look().await.unwrap().holders;
    assert_eq!(holders[0].holder, "caller:1");
    given_back(arbiter, &mine).await;
}

async fn work_that_goes_on_counts(arbiter: &dyn Arbiter) {
    let (a, mut b) = (ask("a", &[("gpu", 1)]), ask("b", &[("gpu", 1)]));
    granted(arbiter, &a).await;
    b.running = true;
    granted(arbiter, &b).await;
    assert_eq!(in_use(arbiter, "gpu").await, (2, 0));
    let c = ask("c", &[("gpu", 1)]);
    waits(arbiter, &c).await;
    given_back(arbiter, &a).await;
    assert!(!has(arbiter, &c).await);
    given_back(arbiter, &b).await;
    assert!(has(arbiter, &c).await);
}

async fn whoever_waits_is_told(arbiter: &dyn Arbiter) {
    let (a, b) = (ask("a", &[("gpu", 1)]), ask("b", &[("gpu", 1)]));
    let mut told = arbiter.listen(b.owner).await.unwrap();
    granted(arbiter, &a).await;
    waits(arbiter, &b).await;
    given_back(arbiter, &a).await;
    let heard = tokio::time::timeout(PATIENCE, told.next()).await.unwrap();
    let Grant {
        id,
        generation,
        token,
    } = heard.unwrap();
    assert_eq!((id.as_str(), generation), ("b", 1));
    assert_eq!(granted(arbiter, &b).await, token);
}

async fn what_is_forgotten_is_asked_for_again(arbiter: &dyn Arbiter) {
    // A store that was emptied knows neither of them.
    let (a, b) = (ask("a", &[("gpu", 1)]), ask("b", &[("gpu", 1)]));
    let claim = |ask: &Ask, held| Claim {
        key: ask.key.clone(),
        held,
    };
    let claims = [claim(&a, true), claim(&b, false)];
    let renewed = arbiter.renew(&claims, LONG).await.unwrap();
    assert_eq!(renewed.gone, ["a", "b"]);
    let running = Ask {
        running: true,
        ..a.clone()
    };
    granted(arbiter, &running).await;
    waits(arbiter, &b).await;
    let renewed = arbiter.renew(&claims, LONG).await.unwrap();
    assert_eq!(renewed, super::Renewed::default());
}

async fn what_is_not_renewed_expires(arbiter: &dyn Arbiter) {
    let mut a = ask("a", &[("gpu", 1)]);
    a.ttl = SHORT;
    let (mut b, c) = (ask("b", &[("gpu", 1)]), ask("c", &[("memory", 1)]));
    b.ttl = SHORT;
    let before = granted(arbiter, &a).await;
    granted(arbiter, &c).await;
    waits(arbiter, &b).await;
    // What is renewed stays, however long.
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < SHORT * 2 {
        assert_eq!(renew(arbiter, &a, true).await, super::Renewed::default());
        assert!(!has(arbiter, &b).await);
        tokio::time::sleep(SHORT / 10).await;
    }
    let waited = tokio::time::timeout(PATIENCE, async {
        while !has(arbiter, &b).await {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    waited.await.unwrap();
    assert_eq!(renew(arbiter, &a, true).await.gone, ["a"]);
    assert!(!arbiter.give_back(&a.key).await.unwrap());
    assert!(granted(arbiter, &b).await > before);
    let standing = arbiter.look().await.unwrap();
    assert!(standing.expired >= 1);
    assert!(standing.holders.iter().any(|h| h.id == "c"));
}

async fn whoever_waits_without_a_word_is_forgotten(arbiter: &dyn Arbiter) {
    let (a, b) = (ask("a", &[("gpu", 1)]), ask("b", &[("gpu", 1)]));
    granted(arbiter, &a).await;
    waits(arbiter, &b).await;
    let waited = tokio::time::timeout(PATIENCE, async {
        while in_use(arbiter, "gpu").await.1 > 0 {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    waited.await.unwrap();
    assert_eq!(renew(arbiter, &b, false).await.gone, ["b"]);
}

/// Many at once, each of whom counts what it has.
async fn never_more_than_there_is(arbiter: Arc<dyn Arbiter>) {
    const TAKERS: usize = 24;
    let used = Arc::new([AtomicI64::new(0), AtomicI64::new(0)]);
    let takers = (0..TAKERS).map(|taker| {
        let (arbiter, used) = (Arc::clone(&arbiter), Arc::clone(&used));
        tokio::spawn(async move {
            for round in 0..5 {
                let (gpu, cpu) = ((taker % 3) as u64, (taker % 4 + 1) as u64);
                let mut needs = vec![("cpu", cpu)];
                if gpu > 0 {
                    needs.push(("gpu", gpu));
                }
                let mut ask = ask(&format!("{taker}/{round}"), &needs);
                ask.priority = (taker % 11) as u8;
                while !matches!(arbiter.ask(&ask).await.unwrap(), Asked::Granted { .. }) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                for (place, amount, most) in [(0, gpu, 3), (1, cpu, 5)] {
                    let amount = i64::try_from(amount).unwrap();
                    let now = used[place].fetch_add(amount, Ordering::SeqCst) + amount;
                    assert!(now <= most, "{now} of {most}");
                }
                tokio::task::yield_now().await;
                for (place, amount) in [(0, gpu), (1, cpu)] {
                    used[place].fetch_sub(i64::try_from(amount).unwrap(), Ordering::SeqCst);
                }
                assert!(arbiter.give_back(&ask.key).await.unwrap());
            }
        })
    });
    let all = futures_util::future::join_all(takers);
    for taker in tokio::time::timeout(PATIENCE * 3, all).await.unwrap() {
        taker.unwrap();
    }
    assert_eq!(in_use(&*arbiter, "gpu").await, (0, 0));
    assert_eq!(in_use(&*arbiter, "cpu").await, (0, 0));
}
