//! The keys of the corpus, `keys/NAME.secret` (bytes in base64url) and `keys/NAME.pem` (PKCS#8). They were
//! made for it and are used nowhere else.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use p256::ecdsa::signature::SignatureEncoding;
use sha2::{Sha256, Sha384, Sha512};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

/// A key that signs.
pub(crate) enum Key {
    Secret(Vec<u8>),
    Rsa(Box<rsa::PrivateKey>),
    P256(p256::ecdsa::SigningKey),
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
        let key = rsa::PrivateKey::from_pkcs8_pem(&pem);
        Self::Rsa(Box::new(key.unwrap_or_else(|_| {
            panic!("`{name}.pem` is no key of a kind that is known here")
        })))
    }

    /// The algorithm that it signs with where nobody says another.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Secret(_) => "HS256",
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
            (Self::Ed25519(key), "EdDSA") => key.sign(text).to_bytes().to_vec(),
            _ => panic!("this key does not sign by {algorithm}"),
        }
    }
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
