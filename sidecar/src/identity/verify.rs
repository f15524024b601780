//! Whose certificates are believed: a chain to the trust bundle, and then the rules of [`super::svid`], all within the
//! handshake.
//!
//! The chain is webpki's to check. Its check of server names is not used: a certificate of Consul has no DNS name,
//! and who a peer is stands in its one URI.

use super::handshake::{HandshakeError, Reason};
use super::spiffe::SpiffeId;
use super::svid::Svid;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use std::sync::Arc;

/// A trust bundle and the trust domain that it vouches for.
#[derive(Debug)]
pub(super) struct Trust {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
    domain: String,
    described: Vec<Root>,
}

/// A root of a trust bundle, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) subject: String,
    /// In seconds of Unix time.
    pub(super) not_after: i64,
    /// Of its DER.
    pub(super) sha256: String,
}

impl Trust {
    /// `described` says what is in `roots`. `None` without roots.
    pub(super) fn new(
        roots: RootCertStore,
        described: Vec<Root>,
        domain: String,
        provider: Arc<CryptoProvider>,
    ) -> Option<Self> {
        let roots = Arc::new(roots);
        // A peer has one certificate: hints which to choose only make the handshake longer.
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .clear_root_hint_subjects()
                .build()
                .ok()?;
        Some(Self {
            roots,
            provider,
            clients,
            domain,
            described,
        })
    }

    /// The trust domain.
    pub(super) fn domain(&self) -> &str {
        &self.domain
    }

    /// What is in the bundle.
    pub(super) fn roots(&self) -> &[Root] {
        &self.described
    }

    /// Checks a chain that is to serve at both sides of handshakes.
    pub(super) fn both(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Svid, HandshakeError> {
        let [leaf, above @ ..] = chain else {
            let why = "there is no certificate";
            return Err(HandshakeError::new(Reason::NoCertificate, why));
        };
        self.server(leaf, above, now)
            .and_then(|_| self.client(leaf, above, now))
            .map_err(|error| HandshakeError::from_tls(&error))
    }

    fn server(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Svid, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, above, now, algorithms)
            .map_err(|error| chain_error(error, leaf))?;
        self.svid(leaf)
    }

    fn client(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Svid, Error> {
        self.clients
            .verify_client_cert(leaf, above, now)
            .map_err(|error| chain_error(error, leaf))?;
        self.svid(leaf)
    }

    fn svid(&self, leaf: &CertificateDer<'_>) -> Result<Svid, Error> {
        let svid = Svid::read(leaf).map_err(HandshakeError::into_tls)?;
        if svid.id.trust_domain == self.domain {
            return Ok(svid);
        }
        let detail = format!("{} is of another trust domain", svid.id);
        Err(HandshakeError::new(Reason::WrongTrustDomain, detail).into_tls())
    }
}

/// webpki has more words for a chain than there are reasons.
fn chain_error(error: Error, leaf: &CertificateDer<'_>) -> Error {
    match error {
        // Who claims to be signed by a root of ours and is not, is signed by somebody else.
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            CertificateError::UnknownIssuer.into()
        }
        // An authority's certificate as a peer's is here, among errors without a name.
        Error::InvalidCertificate(CertificateError::Other(_)) => match Svid::read(leaf) {
            Err(own) => own.into_tls(),
            Ok(_) => error,
        },
        _ => error,
    }
}

/// Whose certificates are believed at the moment.
#[derive(Debug)]
pub(super) struct Rules {
    ours: Arc<Trust>,
    /// While a trust bundle is replaced by another that has nothing in common with it, both are believed
    /// ([`super::renewal`]).
    other: Option<Arc<Trust>>,
}

impl Rules {
    pub(super) fn new(ours: Arc<Trust>, other: Option<Arc<Trust>>) -> Self {
        Self { ours, other }
    }

    /// Every bundle that is believed.
    pub(super) fn bundles(&self) -> impl Iterator<Item = &Trust> {
        let other = self.other.as_deref();
        std::iter::once(self.ours.as_ref()).chain(other)
    }

    fn either(&self, check: impl Fn(&Trust) -> Result<Svid, Error>) -> Result<Svid, Error> {
        check(&self.ours).or_else(|error| match &self.other {
            // What is wrong with it is said by our own bundle.
            Some(other) => check(other).map_err(|_| error),
            None => Err(error),
        })
    }
}

/// The peer is `id`, and `wanted` was called.
pub(super) fn other_service(id: &SpiffeId, wanted: &str) -> HandshakeError {
    HandshakeError::new(Reason::OtherService, format!("{id} answers for {wanted}"))
}

/// The rules at the called side.
#[derive(Debug)]
pub(super) struct ClientVerifier(pub(super) Arc<Rules>);

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0
            .either(|trust| trust.client(end_entity, intermediates, now))
            .map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .ours
            .clients
            .verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .ours
            .clients
            .verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.ours.clients.supported_verify_schemes()
    }
}

/// The rules at the calling side. The first label of the server's name is the service that is called: the name
/// is never sent, it only chooses the session that is resumed ([`super::tls`]).
#[derive(Debug)]
pub(super) struct ServerVerifier(pub(super) Arc<Rules>);

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ServerName::DnsName(name) = server_name else {
            return Err(CertificateError::NotValidForName.into());
        };
        let svid = self
            .0
            .either(|trust| trust.server(end_entity, intermediates, now))?;
        match name.as_ref().split('.').next() {
            Some(wanted) if wanted == svid.id.service.as_str() => {
                Ok(ServerCertVerified::assertion())
            }
            wanted => Err(other_service(&svid.id, wanted.unwrap_or_default()).into_tls()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.ours.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.ours.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.0.ours.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
