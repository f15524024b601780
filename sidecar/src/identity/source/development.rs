//! A certificate authority in a directory, for a mesh on one machine.
//!
//! `authority.pem` holds its key and its certificate in one file, so that they are there together or not at all:
//! it is written aside and then linked to its name, which fails for all but the first of several processes that
//! begin at once. `roots.pem` is the certificate alone, for programs outside the mesh.

use super::{Source, SourceError};
use crate::config::ServiceName;
use crate::identity::material::{Key, Material, certificates};
use crate::identity::spiffe::SpiffeId;
use async_trait::async_trait;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

const AUTHORITY: &str = "authority.pem";
const ROOTS: &str = "roots.pem";
/// How long the authority lasts: longer than any laptop's mesh.
const AUTHORITY_LIFETIME: Duration = Duration::days(3_650);
/// Certificates begin this much earlier, for containers whose clocks are a little behind.
const BACKDATE: Duration = Duration::minutes(1);

/// A certificate authority in a directory.
pub(super) struct Development {
    desk: Desk,
}

#[derive(Clone)]
struct Desk {
    service: ServiceName,
    trust_domain: String,
    directory: PathBuf,
    lifetime: Duration,
}

impl Development {
    pub(super) fn new(
        service: &ServiceName,
        trust_domain: String,
        directory: PathBuf,
        lifetime_s: u64,
    ) -> Self {
        // What is issued must end with its authority, at the latest.
        let lifetime = i64::try_from(lifetime_s).map_or(AUTHORITY_LIFETIME, Duration::seconds);
        Self {
            desk: Desk {
                service: service.clone(),
                trust_domain,
                directory,
                lifetime: lifetime.min(AUTHORITY_LIFETIME),
            },
        }
    }
}

#[async_trait]
impl Source for Development {
    async fn issue(&mut self) -> Result<Material, SourceError> {
        let desk = self.desk.clone();
        let issued = tokio::task::spawn_blocking(move || desk.issue()).await;
        issued.map_err(|error| SourceError::Away(error.to_string()))?
    }
}

impl Desk {
    fn issue(&self) -> Result<Material, SourceError> {
        let path = self.directory.join(AUTHORITY);
        let pem = match read_private(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.establish().map_err(|error| away(&path, &error))?;
                read_private(&path)
            }
            read => read,
        };
        let pem = pem.map_err(|error| away(&path, &error))?;
        let roots = certificates(pem.as_bytes(), "authority")?;
        if !roots.iter().any(|root| self.vouches(root)) {
            return Err(SourceError::Refused(format!(
                "{} is not the authority of {}",
                path.display(),
                self.trust_domain
            )));
        }
        let own = KeyPair::from_pem(&pem).map_err(unusable)?;
        let issuer = Issuer::new(self.authority()?, own);
        let key = KeyPair::generate().map_err(unusable)?;
        let leaf = self.leaf()?.signed_by(&key, &issuer).map_err(unusable)?;
        Ok(Material {
            chain: vec![leaf.der().clone()],
            key: Key::from(PrivateKeyDer::from(key)),
            roots,
            trust_domain: self.trust_domain.clone(),
        })
    }

    /// Whether a certificate is this trust domain's authority.
    fn vouches(&self, root: &CertificateDer<'_>) -> bool {
        let Ok((_, root)) = X509Certificate::from_der(root) else {
            return false;
        };
        let ours = format!("spiffe://{}", self.trust_domain);
        let names = root.subject_alternative_name().ok().flatten();
        names.is_some_and(|names| names.value.general_names.contains(&GeneralName::URI(&ours)))
    }

    /// Makes the authority, unless another process was faster.
    fn establish(&self) -> io::Result<()> {
        let made = |error: rcgen::Error| io::Error::other(error.to_string());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let key = KeyPair::generate().map_err(made)?;
        let params = self.authority().map_err(io::Error::other)?;
        let root = params.self_signed(&key).map_err(made)?.pem();
        let both = Zeroizing::new(format!("{}{root}", *Zeroizing::new(key.serialize_pem())));
        if place(&self.directory, AUTHORITY, both.as_bytes(), 0o600)? {
            place(&self.directory, ROOTS, root.as_bytes(), 0o644)?;
            tracing::info!(directory = %self.directory.display(), "made a development authority");
        }
        Ok(())
    }

    /// The authority's certificate. It is made from the trust domain alone, since who issues must name the
    /// authority as it names itself.
    fn authority(&self) -> Result<CertificateParams, SourceError> {
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATE;
        params.not_after = now + AUTHORITY_LIFETIME;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "mesh development authority");
        params
            .distinguished_name
            .push(DnType::CommonName, self.trust_domain.as_str());
        params.subject_alt_names = vec![uri(&format!("spiffe://{}", self.trust_domain))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(params)
    }

    fn leaf(&self) -> Result<CertificateParams, SourceError> {
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATE;
        params.not_after = now + self.lifetime;
        params.distinguished_name = DistinguishedName::new();
        let id = SpiffeId::of(&self.trust_domain, &self.service);
        params.subject_alt_names = vec![uri(&id.to_string())?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

fn uri(text: &str) -> Result<SanType, SourceError> {
    text.try_into().map(SanType::URI).map_err(unusable)
}

fn unusable(error: rcgen::Error) -> SourceError {
    SourceError::Unusable(format!("development authority: {error}"))
}

fn away(path: &Path, error: &io::Error) -> SourceError {
    SourceError::Away(format!("{}: {error}", path.display()))
}

/// Reads a file that nobody else may read.
fn read_private(path: &Path) -> io::Result<Zeroizing<String>> {
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        let why = "others may read the authority's key: make its mode 0600";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    fs::read_to_string(path).map(Zeroizing::new)
}

/// Puts a whole file under its name; `false` when one is there already.
fn place(directory: &Path, name: &str, content: &[u8], mode: u32) -> io::Result<bool> {
    let aside = directory.join(format!(".{name}.{}", uuid::Uuid::now_v7().simple()));
    let placed = write_new(&aside, content, mode).and_then(|()| {
        match fs::hard_link(&aside, directory.join(name)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    });
    let removed = fs::remove_file(&aside);
    let placed = placed?;
    removed.map(|()| placed)
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
