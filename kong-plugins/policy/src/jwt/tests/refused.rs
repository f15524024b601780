//! What is refused, claim by claim and key by key, and that no bytes at all break the filter; the list
//! of bad tokens is in `bad_tokens.rs`.

use super::*;
use proptest::prelude::*;

const HS256: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;

fn with_header(header: &[u8]) -> String {
    raw(header, claims().to_string().as_bytes(), &SECRET)
}

fn with_claims(text: &str) -> String {
    raw(HS256, text.as_bytes(), &SECRET)
}

#[test]
fn keys_serve_their_issuer_and_their_kid_only() {
    let of = |kid: Value, iss: &str, secret: &[u8]| {
        let header = json!({"alg": "HS256", "kid": kid}).to_string();
        let claims = claims_with("iss", json!(iss)).to_string();
        raw(header.as_bytes(), claims.as_bytes(), secret)
    };
    passes(decide(&bearing(&of(json!("h"), ISSUER, &[8; 32]))));
    passes(decide(&bearing(&of(
        json!("o"),
        "https://other.example",
        &[9; 32],
    ))));
    assert_eq!(
        refusal_of(&of(json!("o"), ISSUER, &[9; 32])),
        (401, "unknown_key")
    );
    assert_eq!(
        refusal_of(&of(json!("h"), ISSUER, &SECRET)),
        (401, "signature")
    );
    assert_eq!(
        refusal_of(&of(json!(null), ISSUER, &SECRET)),
        (401, "malformed")
    );
    let other = "https://other.example";
    assert_eq!(
        refusal_of(&token(&claims_with("iss", json!(other)))),
        (401, "unknown_key")
    );
    for iss in [
        json!(null),
        json!(""),
        json!(format!("{ISSUER}/")),
        json!("HTTPS://ISSUER.EXAMPLE"),
    ] {
        assert_eq!(
            refusal_of(&token(&claims_with("iss", iss))),
            (401, "unknown_issuer")
        );
    }
    assert_eq!(
        refusal_of(&token(&claims_with("iss", json!([ISSUER])))),
        (401, "malformed")
    );
}

#[test]
fn keys_in_a_token_are_not_read() {
    let x = B64.encode(ed_key().verifying_key().to_bytes());
    for extra in [
        json!({"jku": "https://evil.example/jwks"}),
        json!({"x5u": "https://evil.example/cert"}),
        json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": x}}),
        json!({"x5c": ["MIIB"]}),
    ] {
        let mut header = json!({"alg": "HS256"});
        let fields = extra.as_object().unwrap().clone();
        header.as_object_mut().unwrap().extend(fields);
        let header = header.to_string();
        passes(decide(&bearing(&with_header(header.as_bytes()))));
        let forged = raw(header.as_bytes(), claims().to_string().as_bytes(), &[0; 32]);
        assert_eq!(refusal_of(&forged), (401, "signature"));
    }
}

#[test]
fn faulty_claims_are_refused() {
    let base = claims().to_string();
    let base = base.trim_end_matches('}');
    for more in [
        r#","nbf":"0"}"#,
        r#","nbf":null}"#,
        r#","nbf":-1}"#,
        r#","nbf":1e400}"#,
        r#","nbf":-1e400}"#,
        r#","nbf":1e300}"#,
        r#","nbf":NaN}"#,
        r#","nbf":253402300800}"#,
        r#","nbf":99999999999999999999}"#,
        r#","nbf":[1]}"#,
        r#","scope":1}"#,
        r#","scope":"a\"b"}"#,
        r#","scope":"a\nb"}"#,
        r#","scope":"ü"}"#,
    ] {
        assert_eq!(
            refusal_of(&with_claims(&format!("{base}{more}"))),
            (401, "malformed"),
            "{more}"
        );
    }
    for sub in [
        json!(""),
        json!("a\nb"),
        json!("a\u{7f}"),
        json!("x".repeat(256)),
        json!(1),
        json!(["a"]),
    ] {
        assert_eq!(
            refusal_of(&token(&claims_with("sub", sub))),
            (401, "malformed")
        );
    }
    for aud in [
        json!(1),
        json!([1]),
        json!(["mesh", null]),
        json!({"mesh": 1}),
    ] {
        assert_eq!(
            refusal_of(&token(&claims_with("aud", aud))),
            (401, "malformed")
        );
    }
    for aud in [
        json!(null),
        json!([]),
        json!(""),
        json!("Mesh"),
        json!(["x"]),
        json!("mesh "),
    ] {
        assert_eq!(
            refusal_of(&token(&claims_with("aud", aud))),
            (401, "audience")
        );
    }
    for name in ["exp", "sub"] {
        assert_eq!(
            refusal_of(&token(&claims_with(name, json!(null)))),
            (401, "missing_claim")
        );
    }
    for (name, value, reason) in [
        ("exp", json!(NOW_S - 30), "expired"),
        ("exp", json!(0), "expired"),
        ("exp", json!(NOW_S as f64 - 30.5), "expired"),
        ("nbf", json!(NOW_S + 31), "not_yet_valid"),
        ("nbf", json!(NOW_S as f64 + 30.5), "not_yet_valid"),
        ("iat", json!(NOW_S + 31), "not_yet_valid"),
    ] {
        assert_eq!(refusal_of(&token(&claims_with(name, value))), (401, reason));
    }
}

