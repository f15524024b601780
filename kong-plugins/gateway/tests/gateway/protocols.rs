//! HTTP/2 in and out, and bodies that stream.

use crate::lifecycle::read_until;
use crate::support::{Gateway, Service, Setup};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{HeaderMap, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

const ROUTES: &str = "  routes: [{name: r, paths: [/r]}]\n";

async fn h2(gateway: &Gateway) -> SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(gateway.connect().await);
    let (sender, connection) = handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(path: &str) -> hyper::http::request::Builder {
    Request::builder().uri(format!("http://mesh.test{path}"))
}

#[tokio::test]
async fn http2_is_taken_without_asking() {
    let service = Service::start().await;
    let gateway = Setup::new(service.address, ROUTES).start().await;
    let mut sender = h2(&gateway).await;
    let mut answers = Vec::new();
    for i in 0..20 {
        let body = Full::from(format!("body {i}"));
        let request = request(&format!("/r/{i}?q"))
            .method("POST")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .body(body)
            .unwrap();
        answers.push(sender.send_request(request));
    }
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status(), answer.version()),
            (StatusCode::OK, Version::HTTP_2)
        );
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
    }
    let seen = service.seen();
    assert_eq!(seen.len(), 20);
    for seen in seen {
        assert!(seen.body.starts_with(b"body "));
        assert_eq!(seen.headers["cookie"], "a=1; b=2");
        assert_eq!(seen.headers["x-forwarded-host"], "mesh.test");
        assert!(!seen.headers.contains_key("te"));
    }
}

#[tokio::test]
async fn what_http1_refuses_http2_refuses_too() {
    let service = Service::start().await;
    let gateway = Setup::new(service.address, ROUTES)
        .changed(|config| config.max_request_body = 10)
        .start()
        .await;
    let mut sender = h2(&gateway).await;
    for (request, status) in [
        (request("/nowhere").body(Full::default()), 404),
        (request("/r/%00").body(Full::default()), 400),
        (request("/r").method("TRACE").body(Full::default()), 405),
        (
            request("/r")
                .method("POST")
                .body(Full::from("longer than that")),
            413,
        ),
    ] {
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), status);
    }
    let mut many = request("/r");
    for i in 0..200 {
        many = many.header(format!("x-{i}"), "a");
    }
    let answer = sender
        .send_request(many.body(Full::default()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status(), 431);
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_connection_of_http2_is_drained() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Setup::new(listener.local_addr().unwrap(), ROUTES)
        .start()
        .await;
    let mut sender = h2(&gateway).await;
    let answer = sender.send_request(request("/r").body(Full::default()).unwrap());
    let (mut service, _) = listener.accept().await.unwrap();
    read_until(&mut service, "\r\n\r\n").await;
    gateway.shut_down();
    service
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await
        .unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    gateway.ended().await.unwrap();
}

/// A service of gRPC's kind: HTTP/2 without asking, trailers after the body.
async fn grpc() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service =
                hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                    let version = format!("{:?} {}", request.version(), request.uri().path());
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    let frames = [Frame::data(Bytes::from(version)), Frame::trailers(trailers)];
                    let frames = frames.map(Ok::<_, Infallible>);
                    let body = StreamBody::new(futures_util::stream::iter(frames));
                    Ok::<_, Infallible>(Response::new(body))
                });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

#[tokio::test]
async fn a_service_may_speak_http2_with_trailers() {
    let address = grpc().await;
    let mut setup = Setup::new(
        address,
        "  routes: [{name: r, paths: [/r], strip_path: false, protocols: [grpc]}, {name: h, paths: [/h]}]\n",
    );
    setup.yaml = setup.yaml.replace("http://", "grpc://");
    let gateway = setup.start().await;
    let mut sender = h2(&gateway).await;
    let asked = request("/r/Method").header("content-type", "application/grpc+proto");
    let answer = sender
        .send_request(asked.body(Full::default()).unwrap())
        .await
        .unwrap();
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "HTTP/2.0 /r/Method");
    let plain = sender
        .send_request(request("/r").body(Full::default()).unwrap())
        .await
        .unwrap();
    assert_eq!(plain.status(), 415);
    let old = gateway.get("/r", "content-type: application/grpc\n").await;
    assert_eq!(old.status, 426);
    let other = gateway.get("/h/x", "").await;
    assert_eq!(
        (other.status, other.body.contains("HTTP/2.0 /x")),
        (200, true),
        "{other:?}"
    );
}

#[tokio::test]
async fn a_body_streams_to_the_service() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Setup::new(listener.local_addr().unwrap(), ROUTES)
        .start()
        .await;
    let mut client = gateway.connect().await;
    client
        .write_all(b"POST /r HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        .await
        .unwrap();
    let (mut service, _) = listener.accept().await.unwrap();
    // The second part is written only after the first has arrived.
    read_until(&mut service, "one").await;
    client.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut service, "two").await;
    service
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await
        .unwrap();
    read_until(&mut client, "ok").await;
}

#[tokio::test]
async fn a_service_waits_as_long_as_the_body_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rest = "  read_timeout: 250\n  connect_timeout: 250\n".to_owned() + ROUTES;
    let gateway = Setup::new(listener.local_addr().unwrap(), &rest)
        .start()
        .await;
    let mut client = gateway.connect().await;
    client
        .write_all(b"POST /r HTTP/1.1\r\nhost: a\r\ncontent-length: 40\r\n\r\n")
        .await
        .unwrap();
    let accepted = tokio::spawn(async move {
        let (mut service, _) = listener.accept().await.unwrap();
        read_until(&mut service, &"x".repeat(40)).await;
        service
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await
            .unwrap();
        service
    });
    for _ in 0..40 {
        client.write_all(b"x").await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    read_until(&mut client, "ok").await;
    drop(accepted.await);
}
