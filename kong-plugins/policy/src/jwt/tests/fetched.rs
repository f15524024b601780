//! Keys of a set that is fetched, where a fault costs the one key, and what happens without the set.

use super::super::remote::RETRY_MS;
use super::jwks::{ed_jwk, ed_token, p256_jwk, with, with_issuer};
use super::*;
use crate::config::JwksUrl;
use crate::{Fetch, Fetched};

fn remote() -> Policy {
    with_issuer(|issuer| {
        issuer.keys.clear();
        issuer.jwks_url = Some(JwksUrl::new(
            "127.0.0.1:10012",
            "issuer.example",
            "/.well-known/jwks.json",
            vec![
                Algorithm::EdDSA,
                Algorithm::ES256,
                Algorithm::RS256,
                Algorithm::PS256,
            ],
        ));
    })
    .unwrap()
}

fn set(keys: &[Value]) -> Fetched {
    answer(json!({ "keys": keys }).to_string())
}

fn answer(body: impl Into<Vec<u8>>) -> Fetched {
    Fetched::Answer {
        status: 200,
        body: body.into(),
    }
}

fn tick(policy: &Policy, seconds: u64) -> Vec<Fetch> {
    policy.tick(&MemoryHost::at(at(seconds)))
}

fn arrive(policy: &Policy, fetched: Fetched, seconds: u64) {
    policy.fetched(0, fetched, &MemoryHost::at(at(seconds)));
}

#[track_caller]
fn reason(policy: &Policy, kid: &str, seconds: u64) -> &'static str {
    match decide_at(policy, &bearing(&ed_token(kid)), at(seconds)) {
        Decision::Pass(pass) => pass.reason,
        Decision::Refuse(refusal) => refusal.reason,
    }
}

#[test]
fn a_set_is_fetched_through_the_sidecar() {
    assert_eq!(policy().tick_ms(), None);
    let policy = remote();
    assert_eq!(policy.tick_ms(), Some(1000));
    let fetches = tick(&policy, NOW_S);
    let [fetch] = fetches.as_slice() else {
        panic!("one fetch, {fetches:?}")
    };
    assert_eq!((fetch.id, fetch.method, fetch.timeout_ms), (0, "GET", 2000));
    assert_eq!(fetch.authority, "127.0.0.1:10012");
    assert_eq!(fetch.path, "/.well-known/jwks.json");
    assert!(
        fetch
            .headers
            .contains(&("host", "issuer.example".to_owned()))
    );
    assert_eq!(tick(&policy, NOW_S + 1), []);
}

