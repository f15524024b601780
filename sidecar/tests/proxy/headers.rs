//! What passes of a request's and an answer's headers, and who says who is calling.

use crate::support::{App, Mesh, Pair, full, get, send};
use hyper::Response;
use mesh_sidecar::identity::Alpn;
use serde_json::json;

#[tokio::test]
async fn headers_of_one_hop_end_at_each_sidecar() {
    let app = App::answering(|_| {
        Response::builder()
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authenticate", "Basic")
            .header("x-public", "1")
            .body(full("ok"))
            .unwrap()
    })
    .await;
    for between in ["http1", "http2"] {
        let pair = Pair::between(app.address, between).await;
        let mut request = get("/");
        for (name, value) in [
            ("connection", "x-secret, keep-alive, \"odd\""),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("x-kept", "\u{e9}"),
            ("cookie", "a=b"),
            ("authorization", "Bearer x"),
        ] {
            let value = hyper::header::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().append(name, value);
        }
        let answer = pair.send(request).await;
        assert_eq!(answer.header("x-public"), Some("1"));
        for gone in ["x-private", "keep-alive", "proxy-authenticate", "via"] {
            assert_eq!(answer.header(gone), None, "{gone}");
        }
        let seen = app.seen().pop().unwrap().headers;
        for gone in [
            "connection",
            "x-secret",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "te",
            "upgrade",
            "http2-settings",
            "via",
        ] {
            assert!(!seen.contains_key(gone), "{between} {gone}");
        }
        assert_eq!(seen["x-kept"].as_bytes(), "\u{e9}".as_bytes());
        assert_eq!(seen["cookie"], "a=b");
        assert_eq!(seen["authorization"], "Bearer x");
    }
}

#[tokio::test]
async fn the_program_hears_where_a_request_came_from() {
    let app = App::start().await;
    let pair = Pair::between(app.address, "http2").await;
    pair.get("/").await;
    let seen = app.seen().pop().unwrap();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("target"));
    assert_eq!(seen.header("host"), Some(&*app.address.to_string()));
    // What a gateway before said stays; what proxies say of certificates does not.
    let mut request = get("/");
    for (name, value) in [
        ("connection", "x-forwarded-for, host"),
        ("x-forwarded-for", "9.9.9.9"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "mesh.example"),
        ("x-forwarded-client-cert", "evil"),
        ("client-cert", "evil"),
    ] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    pair.send(request).await;
    let seen = app.seen().pop().unwrap();
    // One who has it removed by `Connection` has only removed his own.
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("mesh.example"));
    assert_eq!(seen.header("x-forwarded-client-cert"), None);
    assert_eq!(seen.header("client-cert"), None);
    let mut request = get("/");
    let headers = request.headers_mut();
    headers.append("x-forwarded-for", "9.9.9.9".parse().unwrap());
    headers.append("x-forwarded-for", "8.8.8.8".parse().unwrap());
    pair.send(request).await;
    let seen = app.seen().pop().unwrap();
    assert_eq!(
        seen.header("x-forwarded-for"),
        Some("9.9.9.9, 8.8.8.8, 127.0.0.1")
    );
}

/// A key that nobody has the other half of.
const KEY: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

