//! Which service a program's request reaches.

use crate::support::{App, Mesh, Pair, get, request, send};
use http_body_util::Full;
use hyper::Request;
use mesh_tests::wait_for;
use serde_json::json;

#[tokio::test]
async fn a_service_is_named_by_host_proxy_form_or_path() {
    let app = App::start().await;
    let pair = Pair::between(app.address, "http2").await;
    let own = pair.out().to_string();
    for (host, uri, target) in [
        ("target", "/a?b=c", "/a?b=c"),
        ("target:80", "/a", "/a"),
        ("target.mesh", "/a", "/a"),
        ("ignored.example", "http://target/a?b", "/a?b"),
        ("ignored.example", "http://target.mesh:8080/", "/"),
        (&own, "/target/a/b", "/a/b"),
        (&own, "/target", "/"),
        ("localhost:1", "/target?x", "/?x"),
    ] {
        let request = Request::builder().uri(uri).header("host", host);
        let answer = pair.send(request.body(Full::default()).unwrap()).await;
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{host} {uri}");
        assert_eq!(app.seen().last().unwrap().target, target, "{host} {uri}");
    }
}

#[tokio::test]
async fn beside_a_gateway_a_header_names_the_agent() {
    let app = App::start().await;
    let pair = Pair::new(app.address, json!({}), json!({"by_agent_header": true})).await;
    let ask = |agents: &[&str]| {
        let mut request = get("/x-mesh-agent/process?a");
        for agent in agents {
            let headers = request.headers_mut();
            headers.append("x-mesh-agent", agent.parse().unwrap());
            headers.insert("authorization", "Bearer of-the-client".parse().unwrap());
        }
        request
    };
    assert_eq!(pair.send(ask(&["target"])).await.status, 200);
    let seen = app.only();
    assert_eq!(seen.target, "/process?a");
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("x-mesh-agent"), None);
    for agents in [&[][..], &["target", "target"], &["Target"], &["no agent"]] {
        let answer = pair.send(ask(agents)).await;
        assert_eq!(answer.status, 400, "{agents:?}");
        assert!(answer.text().contains("x-mesh-agent"), "{}", answer.text());
    }
    assert_eq!(pair.send(ask(&["unheard-of"])).await.status, 404);
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn who_names_no_service_hears_how_to() {
    let app = App::start().await;
    let pair = Pair::between(app.address, "http2").await;
    for (host, path) in [
        ("unheard-of", "/"),
        ("localhost", "/unheard-of/a"),
        ("127.0.0.1", "/"),
        ("localhost", "/Target/a"),
    ] {
        let request = Request::builder().uri(path).header("host", host);
        let answer = pair.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status, 404, "{host}{path}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        assert!(answer.text().contains("Host: NAME"), "{}", answer.text());
    }
    let labels = [("direction", "outbound"), ("reason", "unknown_service")];
    assert!(pair.caller.metric("sidecar_faults_total", &labels) > 3.5);
}

#[tokio::test]
async fn names_that_are_made_up_take_no_room() {
    let app = App::start().await;
    let pair = Pair::between(app.address, "http2").await;
    let mut line = crate::support::h2(pair.out()).await;
    // More than a sidecar keeps services.
    for number in 0..4_200 {
        let request = Request::builder()
            .uri(format!("http://junk-{number}/"))
            .body(Full::<bytes::Bytes>::default());
        let answer = line.send_request(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 404, "{number}");
    }
    assert_eq!(pair.get("/").await.status, 200);
    let at = |peer| {
        let labels = [("direction", "outbound"), ("peer", peer)];
        pair.caller.metric("sidecar_requests_total", &labels)
    };
    assert!(at("target") > 0.5);
    assert!(at("other") > 4_199.5);
    assert!(at("junk-0") < 0.5);
}

#[tokio::test]
async fn a_service_without_instances_is_said_to_come_back() {
    let mesh = Mesh::new();
    let app = App::start().await;
    let mut target = mesh.before("target", app.address, json!({})).await;
    let caller = mesh.beside("caller", json!({})).await;
    assert_eq!(send(caller.out(), get("/")).await.status, 200);
    drop(app);
    // It is registered still, and sick: nobody is told to ask it.
    wait_for("the sickness", async || mesh.instances("target").await == 0).await;
    wait_for("the news", async || {
        send(caller.out(), get("/")).await.status == 503
    })
    .await;
    let answer = send(caller.out(), get("/")).await;
    assert_eq!(answer.header("retry-after"), Some("1"));
    target.drained().await;
    wait_for("its name is gone", async || {
        send(caller.out(), get("/")).await.status == 404
    })
    .await;
}

#[tokio::test]
async fn connect_and_hosts_that_are_none_are_refused() {
    let app = App::start().await;
    let pair = Pair::between(app.address, "http2").await;
    let mut stream = tokio::net::TcpStream::connect(pair.out()).await.unwrap();
    crate::raw::write(
        &mut stream,
        "CONNECT target:443 HTTP/1.1\nhost: target:443\n\n",
    )
    .await;
    let answer = crate::raw::to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
    for head in [
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\nhost: target\nhost: target\n\n",
        "GET / HTTP/1.1\nhost: target\nhost: other\n\n",
    ] {
        let mut stream = tokio::net::TcpStream::connect(pair.out()).await.unwrap();
        crate::raw::write(&mut stream, head).await;
        let answer = crate::raw::to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{head} {answer}");
    }
    assert!(app.seen().is_empty());
    // HTTP/1.0 need not name a host: then the path does.
    let mut stream = tokio::net::TcpStream::connect(pair.out()).await.unwrap();
    crate::raw::write(&mut stream, "GET /target/x HTTP/1.0\n\n").await;
    let answer = crate::raw::to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert_eq!(app.only().target, "/x");
}

#[tokio::test]
async fn the_path_of_the_programs_url_comes_first() {
    let app = App::start().await;
    let mesh = Mesh::new();
    let config = json!({
        "app": {"url": format!("http://{}/base/", app.address), "health": {"check": "tcp"}},
        "policy": {"intentions": [{"from": "any"}]},
    });
    let _target = mesh.before_with("target", config, json!({})).await;
    let caller = mesh.beside("caller", json!({})).await;
    for (path, target) in [("/", "/base/"), ("/a?b", "/base/a?b")] {
        let answer = send(caller.out(), request("POST", path, "x")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(app.seen().last().unwrap().target, target);
    }
}
