//! Whose call to the model is next: so many at the same time, so many that wait, and each not for ever.
//!
//! ```text
//!  ask ──▶ a turn is free ───────────────────────────────▶ Turn ──dropped──▶ next
//!     └──▶ wait: highest priority, then whoever was served longest ago ──▶┘
//!     └──▶ refused: the line is full, or the time is up
//! ```
//!
//! A model server queues what it cannot do, in the order of arrival and without bounds of time: one agent that
//! asks a hundred times would hold up everybody. So the line is here. Priorities do not starve: who waits
//! rises by one for each [`RISE`]. When the line is full, the newest call of whoever has the most in it makes
//! room for somebody who has less.

use prometheus::IntGauge;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a call waits until it counts as one priority higher: over the ten of them, some seconds.
const RISE: Duration = Duration::from_secs(2);

/// Why there is no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoTurn {
    /// As many calls as may wait do.
    #[error("as many calls as allowed wait for the model")]
    Full,
    /// It waited as long as calls may.
    #[error("the model was busy for as long as calls wait")]
    Late,
}

/// The line before the model.
#[derive(Debug)]
pub struct Turns {
    inner: Mutex<Inner>,
    most_waiting: usize,
    longest: Duration,
    waiting: IntGauge,
    under_way: IntGauge,
}

#[derive(Debug)]
struct Inner {
    free: usize,
    waiters: Vec<Waiter>,
    /// The next ticket; tickets tell which came first.
    ticket: u64,
    /// When each consumer was served last, by ticket. One entry for each that ever asked: consumers are
    /// services of this mesh, which are few.
    served: HashMap<Arc<str>, u64>,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    consumer: Arc<str>,
    priority: u8,
    since: Instant,
    call: oneshot::Sender<Result<Turn, NoTurn>>,
}

/// The right to a call; the next one's when it is dropped.
#[derive(Debug)]
pub struct Turn {
    /// None once it was given back.
    turns: Option<Arc<Turns>>,
    waited: bool,
}

/// Leaves the line when it is dropped, whether it was called or not.
struct Place<'a> {
    turns: &'a Turns,
    ticket: u64,
}

impl Turns {
    /// `most` turns at the same time, `most_waiting` that wait for one, each for `longest`.
    pub fn new(
        most: usize,
        most_waiting: usize,
        longest: Duration,
        waiting: IntGauge,
        under_way: IntGauge,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                free: most.max(1),
                waiters: Vec::new(),
                ticket: 0,
                served: HashMap::new(),
            }),
            most_waiting,
            longest,
            waiting,
            under_way,
        })
    }

    // Every change leaves it whole.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn for `consumer`, at once or after waiting; the higher `priority` (0 to 10), the sooner.
    ///
    /// Whoever gives up waiting is forgotten.
    ///
    /// # Errors
    /// [`NoTurn`].
    pub async fn take(self: &Arc<Self>, consumer: &str, priority: u8) -> Result<Turn, NoTurn> {
        let (call, called) = oneshot::channel();
        let (place, refused) = {
            let mut inner = self.inner();
            if inner.free > 0 && inner.waiters.is_empty() {
                inner.free -= 1;
                inner.serve(consumer.into());
                self.under_way.inc();
                return Ok(Turn {
                    turns: Some(Arc::clone(self)),
                    waited: false,
                });
            }
            let refused = self.make_room(&mut inner, consumer)?;
            inner.ticket += 1;
            let ticket = inner.ticket;
            inner.waiters.push(Waiter {
                ticket,
                consumer: consumer.into(),
                priority,
                since: Instant::now(),
                call,
            });
            self.show(&inner);
            let place = Place {
                turns: self,
                ticket,
            };
            (place, refused)
        };
        if let Some(waiter) = refused {
            // It may have left by itself.
            let _gone = waiter.call.send(Err(NoTurn::Full));
        }
        let answer = match tokio::time::timeout(self.longest, called).await {
            Ok(Ok(answer)) => answer,
            // Nobody drops the other end without saying why.
            Ok(Err(_)) | Err(_) => Err(NoTurn::Late),
        };
        drop(place);
        answer
    }

    /// Calls under way, and calls that wait.
    pub fn counts(&self) -> (i64, i64) {
        (self.under_way.get(), self.waiting.get())
    }

    /// Room for one more of `consumer` in the line, and who has to leave for it.
    fn make_room(&self, inner: &mut Inner, consumer: &str) -> Result<Option<Waiter>, NoTurn> {
        if inner.waiters.len() < self.most_waiting {
            return Ok(None);
        }
        let mut shares: HashMap<&str, usize> = HashMap::new();
        for waiter in &inner.waiters {
            *shares.entry(&waiter.consumer).or_default() += 1;
        }
        let own = shares.get(consumer).copied().unwrap_or(0);
        let most = shares.iter().max_by_key(|(_, number)| **number);
        // Worth it only where the line is fairer afterwards.
        let Some((greedy, _)) = most.filter(|(_, number)| **number > own + 1) else {
            return Err(NoTurn::Full);
        };
        let greedy = (*greedy).to_owned();
        let last = inner.waiters.iter().rposition(|w| *w.consumer == *greedy);
        Ok(last.map(|place| inner.waiters.remove(place)))
    }

    /// Calls waiters for the turns that are free.
    fn call_next(self: &Arc<Self>) {
        loop {
            let waiter = {
                let mut inner = self.inner();
                if inner.free == 0 {
                    return;
                }
                let Some(waiter) = inner.next(Instant::now()) else {
                    return;
                };
                inner.free -= 1;
                inner.serve(Arc::clone(&waiter.consumer));
                self.show(&inner);
                self.under_way.inc();
                waiter
            };
            let turn = Turn {
                turns: Some(Arc::clone(self)),
                waited: true,
            };
            if let Err(Ok(mut turn)) = waiter.call.send(Ok(turn)) {
                // It has given up. Not by its drop, which would lead back here, ever deeper.
                turn.give_back();
            }
        }
    }

    fn show(&self, inner: &Inner) {
        self.waiting
            .set(i64::try_from(inner.waiters.len()).unwrap_or(i64::MAX));
    }
}

impl Inner {
    fn serve(&mut self, consumer: Arc<str>) {
        self.ticket += 1;
        let ticket = self.ticket;
        self.served.insert(consumer, ticket);
    }

    /// Takes who is next out of the line.
    fn next(&mut self, now: Instant) -> Option<Waiter> {
        let rank = |waiter: &Waiter| {
            let risen = now.saturating_duration_since(waiter.since).as_millis() / RISE.as_millis();
            let priority = u128::from(waiter.priority) + risen;
            let served = self.served.get(&waiter.consumer).copied().unwrap_or(0);
            (std::cmp::Reverse(priority), served, waiter.ticket)
        };
        let (place, _) = self
            .waiters
            .iter()
            .enumerate()
            .min_by_key(|(_, waiter)| rank(waiter))?;
        Some(self.waiters.remove(place))
    }
}

impl Turn {
    /// Whether others were before it in the line.
    pub fn was_waited_for(&self) -> bool {
        self.waited
    }

    /// Gives the turn back and calls nobody.
    fn give_back(&mut self) -> Option<Arc<Turns>> {
        let turns = self.turns.take()?;
        turns.inner().free += 1;
        turns.under_way.dec();
        Some(turns)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.give_back() {
            turns.call_next();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut inner = self.turns.inner();
        inner.waiters.retain(|waiter| waiter.ticket != self.ticket);
        self.turns.show(&inner);
    }
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
