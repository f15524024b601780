//! The rules for certificates of peers: X.509-SVID
//! (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>, section 5), asked within the handshake.
//!
//! The chain is webpki's to check. Its check of server names is not used: a certificate of Consul has no DNS name,
//! and who a peer is stands in its one URI.

use super::handshake::{HandshakeError, Reason};
use super::spiffe::SpiffeId;
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
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Whose certificates are believed.
#[derive(Debug)]
pub(super) struct Rules {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// Whose it is.
    pub(super) id: SpiffeId,
    /// From when it is valid, in seconds of Unix time.
    pub(super) not_before: i64,
    /// Until when, in seconds of Unix time.
    pub(super) not_after: i64,
}

impl Rules {
    /// Believes who leads to one of `roots` and belongs to `trust_domain`. `None` without roots.
    pub(super) fn new(
        roots: RootCertStore,
        trust_domain: String,
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
            trust_domain,
        })
    }

    pub(super) fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Checks a server's certificate; `wanted` is who it must be.
    pub(super) fn server(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
        wanted: Option<&str>,
    ) -> Result<Named, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            above,
            now,
            self.provider.signature_verification_algorithms.all,
        )
        .map_err(|error| self.chain_error(error, leaf))?;
        let named = self.named(leaf).map_err(HandshakeError::into_tls)?;
        match wanted.filter(|wanted| *wanted != named.id.service.as_str()) {
            None => Ok(named),
            Some(wanted) => Err(other_service(&named.id, wanted).into_tls()),
        }
    }

    /// Checks a client's certificate.
    pub(super) fn client(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Named, Error> {
        self.clients
            .verify_client_cert(leaf, above, now)
            .map_err(|error| self.chain_error(error, leaf))?;
        self.named(leaf).map_err(HandshakeError::into_tls)
    }

    /// webpki has more words for a chain than there are reasons.
    fn chain_error(&self, error: Error, leaf: &CertificateDer<'_>) -> Error {
        match error {
            // Who claims to be signed by a root of ours and is not, is signed by somebody else.
            Error::InvalidCertificate(CertificateError::BadSignature) => {
                CertificateError::UnknownIssuer.into()
            }
            // An authority's certificate as a peer's is here among those without a name.
            Error::InvalidCertificate(CertificateError::Other(_)) => match self.named(leaf) {
                Err(own) => own.into_tls(),
                Ok(_) => error,
            },
            _ => error,
        }
    }

    /// What a certificate says, by the rules for leaves; its chain and its time are not looked at.
    pub(super) fn named(&self, leaf: &CertificateDer<'_>) -> Result<Named, HandshakeError> {
        let refuse = |reason, detail: &str| Err(HandshakeError::new(reason, detail));
        let unreadable = |_| HandshakeError::new(Reason::Other, "certificate cannot be read");
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| unreadable(()))?;
        if certificate.is_ca() {
            return refuse(Reason::CaCertificate, "certificate is an authority's");
        }
        let usage = certificate.key_usage().map_err(|_| unreadable(()))?;
        if let Some(usage) = usage {
            if !usage.value.digital_signature() {
                return refuse(Reason::KeyUsage, "key is not for signatures");
            }
            if usage.value.key_cert_sign() || usage.value.crl_sign() {
                return refuse(Reason::KeyUsage, "key may sign certificates or lists");
            }
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| unreadable(()))?;
        let mut uris = names.iter().flat_map(|names| {
            let uris = names.value.general_names.iter();
            uris.filter_map(|name| match name {
                GeneralName::URI(uri) => Some(Ok(*uri)),
                GeneralName::Invalid(..) => Some(Err(())),
                _ => None,
            })
        });
        let uri = match (uris.next(), uris.next()) {
            (None, _) => return refuse(Reason::NoSpiffeId, "certificate holds no URI"),
            (Some(_), Some(_)) => {
                return refuse(Reason::SeveralNames, "certificate holds several URIs");
            }
            (Some(uri), None) => uri.map_err(unreadable)?,
        };
        let id = uri.parse::<SpiffeId>().map_err(|why| {
            HandshakeError::new(Reason::NoSpiffeId, format!("certificate's URI: {why}"))
        })?;
        if id.trust_domain != self.trust_domain {
            let detail = format!("{id} is of another trust domain");
            return refuse(Reason::WrongTrustDomain, &detail);
        }
        let validity = certificate.validity();
        Ok(Named {
            id,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
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
            .client(end_entity, intermediates, now)
            .map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clients.supported_verify_schemes()
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
        let wanted = name.as_ref().split('.').next();
        self.0
            .server(end_entity, intermediates, now, wanted)
            .map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.0.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