#[test]
fn deep_and_unfinished_json_is_refused() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for text in [
            open.repeat(1000),
            format!("{{\"x\":{}1{}", open.repeat(500), close.repeat(499)),
        ] {
            assert_eq!(refusal_of(&with_claims(&text)), (401, "malformed"));
        }
    }
}

#[test]
fn two_tokens_are_none() {
    let good = token(&claims());
    let two = bearing(&good).with("authorization", format!("Bearer {good}"));
    for head in [
        two,
        bearing(&good).with("authorization", "Basic YTpi"),
        bearing(&format!("{good} {good}")),
        bearing(&format!("{good},Bearer {good}")),
        bearing(&format!("{good}, {good}")),
        bearing(&format!("{good}\t")),
    ] {
        let refusal = refuses(decide(&head));
        assert_eq!((refusal.status, refusal.reason), (400, "several_tokens"));
    }
}

#[test]
fn an_answer_does_not_tell_issuer_key_and_signature_apart() {
    let header = |token: &str| refuses(decide(&bearing(token))).headers;
    let wrong_issuer = header(&token(&claims_with("iss", json!("x"))));
    let wrong_key = header(&with_header(br#"{"alg":"HS256","kid":"zz"}"#));
    // Expired as well, which nobody learns without the key.
    let expired = claims_with("exp", json!(0)).to_string();
    let wrong_signature = header(&raw(HS256, expired.as_bytes(), &[0; 32]));
    assert_eq!(wrong_issuer, wrong_key);
    assert_eq!(wrong_key, wrong_signature);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_refused(value in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bare = MemoryHead::new("POST", "/").with("authorization", value.clone());
        refuses(decide(&bare));
        let mut bearer = b"Bearer ".to_vec();
        bearer.extend(value);
        refuses(decide(&MemoryHead::new("POST", "/").with("authorization", bearer)));
    }

    #[test]
    fn any_signed_header_and_claims_are_survived(
        header in "\\{\"alg\":\"HS256\"(,\"[a-z]{1,4}\":[0-9a-z\"\\[\\]{}.eE+-]{0,20}){0,3}\\}",
        claims in "\\{(\"(iss|aud|sub|exp|nbf|iat|scope|x)\":[0-9a-z\"\\[\\]{}.,eE+-]{0,30},?){0,6}\\}",
    ) {
        decide(&bearing(&raw(header.as_bytes(), claims.as_bytes(), &SECRET)));
    }

    #[test]
    fn any_flipped_bit_of_a_good_token_is_refused(bit in 0usize..1600) {
        let mut bytes = token(&claims()).into_bytes();
        let index = (bit / 8) % bytes.len();
        bytes[index] ^= 1 << (bit % 8);
        let mut value = b"Bearer ".to_vec();
        value.extend(bytes);
        refuses(decide(&MemoryHead::new("POST", "/").with("authorization", value)));
    }

    #[test]
    fn any_configuration_text_is_survived(json in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(crate::filter::load::<Policy>(&json).is_err());
    }
}