#[test]
fn before_the_first_set_nobody_can_judge() {
    let policy = remote();
    let refusal = refuses(decide_at(&policy, &bearing(&ed_token("k")), now()));
    assert_eq!((refusal.status, refusal.reason), (503, "keys_unavailable"));
    let body: Value = serde_json::from_slice(&refusal.body).unwrap();
    assert_eq!(body["type"], "urn:agent-mesh:problem:keys-unavailable");
    assert!(
        refusal
            .headers
            .iter()
            .any(|(name, _)| *name == "retry-after")
    );
    // Other issuers' tokens are judged as ever.
    let claims = claims_with("iss", json!("https://other.example")).to_string();
    let other = raw(br#"{"alg":"HS256","kid":"o"}"#, claims.as_bytes(), &[9; 32]);
    passes(decide_at(&policy, &bearing(&other), now()));
    arrive(&policy, set(&[ed_jwk("k")]), NOW_S);
    assert_eq!(reason(&policy, "k", NOW_S), "token");
}

#[test]
fn a_new_set_replaces_the_old_one_whole() {
    let policy = remote();
    arrive(&policy, set(&[ed_jwk("a"), ed_jwk("b")]), NOW_S);
    for kid in ["a", "b"] {
        assert_eq!(reason(&policy, kid, NOW_S), "token");
    }
    assert_eq!(policy.verified.borrow().len(), 2);
    arrive(&policy, set(&[p256_jwk("p"), ed_jwk("b")]), NOW_S + 1);
    // Cached or not: its key has left.
    assert_eq!(reason(&policy, "a", NOW_S + 1), "unknown_key");
    assert_eq!(reason(&policy, "b", NOW_S + 1), "token");
    // A key that comes back is a key again; one that stayed kept its tokens in the cache.
    arrive(&policy, set(&[ed_jwk("a")]), NOW_S + 2);
    assert_eq!(reason(&policy, "a", NOW_S + 2), "token");
    arrive(&policy, set(&[]), NOW_S + 3);
    assert_eq!(reason(&policy, "a", NOW_S + 3), "unknown_key");
}

#[test]
fn a_key_that_cannot_be_used_costs_itself_alone() {
    let policy = remote();
    let x = B64.encode(ed_key().verifying_key().to_bytes());
    let unusable = [
        json!(1),
        json!({"kty": 1}),
        json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "RS256"}),
        json!({"kty": "RSA", "n": B64.encode([0xff; 256]), "e": "AQAB"}),
        json!({"kty": "oct", "k": B64.encode([7; 64]), "alg": "HS256"}),
        json!({"kty": "OKP", "crv": "X25519", "x": x}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k", "use": "enc"}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k", "d": x}),
    ];
    arrive(&policy, set(&unusable), NOW_S);
    assert_eq!(reason(&policy, "k", NOW_S), "unknown_key");
    let keys: Vec<Value> = unusable.into_iter().chain([ed_jwk("k")]).collect();
    arrive(&policy, set(&keys), NOW_S);
    assert_eq!(reason(&policy, "k", NOW_S), "token");
}

