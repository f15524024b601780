//! Secrets that nobody has to make: derived from the mesh's assertion key, so that every part that is
//! rendered from one mesh.yaml knows the same.
//!
//! HMAC-SHA256 with the key's seed as its key and a label as its message (a pseudo-random function, RFC
//! 2104): what one label gives says nothing about the key or another label's. A new assertion key makes new
//! ones.

use crate::render::RenderError;
use crate::secret::{Secrets, Source, signing_key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What filters bring to the orchestrator's `/internal/…`.
pub const INTERNAL_TOKEN: &str = "mesh internal token v1";
/// What the keys of the rate-limit table are hashed with.
pub const RATE_LIMIT_TABLE: &str = "mesh rate-limit table v1";

/// Password of the broker's user in a mesh that is told none.
pub const BROKER_PASSWORD: &str = "mesh broker password v1";
/// Password of the store in a mesh that is told none.
pub const STORE_PASSWORD: &str = "mesh store password v1";
/// The token of the registry in a mesh that is told none.
pub const REGISTRY_TOKEN: &str = "mesh registry token v1";
/// Password of Grafana's first user.
pub const GRAFANA_PASSWORD: &str = "mesh grafana password v1";

/// 32 bytes in unpadded base64url, the same for the same key and label.
pub fn derive(key: &SigningKey, label: &str) -> String {
    URL_SAFE_NO_PAD.encode(bytes(key, label))
}

fn bytes(key: &SigningKey, label: &str) -> [u8; 32] {
    // HMAC takes keys of any length, so there is always one.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else {
        return [0; 32];
    };
    mac.update(label.as_bytes());
    mac.finalize().into_bytes().into()
}

/// [`derive()`] from the assertion key at `source`, or what it is derived from where values are not shown.
///
/// # Errors
/// [`RenderError::Secret`] when the value is no key.
pub fn derived(source: &Source, secrets: &Secrets, label: &str) -> Result<String, RenderError> {
    Ok(match key(source, secrets)? {
        Some(key) => derive(&key, label),
        None => format!("{label}, derived from {}", source.reference()),
    })
}

/// The same as a UUID (version 8, RFC 9562), which is what Consul's tokens are: 122 bits of it.
///
/// # Errors
/// As [`derived`].
pub fn derived_uuid(
    source: &Source,
    secrets: &Secrets,
    label: &str,
) -> Result<String, RenderError> {
    let Some(key) = key(source, secrets)? else {
        return derived(source, secrets, label);
    };
    let mut half = [0; 16];
    half.copy_from_slice(&bytes(&key, label)[..16]);
    Ok(uuid::Builder::from_custom_bytes(half)
        .into_uuid()
        .to_string())
}

fn key(source: &Source, secrets: &Secrets) -> Result<Option<SigningKey>, RenderError> {
    let key = secrets.value(source).map(signing_key).transpose();
    key.map_err(|problem| RenderError::Secret {
        path: "gateway.auth.assertion.key".to_owned(),
        problem: problem.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_and_label_has_its_own() {
        let (one, other) = (
            SigningKey::from_bytes(&[1; 32]),
            SigningKey::from_bytes(&[2; 32]),
        );
        let derived = derive(&one, INTERNAL_TOKEN);
        assert_eq!(derived, derive(&one, INTERNAL_TOKEN));
        assert_eq!(URL_SAFE_NO_PAD.decode(&derived).unwrap().len(), 32);
        assert_ne!(derived, derive(&one, RATE_LIMIT_TABLE));
        assert_ne!(derived, derive(&other, INTERNAL_TOKEN));
    }

    #[test]
    fn it_is_what_others_compute_too() {
        // printf 'mesh internal token v1' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0101…01 -binary
        let key = SigningKey::from_bytes(&[1; 32]);
        assert_eq!(
            derive(&key, INTERNAL_TOKEN),
            "CV6v5EanStb8c4Vm7KSVAWAkauMWDAUCoSOAenfL3gQ"
        );
    }

    #[test]
    fn a_token_is_a_uuid() {
        let source = Source::Inline("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE".to_owned());
        let wanted = [("key".to_owned(), &source)];
        let secrets = Secrets::resolve(wanted, std::path::Path::new("."), &|_| None).unwrap();
        let token = derived_uuid(&source, &secrets, REGISTRY_TOKEN).unwrap();
        let parsed = uuid::Uuid::parse_str(&token).unwrap();
        assert_eq!(parsed.get_version_num(), 8, "{token}");
        let other = derived_uuid(&source, &secrets, STORE_PASSWORD).unwrap();
        assert_ne!(token, other);
    }

    #[test]
    fn without_values_it_says_what_it_is_derived_from() {
        let source = Source::Env("MESH_KEY".to_owned());
        let shown = derived(&source, &Secrets::none(), INTERNAL_TOKEN).unwrap();
        assert_eq!(
            shown,
            "mesh internal token v1, derived from {env: MESH_KEY}"
        );
    }
}
