//! What verifies a signature: one key for one algorithm, so that no token can choose how it is verified
//! (RFC 8725, section 3.1).

use super::{pem, token};
use crate::config::Algorithm;
use ed25519_dalek::VerifyingKey as EdKey;
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::VerifyingKey as P256Key;
use p256::ecdsa::signature::Verifier as _;
use p384::ecdsa::VerifyingKey as P384Key;
use p521::ecdsa::VerifyingKey as P521Key;
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::traits::PublicKeyParts;
use rsa::{BoxedUint, PublicKey as RsaPublic, pkcs1v15, pss};
use sha2::{Sha256, Sha384, Sha512};

/// RSA moduli, in bits: shorter ones are weak (RFC 7518, section 3.3), longer ones cost a worker
/// milliseconds per token.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=4096;

/// A key, ready to verify what it is for.
#[derive(Debug)]
pub(super) enum Verifier {
    Hs256(Hmac<Sha256>),
    // Boxed: more than twice the size of any other.
    Hs384(Box<Hmac<Sha384>>),
    Hs512(Box<Hmac<Sha512>>),
    Rs256(pkcs1v15::VerifyingKey<Sha256>),
    Rs384(pkcs1v15::VerifyingKey<Sha384>),
    Rs512(pkcs1v15::VerifyingKey<Sha512>),
    Ps256(pss::VerifyingKey<Sha256>),
    Ps384(pss::VerifyingKey<Sha384>),
    Ps512(pss::VerifyingKey<Sha512>),
    Es256(P256Key),
    Es384(P384Key),
    Es512(Box<P521Key>),
    EdDsa(EdKey),
}

