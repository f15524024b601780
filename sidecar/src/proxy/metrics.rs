//! What the proxies count. Nothing on the way of a request looks a label up: a connection holds the counters of its
//! peer, a service those of its own, and their children for each status are there after the first use.

use super::answer::Fault;
use super::frames::BodyError;
use super::serve::Misread;
use crate::config::ServiceName;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::time::Instant;

/// Most peers with series of their own; those beyond share one. More services than one agent talks to.
const MAX_PEERS: usize = 256;
/// Peer of the series that they share, and of requests that never got one.
const OTHER: &str = "other";
/// Statuses of HTTP.
const STATUSES: std::ops::Range<u16> = 100..600;
/// What is counted where a client left before its answer began (nginx's number for it).
const LEFT: u16 = 499;

/// Which way a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From a peer to the program.
    Inbound,
    /// From the program to a peer.
    Outbound,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// The metrics of both proxies.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    connections: IntGaugeVec,
    faults: IntCounterVec,
    retries: IntCounterVec,
    ejections: IntCounterVec,
    breaker: IntGaugeVec,
    pooled: IntGaugeVec,
}

/// The metrics of one direction.
pub(crate) struct Directed {
    direction: Direction,
    all: Metrics,
    /// Connections of clients that are open.
    pub(crate) connections: IntGauge,
    duration: Histogram,
    faults: Vec<(&'static str, IntCounter)>,
    peers: Mutex<HashMap<ServiceName, Arc<PeerCounts>>>,
    other: OnceLock<Arc<PeerCounts>>,
}

/// The counters of one peer.
pub(crate) struct PeerCounts {
    direction: Direction,
    peer: String,
    requests: IntCounterVec,
    duration: Histogram,
    statuses: Box<[OnceLock<IntCounter>]>,
    /// Tries beyond a request's first.
    pub(crate) retries: IntCounter,
    /// How often an instance was left alone.
    pub(crate) ejections: IntCounter,
}

impl Metrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// prometheus', when they are there already.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new(
                    "sidecar_requests_total",
                    "Requests that ended, by the service at the other end and the status that the client got; 499 is \
                     a client that left before",
                ),
                &["direction", "peer", "code"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "sidecar_request_duration_seconds",
                    "From the head of a request until the last byte of its answer",
                )
                .buckets(vec![
                    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                    10.0, 30.0, 60.0,
                ]),
                &["direction"],
            )?,
            connections: IntGaugeVec::new(
                Opts::new(
                    "sidecar_connections_open",
                    "Connections of clients that are open",
                ),
                &["direction"],
            )?,
            faults: IntCounterVec::new(
                Opts::new(
                    "sidecar_faults_total",
                    "Answers that the sidecar gave itself, by reason; refusals of the policy are counted apart",
                ),
                &["direction", "reason"],
            )?,
            retries: IntCounterVec::new(
                Opts::new("sidecar_retries_total", "Tries beyond a request's first"),
                &["direction", "peer"],
            )?,
            ejections: IntCounterVec::new(
                Opts::new(
                    "sidecar_ejections_total",
                    "How often an instance was left alone after failures",
                ),
                &["direction", "peer"],
            )?,
            breaker: IntGaugeVec::new(
                Opts::new(
                    "sidecar_breaker_open",
                    "1 while a service, or the program, is sent nothing because too much failed",
                ),
                &["direction", "peer"],
            )?,
            pooled: IntGaugeVec::new(
                Opts::new(
                    "sidecar_connections_pooled",
                    "Connections to the program or to peers that are kept",
                ),
                &["direction"],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.faults.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.ejections.clone()))?;
        registry.register(Box::new(metrics.breaker.clone()))?;
        registry.register(Box::new(metrics.pooled.clone()))?;
        Ok(metrics)
    }

    /// Those of one direction.
    pub(crate) fn directed(&self, direction: Direction) -> Directed {
        let way = direction.as_str();
        Directed {
            direction,
            connections: self.connections.with_label_values(&[way]),
            duration: self.duration.with_label_values(&[way]),
            faults: Fault::REASONS
                .iter()
                .chain(&Misread::REASONS)
                .map(|reason| (*reason, self.faults.with_label_values(&[way, *reason])))
                .collect(),
            peers: Mutex::default(),
            other: OnceLock::new(),
            all: self.clone(),
        }
    }
}

