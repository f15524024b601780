//! An authority that signs whatever it is asked to, also what no service may have.

use crate::mesh::DOMAIN;
use mesh_sidecar::config::IdentitySource;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use time::{Duration, OffsetDateTime};

/// A certificate authority.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: rcgen::Certificate,
    /// What is between its certificates and their root.
    above: Vec<CertificateDer<'static>>,
}

/// A certificate, what is above it, and its key.
pub struct Issued {
    pub chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Authority {
    /// A root.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = authority_params(name);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            params,
            key,
            certificate,
            above: Vec::new(),
        }
    }

    /// An authority that is signed by this one.
    pub fn below(&self, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = authority_params(name);
        edit(&mut params);
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        let mut above = vec![certificate.der().clone()];
        above.extend(self.above.iter().cloned());
        Self {
            params,
            key,
            certificate,
            above,
        }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate of `service`.
    pub fn issue(&self, service: &str) -> Issued {
        self.issue_with(service, |_| {})
    }

    /// A certificate of `service`, but for what `edit` makes of it.
    pub fn issue_with(&self, service: &str, edit: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params(service);
        edit(&mut params);
        let leaf = params.signed_by(&key, &self.issuer()).unwrap();
        let mut chain = vec![leaf.der().clone()];
        chain.extend(self.above.iter().cloned());
        Issued { chain, key }
    }

    pub fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

impl Issued {
    /// A certificate that signed itself.
    pub fn by_itself(service: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let leaf = leaf_params(service).self_signed(&key).unwrap();
        Self {
            chain: vec![leaf.der().clone()],
            key,
        }
    }

    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|c| pem(c)).collect()
    }

    /// Writes certificate and key, as whoever renews files does: aside, then renamed.
    pub fn write(&self, directory: &Path) {
        replace(&directory.join("certificate.pem"), &self.chain_pem());
        replace(&directory.join("key.pem"), &self.key_pem());
    }
}

/// Writes a trust bundle.
pub fn write_roots(directory: &Path, roots: &[&Authority]) {
    let roots: String = roots.iter().map(|root| root.pem()).collect();
    replace(&directory.join("roots.pem"), &roots);
}

/// Puts a file in the place of another in one step.
pub fn replace(path: &Path, content: &str) {
    let aside = path.with_extension("new");
    std::fs::write(&aside, content).unwrap();
    std::fs::rename(aside, path).unwrap();
}

/// The source that reads what [`Issued::write`] and [`write_roots`] wrote.
pub fn files(directory: &Path) -> IdentitySource {
    IdentitySource::Files {
        certificate: directory.join("certificate.pem"),
        key: directory.join("key.pem"),
        roots: directory.join("roots.pem"),
    }
}

/// The URI of `service`.
pub fn uri(domain: &str, service: &str) -> SanType {
    let uri = format!("spiffe://{domain}/ns/default/dc/dc1/svc/{service}");
    SanType::URI(uri.try_into().unwrap())
}

pub fn hours(hours: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::hours(hours)
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = hours(-48);
    params.not_after = hours(480);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(service: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = hours(-24);
    params.not_after = hours(24);
    params.subject_alt_names = vec![uri(DOMAIN, service)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

/// A certificate in PEM.
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
