//! What the `jwt_auth` filter itself says about keys, names and tokens.
//!
//! The filter is asked instead of its rules being written down a second time, so that what
//! `mesh validate` and `mesh token` let pass, the gateway lets pass.

use crate::filters::said;
use crate::mesh::{DEVELOPMENT_ISSUER, DEVELOPMENT_KID, GATEWAY};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mesh_policy::config::{Algorithm, AssertionSigner, Issuer, JwksUrl, JwtAuth, Key};
use mesh_policy::host::MemoryHost;
use mesh_policy::request::MemoryHead;
use mesh_policy::{ConfigError, Decision, Filter, Timestamp};

/// A configuration with one issuer and one key.
fn alone(issuer: &str, audience: &str, key: Key) -> JwtAuth {
    accepting(Issuer::new(issuer, vec![audience.to_owned()], vec![key]))
}

fn accepting(issuer: Issuer) -> JwtAuth {
    let assertion = AssertionSigner {
        issuer: GATEWAY.to_owned(),
        audience: "mesh".to_owned(),
        kid: GATEWAY.to_owned(),
        // Nothing that is signed with it leaves this process.
        signing_key: URL_SAFE_NO_PAD.encode([7; 32]),
        lifetime_s: 60,
    };
    JwtAuth {
        leeway_s: 0,
        ..JwtAuth::new(vec![issuer], assertion)
    }
}

fn fault(config: &JwtAuth) -> Result<(), String> {
    match mesh_policy::jwt::compile(config) {
        Ok(_) => Ok(()),
        Err(faults) => Err(faults
            .into_iter()
            .next()
            .map_or_else(|| "not accepted".to_owned(), |fault| fault.message)),
    }
}

/// Whether whoever verifies with such a key could sign with it, too.
pub(crate) fn is_symmetric(algorithm: Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
    )
}

/// What the filter says about keys that it is to fetch, by field.
pub(crate) fn check_jwks_url(url: &serde_json::Value) -> Vec<ConfigError> {
    let read = serde_path_to_error::deserialize::<_, JwksUrl>(url);
    match read {
        Err(error) => vec![ConfigError::new(
            error.path().to_string(),
            said(&error.into_inner().to_string()),
        )],
        Ok(url) => {
            let issuer = Issuer {
                jwks_url: Some(url),
                ..Issuer::new("issuer", vec!["audience".to_owned()], Vec::new())
            };
            let faults = mesh_policy::jwt::compile(&accepting(issuer)).err();
            let mut faults = faults.unwrap_or_default();
            for fault in &mut faults {
                if let Some(path) = fault.path.strip_prefix("issuers[0].jwks_url.") {
                    fault.path = path.to_owned();
                }
            }
            faults
        }
    }
}

/// Whether the filter can verify with this key.
pub(crate) fn check_key(algorithm: Algorithm, text: &str) -> Result<(), String> {
    if text.contains("PRIVATE KEY") {
        return Err("this is a private key; the gateway needs the public one".to_owned());
    }
    let symmetric = is_symmetric(algorithm);
    let key = Key {
        kid: None,
        algorithm,
        secret: symmetric.then(|| text.to_owned()),
        public_key: (!symmetric).then(|| text.to_owned()),
        jwk: None,
    };
    fault(&alone("issuer", "audience", key))
}

/// Whether the filter takes this as the name of an issuer, an audience or a key.
pub(crate) fn check_name(text: &str) -> Result<(), String> {
    let key = Key {
        kid: None,
        algorithm: Algorithm::HS256,
        secret: Some(URL_SAFE_NO_PAD.encode([7; 32])),
        public_key: None,
        jwk: None,
    };
    fault(&alone(text, "audience", key))
}

/// Why a development mesh's gateway refuses a token at `now`, in the filter's own word; none when it
/// passes.
pub fn token_refusal(
    mesh: &str,
    public_key: &str,
    token: &str,
    now: Timestamp,
) -> Option<&'static str> {
    let key = Key {
        kid: Some(DEVELOPMENT_KID.to_owned()),
        algorithm: Algorithm::EdDSA,
        secret: None,
        public_key: Some(public_key.to_owned()),
        jwk: None,
    };
    let Ok(policy) = mesh_policy::jwt::compile(&alone(DEVELOPMENT_ISSUER, mesh, key)) else {
        return Some("unusable_key");
    };
    let head = MemoryHead::new("POST", "/").with("authorization", format!("Bearer {token}"));
    match policy.decide(&mut Default::default(), &head, &MemoryHost::at(now)) {
        Decision::Pass(_) => None,
        Decision::Refuse(refusal) => Some(refusal.reason),
    }
}
