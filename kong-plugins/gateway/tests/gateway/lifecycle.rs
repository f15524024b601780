//! Streams, draining, and bounds on connections.

use crate::support::{Answer, PATIENCE, Service, Setup};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ROUTES: &str = "  routes: [{name: r, paths: [/]}]\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

pub async fn read_until(stream: &mut TcpStream, word: &str) -> String {
    let mut all = Vec::new();
    tokio::time::timeout(PATIENCE, async {
        while !String::from_utf8_lossy(&all).contains(word) {
            let mut part = [0; 1024];
            let read = stream.read(&mut part).await.unwrap();
            assert!(read > 0, "closed before {word}");
            all.extend_from_slice(&part[..read]);
        }
    })
    .await
    .unwrap_or_else(|_| panic!("no {word}"));
    String::from_utf8(all).unwrap()
}

/// A service that hands its one connection to the test, after it has read the request's head.
pub async fn by_hand() -> (std::net::SocketAddr, tokio::task::JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        stream
    });
    (address, accepted)
}

#[tokio::test]
async fn events_pass_one_by_one() {
    let (address, accepted) = by_hand().await;
    let gateway = Setup::new(address, ROUTES).start().await;
    let mut client = gateway.connect().await;
    client.write_all(REQUEST).await.unwrap();
    let mut service = accepted.await.unwrap();
    let head =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    service.write_all(head).await.unwrap();
    for event in ["one", "two"] {
        let chunk = format!("c\r\ndata: {event}\n\n \r\n");
        service.write_all(chunk.as_bytes()).await.unwrap();
        // The second is written only after the first has arrived.
        read_until(&mut client, event).await;
    }
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_no_other_begun() {
    let (address, accepted) = by_hand().await;
    let gateway = Setup::new(address, ROUTES).start().await;
    let mut idle = gateway.connect().await;
    let mut client = gateway.connect().await;
    client.write_all(REQUEST).await.unwrap();
    let mut service = accepted.await.unwrap();
    gateway.shut_down();
    // The idle connection ends at once, the other one after its answer.
    assert_eq!(idle.read(&mut [0; 16]).await.unwrap_or(0), 0);
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    service.write_all(answer).await.unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(Answer::read(&all).status, 200);
    gateway.ended().await.unwrap();
}

#[tokio::test]
async fn draining_has_an_end() {
    let (address, accepted) = by_hand().await;
    let gateway = Setup::new(address, ROUTES)
        .changed(|config| config.drain = Duration::from_millis(50))
        .start()
        .await;
    let mut client = gateway.connect().await;
    client.write_all(REQUEST).await.unwrap();
    let _silent = accepted.await.unwrap();
    gateway.shut_down();
    gateway.ended().await.unwrap();
}

#[tokio::test]
async fn a_head_that_does_not_come_is_given_up() {
    let service = Service::start().await;
    let gateway = Setup::new(service.address, ROUTES)
        .changed(|config| config.header_timeout = Duration::from_millis(50))
        .start()
        .await;
    for start in ["", "GET / HT"] {
        let mut client = gateway.connect().await;
        client.write_all(start.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let read = tokio::time::timeout(PATIENCE, client.read_to_end(&mut all)).await;
        assert!(read.is_ok(), "the gateway waits for ever after {start:?}");
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_wait() {
    let service = Service::start().await;
    let gateway = Setup::new(service.address, ROUTES)
        .changed(|config| config.max_connections = 1)
        .start()
        .await;
    let mut first = gateway.connect().await;
    first.write_all(REQUEST).await.unwrap();
    read_until(&mut first, "ok").await;
    let mut second = gateway.connect().await;
    second.write_all(REQUEST).await.unwrap();
    drop(first);
    read_until(&mut second, "ok").await;
}

#[tokio::test]
async fn several_workers_answer() {
    let service = Service::start().await;
    let gateway = Setup::new(service.address, ROUTES)
        .changed(|config| config.workers = 3)
        .start()
        .await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/", "").await.status, 200);
    }
}
