//! Each key is for one algorithm, also among those of its own kind.

use super::super::jwk;
use super::*;
use crate::config::Jwk;
use sha2::{Sha384, Sha512};

fn p384_key() -> p384::ecdsa::SigningKey {
    p384::ecdsa::SigningKey::from_slice(&[5; 48]).unwrap()
}

fn p521_key() -> p521::ecdsa::SigningKey {
    // 521 bits in 66 bytes: the first seven are zero.
    let mut bytes = [5; 66];
    bytes[0] = 0;
    p521::ecdsa::SigningKey::from_slice(&bytes).unwrap()
}

/// A token of this algorithm, signed with the secret or key that all tests here share.
fn signed(alg: &str, kid: &str) -> String {
    let header = json!({"alg": alg, "kid": kid}).to_string();
    let text = format!(
        "{}.{}",
        B64.encode(header),
        B64.encode(claims().to_string())
    );
    let signature = match alg {
        "HS256" => mac(&[7; 64], &text),
        "HS384" => Hmac::<Sha384>::new_from_slice(&[7; 64])
            .unwrap()
            .chain_update(text.as_bytes())
            .finalize()
            .into_bytes()
            .to_vec(),
        "HS512" => Hmac::<Sha512>::new_from_slice(&[7; 64])
            .unwrap()
            .chain_update(text.as_bytes())
            .finalize()
            .into_bytes()
            .to_vec(),
        "ES512" => {
            let signature: p521::ecdsa::Signature = p521_key().sign(text.as_bytes());
            signature.to_bytes().to_vec()
        }
        _ => {
            let signature: p384::ecdsa::Signature = p384_key().sign(text.as_bytes());
            signature.to_bytes().to_vec()
        }
    };
    format!("{text}.{}", B64.encode(signature))
}

#[test]
fn a_key_verifies_its_own_algorithm_alone() {
    let secret = |kid: &str, algorithm| Key {
        algorithm,
        ..hs256(Some(kid), &[7; 64])
    };
    let pem = p384_key()
        .verifying_key()
        .to_public_key_pem(Default::default())
        .unwrap();
    let wide = p521_key()
        .verifying_key()
        .to_public_key_pem(Default::default())
        .unwrap();
    let mut config = config();
    config.issuers[0].keys = vec![
        secret("HS256", Algorithm::HS256),
        secret("HS384", Algorithm::HS384),
        secret("HS512", Algorithm::HS512),
        public(Some("ES384"), Algorithm::ES384, pem),
        public(Some("ES512"), Algorithm::ES512, wide),
    ];
    let all = ["HS256", "HS384", "HS512", "ES384", "ES512"];
    let policy = compile(&config).unwrap();
    for alg in all {
        for kid in all {
            let decision = decide_at(&policy, &bearing(&signed(alg, kid)), now());
            if alg == kid {
                passes(decision);
            } else {
                // One secret for three algorithms here, and still none stands in for another.
                assert_eq!(refuses(decision).reason, "unknown_key", "{alg} {kid}");
            }
        }
    }
}

#[test]
fn a_p521_key_may_be_a_jwk_whose_coordinates_are_whole() {
    let point = p521_key().verifying_key().to_sec1_point(false);
    let (x, y) = (point.x().unwrap(), point.y().unwrap());
    let jwk = |x: &[u8]| Jwk {
        kty: "EC".into(),
        crv: Some("P-521".into()),
        kid: Some("ES512".into()),
        x: Some(B64.encode(x)),
        y: Some(B64.encode(y)),
        ..Jwk::default()
    };
    let mut config = config();
    config.issuers[0].keys = vec![Key {
        kid: None,
        algorithm: Algorithm::ES512,
        secret: None,
        public_key: None,
        jwk: Some(jwk(x)),
    }];
    let policy = compile(&config).unwrap();
    let good = bearing(&signed("ES512", "ES512"));
    passes(decide_at(&policy, &good, now()));
    // Without the zero in front, which RFC 7518, section 6.2.1.2, asks for.
    assert_eq!(x[0], 0);
    let short = jwk::compile(&jwk(&x[1..]), &[Algorithm::ES512]);
    assert_eq!(short.map(drop).unwrap_err().0, "x");
    let other = jwk::compile(&jwk(x), &[Algorithm::ES256, Algorithm::ES384]);
    assert_eq!(other.map(drop).unwrap_err().0, "kty");
}

#[test]
fn every_algorithm_has_its_name() {
    for (name, algorithm) in Algorithm::NAMED {
        assert_eq!(serde_json::to_value(algorithm).unwrap(), json!(name));
        assert_eq!(Algorithm::named(name), Some(algorithm));
    }
    assert_eq!(Algorithm::named("none"), None);
}

#[test]
fn a_modulus_with_the_mark_of_roca_is_refused() {
    // 65537 to the 130th: such a power modulo every prime, as those keys' moduli are.
    let mut modulus = vec![1_u8];
    for _ in 0..130 {
        // Times 65537: itself, and itself two bytes further up.
        let mut next = Vec::new();
        let mut carry = 0_u16;
        for place in 0..modulus.len() + 3 {
            let low = modulus.get(place).copied().unwrap_or(0);
            let high = match place.checked_sub(2) {
                Some(place) => modulus.get(place).copied().unwrap_or(0),
                None => 0,
            };
            let sum = u16::from(low) + u16::from(high) + carry;
            next.push((sum & 0xff) as u8);
            carry = sum >> 8;
        }
        while next.last() == Some(&0) {
            next.pop();
        }
        modulus = next;
    }
    modulus.reverse();
    let fault = |modulus: &[u8]| {
        let jwk = Jwk {
            kty: "RSA".into(),
            n: Some(B64.encode(modulus)),
            e: Some("AQAB".into()),
            ..Jwk::default()
        };
        jwk::compile(&jwk, &[Algorithm::RS256]).map(drop)
    };
    let (member, what) = fault(&modulus).unwrap_err();
    assert_eq!(member, "n");
    assert!(what.contains("ROCA"));
    // Two more, and it is another number.
    *modulus.last_mut().unwrap() ^= 2;
    assert_eq!(fault(&modulus), Ok(()));
}
