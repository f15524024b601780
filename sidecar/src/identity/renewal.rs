//! Keeps the certificate fresh.
//!
//! ```text
//!           ┌──────────── half of what is left, ± a tenth; or the source has news ───────────┐
//!           ▼                                                                                │
//!  ask the source ──material──▶ check ──good──▶ new Tls, next generation (nothing new: keep) ─┤
//!           ▲                     └──bad──┐                                                   │
//!           └──── backoff, or news ◀──────┴── the old certificate stays in use ◀──────────────┘
//! ```

use super::material::Credentials;
use super::source::{Source, SourceError};
use super::tls::Tls;
use super::{Failure, Identity, unix_now};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between two attempts at least: a certificate near its end, or a source that always has news, must not keep
/// a processor busy.
const LEAST: Duration = Duration::from_millis(500);
/// Longest sleep at a time. Timers stand still while a machine sleeps and certificates do not: what is due is judged
/// by the clock.
const NAP: Duration = Duration::from_secs(30);

/// What gets certificates for an [`Identity`].
pub struct Renewal {
    identity: Identity,
    source: Box<dyn Source>,
}

impl Renewal {
    pub(super) fn new(identity: Identity, source: Box<dyn Source>) -> Self {
        Self { identity, source }
    }

    /// Gets the first certificate and every later one, until `shutdown` is cancelled.
    pub async fn run(mut self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.keep()).await;
    }

    async fn keep(&mut self) {
        let mut retries = retries();
        loop {
            let wait = match self.renew().await {
                Ok(credentials_left) => {
                    retries = self::retries();
                    half(credentials_left)
                }
                Err(error) => {
                    self.failed(&error);
                    retries.next().unwrap_or(NAP)
                }
            };
            let news = async {
                tokio::time::sleep(LEAST).await;
                self.source.changed().await;
            };
            tokio::select! {
                () = due(wait) => {}
                () = news => {}
            }
        }
    }

    /// One attempt; how long what is then in use lasts, in seconds.
    async fn renew(&mut self) -> Result<u64, SourceError> {
        let material = self.source.issue().await?;
        let inner = &self.identity.0;
        let credentials = material
            .check(&inner.service, unix_now())
            .map_err(SourceError::Material)?;
        let left = credentials.left(unix_now());
        *self.identity.failure() = None;
        let known = self.identity.tls();
        if known.is_some_and(|tls| tls.credentials().fingerprint == credentials.fingerprint) {
            inner.metrics.renewal("unchanged");
            return Ok(left);
        }
        self.install(credentials)?;
        Ok(left)
    }

    fn install(&self, credentials: Credentials) -> Result<(), SourceError> {
        let inner = &self.identity.0;
        let named = credentials.named.clone();
        let serial = credentials.serial.clone();
        let tls = Tls::new(credentials, Arc::clone(&inner.metrics))
            .map_err(|error| SourceError::Unusable(error.to_string()))?;
        inner.tls.store(Some(Arc::new(tls)));
        inner.generation.send_modify(|generation| *generation += 1);
        inner.metrics.expiry.set(named.not_after);
        inner.metrics.renewal("ok");
        tracing::info!(
            spiffe_id = %named.id,
            serial,
            not_after = super::written(named.not_after),
            "certificate is in use"
        );
        Ok(())
    }

    fn failed(&self, error: &SourceError) {
        let inner = &self.identity.0;
        inner.metrics.renewal(error.label());
        let why = error.to_string();
        let at = unix_now();
        let last = self.identity.failure().replace(Failure {
            at,
            why: why.clone(),
        });
        // The same again is no news for the log.
        if last.is_none_or(|last| last.why != why) {
            tracing::warn!(why, source = inner.source, "no new certificate");
        }
    }
}

/// Patience with a source: at first for one that starts beside us, then for one that is away.
fn retries() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(LEAST)
        .with_max_delay(Duration::from_secs(30))
        .without_max_times()
        .with_jitter()
        .build()
}

/// Half of what is left, ± a tenth of it, so that sidecars that began together do not ask together.
fn half(left_s: u64) -> Duration {
    let chance = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
    Duration::from_secs(left_s)
        .mul_f64(0.4 + 0.2 * chance)
        .max(LEAST)
}

/// Ends when `wait` is over by the clock, even if the machine slept meanwhile.
async fn due(wait: Duration) {
    let at = std::time::SystemTime::now() + wait;
    let mut left = wait;
    while !left.is_zero() {
        tokio::time::sleep(left.min(NAP)).await;
        left = at
            .duration_since(std::time::SystemTime::now())
            .unwrap_or_default();
    }
}
