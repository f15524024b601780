//! What others may see of a run while it goes: its record and its events, as far as they are stored.

use super::events;
use crate::store::{Change, RunRecord};
use mesh_bus::Delivery;
use mesh_protocol::event::Event;
use mesh_protocol::outcome::StepResult;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};

/// What reaches a run from outside.
#[derive(Debug)]
pub enum Input {
    /// A result, and the delivery to settle once it is stored; none for one that another replica has put into
    /// the store.
    Result(Box<(StepResult, Option<Delivery>)>),
    /// The client calls the task off.
    Cancel,
    /// The store may have lost the run, or another replica taken it over: see.
    Look,
}

/// A run that goes on in this process.
#[derive(Debug)]
pub struct RunHandle {
    shown: Mutex<Shown>,
    version: watch::Sender<u64>,
    inbox: mpsc::Sender<Input>,
}

#[derive(Debug)]
struct Shown {
    record: RunRecord,
    log: Vec<Arc<Event>>,
    left: bool,
}

/// Results that wait in one run's inbox: all that the lane can have unsettled, and some cancels.
const INBOX: usize = super::lane::PREFETCH as usize + 16;

impl RunHandle {
    /// A handle on the run of `record`, and where the run hears.
    pub fn new(record: RunRecord) -> (Self, mpsc::Receiver<Input>) {
        let (inbox, receiver) = mpsc::channel(INBOX);
        let log = events::of_run(&record).into_iter().map(Arc::new).collect();
        let handle = Self {
            shown: Mutex::new(Shown {
                record,
                log,
                left: false,
            }),
            version: watch::Sender::new(0),
            inbox,
        };
        (handle, receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the record. Short: others wait.
    pub fn read<T>(&self, look: impl FnOnce(&RunRecord) -> T) -> T {
        look(&self.lock().record)
    }

    /// The events from the place `from` on, and whether no more will come from here.
    pub fn events_from(&self, from: usize) -> (Vec<Arc<Event>>, bool) {
        let shown = self.lock();
        let events = shown.log.get(from..).unwrap_or_default().to_vec();
        (events, shown.left || shown.record.status.is_ended())
    }

    /// Whether the run goes on elsewhere, and what is shown here is old.
    pub fn has_left(&self) -> bool {
        self.lock().left
    }

    /// Says that the run goes on elsewhere.
    pub fn leave(&self) {
        self.lock().left = true;
        self.version.send_modify(|v| *v += 1);
    }

    /// Changes with every transition, and when the run leaves this process.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Where the run hears.
    pub fn inbox(&self) -> &mpsc::Sender<Input> {
        &self.inbox
    }

    /// Shows a stored change.
    pub fn show(&self, change: Change) {
        let mut shown = self.lock();
        shown.log.extend(change.events.iter().cloned());
        shown.record.apply(change);
        drop(shown);
        self.version.send_modify(|v| *v += 1);
    }
}
