//! What is counted of certificates and handshakes. Every label has few values, none of them a peer's to choose.

use super::handshake::{HandshakeError, Reason};
use super::source::SourceError;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Who began a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Inbound,
    Outbound,
}

/// The metrics of one identity.
pub(super) struct Metrics {
    inbound: Handshakes,
    outbound: Handshakes,
    /// `not_after` of the certificate, in seconds of Unix time; 0 before the first.
    pub(super) expiry: IntGauge,
    renewals: IntCounterVec,
}

/// Counters of one direction, looked up once: a handshake takes no lock of theirs.
struct Handshakes {
    ok: IntCounter,
    /// In the order of [`Reason::ALL`].
    failed: Vec<IntCounter>,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let handshakes = IntCounterVec::new(
            Opts::new(
                "sidecar_tls_handshakes_total",
                "TLS handshakes, by outcome: ok, or why they came to nothing",
            ),
            &["direction", "outcome"],
        )?;
        let expiry = IntGauge::new(
            "sidecar_certificate_expiry_seconds",
            "When the certificate expires, in seconds of Unix time; 0 without one",
        )?;
        let renewals = IntCounterVec::new(
            Opts::new(
                "sidecar_certificate_renewals_total",
                "Certificates and trust bundles asked for, by outcome: ok for new ones, unchanged, or why there is none",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(handshakes.clone()))?;
        registry.register(Box::new(expiry.clone()))?;
        registry.register(Box::new(renewals.clone()))?;
        for outcome in ["ok", "unchanged"].into_iter().chain(SourceError::LABELS) {
            renewals.with_label_values(&[outcome]);
        }
        let of = |direction: &str| Handshakes {
            ok: handshakes.with_label_values(&[direction, "ok"]),
            failed: Reason::ALL
                .iter()
                .map(|reason| handshakes.with_label_values(&[direction, reason.as_label()]))
                .collect(),
        };
        Ok(Self {
            inbound: of("inbound"),
            outbound: of("outbound"),
            expiry,
            renewals,
        })
    }

    /// Counts a handshake.
    pub(super) fn handshake<T>(&self, direction: Direction, outcome: &Result<T, HandshakeError>) {
        let counters = match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        let counter = match outcome {
            Ok(_) => Some(&counters.ok),
            Err(error) => {
                let all = Reason::ALL.iter().zip(&counters.failed);
                let mut of_reason = all.filter(|(reason, _)| **reason == error.reason());
                of_reason.next().map(|(_, counter)| counter)
            }
        };
        if let Some(counter) = counter {
            counter.inc();
        }
    }

    /// Counts an answer of the source.
    pub(super) fn renewal(&self, outcome: &str) {
        self.renewals.with_label_values(&[outcome]).inc();
    }
}
