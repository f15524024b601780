//! Where a token may stand, and who a request without one comes from.

use super::*;
use crate::config::{Anonymous, Sources};

fn with_sources(cookie: Option<&str>, query: Option<&str>) -> Policy {
    let mut config = config();
    config.sources = Sources {
        cookie: cookie.map(str::to_owned),
        query: query.map(str::to_owned),
    };
    compile(&config).unwrap()
}

fn both() -> Policy {
    with_sources(Some("session"), Some("access_token"))
}

#[test]
fn cookies_and_addresses_hold_no_tokens_unless_configured() {
    let good = token(&claims());
    let head = MemoryHead::new("GET", &format!("/a?access_token={good}"))
        .with("cookie", format!("session={good}"));
    assert_eq!(refuses(decide(&head)).reason, "no_token");
    for policy in [
        with_sources(Some("other"), None),
        with_sources(None, Some("other")),
    ] {
        assert_eq!(refuses(decide_at(&policy, &head, now())).reason, "no_token");
    }
}

#[test]
fn a_token_in_a_cookie() {
    let (policy, good) = (both(), token(&claims()));
    for cookies in [
        format!("session={good}"),
        format!("a=b; session={good}; c=d"),
        format!("a=b;session=\"{good}\""),
        format!("Session=x; xsession=y; session = {good}"),
    ] {
        let head = MemoryHead::new("GET", "/").with("cookie", cookies);
        passes(decide_at(&policy, &head, now()));
    }
    for cookies in ["session=", "session=x", "session=\"\"", "session=a.b.c"] {
        let head = MemoryHead::new("GET", "/").with("cookie", cookies);
        assert_eq!(
            refuses(decide_at(&policy, &head, now())).reason,
            "malformed"
        );
    }
    for cookies in ["session", "", ";;", "a=session", "\u{ff}"] {
        let head = MemoryHead::new("GET", "/").with("cookie", cookies);
        assert_eq!(refuses(decide_at(&policy, &head, now())).reason, "no_token");
    }
}

#[test]
fn a_token_in_the_address_is_percent_decoded() {
    let (policy, good) = (both(), token(&claims()));
    let decide = |query: &str| {
        let head = MemoryHead::new("GET", &format!("/path?{query}"));
        let mut request = Request::default();
        let decision = policy.decide(&mut request, &head, &MemoryHost::at(now()));
        (decision, policy.response_headers(&request))
    };
    let escaped: String = good.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for query in [
        format!("access_token={good}"),
        format!("a=1&access_token={good}&b=2"),
        format!("access_token={escaped}"),
        format!("acce%73s_token={}", good.replace('.', "%2e")),
    ] {
        let (decision, headers) = decide(&query);
        passes(decision);
        // The response is for this caller alone.
        assert_eq!(headers, [("cache-control", "private".to_owned())]);
    }
    for query in [
        "access_token".to_owned(),
        "access_token=".to_owned(),
        format!("access_token={good}%zz"),
        format!("access_token={good}%"),
        format!("access_token={good}%00"),
        format!("access_token={good}+"),
        format!("access_token=%ff{good}"),
        format!("access_token={good}#x"),
        format!("access_token={good}?x"),
    ] {
        assert_eq!(refuses(decide(&query).0).reason, "malformed", "{query}");
    }
    for query in [
        format!("ACCESS_TOKEN={good}"),
        format!("x?access_token={good}"),
    ] {
        assert_eq!(refuses(decide(&query).0).reason, "no_token", "{query}");
    }
    let bearing = bearing(&good);
    let mut request = Request::default();
    passes(policy.decide(&mut request, &bearing, &MemoryHost::at(now())));
    assert_eq!(policy.response_headers(&request), []);
}

#[test]
fn a_token_in_two_places_is_refused_the_same_one_too() {
    let (policy, good) = (both(), token(&claims()));
    for (other, cookie, query) in [
        (true, format!("session={good}"), "/".to_owned()),
        (true, "session=x".to_owned(), "/".to_owned()),
        (true, String::new(), format!("/?access_token={good}")),
        (true, String::new(), "/?access_token=".to_owned()),
        (
            false,
            format!("session={good}"),
            "/?access_token=x".to_owned(),
        ),
        (
            false,
            format!("session={good}; session={good}"),
            "/".to_owned(),
        ),
        (
            false,
            String::new(),
            format!("/?access_token={good}&access_token={good}"),
        ),
        (
            false,
            String::new(),
            format!("/?access_token={good}&acc%65ss_token=x"),
        ),
    ] {
        let mut head = MemoryHead::new("GET", &query).with("cookie", cookie);
        if other {
            head = head.with("authorization", format!("Bearer {good}"));
        }
        let refusal = refuses(decide_at(&policy, &head, now()));
        assert_eq!((refusal.status, refusal.reason), (400, "several_tokens"));
        // RFC 6750, section 3.1.
        assert!(refusal.headers[1].1.contains("error=\"invalid_request\""));
    }
    // Another scheme is no token.
    let head = MemoryHead::new("GET", "/")
        .with("authorization", "Basic YTpi")
        .with("cookie", format!("session={good}"));
    passes(decide_at(&policy, &head, now()));
}

