//! What passes of a request's and a response's headers, and how bodies are framed.

use crate::support::{Service, Setup};
use http_body_util::Full;

const ROUTES: &str = "  routes:
  - {name: r, paths: [/r]}
  - {name: keep, paths: [/keep], strip_path: false, preserve_host: true}
";

#[tokio::test]
async fn headers_of_one_hop_end_here() {
    let service = Service::answering(|_| {
        hyper::Response::builder()
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("x-public", "1")
            .body(Full::from("ok"))
            .unwrap()
    })
    .await;
    let gateway = Setup::at(&format!("{}/base", service.address), ROUTES)
        .start()
        .await;
    let answer = gateway
        .raw(
            "GET /r HTTP/1.1\nhost: Mesh.test:80\nconnection: close, x-secret\nX-Secret: 1\n\
             te: trailers\nupgrade: h2c\nx.alias: 1\nx_alias: 1\nx-kept: \u{e9}\n\n",
        )
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-public"), Some("1"));
    assert_eq!(answer.header("x-private"), None);
    assert_eq!(answer.header("keep-alive"), None);
    assert_eq!(answer.header("via"), Some("1.1 agent-mesh"));
    let headers = service.only().headers;
    for gone in ["x-secret", "te", "upgrade", "x.alias", "connection"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers["x_alias"], "1");
    assert_eq!(headers["x-kept"].as_bytes(), "\u{e9}".as_bytes());
    assert_eq!(headers["via"], "1.1 agent-mesh");
}

#[tokio::test]
async fn a_client_cannot_nominate_away_what_the_gateway_adds() {
    let service = Service::start().await;
    let gateway = Setup::at(&format!("{}/base", service.address), ROUTES)
        .start()
        .await;
    let names = "x-forwarded-for, x-real-ip, host, via, x-forwarded-prefix, content-length";
    let request = format!(
        "POST /r/x HTTP/1.1\nhost: mesh.test\nconnection: close, {names}\n\
         x-forwarded-for: 9.9.9.9\ncontent-length: 2\n\nab"
    );
    assert_eq!(gateway.raw(&request).await.status, 200);
    let seen = service.only();
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen.headers["x-real-ip"], "127.0.0.1");
    assert_eq!(seen.headers["x-forwarded-prefix"], "/r");
    assert_eq!(seen.headers["host"], service.address.to_string().as_str());
    assert_eq!(seen.body, "ab");
    assert_eq!(seen.target, "/base/x");
}

#[tokio::test]
async fn the_service_hears_where_a_request_came_from() {
    let service = Service::start().await;
    let gateway = Setup::at(&format!("{}/base", service.address), ROUTES)
        .start()
        .await;
    let claims = "x-forwarded-for: 9.9.9.9\nx-forwarded-host: evil\nx-forwarded-proto: https\n\
                  x-real-ip: 9.9.9.9\nx-forwarded-prefix: /evil\n";
    gateway.get("/keep/a?b", claims).await;
    let seen = service.only();
    let headers = seen.headers;
    assert_eq!(seen.target, "/base/keep/a?b");
    assert_eq!(headers["x-forwarded-for"], "9.9.9.9, 127.0.0.1");
    assert_eq!(headers["x-forwarded-host"], "mesh.test");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-forwarded-path"], "/keep/a");
    assert_eq!(
        headers["x-forwarded-port"],
        gateway.address.port().to_string().as_str()
    );
    assert_eq!(headers["x-real-ip"], "127.0.0.1");
    assert_eq!(headers["host"], "mesh.test");
    assert!(!headers.contains_key("x-forwarded-prefix"));
}

#[tokio::test]
async fn a_request_with_two_lengths_is_one_request() {
    let service = Service::start().await;
    let gateway = Setup::at(&format!("{}/base", service.address), ROUTES)
        .start()
        .await;
    // What a gateway that trusts the length would take for a request of its own.
    gateway
        .raw(
            "POST /r HTTP/1.1\nhost: a\ncontent-length: 60\ntransfer-encoding: chunked\n\
             connection: close\n\n0\n\nGET /r/smuggled HTTP/1.1\nhost: a\n\n",
        )
        .await;
    for seen in service.seen() {
        assert_eq!(seen.target, "/base");
        assert!(seen.body.is_empty());
        assert!(
            !(seen.headers.contains_key("content-length")
                && seen.headers.contains_key("transfer-encoding"))
        );
    }
}

#[tokio::test]
async fn a_body_has_a_largest_length_however_it_is_framed() {
    let service = Service::start().await;
    let gateway = Setup::at(&format!("{}/base", service.address), ROUTES)
        .changed(|config| config.max_request_body = 10)
        .start()
        .await;
    assert_eq!(gateway.post("/r", "", "0123456789").await.status, 200);
    let answer = gateway.post("/r", "", "0123456789a").await;
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("body-too-large"));
    assert!(
        answer.body.contains(r#""field":"payload""#),
        "{}",
        answer.body
    );
    let chunked = "POST /r HTTP/1.1\nhost: a\ntransfer-encoding: chunked\nconnection: close\n\n\
                   b\n0123456789a\n0\n\n";
    assert_eq!(gateway.raw(chunked).await.status, 413);
}

#[tokio::test]
async fn a_body_that_stops_arriving_is_given_up() {
    let service = Service::start().await;
    let gateway = Setup::at(&format!("{}/base", service.address), ROUTES)
        .changed(|config| config.body_timeout = std::time::Duration::from_millis(50))
        .start()
        .await;
    let request = "POST /r HTTP/1.1\nhost: a\ncontent-length: 5\nconnection: close\n\nab";
    assert_eq!(gateway.raw(request).await.status, 408);
}
