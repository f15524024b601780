//! The assertion that stands for a verified token, and the cache of both.

use super::super::cache::GENERATION;
use super::*;

fn assertion_at(policy: &Policy, token: &str, seconds: u64) -> (String, assertion::Claims) {
    let pass = passes(decide_at(policy, &bearing(token), at(seconds)));
    let (_, value) = pass.set_headers.into_iter().next().unwrap();
    let claims = assertion::verify(&value, &gateway_keys(), "mesh", at(seconds)).unwrap();
    (value, claims)
}

#[test]
fn an_assertion_serves_until_half_its_life_is_gone() {
    let (policy, token) = (policy(), token(&claims()));
    let (first, _) = assertion_at(&policy, &token, NOW_S);
    assert_eq!(assertion_at(&policy, &token, NOW_S + 30).0, first);
    let (second, claims) = assertion_at(&policy, &token, NOW_S + 31);
    assert_ne!(second, first);
    assert_eq!((claims.iat, claims.exp), (NOW_S + 31, NOW_S + 91));
    // A clock that was set back does not hand out what is signed in the future.
    assert_eq!(assertion_at(&policy, &token, NOW_S).1.iat, NOW_S);
}

#[test]
fn an_assertion_ends_with_the_token() {
    let policy = policy();
    let token = token(&claims_with("exp", json!(NOW_S as f64 + 10.9)));
    let (first, claims) = assertion_at(&policy, &token, NOW_S);
    assert_eq!(claims.exp, NOW_S + 10);
    // A new one would end no later: it is not signed, also within the leeway.
    assert_eq!(assertion_at(&policy, &token, NOW_S + 9).0, first);
    assert_eq!(assertion_at(&policy, &token, NOW_S + 39).0, first);
    let refusal = refuses(decide_at(&policy, &bearing(&token), at(NOW_S + 41)));
    assert_eq!(refusal.reason, "expired");
}

#[test]
fn a_cached_token_is_still_judged_by_the_clock() {
    let policy = policy();
    let mut claims = claims();
    claims["nbf"] = json!(NOW_S);
    let token = token(&claims);
    assertion_at(&policy, &token, NOW_S);
    let early = refuses(decide_at(&policy, &bearing(&token), at(NOW_S - 31)));
    assert_eq!(early.reason, "not_yet_valid");
    let late = refuses(decide_at(&policy, &bearing(&token), at(NOW_S + 3630)));
    assert_eq!(late.reason, "expired");
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_used() {
    let policy = policy();
    let used = token(&claims());
    let (first, _) = assertion_at(&policy, &used, NOW_S);
    let entry = policy.verify(used.as_bytes(), now()).unwrap();
    for number in 0..10 * GENERATION {
        let hash = Sha256::digest(number.to_le_bytes()).into();
        policy.verified.borrow_mut().insert(hash, entry.clone());
        assert!(policy.verified.borrow().len() <= 2 * GENERATION);
        if number % (GENERATION / 2) == 0 {
            assert_eq!(assertion_at(&policy, &used, NOW_S).0, first);
        }
    }
    let hash: [u8; 32] = Sha256::digest(used.as_bytes()).into();
    assert_eq!(
        policy
            .verified
            .borrow_mut()
            .get_mut(&hash)
            .unwrap()
            .minted
            .assertion(),
        first
    );
    let gone: [u8; 32] = Sha256::digest(0usize.to_le_bytes()).into();
    assert!(policy.verified.borrow_mut().get_mut(&gone).is_none());
}

#[test]
fn refused_tokens_are_not_cached() {
    let policy = policy();
    for bad in ["x", &token(&claims_with("exp", json!(0)))] {
        refuses(decide_at(&policy, &bearing(bad), now()));
    }
    assert_eq!(policy.verified.borrow().len(), 0);
}

#[test]
fn the_longest_names_make_an_assertion_that_is_read() {
    let name = |c: &str| c.repeat(255);
    let mut config = config();
    config.issuers[0].issuer = name("\"");
    config.assertion.issuer = name("\\");
    config.assertion.audience = name("a");
    config.assertion.kid = "g".into();
    let policy = compile(&config).unwrap();
    let mut claims = claims();
    claims["iss"] = json!(name("\""));
    claims["sub"] = json!(name("\\"));
    claims["scope"] = json!("s".repeat(1024));
    let pass = passes(decide_at(&policy, &bearing(&token(&claims)), now()));
    let (_, value) = &pass.set_headers[0];
    let read = assertion::verify(value, &gateway_keys(), &name("a"), now()).unwrap();
    assert_eq!(read.scope.len(), 1024);
}
