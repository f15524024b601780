//! What a certificate must look like to be a service's: the rules for leaves of the X.509-SVID standard
//! (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>, sections 4 and 5). Who signed it is not
//! looked at here ([`super::verify`]).

use super::handshake::{HandshakeError, Reason};
use super::spiffe::SpiffeId;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a service's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Svid {
    /// Whose it is.
    pub(super) id: SpiffeId,
    /// From when it is valid, in seconds of Unix time.
    pub(super) not_before: i64,
    /// Until when, in seconds of Unix time.
    pub(super) not_after: i64,
}

impl Svid {
    /// Reads a certificate.
    ///
    /// # Errors
    /// Which rule it breaks.
    pub(super) fn read(leaf: &CertificateDer<'_>) -> Result<Self, HandshakeError> {
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| unreadable())?;
        may_only_sign_for_itself(&certificate)?;
        let uri = only_uri(&certificate)?;
        let id = uri.parse().map_err(|why| {
            HandshakeError::new(Reason::NoSpiffeId, format!("certificate's URI: {why}"))
        })?;
        let validity = certificate.validity();
        Ok(Self {
            id,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }
}

fn unreadable() -> HandshakeError {
    HandshakeError::new(Reason::Other, "certificate cannot be read")
}

fn may_only_sign_for_itself(certificate: &X509Certificate<'_>) -> Result<(), HandshakeError> {
    let refuse = |reason, detail| Err(HandshakeError::new(reason, detail));
    if certificate.is_ca() {
        return refuse(Reason::CaCertificate, "certificate is an authority's");
    }
    let Some(usage) = certificate.key_usage().map_err(|_| unreadable())? else {
        return refuse(
            Reason::KeyUsage,
            "certificate does not say what its key is for",
        );
    };
    if !usage.value.digital_signature() {
        return refuse(Reason::KeyUsage, "key is not for signatures");
    }
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return refuse(Reason::KeyUsage, "key may sign certificates or lists");
    }
    Ok(())
}

/// The one URI; names of other kinds may stand beside it.
fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, HandshakeError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| unreadable())?;
    let mut uris = names.iter().flat_map(|names| {
        let names = names.value.general_names.iter();
        names.filter_map(|name| match name {
            GeneralName::URI(uri) => Some(Some(*uri)),
            // May be a URI to another reader.
            GeneralName::Invalid(..) => Some(None),
            _ => None,
        })
    });
    match (uris.next(), uris.next()) {
        (None, _) => Err(HandshakeError::new(
            Reason::NoSpiffeId,
            "certificate holds no URI",
        )),
        (Some(_), Some(_)) => Err(HandshakeError::new(
            Reason::SeveralNames,
            "certificate holds several URIs",
        )),
        (Some(uri), None) => uri.ok_or_else(unreadable),
    }
}