#[test]
fn names_of_sources_are_checked() {
    let faults = |cookie: Option<&str>, query: Option<&str>| {
        let mut config = config();
        config.sources = Sources {
            cookie: cookie.map(str::to_owned),
            query: query.map(str::to_owned),
        };
        let faults = compile(&config).unwrap_err();
        faults
            .into_iter()
            .map(|fault| fault.path)
            .collect::<Vec<_>>()
    };
    let long = "a".repeat(65);
    for name in ["", "a b", "a=b", "a;b", "ä", long.as_str()] {
        assert_eq!(faults(Some(name), None), ["sources.cookie"]);
        assert_eq!(faults(None, Some(name)), ["sources.query"]);
    }
    for name in ["a&b", "a%62", "a+b", "a#b"] {
        assert_eq!(faults(None, Some(name)), ["sources.query"]);
    }
}

fn anonymous(sub: &str, scope: &str) -> JwtAuth {
    let mut config = config();
    config.anonymous = Some(Anonymous {
        sub: sub.into(),
        scope: scope.into(),
    });
    config
}

#[test]
fn a_request_without_a_token_comes_from_the_anonymous_caller() {
    let policy = compile(&anonymous("anonymous", "tasks:read  x")).unwrap();
    let bare = MemoryHead::new("GET", "/");
    let pass = passes(decide_at(&policy, &bare, now()));
    assert_eq!(pass.reason, "anonymous");
    let found = caller(&pass);
    assert_eq!(
        (found.sub.as_str(), found.origin.as_str()),
        ("anonymous", "gateway")
    );
    assert_eq!(found.scope, "tasks:read x");
    let (_, first) = &pass.set_headers[0];
    let claims = assertion::verify(first, &gateway_keys(), "mesh", now()).unwrap();
    assert_eq!((claims.iat, claims.exp), (NOW_S, NOW_S + 60));
    // Signed once per half life, as for a token.
    let later = |seconds| {
        passes(decide_at(&policy, &bare, at(seconds))).set_headers[0]
            .1
            .clone()
    };
    assert_eq!(&later(NOW_S + 30), first);
    assert_ne!(&later(NOW_S + 31), first);
    let basic = bare.with("authorization", "Basic YTpi");
    assert_eq!(
        passes(decide_at(&policy, &basic, now())).reason,
        "anonymous"
    );
}

#[test]
fn a_bad_token_is_not_anonymous() {
    let policy = compile(&anonymous("anonymous", "")).unwrap();
    for bad in ["", "x", &token(&claims_with("exp", json!(0)))] {
        refuses(decide_at(&policy, &bearing(bad), now()));
    }
    let reserved = MemoryHead::new("GET", "/").with("x_mesh_assertion", "x");
    assert_eq!(refuses(decide_at(&policy, &reserved, now())).status, 400);
    let preflight = MemoryHead::new("OPTIONS", "/")
        .with("origin", "https://a.example")
        .with("access-control-request-method", "POST");
    let pass = passes(decide_at(&policy, &preflight, now()));
    assert_eq!((pass.reason, pass.set_headers), ("preflight", vec![]));
    let good = passes(decide_at(&policy, &bearing(&token(&claims())), now()));
    assert_eq!(caller(&good).sub, "alice");
}

#[test]
fn an_anonymous_caller_has_what_is_required() {
    let faults = |config: &JwtAuth| {
        let faults = compile(config).unwrap_err();
        faults
            .into_iter()
            .map(|fault| fault.path)
            .collect::<Vec<_>>()
    };
    assert_eq!(faults(&anonymous("", "")), ["anonymous.sub"]);
    assert_eq!(faults(&anonymous("a", "a\"b")), ["anonymous.scope"]);
    let mut config = anonymous("a", "x");
    config.required_scopes = vec!["x".into()];
    assert!(compile(&config).is_ok());
    config.required_scopes.push("y".into());
    assert_eq!(faults(&config), ["anonymous.scope"]);
    let mut config = anonymous("a", "");
    config.required_claims.insert("tenant".into(), vec![]);
    assert_eq!(faults(&config), ["anonymous"]);
    // An issuer of the gateway's own name could name the same caller.
    let mut config = anonymous("a", "");
    config.assertion.issuer = ISSUER.into();
    assert_eq!(faults(&config), ["anonymous"]);
}