#[tokio::test]
async fn on_a_path_that_is_exempt_headers_pass_as_they_came() {
    let app = App::start().await;
    let mesh = Mesh::new();
    let config = json!({
        "app": {"url": format!("http://{}", app.address), "health": {"check": "tcp"}},
        "policy": {
            "intentions": [{"from": "any"}],
            "assertions": {"audience": "mesh", "keys": [{"kid": "k", "x": KEY}]},
        },
    });
    let inbound = json!({"assertion": {"required": {"except": ["/internal"]}}});
    let target = mesh.before_with("target", config, inbound).await;
    let caller = mesh.beside("gateway", json!({})).await;
    let refused = send(caller.out(), get("/tasks")).await;
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.header("content-type"),
        Some("application/problem+json")
    );
    assert!(app.seen().is_empty());
    assert_eq!(send(caller.out(), get("/internal/load")).await.status, 200);
    let seen = app.seen().pop().unwrap();
    let forwarded = |name: &str| name.starts_with("x-forwarded") || name == "via";
    assert!(
        !seen.headers.keys().any(|n| forwarded(n.as_str())),
        "{seen:?}"
    );
    let mut request = get("/internal/load");
    let host = "mesh.example".parse().unwrap();
    request.headers_mut().append("x-forwarded-host", host);
    send(caller.out(), request).await;
    let seen = app.seen().pop().unwrap();
    assert_eq!(seen.header("x-forwarded-host"), Some("mesh.example"));
    assert_eq!(seen.header("x-forwarded-for"), None);
    let labels = [
        ("direction", "inbound"),
        ("peer", "gateway"),
        ("code", "401"),
    ];
    assert!(target.metric("sidecar_requests_total", &labels) > 0.5);
}

#[tokio::test]
async fn where_only_the_gateway_must_show_an_assertion_others_are_forwarded_as_well() {
    let app = App::start().await;
    let mesh = Mesh::new();
    let config = json!({
        "app": {"url": format!("http://{}", app.address), "health": {"check": "tcp"}},
        "policy": {
            "intentions": [{"from": "any"}],
            "assertions": {"audience": "mesh", "keys": [{"kid": "k", "x": KEY}]},
        },
    });
    let inbound = json!({"assertion": {"required": {"from": ["gateway"]}}});
    let _target = mesh.before_with("target", config, inbound).await;
    let caller = mesh.beside("caller", json!({})).await;
    assert_eq!(send(caller.out(), get("/")).await.status, 200);
    let seen = app.only();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-host"), Some("target"));
}

#[tokio::test]
async fn cookies_of_their_own_fields_arrive_as_one() {
    let app = App::start().await;
    let pair = Pair::between(app.address, "http2").await;
    let mut request = get("/");
    for cookie in ["a=1", "b=2"] {
        request
            .headers_mut()
            .append("cookie", cookie.parse().unwrap());
    }
    pair.send(request).await;
    let seen = app.only();
    assert_eq!(seen.headers.get_all("cookie").iter().count(), 1);
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
}

#[tokio::test]
async fn a_target_of_a_fragment_alone_is_the_root() {
    let app = App::start().await;
    let pair = Pair::between(app.address, "http1").await;
    let inbound = pair.target.inbound.unwrap();
    let tls = pair.mesh.connect("caller", "target", inbound, Alpn::Http1);
    let mut tls = tls.await;
    let head = "GET http://target#/admin HTTP/1.1\nhost: target\nconnection: close\n\n";
    crate::raw::write(&mut tls, head).await;
    let answer = crate::raw::to_end(&mut tls).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(app.only().target, "/");
}

#[tokio::test]
async fn only_the_certificate_says_who_calls() {
    let app = App::start().await;
    let mesh = Mesh::new();
    let config = json!({
        "app": {"url": format!("http://{}", app.address), "health": {"check": "tcp"}},
        "policy": {"intentions": [{"from": {"services": ["friend"]}, "methods": ["GET"], "paths": ["/open"]}]},
    });
    let _target = mesh.before_with("target", config, json!({})).await;
    let friend = mesh.beside("friend", json!({})).await;
    let other = mesh.beside("other", json!({})).await;
    for (caller, path, status) in [
        (&friend, "/open/a", 200),
        (&friend, "/closed", 403),
        (&friend, "/open/../closed", 400),
        (&other, "/open/a", 403),
    ] {
        let mut request = get(path);
        let claim = "spiffe://mesh.test/svc/friend".parse().unwrap();
        request.headers_mut().append("x-mesh-agent", claim);
        assert_eq!(send(caller.out(), request).await.status, status, "{path}");
    }
    let seen = app.only();
    assert_eq!(seen.header("x-mesh-agent"), None);
}
