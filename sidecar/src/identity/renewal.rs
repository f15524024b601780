//! Keeps the certificate fresh.
//!
//! ```text
//!           ┌──────────── half of what is left, ± a tenth; or the source has news ───────────┐
//!           ▼                                                                                │
//!  ask the source ──material──▶ check ──good──▶ new Tls, next generation (nothing new: keep) ┤
//!           ▲                     └──bad──┐                                                  │
//!           └──── backoff, or news ◀──────┴── the old certificate stays in use ◀─────────────┘
//! ```
//!
//! Sidecars learn of a new root one after another. Where authorities sign each other across, that harms nobody. Where
//! the new material and the old do not believe each other (an authority that was lost and made anew, files that were
//! exchanged outright), it is brought in as a root is in any orderly rotation: first everybody believes both, then
//! everybody shows the new certificate, then nobody believes the old. Each step waits for the slowest of the others;
//! a root that was taken away is believed that much longer.

use super::material::Credentials;
use super::source::{Source, SourceError};
use super::tls::Tls;
use super::verify::Trust;
use super::{Failure, Identity, unix_now};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Between two attempts at least: a certificate near its end, or a source that always has news, must not keep
/// a processor busy.
const LEAST: Duration = Duration::from_millis(500);
/// Longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest sleep at a time. Timers stand still while a machine sleeps and certificates do not: what is due is judged
/// by the clock.
const NAP: Duration = Duration::from_secs(30);
/// For each step between authorities that do not believe each other: all sidecars notice a change within it
/// (a source looks every few seconds).
const STEP: Duration = Duration::from_secs(10);

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
        let mut pauses = pauses();
        loop {
            let wait = match self.renew().await {
                Ok(left) => {
                    pauses = self::pauses();
                    half(left)
                }
                Err(error) => {
                    self.failed(&error);
                    pauses.next().unwrap_or(LONGEST_PAUSE)
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
        let new = material.check(&inner.service, unix_now())?;
        let new = Arc::new(new);
        let known = self.identity.tls().map(|tls| Arc::clone(tls.credentials()));
        match known {
            Some(known) if known.fingerprint == new.fingerprint => {
                inner.metrics.renewal("unchanged");
            }
            Some(known) if !known.agrees_with(&new, unix_now()) && known.left(unix_now()) > 0 => {
                tracing::warn!(
                    "new certificate and trust bundle do not go with the old: both are believed for a while"
                );
                let (old_trust, new_trust) = (Arc::clone(&known.trust), Arc::clone(&new.trust));
                self.install(&known, Some(new_trust))?;
                tokio::time::sleep(STEP).await;
                self.install(&new, Some(old_trust))?;
                tokio::time::sleep(STEP).await;
                self.install(&new, None)?;
                self.renewed(&new);
            }
            _ => {
                self.install(&new, None)?;
                self.renewed(&new);
            }
        }
        *self.identity.failure() = None;
        Ok(new.left(unix_now()))
    }

    /// Brings a certificate and what is believed into use.
    fn install(
        &self,
        credentials: &Arc<Credentials>,
        other: Option<Arc<Trust>>,
    ) -> Result<(), SourceError> {
        let inner = &self.identity.0;
        let tls = Tls::new(Arc::clone(credentials), other, Arc::clone(&inner.metrics))
            .map_err(|error| SourceError::Unusable(error.to_string()))?;
        inner.tls.store(Some(Arc::new(tls)));
        inner.generation.send_modify(|generation| *generation += 1);
        inner.metrics.expiry.set(credentials.svid.not_after);
        Ok(())
    }

    fn renewed(&self, credentials: &Credentials) {
        self.identity.0.metrics.renewal("ok");
        tracing::info!(
            spiffe_id = %credentials.svid.id,
            serial = credentials.serial,
            not_after = super::written(credentials.svid.not_after),
            "certificate is in use"
        );
    }

    fn failed(&self, error: &SourceError) {
        let inner = &self.identity.0;
        inner.metrics.renewal(error.label());
        let why = error.to_string();
        let failure = Failure {
            at: unix_now(),
            why: why.clone(),
        };
        let last = self.identity.failure().replace(failure);
        // The same again is no news for the log.
        if last.is_none_or(|last| last.why != why) {
            tracing::warn!(why, source = inner.source, "no new certificate");
        }
    }
}

/// Patience with a source: at first for one that starts beside us, then for one that is away.
fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(LEAST)
        .with_max_delay(LONGEST_PAUSE)
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
    let at = SystemTime::now() + wait;
    let mut left = wait;
    while !left.is_zero() {
        tokio::time::sleep(left.min(NAP)).await;
        left = at.duration_since(SystemTime::now()).unwrap_or_default();
    }
}
