//! Routes, paths, and what the gateway refuses to start with.

use crate::support::{Answer, Service, Setup};
use std::path::PathBuf;

const ROUTES: &str = "  routes:
  - {name: orchestrate, paths: [/ai/orchestrate]}
  - {name: task, paths: [/task], strip_path: false, methods: [GET]}
";

#[tokio::test]
async fn paths_are_stripped_or_kept() {
    let service = Service::start().await;
    let gateway = Setup::new(service.address, ROUTES).start().await;
    for path in [
        "/ai/orchestrate",
        "/ai/orchestrate/x/y?q=1&r=%2F",
        "/ai//orchestrate/../orchestrate/z",
        "/task/5?a",
    ] {
        assert_eq!(gateway.get(path, "").await.status, 200, "{path}");
    }
    let targets: Vec<_> = service.seen().into_iter().map(|s| s.target).collect();
    assert_eq!(targets, ["/", "/x/y?q=1&r=%2F", "/z", "/task/5?a"]);
}

#[tokio::test]
async fn what_no_route_takes_is_answered_as_kong_answers_it() {
    let service = Service::start().await;
    let gateway = Setup::new(service.address, ROUTES).start().await;
    for answer in [
        gateway.get("/", "").await,
        gateway.get("/ai/../x", "").await,
        gateway.post("/task/5", "", "{}").await,
    ] {
        assert_eq!(answer.status, 404);
        assert_eq!(
            answer.body,
            r#"{"message":"no Route matched with those values"}"#
        );
        assert_eq!(
            answer.header("content-type"),
            Some("application/json; charset=utf-8")
        );
    }
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn bodies_go_both_ways() {
    let service = Service::answering(|seen| {
        hyper::Response::new(http_body_util::Full::new(seen.body.clone()))
    })
    .await;
    let gateway = Setup::new(service.address, ROUTES).start().await;
    let answer = gateway.post("/ai/orchestrate", "", "some body").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "some body"));
    assert_eq!(answer.header("content-length"), Some("9"));
    let chunked = "POST /ai/orchestrate HTTP/1.1\nhost: a\ntransfer-encoding: chunked\nconnection: close\n\n3\nabc\n0\n\n";
    assert_eq!(gateway.raw(chunked).await.status, 200);
    assert_eq!(service.seen()[1].body, "abc");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_a_problem() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let gateway = Setup::new(nobody, ROUTES).start().await;
    let answer = gateway.get("/task/1", "").await;
    assert_eq!(answer.status, 502);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert!(answer.body.contains("bad-gateway"));
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_a_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let rest = "  read_timeout: 50\n  connect_timeout: 50\n".to_owned() + ROUTES;
    let gateway = Setup::new(silent, &rest).start().await;
    let answer = gateway.get("/task/1", "").await;
    assert_eq!(answer.status, 504);
    assert!(answer.body.contains("gateway-timeout"));
}

#[tokio::test]
async fn a_service_that_closed_its_connection_is_asked_again() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Answers once per connection as if it stayed open, and closes on the next request.
    let service = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
            let _ = stream.read(&mut buffer).await;
        }
    });
    let gateway = Setup::new(address, ROUTES).start().await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/task/1", "").await.status, 200);
    }
    service.abort();
}

