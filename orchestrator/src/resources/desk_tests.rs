//! The desk over the memory arbiter, which can be exchanged for an empty one.

use super::*;
use crate::resources::contract::amounts;
use crate::resources::{ArbiterError, MemoryArbiter, Renewed};
use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::stream::BoxStream;

/// An arbiter whose store can be emptied.
struct Emptied(Mutex<Arc<MemoryArbiter>>);

impl Emptied {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Self::fresh())))
    }

    fn fresh() -> Arc<MemoryArbiter> {
        let capacity = amounts(&[("gpu", 1)]);
        Arc::new(MemoryArbiter::new(capacity, Times::default()))
    }

    fn empty(&self) {
        *self.0.lock().unwrap() = Self::fresh();
    }

    fn now(&self) -> Arc<MemoryArbiter> {
        Arc::clone(&self.0.lock().unwrap())
    }

    async fn gpu(&self) -> (u64, u64) {
        let stand = self.now().look().await.unwrap().resources["gpu"];
        (stand.in_use, stand.waiting)
    }

    async fn until(&self, wanted: (u64, u64)) {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            while self.gpu().await != wanted {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        waited.await.expect("it never came to that");
    }
}

#[async_trait]
impl Arbiter for Emptied {
    async fn ask(&self, ask: &Ask) -> Result<Asked, ArbiterError> {
        self.now().ask(ask).await
    }

    async fn renew(&self, claims: &[Claim], ttl: Duration) -> Result<Renewed, ArbiterError> {
        self.now().renew(claims, ttl).await
    }

    async fn give_back(&self, key: &Key) -> Result<bool, ArbiterError> {
        self.now().give_back(key).await
    }

    async fn look(&self) -> Result<Standing, ArbiterError> {
        self.now().look().await
    }

    async fn listen(&self, owner: ReplicaId) -> Result<BoxStream<'static, Grant>, ArbiterError> {
        self.now().listen(owner).await
    }
}

fn desk(arbiter: &Arc<Emptied>) -> Arc<Desk> {
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let capacity = amounts(&[("gpu", 1)]);
    let arbiter = Arc::clone(arbiter) as Arc<dyn Arbiter>;
    Arc::new(Desk::new(
        arbiter,
        capacity,
        Times::default(),
        Arc::new(metrics),
    ))
}

fn want(id: &str, generation: u64) -> Want {
    Want {
        key: Key {
            id: id.to_owned(),
            holder: String::new(),
            generation,
        },
        needs: amounts(&[("gpu", 1)]),
        priority: 5,
        ttl: None,
        running: false,
    }
}

#[tokio::test]
async fn a_grant_is_heard_with_a_renewal_and_a_stake_let_go_is_given_back() {
    let arbiter = Emptied::new();
    let desk = desk(&arbiter);
    let (first, got) = desk.ask(want("a", 1), OnDrop::Forget);
    assert!(matches!(got.await, Got::Granted { .. }));
    let (second, got) = desk.ask(want("b", 1), OnDrop::GiveBack);
    let mut got = std::pin::pin!(got);
    assert!(got.as_mut().now_or_never().is_none());
    arbiter.until((1, 1)).await;
    first.give_back();
    arbiter.until((1, 0)).await;
    // Nobody listens: the renewal tells.
    desk.renew_all().await;
    assert!(matches!(got.await, Got::Granted { .. }));
    drop(second);
    arbiter.until((0, 0)).await;
}

#[tokio::test]
async fn who_is_called_off_while_waiting_leaves_the_queue() {
    let arbiter = Emptied::new();
    let desk = desk(&arbiter);
    let (_holds, got) = desk.ask(want("a", 1), OnDrop::Forget);
    got.await;
    let (waits, got) = desk.ask(want("b", 1), OnDrop::Forget);
    assert!(got.now_or_never().is_none());
    arbiter.until((1, 1)).await;
    waits.give_back();
    arbiter.until((1, 0)).await;
    let (too_much, got) = desk.ask(
        Want {
            needs: amounts(&[("gpu", 2)]),
            ..want("c", 1)
        },
        OnDrop::Forget,
    );
    assert_eq!(got.await, Got::TooMuch);
    drop(too_much);
}

#[tokio::test]
async fn an_emptied_store_hears_of_all_that_is_held_and_waits() {
    let arbiter = Emptied::new();
    let desk = desk(&arbiter);
    let (_holds, got) = desk.ask(want("a", 1), OnDrop::Forget);
    got.await;
    let (_waits, waiting) = desk.ask(want("b", 1), OnDrop::Forget);
    let mut waiting = std::pin::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    arbiter.until((1, 1)).await;
    arbiter.empty();
    assert_eq!(arbiter.gpu().await, (0, 0));
    desk.renew_all().await;
    // What is held counts first.
    assert_eq!(arbiter.gpu().await, (1, 1));
}

#[tokio::test]
async fn what_another_replica_took_over_is_left_to_it() {
    let arbiter = Emptied::new();
    let (one, other) = (desk(&arbiter), desk(&arbiter));
    let (old, got) = one.ask(want("a", 1), OnDrop::Forget);
    let Got::Granted { token: before } = got.await else {
        panic!("it was free");
    };
    let running = Want {
        running: true,
        ..want("a", 2)
    };
    let (new, got) = other.ask(running, OnDrop::Forget);
    let Got::Granted { token: after } = got.await else {
        panic!("it goes with the run");
    };
    assert!(after > before);
    one.renew_all().await;
    // The old one returns nothing.
    old.give_back();
    other.renew_all().await;
    tokio::task::yield_now().await;
    assert_eq!(arbiter.gpu().await, (1, 0));
    new.give_back();
    arbiter.until((0, 0)).await;
}
