//! The jwt_auth module as it is built, end to end: what a token opens, and that nothing else does.

use crate::support::{Answer, Gateway, Service, Setup, filters};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePublicKey;
use hmac::{Hmac, KeyInit, Mac};
use mesh_protocol::Timestamp;
use mesh_protocol::assertion::{self, PublicKey};
use rsa::pkcs8::DecodePrivateKey;
use rsa::signature::{SignatureEncoding, Signer};
use serde_json::{Value, json};
use sha2::Sha256;
use std::time::{SystemTime, UNIX_EPOCH};

const SECRET: [u8; 32] = [7; 32];
/// Made for these tests, used nowhere else.
const RSA: &[u8] = include_bytes!("keys/rsa-2048.der");
const RSA_PUBLIC: &str = include_str!("keys/rsa-2048.pub.pem");
pub(crate) const ISSUER: &str = "https://issuer.test";

fn ed() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn p256() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[5; 32]).unwrap()
}

fn p521() -> p521::ecdsa::SigningKey {
    // 521 bits in 66 bytes: the first seven are zero.
    let mut bytes = [5; 66];
    bytes[0] = 0;
    p521::ecdsa::SigningKey::from_slice(&bytes).unwrap()
}

fn config() -> Value {
    let ed = ed().verifying_key().to_public_key_pem(Default::default());
    let p256 = p256().verifying_key().to_public_key_pem(Default::default());
    let p521 = p521().verifying_key().to_public_key_pem(Default::default());
    json!({
        "issuers": [{
            "issuer": ISSUER,
            "audiences": ["mesh"],
            "keys": [
                {"kid": "h", "algorithm": "HS256", "secret": B64.encode(SECRET)},
                {"kid": "r", "algorithm": "RS256", "public_key": RSA_PUBLIC},
                {"kid": "p", "algorithm": "ES256", "public_key": p256.unwrap()},
                {"kid": "w", "algorithm": "ES512", "public_key": p521.unwrap()},
                {"kid": "e", "algorithm": "EdDSA", "public_key": ed.unwrap()},
            ],
        }],
        "assertion": {
            "issuer": "gateway", "audience": "mesh", "kid": "g",
            "signing_key": B64.encode([1; 32]),
        },
    })
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "mesh", "sub": "alice", "scope": "tasks:submit",
        "iat": now(), "exp": now() + 3600,
    })
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn part(value: &Value) -> String {
    B64.encode(value.to_string())
}

fn hmac(secret: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

pub(crate) fn token(
    algorithm: &str,
    kid: &str,
    claims: &Value,
    sign: impl Fn(&str) -> Vec<u8>,
) -> String {
    let header = json!({"alg": algorithm, "kid": kid, "typ": "JWT"});
    let signed = format!("{}.{}", part(&header), part(claims));
    let signature = B64.encode(sign(&signed));
    format!("{signed}.{signature}")
}

fn hs256(claims: &Value) -> String {
    token("HS256", "h", claims, |text| hmac(&SECRET, text))
}

fn rs256(claims: &Value) -> String {
    let key = rsa::PrivateKey::from_pkcs8_der(RSA).unwrap();
    let key = rsa::pkcs1v15::SigningKey::<Sha256>::new(key);
    token("RS256", "r", claims, |text| {
        key.sign(text.as_bytes()).to_vec()
    })
}

fn es256(claims: &Value) -> String {
    token("ES256", "p", claims, |text| {
        let signature: p256::ecdsa::Signature = p256().sign(text.as_bytes());
        signature.to_vec()
    })
}

fn es512(claims: &Value) -> String {
    token("ES512", "w", claims, |text| {
        let signature: p521::ecdsa::Signature = p521().sign(text.as_bytes());
        signature.to_vec()
    })
}

fn eddsa(claims: &Value) -> String {
    use ed25519_dalek::Signer as _;
    token("EdDSA", "e", claims, |text| {
        ed().sign(text.as_bytes()).to_bytes().to_vec()
    })
}

async fn guarded(service: &Service) -> Gateway {
    guarded_by(service, self::config()).await
}

/// A gateway whose one route `jwt_auth` guards with this configuration.
pub(crate) async fn guarded_by(service: &Service, filter: Value) -> Gateway {
    let mut config = mesh_declarative::Config::from_yaml(
        "_format_version: \"3.0\"\nfilter_chains: [{name: c, route: r, filters: [{name: jwt_auth}]}]\n",
    )
    .unwrap();
    config.filter_chains[0].filters[0].config = filter;
    let chain = config.to_yaml().unwrap();
    let (_, chain) = chain.split_once('\n').unwrap();
    let rest = "  routes: [{name: r, paths: [/ai/orchestrate]}]\n".to_owned() + chain;
    let mut setup = Setup::new(service.address, &rest);
    setup.filters = filters("jwt_auth");
    setup.start().await
}

pub(crate) async fn submit(gateway: &Gateway, headers: &str) -> Answer {
    gateway.post("/ai/orchestrate", headers, "{}").await
}

pub(crate) fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\n")
}

