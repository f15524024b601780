//! What a source hands over, and the check that stands between it and the handshakes.
//!
//! Whatever the source, material is used only when peers would believe it: so a half-written file, an answer for
//! another service or a bundle without our own root never replaces what works.

use super::spiffe::SpiffeId;
use super::svid::Svid;
use super::verify::{Root, Trust};
use crate::config::ServiceName;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroize;

/// Most certificates in a chain, ours included: an authority of a mesh has one or two above it.
const MAX_CHAIN: usize = 10;
/// Most roots of a bundle: two while they change, and room for many federated authorities.
const MAX_ROOTS: usize = 64;

/// A private key that is overwritten when it is dropped.
pub(super) struct Key(PrivateKeyDer<'static>);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl From<PrivateKeyDer<'static>> for Key {
    fn from(key: PrivateKeyDer<'static>) -> Self {
        Self(key)
    }
}

/// What a source hands over.
pub(super) struct Material {
    /// The certificate, and those between it and a root.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The certificate's key.
    pub(super) key: Key,
    /// The trust bundle.
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// Whose bundle it is.
    pub(super) trust_domain: String,
}

/// Why material is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MaterialError {
    #[error("{0} cannot be read")]
    Unreadable(&'static str),
    #[error("{0} holds no certificate")]
    Empty(&'static str),
    #[error("{0} holds more than {1}")]
    TooMany(&'static str, usize),
    #[error("trust bundle holds a certificate that is not an authority's")]
    NoAuthority,
    #[error("every root of the trust bundle has expired")]
    RootsExpired,
    #[error("key does not fit the certificate")]
    OtherKey,
    #[error("certificate is of {0}, not of this service")]
    OtherService(SpiffeId),
    #[error("peers would refuse the certificate: {0}")]
    Refused(String),
}

/// Material that peers believe.
pub(super) struct Credentials {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) trust: Arc<Trust>,
    pub(super) svid: Svid,
    pub(super) serial: String,
    pub(super) issuer: String,
    /// When it was checked, in seconds of Unix time.
    pub(super) since: i64,
    /// Of all certificates: equal material is no news.
    pub(super) fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl Credentials {
    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.provider)
    }

    /// Whether peers that have the bundle of `self` and show its certificate get on with those of `other`.
    pub(super) fn agrees_with(&self, other: &Self, now: i64) -> bool {
        let believed =
            |trust: &Trust, of: &Self| trust.both(&of.certified.cert, moment(now)).is_ok();
        believed(&self.trust, other) && believed(&other.trust, self)
    }

    /// How long it is of use from `now` on, in seconds; 0 when that is over.
    pub(super) fn left(&self, now: i64) -> u64 {
        u64::try_from(self.svid.not_after.saturating_sub(now)).unwrap_or(0)
    }
}

/// The certificates of a PEM text.
pub(super) fn certificates(
    pem: &[u8],
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, MaterialError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| MaterialError::Unreadable(what))
}

/// The first key of a PEM text.
pub(super) fn key(pem: &[u8]) -> Result<Key, MaterialError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map(Key)
        .map_err(|_| MaterialError::Unreadable("key"))
}

impl Material {
    /// Checks that it is `service`'s and that a peer with the same bundle would believe it at `now`, in seconds of Unix
    /// time.
    pub(super) fn check(
        self,
        service: &ServiceName,
        now: i64,
    ) -> Result<Credentials, MaterialError> {
        bounded("certificate", &self.chain, MAX_CHAIN)?;
        bounded("trust bundle", &self.roots, MAX_ROOTS)?;
        let provider = Arc::new(default_provider());
        let (store, roots) = bundle(&self.roots, now)?;
        let trust = Trust::new(
            store,
            roots,
            self.trust_domain.clone(),
            Arc::clone(&provider),
        )
        .ok_or(MaterialError::RootsExpired)?;
        let svid = trust
            .both(&self.chain, moment(now))
            .map_err(|error| MaterialError::Refused(error.to_string()))?;
        if svid.id.service != *service {
            return Err(MaterialError::OtherService(svid.id));
        }
        let (serial, issuer) = describe(&self.chain)?;
        let fingerprint = self.fingerprint();
        let signing =
            any_supported_type(&self.key.0).map_err(|_| MaterialError::Unreadable("key"))?;
        let certified = CertifiedKey::new(self.chain, signing);
        certified
            .keys_match()
            .map_err(|_| MaterialError::OtherKey)?;
        Ok(Credentials {
            certified: Arc::new(certified),
            trust: Arc::new(trust),
            svid,
            serial,
            issuer,
            since: now,
            fingerprint,
            provider,
        })
    }

    fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        // A bundle has no order, and Consul gives it none.
        let mut roots = self.roots.clone();
        roots.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        for part in [&self.chain, &roots] {
            hash.update(part.len().to_be_bytes());
            for certificate in part {
                hash.update(certificate.len().to_be_bytes());
                hash.update(certificate);
            }
        }
        hash.update(&self.trust_domain);
        hash.finalize().into()
    }
}

/// A moment, from seconds of Unix time.
fn moment(unix: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(unix.try_into().unwrap_or(0)))
}

fn bounded<T>(what: &'static str, list: &[T], most: usize) -> Result<(), MaterialError> {
    match list.len() {
        0 => Err(MaterialError::Empty(what)),
        len if len > most => Err(MaterialError::TooMany(what, most)),
        _ => Ok(()),
    }
}

/// The roots that still count. webpki looks at no date of a trust anchor, and takes any certificate for one.
fn bundle(
    roots: &[CertificateDer<'static>],
    now: i64,
) -> Result<(RootCertStore, Vec<Root>), MaterialError> {
    let unreadable = MaterialError::Unreadable("trust bundle");
    let mut store = RootCertStore::empty();
    let mut shown = Vec::new();
    for root in roots {
        let (_, parsed) = X509Certificate::from_der(root).map_err(|_| unreadable.clone())?;
        if !parsed.is_ca() {
            return Err(MaterialError::NoAuthority);
        }
        let not_after = parsed.validity().not_after.timestamp();
        if not_after < now {
            continue;
        }
        let sha256 = hex(&Sha256::digest(root));
        if shown.iter().any(|known: &Root| known.sha256 == sha256) {
            continue;
        }
        store.add(root.clone()).map_err(|_| unreadable.clone())?;
        shown.push(Root {
            subject: bounded_text(&parsed.subject().to_string()),
            not_after,
            sha256,
        });
    }
    if store.is_empty() {
        return Err(MaterialError::RootsExpired);
    }
    Ok((store, shown))
}

/// Serial number and issuer of a certificate.
fn describe(chain: &[CertificateDer<'_>]) -> Result<(String, String), MaterialError> {
    let leaf = chain.first().ok_or(MaterialError::Empty("certificate"))?;
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|_| MaterialError::Unreadable("certificate"))?;
    let issuer = bounded_text(&parsed.issuer().to_string());
    Ok((hex(parsed.raw_serial()), issuer))
}

/// An authority's name is its own choice; what is shown of it is not without end.
fn bounded_text(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(256).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
