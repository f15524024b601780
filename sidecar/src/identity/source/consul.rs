//! The certificate authority of Consul Connect (<https://developer.hashicorp.com/consul/api-docs/agent/connect>).
//!
//! Consul's agent makes and renews the certificate itself, and signs a new one when the root changes: both endpoints
//! are watched by blocking queries, and asked anyway when a certificate is at its half.

use super::{Source, SourceError};
use crate::api::consul::Agent;
use crate::config::{Consul as Settings, ServiceName};
use crate::identity::material::{Material, certificates, key};
use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Deserializer};
use std::time::Duration;
use zeroize::Zeroizing;

/// Longest pause before Consul is looked for again. Short, so that all sidecars notice within a moment of one
/// another that it came back with another authority.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Between two queries that brought nothing.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);

/// The certificate authority of Consul Connect.
pub(super) struct Consul {
    agent: Agent,
    service: ServiceName,
    /// What Consul must say is its trust domain, where that was configured.
    trust_domain: Option<String>,
    roots: Seen,
    leaf: Seen,
    /// The trust domain that Consul said when it was last asked: every one begins with one of its own.
    said: Option<String>,
}

/// The state of something when it was last read; `None` before.
type Seen = Option<u64>;

const ROOTS: [&str; 5] = ["v1", "agent", "connect", "ca", "roots"];
const LEAF: [&str; 5] = ["v1", "agent", "connect", "ca", "leaf"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Roots {
    trust_domain: String,
    /// `null` while the authority begins.
    roots: Option<Vec<Root>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Root {
    root_cert: String,
}

#[derive(Deserialize)]
struct Leaf {
    /// With what is between it and the root: after a rotation, the new root signed by the old one.
    #[serde(rename = "CertPEM")]
    certificate: String,
    #[serde(rename = "PrivateKeyPEM", deserialize_with = "secret")]
    key: Zeroizing<String>,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(deserializer).map(Zeroizing::new)
}

impl Consul {
    pub(super) fn new(
        service: &ServiceName,
        trust_domain: Option<String>,
        settings: &Settings,
    ) -> Result<Self, String> {
        Ok(Self {
            agent: Agent::new(settings)?,
            service: service.clone(),
            trust_domain,
            roots: None,
            leaf: None,
            said: None,
        })
    }

    /// Ends when what is at `path` is not as it was `seen`; never when it was not.
    async fn watch(&self, path: &[&str], seen: Seen) {
        let Some(index) = seen else {
            return std::future::pending().await;
        };
        let mut pauses = pauses();
        // It may be another Consul by now, which counts from the beginning: it is asked what is there first, since a state
        // that it has not reached would be waited for in vain.
        let mut waiting = false;
        let mut away = false;
        loop {
            let answer = if waiting {
                self.agent.get_after(path, &[], index).await
            } else {
                self.agent.get(path, &[]).await
            };
            let answer = answer.and_then(|answer| answer.success());
            let pause = match answer.map(|answer| answer.index) {
                // An equal count of one that was away may be another Consul's.
                Ok(Some(now)) if now != index || away => return,
                Ok(Some(_)) => {
                    waiting = true;
                    pauses = self::pauses();
                    SHORTEST_PAUSE
                }
                Ok(None) | Err(_) => {
                    (waiting, away) = (false, true);
                    pauses.next().unwrap_or(LONGEST_PAUSE)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether it is another Consul than the one that was asked last.
    async fn is_another(&self) -> bool {
        let Ok(answer) = self.agent.get(&ROOTS, &[]).await else {
            return false;
        };
        let roots = answer.success().and_then(|answer| answer.read::<Roots>());
        roots.is_ok_and(|roots| {
            let now = roots.trust_domain.to_ascii_lowercase();
            self.said.as_ref().is_some_and(|said| *said != now)
        })
    }

    fn leaf_path(&self) -> [&str; 6] {
        let [a, b, c, d, e] = LEAF;
        [a, b, c, d, e, self.service.as_str()]
    }

    fn trust_domain(&self, said: String) -> Result<String, SourceError> {
        match &self.trust_domain {
            Some(ours) if *ours != said => Err(SourceError::Refused(format!(
                "consul's trust domain is {said}, not {ours} as configured"
            ))),
            _ => Ok(said),
        }
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(SHORTEST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}

#[async_trait]
impl Source for Consul {
    async fn issue(&mut self) -> Result<Material, SourceError> {
        let answer = self.agent.get(&ROOTS, &[]).await?.success()?;
        self.roots = answer.index;
        let roots: Roots = answer.read()?;
        let trust_domain = self.trust_domain(roots.trust_domain.to_ascii_lowercase())?;
        self.said = Some(trust_domain.clone());
        let bundle = roots.roots.unwrap_or_default();
        let roots = bundle
            .iter()
            .map(|root| certificates(root.root_cert.as_bytes(), "trust bundle"))
            .collect::<Result<Vec<Vec<CertificateDer<'static>>>, _>>()?
            .concat();
        let answer = self.agent.get(&self.leaf_path(), &[]).await?.success()?;
        self.leaf = answer.index;
        let leaf: Leaf = answer.read()?;
        Ok(Material {
            chain: certificates(leaf.certificate.as_bytes(), "certificate")?,
            key: key(leaf.key.as_bytes())?,
            roots,
            trust_domain,
        })
    }

    async fn changed(&mut self) {
        // One that was exchanged since may have the same count.
        if self.is_another().await {
            return;
        }
        let leaf = self.leaf_path();
        tokio::select! {
            () = self.watch(&ROOTS, self.roots) => {}
            () = self.watch(&leaf, self.leaf) => {}
        }
    }
}