impl Directed {
    /// The counters of a peer; for the life of a connection or a service, not for each request.
    pub(crate) fn peer(&self, peer: &ServiceName) -> Arc<PeerCounts> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = peers.get(peer) {
            return Arc::clone(counts);
        }
        if peers.len() >= MAX_PEERS {
            return self.other();
        }
        let counts = Arc::new(self.counts(peer.as_str()));
        peers.insert(peer.clone(), Arc::clone(&counts));
        counts
    }

    /// The counters of requests without a peer, and of peers beyond the bound.
    pub(crate) fn other(&self) -> Arc<PeerCounts> {
        Arc::clone(self.other.get_or_init(|| Arc::new(self.counts(OTHER))))
    }

    fn counts(&self, peer: &str) -> PeerCounts {
        let way = self.direction.as_str();
        PeerCounts {
            direction: self.direction,
            peer: peer.to_owned(),
            requests: self.all.requests.clone(),
            duration: self.duration.clone(),
            statuses: STATUSES.map(|_| OnceLock::new()).collect(),
            retries: self.all.retries.with_label_values(&[way, peer]),
            ejections: self.all.ejections.with_label_values(&[way, peer]),
        }
    }

    /// Whether the breaker of a peer, or of the program of this name, is open. Bounded by what may be a peer.
    pub(crate) fn breaker(&self, counts: &PeerCounts) -> IntGauge {
        let labels = [self.direction.as_str(), counts.peer.as_str()];
        self.all.breaker.with_label_values(&labels)
    }

    /// Counts an answer that the sidecar gives itself.
    pub(crate) fn fault(&self, fault: &Fault) {
        self.because(fault.reason());
    }

    /// Counts a connection that ended because what came on it was no request.
    pub(crate) fn misread(&self, misread: Option<Misread>) {
        if let Some(misread) = misread {
            self.because(misread.reason());
        }
    }

    fn because(&self, reason: &str) {
        if let Some((_, counter)) = self.faults.iter().find(|(known, _)| *known == reason) {
            counter.inc();
        }
    }

    /// Says how many connections are kept.
    pub(crate) fn pooled(&self, connections: usize) {
        let gauge = self
            .all
            .pooled
            .with_label_values(&[self.direction.as_str()]);
        gauge.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }
}

impl PeerCounts {
    fn ended(&self, status: u16, begun: Instant) {
        self.duration.observe(begun.elapsed().as_secs_f64());
        let index = usize::from(status.saturating_sub(STATUSES.start));
        let child = || {
            let code = status.to_string();
            self.requests
                .with_label_values(&[self.direction.as_str(), &self.peer, &code])
        };
        match self.statuses.get(index) {
            Some(counter) => counter.get_or_init(child).inc(),
            None => child().inc(),
        }
    }
}

/// A request that is counted when it ends, however it ends.
pub(crate) struct Counted {
    counts: Arc<PeerCounts>,
    begun: Instant,
    status: u16,
}

impl Counted {
    pub(crate) fn new(counts: Arc<PeerCounts>, begun: Instant) -> Self {
        Self {
            counts,
            begun,
            status: LEFT,
        }
    }
}

impl Counted {
    /// It is a request of these counters.
    pub(crate) fn count_for(&mut self, counts: &Arc<PeerCounts>) {
        if !Arc::ptr_eq(&self.counts, counts) {
            self.counts = Arc::clone(counts);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.ended(self.status, self.begun);
    }
}

impl super::body::Held for Counted {
    fn answered(&mut self, status: u16) {
        self.status = status;
    }

    fn broke_off(&mut self, _: BodyError) {}
}

/// Counts one thing for as long as it lives.
pub(crate) struct Gauged(IntGauge);

impl Gauged {
    pub(crate) fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Gauged {
    fn drop(&mut self) {
        self.0.dec();
    }
}
