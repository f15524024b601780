//! Claims that a configuration asks for, and those that it hands on.

use super::*;
use crate::config::ClaimValue;

fn with_header(header: Value, claims: &Value) -> String {
    raw(
        header.to_string().as_bytes(),
        claims.to_string().as_bytes(),
        &SECRET,
    )
}

fn typed(policy: &Policy, typ: Option<&str>) -> Result<(), (u16, &'static str)> {
    let mut header = json!({"alg": "HS256"});
    if let Some(typ) = typ {
        header["typ"] = json!(typ);
    }
    match decide_at(policy, &bearing(&with_header(header, &claims())), now()) {
        Decision::Pass(_) => Ok(()),
        Decision::Refuse(refusal) => Err((refusal.status, refusal.reason)),
    }
}

#[test]
fn a_token_is_of_a_type_that_its_issuer_issues() {
    let refused = Err((401, "type"));
    let own = ["mesh-assertion+jwt", "application/Mesh-Assertion+JWT"];
    for typ in [
        "JWT",
        "jwt",
        "at+jwt",
        "application/at+jwt",
        "application/JWT",
    ] {
        assert_eq!(typed(&policy(), Some(typ)), Ok(()), "{typ}");
    }
    assert_eq!(typed(&policy(), None), Ok(()));
    for typ in [
        "",
        "secevent+jwt",
        "dpop+jwt",
        "application/",
        "x/JWT",
        own[0],
        own[1],
    ] {
        assert_eq!(typed(&policy(), Some(typ)), refused, "{typ}");
    }
    let mut config = config();
    config.issuers[0].types = vec!["at+jwt".into(), "application/x+jwt".into()];
    let policy = compile(&config).unwrap();
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "x+jwt"] {
        assert_eq!(typed(&policy, Some(typ)), Ok(()), "{typ}");
    }
    for typ in [None, Some("JWT"), Some(own[0])] {
        assert_eq!(typed(&policy, typ), refused, "{typ:?}");
    }
    for typ in ["", own[0], own[1], "a\nb"] {
        config.issuers[0].types = vec!["JWT".into(), typ.into()];
        assert_eq!(compile(&config).unwrap_err()[0].path, "issuers[0].types[1]");
    }
}

#[test]
fn a_token_has_a_greatest_age() {
    let mut config = config();
    config.max_age_s = Some(600);
    let policy = compile(&config).unwrap();
    let reason = |iat: Value, seconds| match decide_at(
        &policy,
        &bearing(&token(&claims_with("iat", iat))),
        at(seconds),
    ) {
        Decision::Pass(pass) => pass.reason,
        Decision::Refuse(refusal) => refusal.reason,
    };
    for _ in 0..2 {
        // The second time from the cache.
        assert_eq!(reason(json!(NOW_S - 600), NOW_S), "token");
        assert_eq!(reason(json!(NOW_S - 600), NOW_S + 29), "token");
        assert_eq!(reason(json!(NOW_S - 600), NOW_S + 30), "too_old");
        assert_eq!(reason(json!(NOW_S - 631), NOW_S), "too_old");
        assert_eq!(reason(json!(null), NOW_S), "missing_claim");
        assert_eq!(reason(json!(NOW_S + 31), NOW_S), "not_yet_valid");
    }
    // The assertion ends when the token is too old, too.
    let pass = passes(decide_at(
        &policy,
        &bearing(&token(&claims_with("iat", json!(NOW_S - 590)))),
        now(),
    ));
    let read = assertion::verify(&pass.set_headers[0].1, &gateway_keys(), "mesh", now()).unwrap();
    assert_eq!(read.exp, NOW_S + 10);
    for age in [0, u64::MAX] {
        config.max_age_s = Some(age);
        assert_eq!(compile(&config).unwrap_err()[0].path, "max_age_s");
    }
}

#[test]
fn required_claims_are_compared_exactly() {
    let mut config = config();
    let text = |text: &str| ClaimValue::Text(text.into());
    config.required_claims = [
        ("tenant".to_owned(), vec![text("acme"), text("umbrella")]),
        ("level".to_owned(), vec![ClaimValue::Integer(3)]),
        ("staff".to_owned(), vec![ClaimValue::Bool(true)]),
        ("jti".to_owned(), vec![]),
    ]
    .into();
    let policy = compile(&config).unwrap();
    let good = json!({"tenant": "acme", "level": 3, "staff": true, "jti": "1"});
    let decide = |name: &str, value: Value| {
        let mut claims = claims();
        let object = claims.as_object_mut().unwrap();
        object.extend(good.as_object().unwrap().clone());
        object.insert(name.into(), value);
        decide_at(&policy, &bearing(&token(&claims)), now())
    };
    for (name, value) in [
        ("tenant", json!("umbrella")),
        ("tenant", json!(["x", "acme"])),
        ("level", json!([1, 3])),
        ("jti", json!(0)),
        ("jti", json!({"a": 1})),
        ("jti", json!([])),
        ("jti", json!(false)),
    ] {
        passes(decide(name, value));
    }
    for (name, value) in [
        ("tenant", json!("Acme")),
        ("tenant", json!("acme ")),
        ("tenant", json!("acme umbrella")),
        ("tenant", json!(["x"])),
        ("tenant", json!([])),
        ("tenant", json!([["acme"]])),
        ("tenant", json!({"acme": "acme"})),
        ("tenant", json!(null)),
        ("level", json!("3")),
        ("level", json!(3.5)),
        ("level", json!(3.0)),
        ("level", json!(-3)),
        ("level", json!(true)),
        ("staff", json!("true")),
        ("staff", json!(1)),
        ("staff", json!(false)),
        ("jti", json!(null)),
    ] {
        let refusal = refuses(decide(name, value));
        assert_eq!((refusal.status, refusal.reason), (403, "claim"));
        assert!(
            refusal.headers[1]
                .1
                .contains("error=\"insufficient_scope\"")
        );
    }
    // Absent altogether.
    let refusal = refuses(decide_at(&policy, &bearing(&token(&claims())), now()));
    assert_eq!(refusal.reason, "claim");
}

