//! One instance: what is under way there and how long its answers take.

use super::{Event, Rules, Shared};
use crate::proxy::outlier::Outcome;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::time::Instant;

/// Distinguishes instances of one service; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Id(Arc<str>);

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An instance, for as long as the registry names it or a request is under way there.
#[derive(Debug)]
pub(super) struct Endpoint {
    id: Id,
    address: SocketAddr,
    under_way: AtomicU32,
    /// Since its last answer.
    failures: AtomicU32,
    /// Whether it is left alone, for those that have an answer of it in hand.
    out: AtomicBool,
    response_time: Mutex<ResponseTime>,
    rules: Arc<Rules>,
    /// For the changes that concern the others too.
    shared: Weak<Shared>,
}

impl Endpoint {
    pub(super) fn new(id: Id, address: SocketAddr, shared: &Arc<Shared>) -> Self {
        Self {
            id,
            address,
            under_way: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            out: AtomicBool::new(false),
            response_time: Mutex::default(),
            rules: Arc::clone(&shared.rules),
            shared: Arc::downgrade(shared),
        }
    }

    pub(super) fn id(&self) -> &Id {
        &self.id
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }

    fn response_time(&self) -> MutexGuard<'_, ResponseTime> {
        self.response_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How long an answer takes, in seconds; `None` when nothing is known.
    pub(super) fn expected(&self, now: Instant) -> Option<f64> {
        self.response_time().at(self.rules.decay, now)
    }

    pub(super) fn leave_alone(&self) {
        self.out.store(true, Ordering::Relaxed);
    }

    /// It is asked again, with `failures` in a row against it. What was measured before says nothing of it now.
    pub(super) fn back(&self, failures: u32) {
        self.failures.store(failures, Ordering::Relaxed);
        self.out.store(false, Ordering::Relaxed);
        *self.response_time() = ResponseTime::default();
    }
}

/// The peak EWMA of response times, of Finagle's `PeakEwma`: a longer one counts at once, a shorter one by and by.
#[derive(Debug, Default)]
struct ResponseTime(Option<Measured>);

#[derive(Debug, Clone, Copy)]
struct Measured {
    seconds: f64,
    at: Instant,
}

impl ResponseTime {
    /// What is left of it at `now`: without news it fades, so that a slow instance is tried again some time.
    fn at(&self, decay: f64, now: Instant) -> Option<f64> {
        self.0.map(|m| m.seconds * m.kept(decay, now))
    }

    fn observe(&mut self, seconds: f64, decay: f64, now: Instant) {
        let seconds = match self.0 {
            None => seconds,
            Some(m) => {
                let kept = m.kept(decay, now);
                let faded = m.seconds * kept;
                if seconds > faded {
                    seconds
                } else {
                    faded + seconds * (1.0 - kept)
                }
            }
        };
        self.0 = Some(Measured { seconds, at: now });
    }
}

impl Measured {
    fn kept(&self, decay: f64, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (-since / decay).exp()
    }
}

/// An instance that was chosen for a try. Dropped when the try is over, which includes the body of its answer.
#[derive(Debug)]
pub(crate) struct Picked {
    endpoint: Arc<Endpoint>,
    begun: Instant,
    answered: bool,
}

impl Picked {
    pub(super) fn new(endpoint: Arc<Endpoint>, begun: Instant) -> Self {
        endpoint.under_way.fetch_add(1, Ordering::Relaxed);
        Self {
            endpoint,
            begun,
            answered: false,
        }
    }

    /// Which instance.
    pub(crate) fn id(&self) -> &Id {
        self.endpoint.id()
    }

    /// Where it is reached.
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.address()
    }

    /// Says what came of the try, as soon as the head of the answer is there or none will come; what changed by it.
    /// The instance counts as busy until the value is dropped. A try that was given up without fault of the instance
    /// (the client left, the instance closed an idle connection) is not said.
    pub(crate) fn answered(&mut self, outcome: Outcome, now: Instant) -> Option<Event> {
        if std::mem::replace(&mut self.answered, true) {
            return None;
        }
        let endpoint = &self.endpoint;
        let decay = endpoint.rules.decay;
        let took = now.saturating_duration_since(self.begun).as_secs_f64();
        if !outcome.failed() {
            endpoint.response_time().observe(took, decay, now);
            if endpoint.failures.load(Ordering::Relaxed) != 0 {
                endpoint.failures.store(0, Ordering::Relaxed);
            }
            if endpoint.out.load(Ordering::Relaxed) {
                let shared = endpoint.shared.upgrade()?;
                return shared.answered(endpoint, self.begun, now);
            }
            return None;
        }
        // Refusing is quick, and must not look like being fast.
        let mut response_time = endpoint.response_time();
        if let Some(usual) = response_time.at(decay, now) {
            let penalty = took.max(usual * 2.0).min(endpoint.rules.longest);
            response_time.observe(penalty, decay, now);
        }
        drop(response_time);
        let failures = endpoint.failures.fetch_add(1, Ordering::Relaxed);
        if failures.saturating_add(1) >= endpoint.rules.outlier.consecutive_failures {
            let shared = endpoint.shared.upgrade()?;
            return shared.failed(endpoint, self.begun, now);
        }
        None
    }

    /// Says what came of the try, which is over by that.
    #[cfg(test)]
    pub(crate) fn finished(mut self, outcome: Outcome, now: Instant) -> Option<Event> {
        self.answered(outcome, now)
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.endpoint.under_way.fetch_sub(1, Ordering::Relaxed);
        if self.answered {
            return;
        }
        // An answer would have taken at least as long: an instance whose clients give up is no fast one.
        let now = Instant::now();
        let decay = self.endpoint.rules.decay;
        let waited = now.saturating_duration_since(self.begun).as_secs_f64();
        let mut response_time = self.endpoint.response_time();
        if response_time
            .at(decay, now)
            .is_none_or(|usual| waited > usual)
        {
            response_time.observe(waited, decay, now);
        }
    }
}
