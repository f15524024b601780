//! WebSockets: bytes both ways, after the filters have passed the request.

use crate::filters::{CALLBACKS, module, on};
use crate::lifecycle::{by_hand, read_until};
use crate::support::{Service, Setup};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ROUTES: &str = "  routes: [{name: r, paths: [/ws]}]\n";
const ASK: &[u8] =
    b"GET /ws/chat HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: \
    WebSocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
const AGREE: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[tokio::test]
async fn bytes_go_both_ways_after_the_filters() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let filter = module(&on(
        CALLBACKS[2],
        "(drop (call $add (i32.const 2) (i32.const 0) (i32.const 7) (i32.const 7) (i32.const 1))) (i32.const 0)",
    ));
    let chain = "filter_chains: [{service: s, filters: [{name: f}]}]\n";
    let gateway = Setup::new(listener.local_addr().unwrap(), &(ROUTES.to_owned() + chain))
        .with_modules(&[("f", &filter)])
        .start()
        .await;
    let mut client = gateway.connect().await;
    client.write_all(ASK).await.unwrap();
    let (mut service, _) = listener.accept().await.unwrap();
    let head = read_until(&mut service, "\r\n\r\n").await.to_lowercase();
    assert!(head.starts_with("get /chat http/1.1"), "{head}");
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-version: 13",
    ] {
        assert!(head.contains(line), "{head}");
    }
    // What comes with the head belongs to the other protocol.
    service
        .write_all(&[AGREE, b"hello"].concat())
        .await
        .unwrap();
    let answer = read_until(&mut client, "hello").await.to_lowercase();
    for line in [
        "http/1.1 101",
        "upgrade: websocket",
        "sec-websocket-accept: s3p",
        "x-order: a",
    ] {
        assert!(answer.contains(line), "{answer}");
    }
    for word in ["one", "two"] {
        client.write_all(word.as_bytes()).await.unwrap();
        read_until(&mut service, word).await;
        service.write_all(word.as_bytes()).await.unwrap();
        read_until(&mut client, word).await;
    }
    let counted = || gateway.metric("gateway_requests_total", &[("route", "r")]);
    assert!(counted() < 0.5, "it lives on");
    drop(client);
    assert_eq!(service.read(&mut [0; 16]).await.unwrap_or(0), 0);
    drop(service);
    crate::support::until("the end", async || counted() > 0.5).await;
}

#[tokio::test]
async fn a_refused_request_opens_nothing() {
    let service = Service::start().await;
    let respond = "(drop (call $respond (i32.const 401) (i32.const 0) (i32.const 0) (i32.const 0) \
                   (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1))) (i32.const 1)";
    let chain = "filter_chains: [{service: s, filters: [{name: f}]}]\n";
    let gateway = Setup::new(service.address, &(ROUTES.to_owned() + chain))
        .with_modules(&[("f", &module(&on(CALLBACKS[0], respond)))])
        .start()
        .await;
    let mut client = gateway.connect().await;
    client.write_all(ASK).await.unwrap();
    read_until(&mut client, "401").await;
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_service_may_decline() {
    let service = Service::start().await;
    let gateway = Setup::new(service.address, ROUTES).start().await;
    let mut client = gateway.connect().await;
    client.write_all(ASK).await.unwrap();
    let answer = read_until(&mut client, "ok").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn nobody_is_switched_who_did_not_ask() {
    let (address, accepted) = by_hand().await;
    let gateway = Setup::new(address, ROUTES).start().await;
    let mut client = gateway.connect().await;
    // Another protocol than WebSocket does not pass.
    let ask = b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    client.write_all(ask).await.unwrap();
    accepted.await.unwrap().write_all(AGREE).await.unwrap();
    read_until(&mut client, "502").await;
}

#[tokio::test]
async fn silence_has_an_end_and_so_has_the_drain() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for silent in [true, false] {
        let timeout = if silent { "  read_timeout: 50\n" } else { "" };
        let rest = timeout.to_owned() + ROUTES;
        let gateway = Setup::new(listener.local_addr().unwrap(), &rest)
            .changed(|config| config.drain = Duration::from_millis(50))
            .start()
            .await;
        let mut client = gateway.connect().await;
        client.write_all(ASK).await.unwrap();
        let (mut service, _) = listener.accept().await.unwrap();
        read_until(&mut service, "\r\n\r\n").await;
        service.write_all(AGREE).await.unwrap();
        read_until(&mut client, "101").await;
        if !silent {
            gateway.shut_down();
        }
        let ended = async { while client.read(&mut [0; 64]).await.unwrap_or(0) > 0 {} };
        tokio::time::timeout(crate::support::PATIENCE, ended)
            .await
            .expect("the tunnel lives on");
    }
}
