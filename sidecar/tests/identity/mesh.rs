//! Identities that keep themselves, and handshakes between them over loopback.

use mesh_sidecar::config::{self, IdentitySource, ServiceName};
use mesh_sidecar::identity::{Accepted, Alpn, Connected, HandshakeError, Identity, Tls};
use mesh_tests::{wait_for, within};
use prometheus::Registry;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

pub const DOMAIN: &str = "mesh.test";

pub fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

/// A service with an identity that is kept until this is dropped.
pub struct Member {
    pub identity: Identity,
    pub metrics: Registry,
    _running: DropGuard,
}

impl Member {
    pub fn start(
        service: &str,
        config: &config::Identity,
        consul: Option<&config::Consul>,
    ) -> Self {
        let metrics = Registry::new();
        let (identity, renewal) = Identity::new(&name(service), config, consul, &metrics).unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(renewal.run(shutdown.clone()));
        Self {
            identity,
            metrics,
            _running: shutdown.drop_guard(),
        }
    }

    pub fn of(service: &str, source: IdentitySource) -> Self {
        let config = config::Identity {
            trust_domain: Some(DOMAIN.to_owned()),
            source,
            ..config::Identity::default()
        };
        Self::start(service, &config, None)
    }

    pub fn development(service: &str, directory: &Path, lifetime_s: u64) -> Self {
        let directory = directory.to_owned();
        Self::of(
            service,
            IdentitySource::Development {
                directory,
                lifetime_s,
            },
        )
    }

    pub async fn first(&self) -> Arc<Tls> {
        within("the first certificate", self.identity.first()).await
    }

    /// A counter or gauge of this member, by name and `label=value` pairs.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|f| f.name() == name).unwrap();
        let metric = family.get_metric().iter().find(|metric| {
            labels.iter().all(|(key, value)| {
                let pairs = metric.get_label();
                pairs
                    .iter()
                    .any(|p| p.name() == *key && p.value() == *value)
            })
        });
        let metric = metric.unwrap_or_else(|| panic!("{name} has no {labels:?}"));
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }

    pub fn handshakes(&self, direction: &str, outcome: &str) -> f64 {
        let labels = [("direction", direction), ("outcome", outcome)];
        self.metric("sidecar_tls_handshakes_total", &labels)
    }
}

/// Two ends of a connection.
pub async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (accepted, connected) = tokio::join!(listener.accept(), connect);
    (accepted.unwrap().0, connected.unwrap())
}

/// A handshake between two members.
pub async fn shake(
    server: &Tls,
    client: &Tls,
    wanted: &str,
    alpn: Alpn,
) -> (
    Result<Accepted, HandshakeError>,
    Result<Connected, HandshakeError>,
) {
    let (accepted, connected) = connection().await;
    let wanted = name(wanted);
    within("a handshake", async {
        tokio::join!(
            server.accept(accepted),
            client.connect(connected, &wanted, alpn)
        )
    })
    .await
}

/// The serial number of what is in use.
pub fn serial(member: &Member) -> String {
    member.identity.shown()["certificate"]["serial"].to_string()
}

/// Waits until the last attempt at a certificate failed for a reason that has `wanted` in it.
pub async fn says(member: &Member, wanted: &str) {
    wait_for(wanted, || async {
        let shown = member.identity.shown();
        let error = shown["last_renewal_error"]["error"].to_string();
        error.contains(wanted)
    })
    .await;
}

/// How often the material of `member` changed.
pub fn generation(member: &Member) -> u64 {
    *member.identity.changed().borrow()
}
