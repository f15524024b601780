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

impl Direction {
    fn as_label(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// The metrics of one identity.
pub(super) struct Metrics {
    handshakes: IntCounterVec,
    /// Looked up once, since most handshakes end there.
    inbound: IntCounter,
    outbound: IntCounter,
    /// `not_after` of the certificate, in seconds of Unix time; 0 before the first.
    pub(super) expiry: IntGauge,
    renewals: IntCounterVec,
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
        for direction in [Direction::Inbound, Direction::Outbound] {
            for reason in Reason::ALL {
                handshakes.with_label_values(&[direction.as_label(), reason.as_label()]);
            }
        }
        let ok = |direction: Direction| handshakes.with_label_values(&[direction.as_label(), "ok"]);
        Ok(Self {
            inbound: ok(Direction::Inbound),
            outbound: ok(Direction::Outbound),
            handshakes,
            expiry,
            renewals,
        })
    }

    /// Counts a handshake.
    pub(super) fn handshake<T>(&self, direction: Direction, outcome: &Result<T, HandshakeError>) {
        match (outcome, direction) {
            (Ok(_), Direction::Inbound) => self.inbound.inc(),
            (Ok(_), Direction::Outbound) => self.outbound.inc(),
            (Err(error), _) => {
                let labels = [direction.as_label(), error.reason().as_label()];
                self.handshakes.with_label_values(&labels).inc();
            }
        }
    }

    /// Counts an answer of the source.
    pub(super) fn renewal(&self, outcome: &str) {
        self.renewals.with_label_values(&[outcome]).inc();
    }
}
