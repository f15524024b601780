//! The keys of the corpus, `keys/NAME.secret` (bytes in base64url) and `keys/NAME.pem` (PKCS#8). They were
//! made for it; the benchmarks use them, too, and nobody else does.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::signature::{RandomizedSigner, SignatureEncoding};
use rsa::traits::PublicKeyParts;
use sha2::{Sha256, Sha384, Sha512};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

/// A key that signs.
pub(crate) enum Key {
    Secret(Vec<u8>),
    Rsa(Box<rsa::PrivateKey>),
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    P521(p521::ecdsa::SigningKey),
    Ed25519(SigningKey),
}

/// The key `name`. Read once: reading an RSA key takes long.
pub(crate) fn key(name: &str) -> Arc<Key> {
    static KNOWN: OnceLock<Mutex<BTreeMap<String, Arc<Key>>>> = OnceLock::new();
    let known = KNOWN.get_or_init(Mutex::default);
    let mut known = known.lock().unwrap();
    let key = known
        .entry(name.to_owned())
        .or_insert_with(|| Arc::new(Key::read(name)));
    Arc::clone(key)
}

/// A secret as its file has it.
pub(crate) fn secret_text(name: &str) -> String {
    file(&format!("{name}.secret"))
        .unwrap_or_else(|| panic!("no secret is called `{name}`"))
        .trim()
        .to_owned()
}

/// The 32 bytes of a secret.
pub(crate) fn seed(name: &str) -> [u8; 32] {
    let bytes = URL_SAFE_NO_PAD.decode(secret_text(name));
    bytes.unwrap().try_into().expect("32 bytes")
}

/// The public half of a key.
pub(crate) fn public_pem(name: &str) -> String {
    match key(name).as_ref() {
        Key::Secret(_) => panic!("`{name}` has no public half"),
        Key::Rsa(key) => key.to_public_key().to_public_key_pem(Default::default()),
        Key::P256(key) => key.verifying_key().to_public_key_pem(Default::default()),
        Key::P384(key) => key.verifying_key().to_public_key_pem(Default::default()),
        Key::P521(key) => key.verifying_key().to_public_key_pem(Default::default()),
        Key::Ed25519(key) => key.verifying_key().to_public_key_pem(Default::default()),
    }
    .expect("a public key in PEM")
}

fn file(name: &str) -> Option<String> {
    std::fs::read_to_string(crate::corpus::directory().join("keys").join(name)).ok()
}

impl Key {
    fn read(name: &str) -> Self {
        let Some(pem) = file(&format!("{name}.pem")) else {
            let secret = URL_SAFE_NO_PAD.decode(secret_text(name));
            return Self::Secret(secret.expect("a secret in base64url"));
        };
        if let Ok(key) = SigningKey::from_pkcs8_pem(&pem) {
            return Self::Ed25519(key);
        }
        if let Ok(key) = p256::ecdsa::SigningKey::from_pkcs8_pem(&pem) {
            return Self::P256(key);
        }
        if let Ok(key) = p384::ecdsa::SigningKey::from_pkcs8_pem(&pem) {
            return Self::P384(key);
        }
        if let Ok(key) = p521::ecdsa::SigningKey::from_pkcs8_pem(&pem) {
            return Self::P521(key);
        }
        let key = rsa::PrivateKey::from_pkcs8_pem(&pem);
        Self::Rsa(Box::new(key.unwrap_or_else(|_| {
            panic!("`{name}.pem` is no key of a kind that is known here")
        })))
    }

    /// The algorithm that it signs with where nobody says another.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Secret(_) => "HS256",
            Self::P384(_) => "ES384",
            Self::P521(_) => "ES512",
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    /// Signs by `algorithm` (RFC 7518, RFC 8037).
    pub(crate) fn sign(&self, algorithm: &str, text: &[u8]) -> Vec<u8> {
        use rsa::pkcs1v15::SigningKey as Rs;
        match (self, algorithm) {
            (Self::Secret(secret), _) => hmac(algorithm, secret, text),
            (Self::Rsa(key), "RS256") => Rs::<Sha256>::new(*key.clone()).sign(text).to_vec(),
            (Self::Rsa(key), "RS384") => Rs::<Sha384>::new(*key.clone()).sign(text).to_vec(),
            (Self::Rsa(key), "RS512") => Rs::<Sha512>::new(*key.clone()).sign(text).to_vec(),
            (Self::P256(key), "ES256") => {
                let signature: p256::ecdsa::Signature = key.sign(text);
                signature.to_vec()
            }
            (Self::P384(key), "ES384") => {
                let signature: p384::ecdsa::Signature = key.sign(text);
                signature.to_vec()
            }
            (Self::P521(key), "ES512") => {
                let signature: p521::ecdsa::Signature = key.sign(text);
                signature.to_vec()
            }
            (Self::Rsa(key), "PS256") => pss::<Sha256>(key, text),
            (Self::Rsa(key), "PS384") => pss::<Sha384>(key, text),
            (Self::Rsa(key), "PS512") => pss::<Sha512>(key, text),
            (Self::Ed25519(key), "EdDSA") => key.sign(text).to_bytes().to_vec(),
            _ => panic!("this key does not sign by {algorithm}"),
        }
    }
}

fn pss<D: sha2::digest::Digest + sha2::digest::FixedOutputReset>(
    key: &rsa::PrivateKey,
    text: &[u8],
) -> Vec<u8> {
    let key = rsa::pss::SigningKey::<D>::new(key.clone());
    key.sign_with_rng(&mut System, text).to_vec()
}

/// The system's random numbers, as salts are made of.
struct System;

impl rsa::rand_core::TryRng for System {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(getrandom::u32().expect("random numbers"))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(getrandom::u64().expect("random numbers"))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        getrandom::fill(bytes).expect("random numbers");
        Ok(())
    }
}

impl rsa::rand_core::TryCryptoRng for System {}

/// The public halves of keys as a JWK Set (RFC 7517), under the names of their files.
pub(crate) fn jwks() -> serde_json::Value {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let public = |name: &str| match key(name).as_ref() {
        Key::Rsa(key) => serde_json::json!({
            "kty": "RSA", "alg": "RS256", "use": "sig", "kid": name,
            "n": encode(&key.n().to_be_bytes_trimmed_vartime()),
            "e": encode(&key.e().to_be_bytes_trimmed_vartime()),
        }),
        Key::P256(key) => {
            let point = key.verifying_key().to_sec1_point(false);
            let (x, y) = (point.x().unwrap(), point.y().unwrap());
            serde_json::json!({"kty": "EC", "crv": "P-256", "kid": name, "x": encode(x), "y": encode(y)})
        }
        Key::Ed25519(key) => serde_json::json!({
            "kty": "OKP", "crv": "Ed25519", "kid": name, "x": encode(key.verifying_key().as_bytes()),
        }),
        _ => panic!("`{name}` is in no set"),
    };
    serde_json::json!({"keys": [public("rs"), public("es"), public("ed")]})
}

/// An HMAC with any bytes as secret.
pub(crate) fn hmac(algorithm: &str, secret: &[u8], text: &[u8]) -> Vec<u8> {
    match algorithm {
        "HS256" => mac::<Hmac<Sha256>>(secret, text),
        "HS384" => mac::<Hmac<Sha384>>(secret, text),
        "HS512" => mac::<Hmac<Sha512>>(secret, text),
        _ => panic!("no HMAC is called {algorithm}"),
    }
}

fn mac<M: Mac + KeyInit>(secret: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(secret).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}