fn handing_on(names: &[&str]) -> Policy {
    let mut config = config();
    config.hand_on_claims = names.iter().map(|name| (*name).to_owned()).collect();
    compile(&config).unwrap()
}

#[test]
fn named_claims_are_handed_on_as_text() {
    let policy = handing_on(&[
        "tenant", "level", "ratio", "staff", "groups", "none", "empty",
    ]);
    let mut claims = claims();
    claims["tenant"] = json!("acme & söns");
    claims["level"] = json!(3);
    claims["staff"] = json!(true);
    claims["groups"] = json!(["a", "b"]);
    claims["empty"] = json!(null);
    claims["other"] = json!("not named");
    let text = claims.to_string().replacen('{', r#"{"ratio":1.50,"#, 1);
    let token = raw(br#"{"alg":"HS256"}"#, text.as_bytes(), &SECRET);
    // The second time from the cache, the third signed anew.
    for seconds in [NOW_S, NOW_S, NOW_S + 45] {
        let pass = passes(decide_at(&policy, &bearing(&token), at(seconds)));
        let expected = BTreeMap::from(
            [
                ("tenant", "acme & söns"),
                ("level", "3"),
                ("ratio", "1.50"),
                ("staff", "true"),
                ("groups", "a b"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        assert_eq!(caller(&pass).claims, expected);
        let value = &pass.set_headers[0].1;
        let read = assertion::verify(value, &gateway_keys(), "mesh", at(seconds)).unwrap();
        assert_eq!(read.claims, expected);
    }
}

#[test]
fn what_cannot_be_handed_on_is_refused() {
    let policy = handing_on(&["a", "b"]);
    let decide = |a: Value, b: Value| {
        let mut claims = claims();
        (claims["a"], claims["b"]) = (a, b);
        decide_at(&policy, &bearing(&token(&claims)), now())
    };
    for a in [
        json!({"x": 1}),
        json!([1]),
        json!(["a", null]),
        // Joined, nobody could tell them from two others.
        json!(["a b"]),
        json!(["a", ""]),
        json!("a\r\nx-injected: 1"),
        json!(["a\u{7f}"]),
        json!("x".repeat(1024)),
        json!(vec!["x"; 600]),
    ] {
        let refusal = refuses(decide(a, json!(null)));
        assert_eq!((refusal.status, refusal.reason), (401, "hand_on"));
    }
    passes(decide(json!("x".repeat(511)), json!("x".repeat(511))));
    let refusal = refuses(decide(json!("x".repeat(512)), json!("x".repeat(511))));
    assert_eq!(refusal.reason, "hand_on");
}

#[test]
fn an_assertion_that_nobody_would_read_is_refused() {
    let mut config = config();
    config.hand_on_claims = vec!["a".into()];
    let policy = compile(&config).unwrap();
    let mut claims = claims();
    claims["sub"] = json!("\\".repeat(255));
    claims["scope"] = json!("s".repeat(1024));
    claims["a"] = json!("\\".repeat(1000));
    let refusal = refuses(decide_at(&policy, &bearing(&token(&claims)), now()));
    assert_eq!((refusal.status, refusal.reason), (401, "hand_on"));
}

#[test]
fn names_of_claims_are_checked() {
    let faults = |change: &dyn Fn(&mut JwtAuth)| {
        let mut config = config();
        change(&mut config);
        let faults = compile(&config).unwrap_err();
        faults
            .into_iter()
            .map(|fault| fault.path)
            .collect::<Vec<_>>()
    };
    for name in ["iss", "aud", "scope", "exp", "nbf", "iat", ""] {
        let require = |config: &mut JwtAuth| {
            config.required_claims.insert(name.into(), vec![]);
        };
        assert_eq!(faults(&require), [format!("required_claims.{name}")]);
        let hand_on = |config: &mut JwtAuth| config.hand_on_claims = vec![name.into()];
        assert_eq!(faults(&hand_on), ["hand_on_claims[0]"]);
    }
    for names in [["a", "a"], ["a", "sub"]] {
        let hand_on =
            |config: &mut JwtAuth| config.hand_on_claims = names.map(str::to_owned).into();
        assert_eq!(faults(&hand_on), ["hand_on_claims[1]"]);
    }
    let many: Vec<String> = (0..17).map(|n| format!("c{n}")).collect();
    assert_eq!(
        faults(&|config| config.hand_on_claims = many.clone()),
        ["hand_on_claims"]
    );
    let require = |config: &mut JwtAuth| {
        config.required_claims = many.iter().map(|name| (name.clone(), vec![])).collect();
    };
    assert_eq!(faults(&require), ["required_claims"]);
    let sub = |config: &mut JwtAuth| {
        let values = vec![ClaimValue::Text("alice".into())];
        config.required_claims.insert("sub".into(), values);
    };
    let mut config = config();
    sub(&mut config);
    let policy = compile(&config).unwrap();
    passes(decide_at(&policy, &bearing(&token(&claims())), now()));
    let bob = token(&claims_with("sub", json!("bob")));
    assert_eq!(
        refuses(decide_at(&policy, &bearing(&bob), now())).reason,
        "claim"
    );
}
