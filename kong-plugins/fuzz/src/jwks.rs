//! `jwt_auth` and the sets of keys that it fetches.

use crate::refusal::passed;
use crate::token::{ISSUER, NOW_S, asserted, bearing, host, mac, signer};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ed25519_dalek::{Signer, SigningKey};
use mesh_policy::config::{Algorithm, Issuer, JwksUrl, JwtAuth};
use mesh_policy::{Decision, Fetched, Filter, jwt};
use mesh_protocol::assertion;
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The issuer's private key; the seeds hold its public half.
const OWN: [u8; 32] = [3; 32];
/// Somebody else's.
const OTHER: [u8; 32] = [4; 32];
/// Most names of keys that are tried.
const KIDS: usize = 4;

/// Whatever the set is, a token passes only if the set holds the key that signed it; an answer that is
/// none changes nothing.
pub fn jwks(data: &[u8]) -> bool {
    let policy = jwt::compile(&config()).expect("the configuration is good");
    let host = host();
    let asked = policy.tick(&host);
    let [fetch] = asked.as_slice() else {
        unreachable!("one set: {asked:?}");
    };
    let set = |status| Fetched::Answer {
        status,
        body: data.to_vec(),
    };
    policy.fetched(fetch.id.wrapping_add(1), set(200), &host);
    policy.fetched(fetch.id, set(404), &host);
    let decide = |token: &str| policy.decide(&mut jwt::Request::default(), &bearing(token), &host);
    let unknown = passed(decide(&token(None, &OWN)));
    assert_eq!(unknown, None, "no set came");
    policy.fetched(fetch.id, set(200), &host);

    let keys = keys(data);
    let own = assertion::public_half(&SigningKey::from_bytes(&OWN));
    let holds = keys.iter().any(|(_, x)| x.as_deref() == Some(own.as_str()));
    let named = keys.iter().filter_map(|(kid, _)| kid.clone()).take(KIDS);
    let mut accepted = false;
    for kid in std::iter::once(None).chain(named.map(Some)) {
        let decision = decide(&token(kid.as_deref(), &OWN));
        policy.fetched(fetch.id, Fetched::Failed, &host);
        assert_eq!(decide(&token(kid.as_deref(), &OWN)), decision);
        if let Some(pass) = passed(decision) {
            assert!(holds, "a key that is not in the set");
            assert_eq!(asserted(&pass).sub, "alice");
            accepted = true;
        }
        for forged in [
            token(kid.as_deref(), &OTHER),
            by_mac(kid.as_deref(), own.as_bytes()),
            by_mac(kid.as_deref(), &B64.decode(&own).unwrap_or_default()),
        ] {
            let decision: Decision = decide(&forged);
            assert_eq!(passed(decision), None, "a forged token");
        }
    }
    accepted
}

fn config() -> JwtAuth {
    let algorithms = vec![
        Algorithm::EdDSA,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::RS256,
        Algorithm::PS256,
    ];
    let url = JwksUrl::new("127.0.0.1:8443", "issuer.example", "/jwks", algorithms);
    let issuer = Issuer {
        jwks_url: Some(url),
        ..Issuer::new(ISSUER, vec!["mesh".into()], Vec::new())
    };
    JwtAuth::new(vec![issuer], signer())
}

/// Name and `x` of each key, read another way than the filter reads them.
fn keys(data: &[u8]) -> Vec<(Option<String>, Option<String>)> {
    let Ok(set) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(data) else {
        return Vec::new();
    };
    let keys = set.get("keys").map_or("[]", |keys| keys.get());
    let keys: Vec<&RawValue> = serde_json::from_str(keys).unwrap_or_default();
    let read = |key: &&RawValue| {
        let key: BTreeMap<String, &RawValue> = serde_json::from_str(key.get()).unwrap_or_default();
        let text = |name: &str| serde_json::from_str(key.get(name)?.get()).ok();
        (text("kid"), text("x"))
    };
    keys.iter().map(read).collect()
}

fn signed(algorithm: &str, kid: Option<&str>) -> String {
    let header = match kid {
        Some(kid) => json!({"alg": algorithm, "kid": kid}),
        None => json!({"alg": algorithm}),
    };
    let claims = json!({"iss": ISSUER, "aud": "mesh", "sub": "alice", "exp": NOW_S + 60});
    [header, claims]
        .map(|part| B64.encode(part.to_string()))
        .join(".")
}

fn token(kid: Option<&str>, key: &[u8; 32]) -> String {
    let signed = signed("EdDSA", kid);
    let signature = SigningKey::from_bytes(key).sign(signed.as_bytes());
    format!("{signed}.{}", B64.encode(signature.to_bytes()))
}

fn by_mac(kid: Option<&str>, secret: &[u8]) -> String {
    let signed = signed("HS256", kid);
    let mac = mac(secret, &signed);
    format!("{signed}.{mac}")
}
