//! Who this service is, and whom it believes: certificates that renew themselves, and mTLS made of them.
//!
//! ```text
//!  source (consul | files | development | vault) ──material──▶ check ──▶ Renewal ──▶ Identity ──tls()──▶ proxy
//!                                                                           └─▶ /ready, /certificate, metrics
//! ```

mod handshake;
mod material;
mod metrics;
mod renewal;
mod source;
mod spiffe;
mod svid;
mod tls;
mod verify;

pub use handshake::{HandshakeError, Reason};
pub use renewal::Renewal;
pub use spiffe::{SpiffeError, SpiffeId};
pub use tls::{Accepted, Alpn, Connected, Tls};

use crate::config::{self, IdentitySource, ServiceName};
use arc_swap::ArcSwapOption;
use metrics::Metrics;
use serde_json::{Value, json};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

/// Why there can be no identity. A source that is away is none of these.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The configuration cannot work.
    #[error("identity: {0}")]
    Config(String),
    /// The metrics are in the registry already.
    #[error("metrics of identity cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// The identity of this service, as it is at the moment. A handle: clones are of the same.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    service: ServiceName,
    source: &'static str,
    warn_before_s: u64,
    tls: ArcSwapOption<Tls>,
    /// Counts material that came into use; 0 before the first.
    generation: watch::Sender<u64>,
    /// Why the last attempt brought nothing; `None` when it did.
    failure: Mutex<Option<Failure>>,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
struct Failure {
    at: i64,
    why: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("service", &self.0.service)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity of `service`, and what keeps it: nothing is proven or believed before [`Renewal::run`] has got
    /// the first certificate. `consul` is the connection of the registry, which one of the sources uses.
    ///
    /// # Errors
    /// [`IdentityError`] when the configuration cannot work. A source that is away is no error.
    pub fn new(
        service: &ServiceName,
        config: &config::Identity,
        consul: Option<&config::Consul>,
        metrics: &prometheus::Registry,
    ) -> Result<(Self, Renewal), IdentityError> {
        let source = source::open(service, config, consul)?;
        let identity = Self(Arc::new(Inner {
            service: service.clone(),
            source: source_name(&config.source),
            warn_before_s: config.warn_before_s,
            tls: ArcSwapOption::empty(),
            generation: watch::Sender::new(0),
            failure: Mutex::default(),
            metrics: Arc::new(Metrics::register(metrics)?),
        }));
        let renewal = Renewal::new(identity.clone(), source);
        Ok((identity, renewal))
    }

    /// mTLS as it is now; `None` until the first certificate. Takes no lock.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.0.tls.load_full()
    }

    /// mTLS, as soon as there is any.
    pub async fn first(&self) -> Arc<Tls> {
        let mut generation = self.0.generation.subscribe();
        loop {
            if let Some(tls) = self.tls() {
                return tls;
            }
            if generation.changed().await.is_err() {
                // The sender lives in `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Counts the material that came into use: a change means that [`Identity::tls`] gives another.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// Every reason why `/ready` should say no; none when there is a certificate that lasts.
    pub fn reasons(&self) -> Vec<String> {
        let failure = self.failure().clone();
        let why = failure.map_or_else(String::new, |failure| format!(": {}", failure.why));
        let Some(tls) = self.tls() else {
            return vec![format!("no certificate yet{why}")];
        };
        let credentials = tls.credentials();
        let left = credentials.left(unix_now());
        if left == 0 {
            return vec![format!("certificate has expired{why}")];
        }
        // What lasts less than the warning time altogether was renewed at its half: below a quarter something is wrong.
        let warn = self
            .0
            .warn_before_s
            .min(credentials.left(credentials.since) / 4);
        if left < warn {
            return vec![format!("certificate expires in {left} s{why}")];
        }
        Vec::new()
    }

    /// The certificate and the trust bundle, for whoever looks after the mesh; never the key.
    pub fn shown(&self) -> Value {
        let failure = self.failure().clone();
        let error = failure.map(|failure| json!({"at": written(failure.at), "error": failure.why}));
        let Some(tls) = self.tls() else {
            return json!({"source": self.0.source, "certificate": null, "last_renewal_error": error});
        };
        let credentials = tls.credentials();
        let roots: Vec<_> = tls
            .rules()
            .bundles()
            .flat_map(|trust| trust.roots())
            .map(|root| {
                json!({
                    "subject": root.subject,
                    "not_after": written(root.not_after),
                    "sha256": root.sha256,
                })
            })
            .collect();
        json!({
            "source": self.0.source,
            "certificate": {
                "spiffe_id": credentials.svid.id.to_string(),
                "serial": credentials.serial,
                "issuer": credentials.issuer,
                "not_before": written(credentials.svid.not_before),
                "not_after": written(credentials.svid.not_after),
            },
            "trust_domain": tls.trust_domain(),
            "roots": roots,
            "generation": *self.0.generation.borrow(),
            "last_renewal_error": error,
        })
    }

    // A failure is whole whatever happened to the last holder.
    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.0
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn source_name(source: &IdentitySource) -> &'static str {
    match source {
        IdentitySource::None => "none",
        IdentitySource::Consul {} => "consul",
        IdentitySource::Files { .. } => "files",
        IdentitySource::Development { .. } => "development",
        IdentitySource::Vault { .. } => "vault",
    }
}

/// Now, in seconds of Unix time.
fn unix_now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// A moment as RFC 3339 writes it.
fn written(unix: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(unix)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
}