#[tokio::test]
async fn what_cannot_be_run_is_named() {
    let address = "127.0.0.1:9".parse().unwrap();
    for (rest, word) in [
        ("plugins: [{name: zipkin}]\n", "plugin zipkin"),
        ("upstreams: [{name: 127.0.0.1}]\n", "upstream 127.0.0.1"),
        (
            "upstreams: [{name: p}, {name: p}]\n",
            "upstream p is there twice",
        ),
        ("- {name: t, url: http://pool}\n", "host pool"),
        ("- {name: t, url: https://127.0.0.1}\n", "https"),
        (
            "- {name: t, url: http://127.0.0.1, tls_verify: true}\n",
            "service t: tls_verify",
        ),
        (
            "  routes: [{name: r, paths: [/], snis: [a.test]}]\n",
            "route r: snis",
        ),
        (
            "  routes: [{name: r, paths: [/], request_buffering: true}]\n",
            "route r: request_buffering",
        ),
        (
            "certificates: [{cert: c, key: hunter2}]\n",
            "certificates: tls",
        ),
        (
            "- {name: s, url: http://127.0.0.1}\n",
            "service s is there twice",
        ),
        ("- {name: t}\n", "service t"),
        (
            "routes: [{name: r, service: nobody, paths: [/]}]\n",
            "no service nobody",
        ),
        ("routes: [{name: r, paths: [/]}]\n", "names no service"),
        ("  routes: [{name: r, paths: [~/(]}]\n", "~/("),
        (
            "filter_chains: [{service: x, filters: [{name: a}]}]\n",
            "service x",
        ),
        (
            "filter_chains: [{route: x, filters: [{name: a}]}]\n",
            "route x",
        ),
        ("filter_chains: [{filters: [{name: a}]}]\n", "exactly one"),
        (
            "filter_chains: [{service: s, filters: [{name: ../a}]}]\n",
            "../a",
        ),
        (
            "filter_chains: [{service: s, filters: [{name: a, config: 1}]}]\n",
            "no object",
        ),
        (
            "filter_chains: [{service: s, filters: [{name: absent}]}]\n",
            "absent",
        ),
    ] {
        let refusal = Setup::new(address, rest).refusal().await;
        assert!(refusal.contains(word), "{rest}: {refusal}");
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
}

#[tokio::test]
async fn a_module_that_is_none_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("broken.wasm"), b"\0asm broken").unwrap();
    let rest = "filter_chains: [{service: s, filters: [{name: broken}]}]\n";
    let mut setup = Setup::new("127.0.0.1:9".parse().unwrap(), rest);
    setup.filters = PathBuf::from(directory.path());
    let refusal = setup.refusal().await;
    assert!(refusal.contains("broken"), "{refusal}");
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let service = Service::start().await;
    let gateway = Setup::new(service.address, ROUTES).start().await;
    gateway.get("/task/1", "").await;
    gateway.get("/nowhere", "").await;
    let counted = |route, status| {
        gateway.metric(
            "gateway_requests_total",
            &[("route", route), ("status", status)],
        )
    };
    assert!((counted("task", "200") - 1.0).abs() < f64::EPSILON);
    assert!((counted("none", "404") - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn rubbish_is_answered_and_goes_nowhere() {
    let service = Service::start().await;
    let gateway = Setup::new(service.address, ROUTES).start().await;
    let status = |a: Answer| a.status;
    for (request, expected) in [
        ("rubbish\n\n", 400),
        ("GET /task/1 HTTP/1.1\nconnection: close\n\n", 400),
        (
            "GET /task/1 HTTP/1.1\nhost: a\nhost: b\nconnection: close\n\n",
            400,
        ),
        (
            "GET /task/1 HTTP/1.1\nhost: a b\nconnection: close\n\n",
            400,
        ),
        (
            "GET /task/%00 HTTP/1.1\nhost: a\nconnection: close\n\n",
            400,
        ),
        (
            "TRACE /task/1 HTTP/1.1\nhost: a\nconnection: close\n\n",
            405,
        ),
        (
            "CONNECT a:1 HTTP/1.1\nhost: a:1\nconnection: close\n\n",
            405,
        ),
        (
            "GET /task/1 HTTP/1.1\nhost: a\nx: a\n b\nconnection: close\n\n",
            400,
        ),
        (
            "POST /ai/orchestrate HTTP/1.1\nhost: a\ncontent-length: 1\ncontent-length: 2\n\nab",
            400,
        ),
        (
            "POST /ai/orchestrate HTTP/1.1\nhost: a\ncontent-length: -1\n\n",
            400,
        ),
        (
            "POST /ai/orchestrate HTTP/1.1\nhost: a\ntransfer-encoding: chunked, identity\n\n0\n\n",
            400,
        ),
    ] {
        assert_eq!(status(gateway.raw(request).await), expected, "{request}");
    }
    let headers: String = (0..200).map(|i| format!("x-{i}: a\n")).collect();
    assert_eq!(status(gateway.get("/task/1", &headers).await), 431);
    let long = format!("x: {}\n", "a".repeat(64 * 1024));
    assert_eq!(status(gateway.get("/task/1", &long).await), 431);
    // Small enough for the parser's buffer, and more than is taken.
    let over = format!("x: {}\n", "a".repeat(33 * 1024));
    let answer = gateway.get("/task/1", &over).await;
    assert_eq!(answer.status, 431);
    assert!(answer.body.contains("head-too-large"), "{}", answer.body);
    assert!(service.seen().is_empty(), "{:?}", service.seen());
}

#[tokio::test]
async fn regular_expressions_hosts_and_headers_choose() {
    let service = Service::start().await;
    let routes = r"  routes:
  - {name: id, paths: ['~/t/(?<id>\d+)'], regex_priority: 1}
  - {name: kept, paths: ['~/t/\w+$'], strip_path: false}
  - {name: host, paths: [/t], hosts: ['*.tenant.test'], preserve_host: true}
  - {name: beta, paths: [/t], headers: {x-beta: ['~*^(on|yes)$']}}
";
    let gateway = Setup::new(service.address, routes).start().await;
    let with = |path: &str, host: &str, headers: &str| {
        format!("GET {path} HTTP/1.1\nhost: {host}\n{headers}connection: close\n\n")
    };
    for (request, target) in [
        (with("/t/12/x", "a", ""), "/x"),
        (with("/t/abc", "a", ""), "/t/abc"),
        (with("/t/12", "A.Tenant.test:80", ""), "/12"),
        (with("/t/12", "a", "x-beta: YES\n"), "/12"),
        (with("/t/12", "a", "x-beta: yes, no\n"), "/"),
    ] {
        assert_eq!(gateway.raw(&request).await.status, 200, "{request}");
        let seen = service.seen().pop().unwrap();
        assert_eq!(seen.target, target, "{request}");
    }
    let hosts: Vec<_> = service
        .seen()
        .iter()
        .map(|s| s.headers["host"].clone())
        .collect();
    assert_eq!(hosts[2], "A.Tenant.test:80");
    assert_eq!(hosts[3], service.address.to_string());
    assert_eq!(gateway.get("/t/-", "").await.status, 404);
}

#[tokio::test]
async fn a_route_of_https_alone_says_so() {
    let service = Service::start().await;
    let routes = "  routes:
  - {name: a, paths: [/a], protocols: [https]}
  - {name: b, paths: [/b], protocols: [https], https_redirect_status_code: 308}
";
    let gateway = Setup::new(service.address, routes).start().await;
    let answer = gateway.get("/a", "").await;
    assert_eq!(answer.status, 426);
    assert_eq!(answer.body, r#"{"message":"Please use HTTPS protocol"}"#);
    assert_eq!(answer.header("upgrade"), Some("tls/1.2, http/1.1"));
    let answer = gateway.get("/b?c=d", "").await;
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), Some("https://mesh.test/b?c=d"));
    assert!(service.seen().is_empty());
}