#[test]
fn an_unreadable_answer_keeps_the_old_set_for_a_while() {
    let many: Vec<Value> = (0..65).map(|n| ed_jwk(&n.to_string())).collect();
    let padding = "x".repeat(64 * 1024);
    let refused = Fetched::Answer {
        status: 500,
        body: json!({"keys": []}).to_string().into(),
    };
    for bad in [
        Fetched::Failed,
        refused,
        answer(""),
        answer("{}"),
        answer("null"),
        answer(r#"{"keys": {}}"#),
        answer(r#"{"keys": []"#),
        answer(r#"{"keys": [], "keys": []}"#),
        answer(&b"{\"keys\": [], \"x\": \"\xff\"}"[..]),
        answer(json!({"keys": [], "x": padding}).to_string()),
        set(&many),
    ] {
        let policy = remote();
        arrive(&policy, set(&[ed_jwk("k")]), NOW_S);
        assert_eq!(reason(&policy, "k", NOW_S), "token");
        arrive(&policy, bad, NOW_S + 300);
        assert_eq!(reason(&policy, "k", NOW_S + 300), "token");
        // Stale, in the cache or not.
        assert_eq!(reason(&policy, "k", NOW_S + 3600), "token");
        assert_eq!(reason(&policy, "k", NOW_S + 3601), "keys_unavailable");
        arrive(&policy, set(&[ed_jwk("k")]), NOW_S + 3602);
        assert_eq!(reason(&policy, "k", NOW_S + 3602), "token");
    }
}

#[test]
fn a_fetch_is_made_again_in_time_and_no_sooner() {
    let policy = remote();
    assert_eq!(tick(&policy, NOW_S).len(), 1);
    arrive(&policy, set(&[ed_jwk("k")]), NOW_S);
    assert_eq!(tick(&policy, NOW_S + 299), []);
    assert_eq!(tick(&policy, NOW_S + 300).len(), 1);
    arrive(&policy, Fetched::Failed, NOW_S + 301);
    let retry = NOW_S + 301 + RETRY_MS / 1000;
    assert_eq!(tick(&policy, retry - 1), []);
    assert_eq!(tick(&policy, retry).len(), 1);
    // Nobody ever says what became of it.
    assert_eq!(tick(&policy, retry + 60).len(), 1);
    // The clock goes back by a day.
    assert_eq!(tick(&policy, NOW_S - 86_400).len(), 1);
    // What nobody asked for changes nothing.
    policy.fetched(7, set(&[]), &MemoryHost::at(now()));
    policy.fetched(1, set(&[]), &MemoryHost::at(now()));
    assert_eq!(reason(&policy, "k", NOW_S), "token");
}

#[test]
fn workers_that_began_together_do_not_ask_together_for_ever() {
    for (random, seconds) in [(0, 300), (0x80, 285), (0xff, 270)] {
        let policy = remote();
        let mut host = MemoryHost::at(now());
        host.set_random(random);
        policy.fetched(0, set(&[ed_jwk("k")]), &host);
        assert_eq!(tick(&policy, NOW_S + seconds - 1), [], "{random}");
        assert_eq!(tick(&policy, NOW_S + seconds).len(), 1, "{random}");
    }
}

#[test]
fn two_keys_of_one_name_in_a_fetched_set_are_both_tried() {
    let policy = remote();
    let other = B64.encode(SigningKey::from_bytes(&[4; 32]).verifying_key().to_bytes());
    let other = with(ed_jwk("k"), "x", json!(other));
    for keys in [
        [ed_jwk("k"), other.clone()],
        [other.clone(), ed_jwk("k")],
        // A name of several algorithms: the token's chooses among them.
        [with(p256_jwk("k"), "alg", json!("ES256")), ed_jwk("k")],
    ] {
        arrive(&policy, set(&keys), NOW_S);
        assert_eq!(reason(&policy, "k", NOW_S), "token");
    }
    arrive(&policy, set(&[other.clone(), other]), NOW_S);
    assert_eq!(reason(&policy, "k", NOW_S), "signature");
}

#[test]
fn inline_keys_need_no_fetched_ones() {
    let policy = with_issuer(|issuer| {
        issuer.jwks_url = Some(JwksUrl::new(
            "127.0.0.1:1",
            "a",
            "/",
            vec![Algorithm::EdDSA],
        ));
    })
    .unwrap();
    let good = bearing(&token(&claims()));
    passes(decide_at(&policy, &good, now()));
    passes(decide_at(&policy, &good, now()));
    assert_eq!(reason(&policy, "k", NOW_S), "keys_unavailable");
}

#[test]
fn faults_of_a_url() {
    let faults = |change: &dyn Fn(&mut JwksUrl)| {
        let mut url = JwksUrl::new("127.0.0.1:1", "a", "/", vec![Algorithm::RS256]);
        change(&mut url);
        with_issuer(|issuer| issuer.jwks_url = Some(url))
            .map(drop)
            .unwrap_err()
            .join(" ")
            .replace("issuers[0].jwks_url.", "")
    };
    for authority in [
        "",
        "127.0.0.1",
        "127.0.0.1:0",
        "issuer.example:80",
        "10.0.0.1:80",
    ] {
        assert_eq!(faults(&|url| url.authority = authority.into()), "authority");
    }
    for host in ["", "a b", "a\r\nx: y"] {
        assert_eq!(faults(&|url| url.host = host.into()), "host");
    }
    for path in ["", "x", "/a b", "/a\r\n", "/#a"] {
        assert_eq!(faults(&|url| url.path = path.into()), "path");
    }
    assert_eq!(faults(&|url| url.algorithms.clear()), "algorithms");
    for more in [Algorithm::HS256, Algorithm::RS256] {
        assert_eq!(faults(&|url| url.algorithms.push(more)), "algorithms[1]");
    }
    for refresh_s in [0, 9, 86_401] {
        let found = faults(&|url| (url.refresh_s, url.stale_s) = (refresh_s, 90_000));
        assert_eq!(found, "refresh_s");
    }
    for stale_s in [0, 299, 604_801] {
        assert_eq!(faults(&|url| url.stale_s = stale_s), "stale_s");
    }
    for timeout_ms in [0, 99, 30_001] {
        assert_eq!(faults(&|url| url.timeout_ms = timeout_ms), "timeout_ms");
    }
}
