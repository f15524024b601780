//! Configurations: what is refused, by path, and never with a secret in the text.

use super::*;
use crate::filter::load;

fn faults(change: impl FnOnce(&mut JwtAuth)) -> Vec<String> {
    let mut config = config();
    change(&mut config);
    compile(&config)
        .unwrap_err()
        .into_iter()
        .map(|fault| fault.path)
        .collect()
}

fn pem_faults(algorithm: Algorithm, pem: &str) -> Vec<String> {
    faults(|config| {
        config.issuers[0].keys = vec![public(None, algorithm, pem.to_owned())];
    })
}

#[test]
fn every_fault_is_reported_at_once() {
    let found = faults(|config| {
        config.issuers[0].audiences.clear();
        config.issuers[0].keys[0] = hs256(None, &[1; 31]);
        config.issuers[0].keys[1].kid = Some("e".into());
        config.issuers[1].issuer = ISSUER.into();
        config.issuers[1].keys.clear();
        config.leeway_s = 31;
        config.required_scopes = vec!["a b".into(), "ok".into(), String::new()];
        config.assertion.kid.clear();
        config.assertion.audience = "a\nb".into();
        config.assertion.lifetime_s = 601;
        config.assertion.signing_key = "AAAA".into();
    });
    assert_eq!(
        found,
        [
            "issuers[0].audiences",
            "issuers[0].keys[0].secret",
            "issuers[0].keys[2].kid",
            "issuers[1].issuer",
            "issuers[1].keys",
            "leeway_s",
            "required_scopes[0]",
            "required_scopes[2]",
            "assertion.audience",
            "assertion.kid",
            "assertion.lifetime_s",
            "assertion.signing_key",
        ]
    );
    assert_eq!(faults(|config| config.issuers.clear()), ["issuers"]);
}

#[test]
fn a_key_has_what_its_algorithm_takes() {
    let key = |secret: Option<&str>, public_key: Option<&str>, algorithm| {
        faults(|config| {
            config.issuers[0].keys = vec![Key {
                kid: None,
                algorithm,
                secret: secret.map(str::to_owned),
                public_key: public_key.map(str::to_owned),
                jwk: None,
            }];
        })
    };
    let secret = B64.encode(SECRET);
    let padded = format!("{secret}=");
    let pem = ed_pem();
    for (secret, public_key, algorithm, field) in [
        (None, None, Algorithm::HS256, "secret"),
        (None, Some(pem.as_str()), Algorithm::HS256, "public_key"),
        (
            Some(secret.as_str()),
            Some(pem.as_str()),
            Algorithm::HS256,
            "public_key",
        ),
        (Some(padded.as_str()), None, Algorithm::HS256, "secret"),
        (Some("not base64!"), None, Algorithm::HS256, "secret"),
        (Some(""), None, Algorithm::HS256, "secret"),
        (Some(secret.as_str()), None, Algorithm::RS256, "secret"),
        (
            Some(secret.as_str()),
            Some(pem.as_str()),
            Algorithm::EdDSA,
            "secret",
        ),
        (None, None, Algorithm::ES256, "public_key"),
        (None, Some(""), Algorithm::EdDSA, "public_key"),
    ] {
        assert_eq!(
            key(secret, public_key, algorithm),
            [format!("issuers[0].keys[0].{field}")]
        );
    }
}

#[test]
fn weak_and_foreign_public_keys_are_refused() {
    for (algorithm, pem) in [
        (Algorithm::RS256, include_str!("keys/rsa-1024-bits.pem")),
        (Algorithm::RS256, include_str!("keys/rsa-exponent-1.pem")),
        (Algorithm::RS256, include_str!("keys/rsa-exponent-even.pem")),
        (Algorithm::RS256, include_str!("keys/p256-rfc7515-a3.pem")),
        (Algorithm::ES256, include_str!("keys/p384.pem")),
        (Algorithm::ES384, include_str!("keys/p256-rfc7515-a3.pem")),
        (Algorithm::ES512, include_str!("keys/p384.pem")),
        (Algorithm::ES256, include_str!("keys/rsa-rfc7515-a2.pem")),
        (Algorithm::EdDSA, include_str!("keys/p256-rfc7515-a3.pem")),
        (
            Algorithm::EdDSA,
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n",
        ),
    ] {
        assert_eq!(
            pem_faults(algorithm, pem),
            ["issuers[0].keys[0].public_key"],
            "{pem}"
        );
    }
}

