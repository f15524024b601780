//! Vault's PKI secrets engine (<https://developer.hashicorp.com/vault/api-docs/secret/pki>), version 1.11 or newer for
//! the list of issuers.
//!
//! The key is made here and never leaves: Vault signs a request. The trust bundle is the engine's own issuers, so
//! that while a root changes both are believed, and nothing else that their parents may have signed. The role must
//! allow the id as a URI (`allowed_uri_sans`) and a certificate without a name (`require_cn=false`).

use super::{Source, SourceError};
use crate::api::{Answer, Api, Settings};
use crate::config::{Secret, ServiceName};
use crate::identity::material::{Key, Material, MaterialError, certificates};
use crate::identity::spiffe::SpiffeId;
use async_trait::async_trait;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Time limit of a request; signing takes Vault milliseconds.
const LIMIT: Duration = Duration::from_secs(10);
/// Most issuers of one engine that are asked for: two while a root changes, and room for more.
const MAX_ISSUERS: usize = 32;

/// Vault's PKI secrets engine.
pub(super) struct Vault {
    api: Api,
    mount: String,
    role: String,
    id: SpiffeId,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Signed {
    certificate: String,
    /// Of an issuer that is a root, or of an older Vault, there is none.
    #[serde(default)]
    ca_chain: Vec<String>,
}

#[derive(Deserialize)]
struct Issuers {
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct Issuer {
    certificate: String,
}

impl Vault {
    pub(super) fn new(
        service: &ServiceName,
        trust_domain: &str,
        url: &str,
        mount: &str,
        role: &str,
        (token, token_file): (Option<&Secret>, Option<&PathBuf>),
        ca_file: Option<&Path>,
    ) -> Result<Self, String> {
        let api = Api::new(&Settings {
            who: "vault",
            url,
            ca_file,
            header: "x-vault-token",
            token,
            token_file,
        })?;
        let mount = mount.trim_matches('/');
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let segment = |text: &str| !matches!(text, "" | "." | "..") && text.bytes().all(plain);
        if !mount.split('/').all(segment) {
            return Err("mount of vault must be a path of letters, digits, -, _ and .".to_owned());
        }
        if !segment(role) {
            return Err("role of vault must be a name of letters, digits, -, _ and .".to_owned());
        }
        Ok(Self {
            api,
            mount: mount.to_owned(),
            role: role.to_owned(),
            id: SpiffeId::of(trust_domain, service),
        })
    }

    /// A path of the engine.
    fn path<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        let mount = self.mount.split('/');
        ["v1"]
            .into_iter()
            .chain(mount)
            .chain(rest.iter().copied())
            .collect()
    }

    async fn get(&self, rest: &[&str], query: &[(&str, &str)]) -> Result<Answer, SourceError> {
        Ok(self
            .api
            .get(&self.path(rest), query, LIMIT)
            .await?
            .success()?)
    }

    /// The certificates of the engine's issuers.
    async fn issuers(&self) -> Result<Vec<CertificateDer<'static>>, SourceError> {
        let answer = self.get(&["issuers"], &[("list", "true")]).await?;
        let list: Data<Issuers> = answer.read()?;
        let keys = list.data.keys;
        if keys.len() > MAX_ISSUERS {
            return Err(MaterialError::TooMany("list of issuers", MAX_ISSUERS).into());
        }
        let mut roots = Vec::new();
        for key in keys {
            let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            if key.is_empty() || !key.bytes().all(known) {
                return Err(MaterialError::Unreadable("list of issuers").into());
            }
            let answer = self.get(&["issuer", &key, "json"], &[]).await?;
            let issuer: Data<Issuer> = answer.read()?;
            roots.extend(certificates(
                issuer.data.certificate.as_bytes(),
                "trust bundle",
            )?);
        }
        Ok(roots)
    }
}

#[async_trait]
impl Source for Vault {
    async fn issue(&mut self) -> Result<Material, SourceError> {
        // First, so that a list that cannot be had costs no signature at every attempt.
        let roots = self.issuers().await?;
        let id = self.id.to_string();
        let (key, request) = request(&id).map_err(|error| {
            SourceError::Unusable(format!("request for a certificate: {error}"))
        })?;
        // A role may read the names from the request or from the parameters.
        let body = json!({"csr": request, "uri_sans": id, "format": "pem"});
        let path = self.path(&["sign", &self.role]);
        let body = body.to_string().into_bytes();
        let answer = self.api.post(&path, body, LIMIT).await?.success()?;
        let signed: Data<Signed> = answer.read()?;
        let mut chain = certificates(signed.data.certificate.as_bytes(), "certificate")?;
        for above in &signed.data.ca_chain {
            let above = certificates(above.as_bytes(), "certificate")?;
            chain.extend(above.into_iter().filter(|above| !is_root(above)));
        }
        Ok(Material {
            chain,
            key,
            roots,
            trust_domain: self.id.trust_domain.clone(),
        })
    }
}

/// A new key, and a request to certify it.
fn request(id: &str) -> Result<(Key, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
    let request = params.serialize_request(&key)?.pem()?;
    Ok((Key::from(PrivateKeyDer::from(key)), request))
}

/// Whether a certificate is its own issuer: peers have it, or do not believe it.
fn is_root(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, c)| c.subject() == c.issuer())
}
