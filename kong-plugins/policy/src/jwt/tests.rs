//! What a token may and may not be; the sections are those of RFC 8725.

mod algorithms;
mod assertions;
mod bad_tokens;
mod claims;
mod configs;
mod fetched;
mod jwks;
mod refused;
mod sources;
mod vectors;
mod wycheproof;

use super::*;
use crate::config::{Algorithm, AssertionSigner, Issuer, Key};
use crate::host::MemoryHost;
use crate::request::MemoryHead;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use mesh_protocol::assertion::PublicKey;
use p256::pkcs8::EncodePublicKey;
use serde_json::{Value, json};

const NOW_S: u64 = 1_800_000_000;
const SECRET: [u8; 32] = [7; 32];
const ISSUER: &str = "https://issuer.example";

fn now() -> Timestamp {
    at(NOW_S)
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn hs256(kid: Option<&str>, secret: &[u8]) -> Key {
    Key {
        kid: kid.map(str::to_owned),
        algorithm: Algorithm::HS256,
        secret: Some(B64.encode(secret)),
        public_key: None,
        jwk: None,
    }
}

fn public(kid: Option<&str>, algorithm: Algorithm, pem: String) -> Key {
    Key {
        kid: kid.map(str::to_owned),
        algorithm,
        secret: None,
        public_key: Some(pem),
        jwk: None,
    }
}

fn ed_key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn ed_pem() -> String {
    ed_key()
        .verifying_key()
        .to_public_key_pem(Default::default())
        .unwrap()
}

fn p256_key() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[5; 32]).unwrap()
}

fn p256_pem() -> String {
    p256_key()
        .verifying_key()
        .to_public_key_pem(Default::default())
        .unwrap()
}

fn config() -> JwtAuth {
    let issuers = vec![
        Issuer::new(
            ISSUER,
            vec!["mesh".into(), "mesh-2".into()],
            vec![
                hs256(None, &SECRET),
                hs256(Some("h"), &[8; 32]),
                public(Some("e"), Algorithm::EdDSA, ed_pem()),
                public(Some("p"), Algorithm::ES256, p256_pem()),
            ],
        ),
        Issuer::new(
            "https://other.example",
            vec!["mesh".into()],
            vec![hs256(Some("o"), &[9; 32])],
        ),
    ];
    let signer = AssertionSigner {
        issuer: "gateway".into(),
        audience: "mesh".into(),
        kid: "g".into(),
        signing_key: B64.encode([1; 32]),
        lifetime_s: 60,
    };
    JwtAuth {
        revision: "1".into(),
        ..JwtAuth::new(issuers, signer)
    }
}

fn policy() -> Policy {
    compile(&config()).unwrap()
}

fn gateway_keys() -> Vec<PublicKey> {
    let public = assertion::public_half(&SigningKey::from_bytes(&[1; 32]));
    vec![PublicKey::from_base64("g", &public).unwrap()]
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "mesh", "sub": "alice", "exp": NOW_S + 3600, "iat": NOW_S})
}

/// `claims` with `name` set, or without it when `value` is null.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let object = claims.as_object_mut().unwrap();
    if value.is_null() {
        object.remove(name);
    } else {
        object.insert(name.to_owned(), value);
    }
    claims
}

fn mac(secret: &[u8], signed: &str) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(secret)
        .unwrap()
        .chain_update(signed.as_bytes())
        .finalize()
        .into_bytes()
        .to_vec()
}

/// A token of these very bytes, signed with HMAC.
fn raw(header: &[u8], claims: &[u8], secret: &[u8]) -> String {
    let signed = format!("{}.{}", B64.encode(header), B64.encode(claims));
    format!("{signed}.{}", B64.encode(mac(secret, &signed)))
}

fn token(claims: &Value) -> String {
    raw(
        br#"{"alg":"HS256","typ":"JWT"}"#,
        claims.to_string().as_bytes(),
        &SECRET,
    )
}

fn bearing(token: &str) -> MemoryHead {
    MemoryHead::new("POST", "/orchestrate").with("Authorization", format!("Bearer {token}"))
}

fn decide_at(policy: &Policy, head: &dyn RequestHead, now: Timestamp) -> Decision {
    policy.decide(&mut Request::default(), head, &MemoryHost::at(now))
}

/// Who a later filter is told is calling.
fn caller(pass: &Pass) -> Caller {
    let (name, value) = &pass.leave[0];
    let host = MemoryHost::at(now());
    host.leave(name, value.clone());
    Caller::found(&host).unwrap()
}

fn decide(head: &MemoryHead) -> Decision {
    decide_at(&policy(), head, now())
}

#[track_caller]
fn passes(decision: Decision) -> Pass {
    match decision {
        Decision::Pass(pass) => pass,
        Decision::Refuse(refusal) => panic!("refused: {refusal:?}"),
    }
}

#[track_caller]
fn refuses(decision: Decision) -> Refusal {
    match decision {
        Decision::Refuse(refusal) => refusal,
        Decision::Pass(pass) => panic!("passed: {pass:?}"),
    }
}

/// Status and reason of the refusal of `token`.
#[track_caller]
fn refusal_of(token: &str) -> (u16, &'static str) {
    let refusal = refuses(decide(&bearing(token)));
    let challenge = &refusal.headers[1];
    assert_eq!(challenge.0, "www-authenticate");
    assert!(challenge.1.starts_with("Bearer realm=\"mesh\", error=\""));
    (refusal.status, refusal.reason)
}