#[tokio::test]
async fn a_valid_token_becomes_one_assertion() {
    let service = Service::start().await;
    let gateway = guarded(&service).await;
    let tokens = [
        hs256(&claims()),
        rs256(&claims()),
        es256(&claims()),
        es512(&claims()),
        eddsa(&claims()),
    ];
    for token in &tokens {
        let answer = submit(&gateway, &bearer(token)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // The second time from the filter's cache.
    assert_eq!(submit(&gateway, &bearer(&tokens[0])).await.status, 200);
    let public = assertion::public_half(&SigningKey::from_bytes(&[1; 32]));
    let keys = [PublicKey::from_base64("g", &public).unwrap()];
    let seen = service.seen();
    assert_eq!(seen.len(), tokens.len() + 1);
    for seen in seen {
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/"));
        assert_eq!(seen.body, "{}");
        let mut assertions = seen.headers.get_all(assertion::HEADER).iter();
        let text = assertions.next().unwrap().to_str().unwrap();
        assert!(assertions.next().is_none());
        let at = Timestamp::from_millis(now() * 1000);
        let claims = assertion::verify(text, &keys, "mesh", at).unwrap();
        assert_eq!(
            (claims.sub.as_str(), claims.origin.as_str()),
            ("alice", ISSUER)
        );
        assert_eq!(claims.scope, "tasks:submit");
    }
}

#[tokio::test]
async fn nothing_else_opens() {
    let service = Service::start().await;
    let gateway = guarded(&service).await;
    let good = hs256(&claims());
    let none = format!(
        "{}.{}.",
        part(&json!({"alg": "none", "typ": "JWT"})),
        part(&claims())
    );
    let confused = token("HS256", "r", &claims(), |text| {
        hmac(RSA_PUBLIC.as_bytes(), text)
    });
    let forged = token("HS256", "h", &claims(), |text| hmac(&[8; 32], text));
    for (name, headers) in [
        ("no token", String::new()),
        ("rubbish", bearer("rubbish")),
        (
            "expired",
            bearer(&hs256(&claims_with("exp", json!(now() - 3600)))),
        ),
        (
            "not yet",
            bearer(&hs256(&claims_with("nbf", json!(now() + 3600)))),
        ),
        (
            "issuer",
            bearer(&hs256(&claims_with("iss", json!("https://other.test")))),
        ),
        (
            "audience",
            bearer(&hs256(&claims_with("aud", json!("other")))),
        ),
        ("none", bearer(&none)),
        ("confusion", bearer(&confused)),
        ("forged", bearer(&forged)),
        ("two tokens", bearer(&good) + &bearer(&good)),
        ("two in one", bearer(&format!("{good}, Bearer {good}"))),
        ("nominated", bearer(&good) + "connection: authorization\n"),
    ] {
        let answer = submit(&gateway, &headers).await;
        // RFC 6750, section 3.1: a request with several is not a good one.
        let status = if name.starts_with("two") { 400 } else { 401 };
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(challenge.starts_with("bearer"), "{name}: {challenge}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
    }
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_reserved_header_is_refused_in_every_spelling() {
    let service = Service::start().await;
    let gateway = guarded(&service).await;
    let good = bearer(&hs256(&claims()));
    for name in [
        "x-mesh-assertion",
        "X-Mesh-Assertion",
        "x_mesh_assertion",
        "X_MESH_ASSERTION",
        "x-mesh-agent",
        "x_mesh_agent",
    ] {
        let answer = submit(&gateway, &format!("{good}{name}: a\n")).await;
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
    }
    assert!(service.seen().is_empty());
    // Spellings that no gateway passes on arrive nowhere.
    for name in ["x.mesh.assertion", "x~mesh~assertion"] {
        assert_eq!(
            submit(&gateway, &format!("{good}{name}: a\n")).await.status,
            200
        );
    }
    let nominated = format!("{good}x-mesh-assertion: a\nconnection: x-mesh-assertion\n");
    assert_eq!(submit(&gateway, &nominated).await.status, 200);
    for seen in service.seen() {
        assert_eq!(seen.headers.get_all(assertion::HEADER).iter().count(), 1);
        assert_ne!(seen.headers[assertion::HEADER], "a");
        assert!(!seen.headers.keys().any(|n| n.as_str().contains(['.', '~'])));
    }
}
