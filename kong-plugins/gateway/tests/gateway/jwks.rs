//! The jwt_auth module with keys by address, end to end: what it does before the first set has come,
//! when the keys change, and when their source is down.

use crate::jwt::{ISSUER, bearer, claims, guarded_by, submit, token};
use crate::support::{Gateway, Service, until};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use http_body_util::Full;
use hyper::Response;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Between two looks at a gateway that fetches every ten seconds.
const LOOK: Duration = Duration::from_millis(50);

/// What stands in for the sidecar and the issuer behind it: the set that it gives out; none, and it
/// answers 503.
#[derive(Default)]
struct Source(Mutex<Option<Value>>);

impl Source {
    fn gives(&self, seeds: &[u8]) {
        let keys: Vec<Value> = seeds
            .iter()
            .map(|seed| {
                let x = B64.encode(key(*seed).verifying_key().to_bytes());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": seed.to_string(), "x": x})
            })
            .collect();
        *self.0.lock().unwrap() = Some(json!({ "keys": keys }));
    }

    fn fails(&self) {
        *self.0.lock().unwrap() = None;
    }

    fn answer(&self) -> Response<Full<Bytes>> {
        match &*self.0.lock().unwrap() {
            Some(set) => Response::new(Full::from(set.to_string())),
            None => {
                let mut answer = Response::new(Full::default());
                *answer.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
                answer
            }
        }
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn signed(seed: u8) -> String {
    token("EdDSA", &seed.to_string(), &claims(), |text| {
        key(seed).sign(text.as_bytes()).to_bytes().to_vec()
    })
}

fn config(issuer: &Service) -> Value {
    json!({
        "issuers": [{
            "issuer": ISSUER,
            "audiences": ["mesh"],
            "jwks_url": {
                "authority": issuer.address.to_string(), "host": "issuer.test",
                "path": "/.well-known/jwks.json", "algorithms": ["EdDSA"],
                "refresh_s": 10, "stale_s": 20,
            },
        }],
        "assertion": {
            "issuer": "gateway", "audience": "mesh", "kid": "g",
            "signing_key": B64.encode([1; 32]),
        },
    })
}

async fn becomes(gateway: &Gateway, what: &str, token: &str, status: u16) {
    until(what, async || {
        let now = submit(gateway, &bearer(token)).await.status;
        if now != status {
            tokio::time::sleep(LOOK).await;
        }
        now == status
    })
    .await;
}

async fn is_asked_again(issuer: &Service) {
    let before = issuer.seen().len();
    until("the next fetch", async || {
        tokio::time::sleep(LOOK).await;
        issuer.seen().len() > before
    })
    .await;
}

#[tokio::test]
async fn keys_are_fetched_rotated_and_outlive_their_source_for_a_while() {
    let source = Arc::new(Source::default());
    let giving = Arc::clone(&source);
    let issuer = Service::answering(move |_| giving.answer()).await;
    let service = Service::start().await;
    let gateway = guarded_by(&service, config(&issuer)).await;
    let (old, new) = (signed(1), signed(2));

    // Asked, and without a set nobody can judge.
    is_asked_again(&issuer).await;
    let fetch = issuer.seen()[0].clone();
    assert_eq!(fetch.method, "GET");
    assert_eq!(fetch.target, "/.well-known/jwks.json");
    assert_eq!(fetch.headers["host"], "issuer.test");
    let answer = submit(&gateway, &bearer(&old)).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(
        answer
            .body
            .contains("urn:agent-mesh:problem:keys-unavailable")
    );
    assert!(answer.header("retry-after").is_some());
    assert!(service.seen().is_empty());

    source.gives(&[1]);
    becomes(&gateway, "the first set", &old, 200).await;
    assert_eq!(submit(&gateway, &bearer(&new)).await.status, 401);

    // Rotated: the new key counts and the old one no longer does, though its token was in the cache.
    source.gives(&[2]);
    becomes(&gateway, "the new key", &new, 200).await;
    assert_eq!(submit(&gateway, &bearer(&old)).await.status, 401);

    // The source fails: the last set serves on, then no longer.
    source.fails();
    is_asked_again(&issuer).await;
    assert_eq!(submit(&gateway, &bearer(&new)).await.status, 200);
    drop(issuer);
    becomes(&gateway, "the set's end", &new, 503).await;
}