#[test]
fn a_token_of_each_algorithm_passes() {
    let signed = |header: Value| {
        format!(
            "{}.{}",
            B64.encode(header.to_string()),
            B64.encode(claims().to_string())
        )
    };
    let ed = signed(json!({"alg": "EdDSA", "kid": "e"}));
    let ed = format!(
        "{ed}.{}",
        B64.encode(ed_key().sign(ed.as_bytes()).to_bytes())
    );
    let p256 = signed(json!({"alg": "ES256", "kid": "p", "typ": "at+jwt"}));
    let signature: p256::ecdsa::Signature = p256_key().sign(p256.as_bytes());
    let p256 = format!("{p256}.{}", B64.encode(signature.to_bytes()));
    for token in [token(&claims()), ed, p256] {
        let pass = passes(decide(&bearing(&token)));
        let [(name, value)] = pass.set_headers.as_slice() else {
            panic!("one header is set")
        };
        assert_eq!(*name, "x-mesh-assertion");
        let read = assertion::verify(value, &gateway_keys(), "mesh", now()).unwrap();
        assert_eq!((read.sub.as_str(), read.origin.as_str()), ("alice", ISSUER));
        assert_eq!((read.iat, read.exp), (NOW_S, NOW_S + 60));
    }
}

#[test]
fn the_scheme_is_read_in_any_case() {
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let value = format!("{scheme}  {}", token(&claims()));
        passes(decide(
            &MemoryHead::new("GET", "/").with("authorization", value),
        ));
    }
}

#[test]
fn times_may_be_fractions_and_have_leeway() {
    for (name, value) in [
        ("exp", json!(NOW_S as f64 + 0.5)),
        ("exp", json!(NOW_S - 29)),
        ("nbf", json!(NOW_S + 30)),
        ("nbf", json!(1.5e9)),
        ("iat", json!(NOW_S + 30)),
    ] {
        passes(decide(&bearing(&token(&claims_with(name, value)))));
    }
}

#[test]
fn audience_may_be_one_of_many() {
    for aud in [json!(["x", "mesh"]), json!("mesh-2"), json!(["mesh-2"])] {
        passes(decide(&bearing(&token(&claims_with("aud", aud)))));
    }
}

#[test]
fn scopes_are_handed_on_and_required() {
    let mut config = config();
    config.required_scopes = vec!["a".into(), "b".into()];
    let policy = compile(&config).unwrap();
    let decide = |scope: Value| {
        decide_at(
            &policy,
            &bearing(&token(&claims_with("scope", scope))),
            now(),
        )
    };
    for scope in [json!("a b"), json!("c  b a"), json!(["b", "a"])] {
        passes(decide(scope));
    }
    for scope in [
        json!(null),
        json!(""),
        json!("a"),
        json!("a bb"),
        json!("ab"),
    ] {
        let refusal = refuses(decide(scope));
        assert_eq!((refusal.status, refusal.reason), (403, "scope"));
        assert!(
            refusal.headers[1]
                .1
                .contains("error=\"insufficient_scope\"")
        );
        assert!(refusal.headers[1].1.ends_with("scope=\"a b\""));
    }
    let pass = passes(decide(json!("a  b c")));
    assert_eq!(caller(&pass).scope, "a b c");
}

#[test]
fn without_a_token_the_challenge_carries_no_error() {
    for head in [
        MemoryHead::new("GET", "/"),
        MemoryHead::new("GET", "/").with("authorization", "Basic YTpi"),
        MemoryHead::new("GET", "/").with("authorization", ""),
        MemoryHead::new("OPTIONS", "/").with("origin", "https://a.example"),
        MemoryHead::new("GET", "/")
            .with("origin", "https://a.example")
            .with("access-control-request-method", "POST"),
    ] {
        let refusal = refuses(decide(&head));
        assert_eq!((refusal.status, refusal.reason), (401, "no_token"));
        assert_eq!(refusal.headers[1].1, "Bearer realm=\"mesh\"");
    }
}

#[test]
fn a_preflight_passes_without_an_assertion() {
    let head = MemoryHead::new("OPTIONS", "/")
        .with("origin", "https://a.example")
        .with("access-control-request-method", "POST");
    let pass = passes(decide(&head));
    assert_eq!((pass.set_headers, pass.leave), (vec![], vec![]));
    // With a token it is a request like any other.
    refuses(decide(&head.clone().with("authorization", "Bearer x")));
    refuses(decide(&head.with("x-mesh-assertion", "x")));
}

#[test]
fn reserved_headers_are_refused_before_anything_else() {
    for name in RESERVED_HEADERS {
        for value in [&b"x"[..], b"", b"\xff\xfe"] {
            for head in [bearing(&token(&claims())), MemoryHead::new("GET", "/")] {
                let refusal = refuses(decide(&head.with(&name.to_uppercase(), value)));
                assert_eq!((refusal.status, refusal.reason), (400, "reserved_header"));
                let body: Value = serde_json::from_slice(&refusal.body).unwrap();
                assert_eq!(body["type"], "urn:agent-mesh:problem:reserved-header");
            }
        }
    }
}

#[test]
fn a_host_that_cannot_read_the_request_refuses_it() {
    struct Blind;
    impl RequestHead for Blind {
        fn header(&self, _: &str) -> Result<Vec<Vec<u8>>, crate::Unreadable> {
            Err(crate::Unreadable)
        }
        fn method(&self) -> Result<Vec<u8>, crate::Unreadable> {
            Err(crate::Unreadable)
        }
        fn path(&self) -> Result<Vec<u8>, crate::Unreadable> {
            Err(crate::Unreadable)
        }
        fn peer(&self) -> Result<std::net::IpAddr, crate::Unreadable> {
            Err(crate::Unreadable)
        }
    }
    assert_eq!(refuses(decide_at(&policy(), &Blind, now())).status, 503);
}
