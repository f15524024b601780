//! Public keys in PEM (RFC 7468, section 13): the envelope is read here for every kind of key, so that a
//! module holds its reader once and not once per curve.

use crate::config::Algorithm;
use p256::NistP256;
use p256::pkcs8::der::asn1::{AnyRef, Null};
use p256::pkcs8::spki::AlgorithmIdentifierRef;
use p256::pkcs8::{AssociatedOid, Document, ObjectIdentifier, SubjectPublicKeyInfoRef};
use p384::NistP384;
use p521::NistP521;

/// `id-ecPublicKey` (RFC 5480, section 2.1.1).
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// `rsaEncryption` (RFC 8017, appendix A.1).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// `id-RSASSA-PSS` (RFC 8017, appendix A.2.3).
const PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// `id-Ed25519` (RFC 8410, section 3).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The bytes of the public key in `pem`, in the encoding of its kind: a point (SEC 1), an
/// `RSAPublicKey` (RFC 8017) or the 32 bytes of an Ed25519 key. None, when it is no public key or one
/// of another kind than `algorithm` takes.
pub(super) fn public_key(algorithm: Algorithm, pem: &str) -> Option<Vec<u8>> {
    let (label, document) = Document::from_pem(pem).ok()?;
    let info = SubjectPublicKeyInfoRef::try_from(document.as_bytes()).ok()?;
    if label != "PUBLIC KEY" || !is_for(algorithm, &info.algorithm) {
        return None;
    }
    Some(info.subject_public_key.as_bytes()?.to_vec())
}

fn is_for(algorithm: Algorithm, kind: &AlgorithmIdentifierRef<'_>) -> bool {
    let curve =
        |oid: &ObjectIdentifier| kind.oid == EC && kind.parameters == Some(AnyRef::from(oid));
    match algorithm {
        Algorithm::ES256 => curve(&NistP256::OID),
        Algorithm::ES384 => curve(&NistP384::OID),
        Algorithm::ES512 => curve(&NistP521::OID),
        Algorithm::EdDSA => kind.oid == ED25519 && kind.parameters.is_none(),
        // A key that says that it is for PSS alone (RFC 4055, section 1.2) is for nothing else here.
        Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 if kind.oid == PSS => {
            kind.parameters.is_none()
        }
        Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512
        | Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512 => kind.oid == RSA && kind.parameters == Some(AnyRef::from(Null)),
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => false,
    }
}
