//! Why a handshake came to nothing, in few enough words to count.
//!
//! A verifier of ours hands its [`HandshakeError`] to rustls inside a `CertificateError`; rustls sends the alert and
//! hands the error on inside an `io::Error`, where it is found again.

use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError, PeerIncompatible};
use std::io;
use std::sync::Arc;

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The peer showed no certificate.
    NoCertificate,
    /// Its certificate does not lead to a root of the trust bundle.
    UnknownCa,
    /// Its SPIFFE id is of another trust domain.
    WrongTrustDomain,
    /// Its certificate, or one above it, is over.
    Expired,
    /// Its certificate, or one above it, has not begun.
    NotYetValid,
    /// Its certificate holds more than one URI.
    SeveralNames,
    /// Its certificate holds no SPIFFE id of a service.
    NoSpiffeId,
    /// Its certificate may sign others.
    CaCertificate,
    /// Its certificate is not for this use.
    KeyUsage,
    /// It does not speak TLS 1.3.
    TlsVersion,
    /// It took too long.
    Timeout,
    /// It does not speak TLS.
    NotTls,
    /// It went away.
    Closed,
    /// It is another service than the one that was called.
    OtherService,
    /// It refused us, by an alert.
    RefusedByPeer,
    /// Something else.
    Other,
}

impl Reason {
    /// All of them.
    pub(super) const ALL: [Self; 16] = [
        Self::NoCertificate,
        Self::UnknownCa,
        Self::WrongTrustDomain,
        Self::Expired,
        Self::NotYetValid,
        Self::SeveralNames,
        Self::NoSpiffeId,
        Self::CaCertificate,
        Self::KeyUsage,
        Self::TlsVersion,
        Self::Timeout,
        Self::NotTls,
        Self::Closed,
        Self::OtherService,
        Self::RefusedByPeer,
        Self::Other,
    ];

    /// The reason as a label of metrics and a field of logs.
    pub fn as_label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownCa => "unknown_ca",
            Self::WrongTrustDomain => "wrong_trust_domain",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::SeveralNames => "several_names",
            Self::NoSpiffeId => "no_spiffe_id",
            Self::CaCertificate => "ca_certificate",
            Self::KeyUsage => "key_usage",
            Self::TlsVersion => "tls_version",
            Self::Timeout => "timeout",
            Self::NotTls => "not_tls",
            Self::Closed => "closed",
            Self::OtherService => "other_service",
            Self::RefusedByPeer => "refused_by_peer",
            Self::Other => "other",
        }
    }
}

/// A handshake that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", .reason.as_label())]
pub struct HandshakeError {
    reason: Reason,
    detail: String,
}

impl HandshakeError {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { reason, detail }
    }

    /// The reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The particulars, for a log.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What a stream of TLS says of its end.
    ///
    /// In TLS 1.3 a client is done before the server has looked at its certificate: a refusal comes as the error of its
    /// first read.
    pub fn from_io(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        if let Some(error) = error.get_ref().and_then(|e| e.downcast_ref()) {
            return Self::from_tls(error);
        }
        let reason = match error.kind() {
            Kind::UnexpectedEof
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::NotConnected => Reason::Closed,
            Kind::TimedOut => Reason::Timeout,
            _ => Reason::Other,
        };
        Self::new(reason, error.to_string())
    }

    /// What rustls says.
    pub(super) fn from_tls(error: &rustls::Error) -> Self {
        use rustls::Error;
        let reason = match error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                match inner.downcast_ref::<Self>() {
                    Some(own) => return own.clone(),
                    None => Reason::Other,
                }
            }
            Error::InvalidCertificate(why) => by_certificate(why),
            Error::NoCertificatesPresented => Reason::NoCertificate,
            Error::AlertReceived(AlertDescription::ProtocolVersion) => Reason::TlsVersion,
            Error::AlertReceived(_) => Reason::RefusedByPeer,
            Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Reason::TlsVersion,
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge,
            ) => Reason::NotTls,
            _ => Reason::Other,
        };
        Self::new(reason, error.to_string())
    }

    /// As a verifier's error; the alert that goes with it is `certificate_unknown`.
    pub(super) fn into_tls(self) -> rustls::Error {
        CertificateError::Other(OtherError(Arc::new(self))).into()
    }
}

/// What the check of a chain found; each has an alert of its own.
fn by_certificate(why: &CertificateError) -> Reason {
    match why {
        CertificateError::UnknownIssuer => Reason::UnknownCa,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Reason::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Reason::NotYetValid
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Reason::KeyUsage
        }
        _ => Reason::Other,
    }
}