impl Verifier {
    /// Whether `signature` is the key's own for `signed`.
    pub(super) fn accepts(&self, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            // `verify_slice` compares in constant time and the whole length only.
            Self::Hs256(mac) => verified(mac, signed, signature),
            Self::Hs384(mac) => verified(mac.as_ref(), signed, signature),
            Self::Hs512(mac) => verified(mac.as_ref(), signed, signature),
            Self::Rs256(key) => read(signature).is_some_and(|s| key.verify(signed, &s).is_ok()),
            Self::Rs384(key) => read(signature).is_some_and(|s| key.verify(signed, &s).is_ok()),
            Self::Rs512(key) => read(signature).is_some_and(|s| key.verify(signed, &s).is_ok()),
            Self::Ps256(key) => read_pss(signature).is_some_and(|s| key.verify(signed, &s).is_ok()),
            Self::Ps384(key) => read_pss(signature).is_some_and(|s| key.verify(signed, &s).is_ok()),
            Self::Ps512(key) => read_pss(signature).is_some_and(|s| key.verify(signed, &s).is_ok()),
            Self::Es256(key) => p256::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(signed, &signature).is_ok()),
            Self::Es384(key) => p384::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(signed, &signature).is_ok()),
            Self::Es512(key) => p521::ecdsa::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify(signed, &signature).is_ok()),
            Self::EdDsa(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(signed, &signature).is_ok()),
        }
    }

    /// From a secret, at least as long as the hash (RFC 7518, section 3.2).
    pub(super) fn from_secret(algorithm: Algorithm, secret: &[u8]) -> Result<Self, &'static str> {
        let (least, what) = match algorithm {
            Algorithm::HS256 => (
                32,
                "32 bytes or more in unpadded base64url, as \
                `openssl rand -base64 32 | tr '+/' '-_' | tr -d =` makes them",
            ),
            Algorithm::HS384 => (
                48,
                "48 bytes or more in unpadded base64url, as \
                `openssl rand -base64 48 | tr '+/' '-_' | tr -d =` makes them",
            ),
            Algorithm::HS512 => (
                64,
                "64 bytes or more in unpadded base64url, as \
                `openssl rand -base64 64 | tr -d '\\n=' | tr '+/' '-_'` makes them",
            ),
            _ => return Err("this algorithm takes a public key"),
        };
        if secret.len() < least {
            return Err(what);
        }
        let verifier = match algorithm {
            Algorithm::HS384 => Hmac::new_from_slice(secret).map(Box::new).map(Self::Hs384),
            Algorithm::HS512 => Hmac::new_from_slice(secret).map(Box::new).map(Self::Hs512),
            _ => Hmac::new_from_slice(secret).map(Self::Hs256),
        };
        verifier.map_err(|_| what)
    }

    /// From a secret in unpadded base64url.
    pub(super) fn from_secret_text(algorithm: Algorithm, text: &str) -> Result<Self, &'static str> {
        Self::from_secret(
            algorithm,
            &token::decode(text.as_bytes()).unwrap_or_default(),
        )
    }

    /// From a public key in PEM.
    pub(super) fn from_pem(algorithm: Algorithm, text: &str) -> Result<Self, &'static str> {
        let what = match algorithm {
            Algorithm::ES256 => "no P-256 public key in PEM (BEGIN PUBLIC KEY)",
            Algorithm::ES384 => "no P-384 public key in PEM (BEGIN PUBLIC KEY)",
            Algorithm::ES512 => "no P-521 public key in PEM (BEGIN PUBLIC KEY)",
            Algorithm::EdDSA => "no Ed25519 public key in PEM (BEGIN PUBLIC KEY)",
            _ => "no RSA public key in PEM (BEGIN PUBLIC KEY)",
        };
        let key = pem::public_key(algorithm, text).ok_or(what)?;
        match algorithm {
            Algorithm::ES256 | Algorithm::ES384 | Algorithm::ES512 => {
                Self::from_sec1(algorithm, &key).ok_or(what)
            }
            Algorithm::EdDSA => Self::from_ed(&key),
            _ => RsaPublic::from_pkcs1_der(&key)
                .map_err(|_| what)
                .and_then(|key| Self::from_rsa_key(algorithm, key)),
        }
    }

    /// From the modulus and exponent of an RSA key, big-endian.
    pub(super) fn from_rsa(
        algorithm: Algorithm,
        modulus: &[u8],
        exponent: &[u8],
    ) -> Result<Self, &'static str> {
        const WHAT: &str = "no RSA public key: n and e are needed, e odd and at least 3";
        let (modulus, exponent) = (number(modulus).ok_or(WHAT)?, number(exponent).ok_or(WHAT)?);
        let key = RsaPublic::new(modulus, exponent).map_err(|_| WHAT)?;
        Self::from_rsa_key(algorithm, key)
    }

    /// From the coordinates of a point, each as long as the curve's field (RFC 7518, section 6.2.1.2).
    pub(super) fn from_point(
        algorithm: Algorithm,
        x: &[u8],
        y: &[u8],
    ) -> Result<Self, &'static str> {
        let size = match algorithm {
            Algorithm::ES256 => 32,
            Algorithm::ES384 => 48,
            _ => 66,
        };
        if x.len() != size || y.len() != size {
            return Err("x and y are not as long as the curve's coordinates");
        }
        // SEC 1, section 2.3.3: an uncompressed point.
        let point = [&[4], x, y].concat();
        Self::from_sec1(algorithm, &point).ok_or("x and y are no point of the curve")
    }

    /// From a point as SEC 1, section 2.3.3, writes it.
    fn from_sec1(algorithm: Algorithm, point: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::ES256 => P256Key::from_sec1_bytes(point).map(Self::Es256),
            Algorithm::ES384 => P384Key::from_sec1_bytes(point).map(Self::Es384),
            _ => P521Key::from_sec1_bytes(point).map(|key| Self::Es512(Box::new(key))),
        }
        .ok()
    }

    /// From the 32 bytes of an Ed25519 key.
    pub(super) fn from_ed(bytes: &[u8]) -> Result<Self, &'static str> {
        <&[u8; 32]>::try_from(bytes)
            .ok()
            .and_then(|bytes| EdKey::from_bytes(bytes).ok())
            .ok_or("no Ed25519 public key")
            .and_then(Self::from_ed_key)
    }

    fn from_ed_key(key: EdKey) -> Result<Self, &'static str> {
        if key.is_weak() {
            return Err("a weak Ed25519 key");
        }
        Ok(Self::EdDsa(key))
    }

    fn from_rsa_key(algorithm: Algorithm, key: RsaPublic) -> Result<Self, &'static str> {
        if !RSA_BITS.contains(&key.n().bit_width_vartime()) {
            return Err("an RSA key has 2048 to 4096 bits");
        }
        if is_roca(&key.n().to_be_bytes()) {
            return Err("an RSA key whose factors can be found (ROCA, CVE-2017-15361)");
        }
        // The crate bounds the exponent from below by 2 and refuses even ones: 3 is the least.
        Ok(match algorithm {
            Algorithm::RS256 => Self::Rs256(pkcs1v15::VerifyingKey::new(key)),
            Algorithm::RS384 => Self::Rs384(pkcs1v15::VerifyingKey::new(key)),
            Algorithm::RS512 => Self::Rs512(pkcs1v15::VerifyingKey::new(key)),
            Algorithm::PS256 => Self::Ps256(pss::VerifyingKey::new(key)),
            Algorithm::PS384 => Self::Ps384(pss::VerifyingKey::new(key)),
            Algorithm::PS512 => Self::Ps512(pss::VerifyingKey::new(key)),
            _ => return Err("no algorithm of an RSA key"),
        })
    }
}

fn verified<M: Mac + Clone>(mac: &M, signed: &[u8], signature: &[u8]) -> bool {
    mac.clone()
        .chain_update(signed)
        .verify_slice(signature)
        .is_ok()
}

fn read(signature: &[u8]) -> Option<pkcs1v15::Signature> {
    pkcs1v15::Signature::try_from(signature).ok()
}

fn read_pss(signature: &[u8]) -> Option<pss::Signature> {
    pss::Signature::try_from(signature).ok()
}

/// A positive number; zeros in front, which some issuers write, do not count.
fn number(bytes: &[u8]) -> Option<BoxedUint> {
    let first = bytes.iter().position(|byte| *byte != 0)?;
    let bytes = bytes.get(first..)?;
    // What is far above every bound is not looked at.
    if bytes.len() > 1024 {
        return None;
    }
    let bits = u32::try_from(bytes.len().saturating_mul(8)).ok()?;
    BoxedUint::from_be_slice(bytes, bits).ok()
}

/// Whether a modulus bears the mark of keys whose primes were made from powers of 65537
/// (CVE-2017-15361): it is such a power modulo every small prime. Of other keys one in 10^8 is.
fn is_roca(modulus: &[u8]) -> bool {
    const PRIMES: [u64; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89,
        97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.iter().all(|prime| {
        let rest = modulus
            .iter()
            .fold(0, |rest, byte| (rest * 256 + u64::from(*byte)) % prime);
        std::iter::successors(Some(1), |power| Some(power * 65_537 % prime))
            .take(*prime as usize)
            .any(|power| power == rest)
    })
}
