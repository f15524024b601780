//! The certificates of a measurement: one authority, made anew for each, and a leaf for each role.
//!
//! Every proxy that is compared gets the same: P-256 keys, one SPIFFE URI and no other name. Peers ask for them in
//! different ways, so each leaf lies there as two files and as one.

use anyhow::{Context, Result};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs;
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// The trust domain of the SPIFFE ids.
pub const TRUST_DOMAIN: &str = "bench.mesh";

/// An authority and the directory that holds what it signed.
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// PEM of its certificate.
    pub roots: PathBuf,
}

/// A service's certificate and key, in PEM.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The service.
    pub service: String,
    /// Its SPIFFE id, the certificate's only name.
    pub id: String,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Both in one file.
    pub both: PathBuf,
}

impl Authority {
    /// Makes an authority that keeps its files in `directory`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn make(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let key = KeyPair::generate()?;
        let mut params = valid_today(CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, TRUST_DOMAIN);
        let roots = directory.join("roots.pem");
        write(&roots, &params.self_signed(&key)?.pem())?;
        Ok(Self {
            directory: directory.to_owned(),
            issuer: Issuer::new(params, key),
            roots,
        })
    }

    /// Signs a certificate for `service`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn leaf(&self, service: &str) -> Result<Leaf> {
        let id = id_of(service);
        let mut params = valid_today(CertificateParams::default());
        params
            .distinguished_name
            .push(DnType::CommonName, service.to_owned());
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.as_str())?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        let file = |end: &str| self.directory.join(format!("{service}.{end}"));
        let leaf = Leaf {
            service: service.to_owned(),
            id,
            certificate: file("pem"),
            key: file("key"),
            both: file("both.pem"),
        };
        write(&leaf.certificate, &certificate)?;
        write(&leaf.key, &key)?;
        write(&leaf.both, &format!("{certificate}{key}"))?;
        Ok(leaf)
    }
}

/// The SPIFFE id of `service`.
pub fn id_of(service: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/default/dc/local/svc/{service}")
}

fn valid_today(mut params: CertificateParams) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(1);
    params
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
