//! The four filters as they are measured: one configuration and one request for all rows.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use p256::ecdsa::signature::{SignatureEncoding as _, Signer as _};
use p256::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _};
use serde_json::{Value, json};
use sha2::Sha256;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The filters in the order of their chain.
pub const FILTERS: [&str; 4] = ["jwt_auth", "rate_limit", "task_admission", "agent_router"];
/// Where the request goes.
pub const PATH: &str = "/ai/orchestrate";
/// Length of the request's body, in bytes.
pub const BODY: usize = 1024;

const ISSUER: &str = "https://issuer.bench";
/// Longer than any measurement, in seconds.
const LIFE_S: u64 = 3600;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// ECDSA on P-256.
    Es256,
    /// RSA of 2048 bits, PKCS #1 v1.5.
    Rs256,
}

impl Algorithm {
    /// All that are measured.
    pub const ALL: [Self; 3] = [Self::Hs256, Self::Es256, Self::Rs256];

    /// As a token's header has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// The keys of the chain's one issuer, and the gateway's own.
pub struct Keys {
    secret: Vec<u8>,
    p256: p256::ecdsa::SigningKey,
    rsa: rsa::PrivateKey,
    gateway: String,
}

impl Keys {
    /// Reads the keys of the differential suite.
    ///
    /// # Errors
    /// When one is not there.
    pub fn read(root: &Path) -> Result<Self> {
        let file = |name: &str| {
            let path = root.join("tests/corpus/keys").join(name);
            let text = fs::read_to_string(&path);
            text.with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Self {
            secret: BASE64.decode(file("hs.secret")?.trim())?,
            p256: p256::ecdsa::SigningKey::from_pkcs8_pem(&file("es.pem")?)?,
            rsa: rsa::PrivateKey::from_pkcs8_pem(&file("rs.pem")?)?,
            gateway: file("gateway.secret")?.trim().to_owned(),
        })
    }

    /// The configuration of each of [`FILTERS`].
    ///
    /// # Errors
    /// When a key cannot be written.
    pub fn configs(&self) -> Result<[Value; 4]> {
        let rsa = self.rsa.to_public_key();
        let es = self.p256.verifying_key();
        Ok([
            json!({
                "issuers": [{
                    "issuer": ISSUER,
                    "audiences": ["mesh"],
                    "keys": [
                        {"kid": "HS256", "algorithm": "HS256", "secret": BASE64.encode(&self.secret)},
                        {"kid": "ES256", "algorithm": "ES256", "public_key": es.to_public_key_pem(Default::default())?},
                        {"kid": "RS256", "algorithm": "RS256", "public_key": rsa.to_public_key_pem(Default::default())?},
                    ],
                }],
                "required_scopes": ["tasks:write"],
                "assertion": {"issuer": "gateway", "audience": "mesh", "kid": "g", "signing_key": self.gateway},
            }),
            limits(65_536, &json!(["consumer"]), 1_000_000, 1),
            json!({
                "task_types": [{"types": ["*"], "scopes": ["tasks:write"]}],
                "priority": {"otherwise": 8},
            }),
            json!({
                "agents": [{"id": "hardware-optimizer"}, {"id": "resource-arbitrator"}],
                "rules": [
                    {"match": {"path": {"prefix": "/agents/"}}, "to": {"named": {"prefix": "/agents/"}}},
                    {"match": {"task_types": ["system_optimization"]}, "to": {"agent": "hardware-optimizer"}},
                ],
            }),
        ])
    }

    /// A token of its own, by `number`.
    pub fn token(&self, algorithm: Algorithm, number: usize) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        let header = json!({"alg": algorithm.name(), "typ": "JWT", "kid": algorithm.name()});
        let claims = json!({
            "iss": ISSUER, "aud": "mesh", "sub": "alice", "scope": "tasks:read tasks:write",
            "iat": now, "exp": now + LIFE_S, "jti": number.to_string(),
        });
        let part = |value: &Value| BASE64.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = match algorithm {
            Algorithm::Hs256 => mac(&self.secret, signed.as_bytes()),
            Algorithm::Es256 => {
                let signature: p256::ecdsa::Signature = self.p256.sign(signed.as_bytes());
                signature.to_vec()
            }
            Algorithm::Rs256 => {
                let key = rsa::pkcs1v15::SigningKey::<Sha256>::new(self.rsa.clone());
                key.sign(signed.as_bytes()).to_vec()
            }
        };
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

/// A configuration of `rate_limit`: `quota` requests in `window_s` seconds, counted by `by`.
pub fn limits(slots: u32, by: &Value, quota: u32, window_s: u32) -> Value {
    json!({
        "table_key": BASE64.encode([7; 32]),
        "slots": slots,
        "limits": [{"name": "default", "quota": quota, "window_s": window_s, "by": by}],
    })
}

/// What `jwt_auth` leaves of the caller for later filters.
pub fn caller() -> Vec<u8> {
    json!({"sub": "alice", "origin": ISSUER, "scope": "tasks:read tasks:write"})
        .to_string()
        .into_bytes()
}

/// A task of [`BODY`] bytes.
pub fn body() -> String {
    let body = |filler: usize| {
        json!({
            "task_type": "system_optimization",
            "payload": {"target": "latency", "nodes": [1, 2, 3, 4], "note": "x".repeat(filler)},
            "priority": 5,
            "timeout": 120,
        })
        .to_string()
    };
    body(BODY.saturating_sub(body(0).len()))
}

fn mac(secret: &[u8], text: &[u8]) -> Vec<u8> {
    // A key of any length is one for HMAC.
    Hmac::<Sha256>::new_from_slice(secret).map_or_else(
        |_| Vec::new(),
        |mut mac| {
            mac.update(text);
            mac.finalize().into_bytes().to_vec()
        },
    )
}
