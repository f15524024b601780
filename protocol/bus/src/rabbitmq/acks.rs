//! Acknowledgements of one channel, as few as say the same.
//!
//! Each one that goes out alone costs a hand-over to the client library's thread and a write in the
//! broker's log, about as much as the message itself. Deliveries whose effects were confirmed together
//! are acknowledged together: whoever comes first lets the others of the same moment come, then says
//! "all up to this one" where nothing before it is still open, and speaks for itself alone otherwise.

use super::fault;
use crate::BusError;
use lapin::Acker;
use lapin::options::BasicAckOptions;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Number of a delivery on its channel; they come in order, from 1 on.
pub(super) type Tag = u64;

/// The deliveries of one channel that are not settled. Both lists are as short as the prefetch.
#[derive(Debug, Default)]
pub(super) struct Acks {
    state: Mutex<State>,
    /// Held from the choice of an acknowledgement until it is on its way: one that says "all up to this"
    /// must not overtake one for itself alone, which the broker would not know any more.
    way: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Handed out, and nobody has said what became of them.
    open: BTreeSet<Tag>,
    /// To be acknowledged.
    waiting: BTreeMap<Tag, Waiting>,
    /// The latest that was handed out; 0 before the first.
    latest: Tag,
}

#[derive(Debug)]
struct Waiting {
    acker: Acker,
    /// Hears whether the acknowledgement went out.
    done: oneshot::Sender<bool>,
}

/// Acknowledgements that go out as one.
struct Batch {
    last: Acker,
    done: Vec<oneshot::Sender<bool>>,
}

impl Acks {
    // Every change below leaves the lists whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A delivery is handed out.
    pub(super) fn opened(&self, tag: Tag) {
        let mut state = self.state();
        state.open.insert(tag);
        state.latest = tag;
    }

    /// The latest delivery, where all that came are settled.
    pub(super) fn at_rest(&self) -> Option<Tag> {
        let state = self.state();
        (state.open.is_empty() && state.waiting.is_empty()).then_some(state.latest)
    }

    /// A delivery went back or was rejected, by itself.
    pub(super) fn closed(&self, tag: Tag) {
        self.state().open.remove(&tag);
    }

    /// Acknowledges a delivery.
    ///
    /// # Errors
    /// The channel ended before: the delivery is back.
    pub(super) async fn ack(&self, tag: Tag, acker: &Acker) -> Result<(), BusError> {
        let (done, told) = oneshot::channel();
        let alone = {
            let mut state = self.state();
            state.open.remove(&tag);
            let acker = acker.clone();
            state.waiting.insert(tag, Waiting { acker, done });
            state.open.is_empty()
        };
        if !alone {
            // Whatever was confirmed together comes here before this goes on.
            tokio::task::yield_now().await;
        }
        let way = self.way.lock().await;
        let batch = self.state().take(tag);
        if let Some(batch) = batch {
            let multiple = batch.done.len() > 1;
            let gone = batch.last.ack(BasicAckOptions { multiple }).await;
            drop(way);
            for done in batch.done {
                // Whoever does not wait any more does not need to know.
                let _ = done.send(matches!(gone, Ok(true)));
            }
            if let Err(error) = gone {
                return Err(fault::of("settling", &error));
            }
        } else {
            drop(way);
        }
        // Also false when whoever took it along was dropped on the way.
        match told.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(fault::went_back()),
        }
    }
}

impl State {
    /// What goes out when it is the turn of `tag`; `None` when that went along with another.
    fn take(&mut self, tag: Tag) -> Option<Batch> {
        let own = self.waiting.remove(&tag)?;
        let before_open = |other: Tag| self.open.first().is_none_or(|open| other < *open);
        if !before_open(tag) {
            return Some(Batch {
                last: own.acker,
                done: vec![own.done],
            });
        }
        let mut last = (tag, own.acker);
        let mut done = vec![own.done];
        let together = match self.open.first() {
            Some(open) => {
                let behind = self.waiting.split_off(open);
                std::mem::replace(&mut self.waiting, behind)
            }
            None => std::mem::take(&mut self.waiting),
        };
        for (other, waiting) in together {
            if other > last.0 {
                last = (other, waiting.acker);
            }
            done.push(waiting.done);
        }
        Some(Batch { last: last.1, done })
    }
}
