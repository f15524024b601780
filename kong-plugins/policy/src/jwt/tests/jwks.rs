//! Keys as JWK and JWKS in the configuration, where a fault is a fault.

use super::*;
use crate::config::{Jwk, Jwks};

pub(super) fn ed_jwk(kid: &str) -> Value {
    let x = B64.encode(ed_key().verifying_key().to_bytes());
    json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": "EdDSA"})
}

pub(super) fn p256_jwk(kid: &str) -> Value {
    let point = p256_key().verifying_key().to_sec1_point(false);
    let (x, y) = (point.x().unwrap(), point.y().unwrap());
    json!({"kty": "EC", "crv": "P-256", "x": B64.encode(x), "y": B64.encode(y), "kid": kid})
}

pub(super) fn with(mut jwk: Value, name: &str, value: Value) -> Value {
    jwk[name] = value;
    jwk
}

pub(super) fn ed_token(kid: &str) -> String {
    let header = json!({"alg": "EdDSA", "kid": kid}).to_string();
    let signed = format!(
        "{}.{}",
        B64.encode(header),
        B64.encode(claims().to_string())
    );
    let signature = ed_key().sign(signed.as_bytes());
    format!("{signed}.{}", B64.encode(signature.to_bytes()))
}

pub(super) fn with_issuer(change: impl FnOnce(&mut Issuer)) -> Result<Policy, Vec<String>> {
    let mut config = config();
    change(&mut config.issuers[0]);
    compile(&config).map_err(|faults| faults.into_iter().map(|fault| fault.path).collect())
}

fn inline(jwk: Value) -> Result<Policy, Vec<String>> {
    with_issuer(|issuer| {
        issuer.keys.clear();
        let jwk: Jwk = serde_json::from_value(jwk).unwrap();
        issuer.jwks = Some(Jwks { keys: vec![jwk] });
    })
}

#[test]
fn a_key_may_be_a_jwk_or_stand_in_a_set() {
    let good = [
        ed_jwk("k"),
        with(ed_jwk("k"), "x5t", json!("unknown members are ignored")),
        with(ed_jwk("k"), "key_ops", json!(["sign", "verify"])),
        with(ed_jwk("k"), "alg", json!(null)),
    ];
    for jwk in good {
        let policy = inline(jwk).unwrap();
        passes(decide_at(&policy, &bearing(&ed_token("k")), now()));
        let refusal = refuses(decide_at(&policy, &bearing(&ed_token("e")), now()));
        assert_eq!(refusal.reason, "unknown_key");
    }
    let policy = with_issuer(|issuer| {
        issuer.keys = vec![Key {
            kid: None,
            algorithm: Algorithm::EdDSA,
            secret: None,
            public_key: None,
            jwk: serde_json::from_value(ed_jwk("k")).unwrap(),
        }];
    });
    passes(decide_at(&policy.unwrap(), &bearing(&ed_token("k")), now()));
}

#[test]
fn an_inline_key_that_cannot_be_used_is_a_fault() {
    let rsa = json!({"kty": "RSA", "n": B64.encode([0xff; 256]), "e": "AQAB"});
    let oct = |bytes| json!({"kty": "oct", "k": B64.encode(vec![7; bytes])});
    for (jwk, member) in [
        (with(ed_jwk("k"), "use", json!("enc")), "use"),
        (with(ed_jwk("k"), "key_ops", json!(["sign"])), "key_ops"),
        (with(ed_jwk("k"), "key_ops", json!([])), "key_ops"),
        (with(ed_jwk("k"), "alg", json!("ES256")), "alg"),
        (with(ed_jwk("k"), "alg", json!("none")), "alg"),
        (with(ed_jwk("k"), "d", json!("AAAA")), "d"),
        (with(ed_jwk("k"), "x", json!("AAAA")), "x"),
        (with(ed_jwk("k"), "x", json!(null)), "x"),
        (with(ed_jwk("k"), "x", json!(B64.encode([0; 32]))), "x"),
        (with(ed_jwk("k"), "crv", json!("Ed448")), "crv"),
        (with(ed_jwk("k"), "kty", json!("okp")), "kty"),
        (with(ed_jwk("k"), "kid", json!("a\nb")), "kid"),
        (with(p256_jwk("k"), "crv", json!("P-384")), "x"),
        (with(p256_jwk("k"), "crv", json!("secp256k1")), "crv"),
        (with(p256_jwk("k"), "y", json!(B64.encode([1; 32]))), "x"),
        (with(p256_jwk("k"), "y", json!("!")), "y"),
        // It could be for six algorithms, and nobody says which.
        (rsa.clone(), "alg"),
        (with(rsa.clone(), "alg", json!("ES256")), "alg"),
        (
            with(with(rsa.clone(), "alg", json!("RS256")), "n", json!("_w")),
            "n",
        ),
        (
            with(with(rsa.clone(), "alg", json!("PS256")), "e", json!("AQ")),
            "n",
        ),
        (
            with(with(rsa, "alg", json!("RS256")), "e", json!(null)),
            "e",
        ),
        (oct(64), "alg"),
        (with(oct(31), "alg", json!("HS256")), "k"),
        (with(oct(47), "alg", json!("HS384")), "k"),
        (with(oct(63), "alg", json!("HS512")), "k"),
    ] {
        let text = jwk.to_string();
        assert_eq!(
            inline(jwk).map(drop),
            Err(vec![format!("issuers[0].jwks.keys[0].{member}")]),
            "{text}"
        );
    }
}

#[test]
fn a_jwk_is_one_key_of_one_name_and_algorithm() {
    let faults = |key: Key| with_issuer(|issuer| issuer.keys = vec![key]).map(drop);
    let key = Key {
        kid: Some("k".into()),
        algorithm: Algorithm::EdDSA,
        secret: None,
        public_key: None,
        jwk: serde_json::from_value(ed_jwk("k")).unwrap(),
    };
    assert_eq!(faults(key.clone()), Ok(()));
    let fault = |field: &str| Err(vec![format!("issuers[0].keys[0].{field}")]);
    let other = Key {
        kid: Some("other".into()),
        ..key.clone()
    };
    assert_eq!(faults(other), fault("kid"));
    let twice = Key {
        public_key: Some(ed_pem()),
        ..key.clone()
    };
    assert_eq!(faults(twice), fault("jwk"));
    let another = Key {
        algorithm: Algorithm::ES256,
        ..key
    };
    assert_eq!(faults(another), fault("jwk.alg"));
    let same = with_issuer(|issuer| {
        let jwk: Jwk = serde_json::from_value(ed_jwk("e")).unwrap();
        issuer.jwks = Some(Jwks { keys: vec![jwk] });
    });
    assert_eq!(
        same.map(drop),
        Err(vec!["issuers[0].jwks.keys[0].kid".to_owned()])
    );
}