#[test]
fn faults_of_the_text_name_the_field_and_no_value() {
    let good = serde_json::to_value(config()).unwrap();
    assert!(load::<Policy>(good.to_string().as_bytes()).is_ok());
    let secret = B64.encode(SECRET);
    let fault = |change: &dyn Fn(&mut Value)| {
        let mut json = good.clone();
        change(&mut json);
        let faults = load::<Policy>(json.to_string().as_bytes()).unwrap_err();
        let text = faults[0].to_string();
        assert!(!text.contains(&secret), "{text}");
        text
    };
    assert!(fault(&|json| json["leeway_s"] = json!(secret)).contains("wrong type"));
    assert!(
        fault(&|json| json["issuers"][0]["keys"][0]["algorithm"] = json!(secret))
            .contains("wrong type")
    );
    assert!(fault(&|json| json["leewya_s"] = json!(1)).contains("unknown field `leewya_s`"));
    assert!(
        fault(&|json| {
            json.as_object_mut().unwrap().remove("assertion");
        })
        .contains("missing field `assertion`")
    );
    for text in [&b""[..], b"null", b"[]", b"{", b"\xff"] {
        assert_eq!(load::<Policy>(text).unwrap_err()[0].path, "config");
    }
}

#[test]
fn a_public_key_in_pem_says_what_it_is_for() {
    use p256::pkcs8::der::asn1::{AnyRef, BitStringRef, Null};
    use p256::pkcs8::spki::AlgorithmIdentifierRef;
    use p256::pkcs8::{Document, ObjectIdentifier, SubjectPublicKeyInfoRef};
    let rsa = include_str!("keys/rsa-rfc7515-a2.pem");
    let (_, rsa) = Document::from_pem(rsa.trim()).unwrap();
    let rsa = SubjectPublicKeyInfoRef::try_from(rsa.as_bytes()).unwrap();
    let rsa = rsa.subject_public_key.as_bytes().unwrap();
    let point = p256_key().verifying_key().to_sec1_point(true);
    let pem = |oid: &str, parameters, key: &[u8]| {
        let info = SubjectPublicKeyInfoRef {
            algorithm: AlgorithmIdentifierRef {
                oid: ObjectIdentifier::new(oid).unwrap(),
                parameters,
            },
            subject_public_key: BitStringRef::new(0, key).unwrap(),
        };
        let document = Document::try_from(&info).unwrap();
        document.to_pem("PUBLIC KEY", Default::default()).unwrap()
    };
    let reads = |algorithm, pem: &str| {
        let mut config = config();
        config.issuers[0].keys = vec![public(None, algorithm, pem.to_owned())];
        compile(&config).is_ok()
    };
    let (any, pss) = ("1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10");
    let null = Some(AnyRef::from(Null));
    for (oid, parameters, rs, ps) in [
        (any, null, true, true),
        (any, None, false, false),
        // For PSS alone (RFC 4055, section 1.2).
        (pss, None, false, true),
        (pss, null, false, false),
        ("1.3.101.112", None, false, false),
    ] {
        let pem = pem(oid, parameters, rsa);
        assert_eq!(reads(Algorithm::RS256, &pem), rs, "{oid} {parameters:?}");
        assert_eq!(reads(Algorithm::PS256, &pem), ps, "{oid} {parameters:?}");
    }
    let curve = ObjectIdentifier::new("1.2.840.10045.3.1.7").unwrap();
    let compressed = pem(
        "1.2.840.10045.2.1",
        Some(AnyRef::from(&curve)),
        point.as_bytes(),
    );
    assert!(reads(Algorithm::ES256, &compressed));
    assert!(!reads(Algorithm::ES384, &compressed));
    assert!(!reads(
        Algorithm::ES256,
        &compressed.replace("PUBLIC", "PRIVATE")
    ));
}
