//! What a client may hold and for how long: heads, bodies, connections.

use crate::raw;
use crate::support::{App, Pair, full, get, request};
use hyper::Response;
use mesh_sidecar::identity::Alpn;
use mesh_tests::{wait_for, within};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn heads_beyond_the_bound_are_refused() {
    let app = App::start().await;
    let limits = json!({"limits": {"max_head_bytes": 8192}});
    let pair = Pair::new(app.address, limits.clone(), limits).await;
    let long = "a".repeat(64 * 1024);
    let inbound = pair.target.inbound.unwrap();
    let mut tls = pair
        .mesh
        .connect("caller", "target", inbound, Alpn::Http1)
        .await;
    let mut plain = TcpStream::connect(pair.out()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: target\r\nx: {long}\r\n\r\n");
    let _ = plain.write_all(head.as_bytes()).await;
    let _ = tls.write_all(head.as_bytes()).await;
    for answer in [raw::to_end(&mut plain).await, raw::to_end(&mut tls).await] {
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
    }
    // Many small ones are as bad.
    let many = "x: y\r\n".repeat(200);
    let mut plain = TcpStream::connect(pair.out()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: target\r\n{many}\r\n");
    plain.write_all(head.as_bytes()).await.unwrap();
    let answer = raw::to_end(&mut plain).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
    assert!(app.seen().is_empty());
    assert_eq!(pair.get("/").await.status, 200);
}

#[tokio::test]
async fn a_head_that_does_not_come_is_given_up() {
    let app = App::start().await;
    let limits = json!({"limits": {"head_timeout_ms": 200}});
    let pair = Pair::new(app.address, limits.clone(), limits).await;
    let inbound = pair.target.inbound.unwrap();
    for begin in ["GET / HT", "GET / HTTP/1.1\r\nhost: target\r\n"] {
        let mut tls = pair
            .mesh
            .connect("caller", "target", inbound, Alpn::Http1)
            .await;
        let mut plain = TcpStream::connect(pair.out()).await.unwrap();
        plain.write_all(begin.as_bytes()).await.unwrap();
        tls.write_all(begin.as_bytes()).await.unwrap();
        tls.flush().await.unwrap();
        for answer in [raw::to_end(&mut plain).await, raw::to_end(&mut tls).await] {
            assert!(answer.starts_with("HTTP/1.1 408"), "{answer:?}");
        }
    }
    // Who dribbles is as slow.
    let (mut read, mut write) = TcpStream::connect(pair.out()).await.unwrap().into_split();
    let dribble = tokio::spawn(async move {
        write
            .write_all(b"GET / HTTP/1.1\r\nhost: target\r\nx: ")
            .await
            .unwrap();
        while write.write_all(b"y").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    let answer = raw::to_end(&mut read).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer:?}");
    drop(read);
    within("the end of the dribble", dribble).await.unwrap();
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed_without_a_word() {
    let app = App::start().await;
    let limits = json!({"limits": {"head_timeout_ms": 200, "handshake_timeout_ms": 200}});
    let pair = Pair::new(app.address, limits.clone(), limits).await;
    let inbound = pair.target.inbound.unwrap();
    // No byte, no handshake, no request, a request and then nothing.
    let mut silent = TcpStream::connect(pair.out()).await.unwrap();
    assert_eq!(raw::to_end(&mut silent).await, "");
    let mut no_tls = TcpStream::connect(inbound).await.unwrap();
    assert_eq!(raw::to_end(&mut no_tls).await, "");
    for alpn in [Alpn::Http1, Alpn::H2] {
        let mut tls = pair.mesh.connect("caller", "target", inbound, alpn).await;
        let all = raw::to_end(&mut tls).await;
        assert_eq!(alpn == Alpn::Http1, all.is_empty(), "{all:?}");
    }
    let mut idle = TcpStream::connect(pair.out()).await.unwrap();
    raw::write(&mut idle, "GET / HTTP/1.1\nhost: target\n\n").await;
    let all = raw::to_end(&mut idle).await;
    assert!(all.ends_with("ok"), "{all:?}");
    assert_eq!(all.matches("HTTP/1.1").count(), 1);
    wait_for("all of them to be counted off", async || {
        pair.target
            .metric("sidecar_connections_open", &[("direction", "inbound")])
            < 1.5
    })
    .await;
}

#[tokio::test]
async fn a_request_that_takes_long_is_no_idle_connection() {
    let (answer, held) = tokio::sync::watch::channel(false);
    let app = App::streaming(move |_| {
        let mut held = held.clone();
        Box::pin(async move {
            held.wait_for(|answer| *answer).await.unwrap();
            Response::new(full("late"))
        })
    })
    .await;
    let limits = json!({"limits": {"head_timeout_ms": 40}});
    let pair = Pair::new(app.address, limits.clone(), limits).await;
    let out = pair.out();
    let asked = tokio::spawn(async move { crate::support::send(out, get("/")).await });
    // Several of its looks later.
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    answer.send(true).unwrap();
    let answer = within("the answer", asked).await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "late"));
}

#[tokio::test]
async fn a_body_that_dribbles_is_given_up() {
    let app = App::start().await;
    // A short one is gathered, a long one streams.
    for length in [100, 10_000_000] {
        let settings = json!({"defaults": {"response_timeout_ms": 1_000}});
        let pair = Pair::new(app.address, json!({}), settings).await;
        let (mut read, mut write) = TcpStream::connect(pair.out()).await.unwrap().into_split();
        let dribble = tokio::spawn(async move {
            let head =
                format!("POST / HTTP/1.1\r\nhost: target\r\ncontent-length: {length}\r\n\r\n");
            write.write_all(head.as_bytes()).await.unwrap();
            while write.write_all(b"y").await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        });
        let answer = raw::to_end(&mut read).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{length}: {answer:?}");
        drop(read);
        within("the end of the dribble", dribble).await.unwrap();
        let labels = [("direction", "outbound"), ("reason", "request_timeout")];
        assert!(pair.caller.metric("sidecar_faults_total", &labels) > 0.5);
    }
}

#[tokio::test]
async fn a_body_that_stops_arriving_is_given_up() {
    let app = App::start().await;
    for between in ["http1", "http2"] {
        let settings = json!({"idle_timeout_ms": 100});
        let outbound = json!({"between": between, "defaults": settings});
        let pair = Pair::new(app.address, json!({"settings": settings}), outbound).await;
        let inbound = pair.target.inbound.unwrap();
        for framing in [
            // Short ones are waited for, long ones stream.
            "content-length: 5\n\nab",
            "content-length: 5000000\n\nab",
            "transfer-encoding: chunked\n\n2\nab\n",
        ] {
            let head = format!("POST / HTTP/1.1\nhost: target\n{framing}");
            let mut plain = TcpStream::connect(pair.out()).await.unwrap();
            raw::write(&mut plain, &head).await;
            let answer = raw::to_end(&mut plain).await;
            assert!(
                answer.starts_with("HTTP/1.1 408"),
                "{between} {framing}: {answer:?}"
            );
            let mut tls = pair
                .mesh
                .connect("caller", "target", inbound, Alpn::Http1)
                .await;
            raw::write(&mut tls, &head).await;
            let answer = raw::to_end(&mut tls).await;
            assert!(answer.starts_with("HTTP/1.1 408"), "{framing}: {answer:?}");
        }
    }
    assert!(app.seen().is_empty());
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    // More than all buffers on the way hold.
    let app = App::answering(|_| Response::new(full(vec![b'x'; 64 * 1024 * 1024]))).await;
    for between in ["http1", "http2"] {
        let outbound = json!({"between": between, "defaults": {"idle_timeout_ms": 200}});
        let pair = Pair::new(app.address, json!({}), outbound).await;
        let mut lazy = TcpStream::connect(pair.out()).await.unwrap();
        raw::write(&mut lazy, "GET / HTTP/1.1\nhost: target\n\n").await;
        raw::until(&mut lazy, "200 OK").await;
        wait_for("the end of the connection", async || {
            let labels = [("direction", "outbound")];
            pair.caller.metric("sidecar_connections_open", &labels) < 0.5
        })
        .await;
        // Only what was on its way arrives.
        let mut all = Vec::new();
        let _ = within("the end", lazy.read_to_end(&mut all)).await;
        assert!(all.len() < 64 * 1024 * 1024);
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_wait() {
    let app = App::start().await;
    let outbound = json!({"limits": {"max_connections": 2}});
    let pair = Pair::new(app.address, json!({}), outbound).await;
    let mut first = TcpStream::connect(pair.out()).await.unwrap();
    let _second = TcpStream::connect(pair.out()).await.unwrap();
    raw::write(&mut first, "GET / HTTP/1.1\nhost: target\n\n").await;
    raw::until(&mut first, "ok").await;
    wait_for("the second", async || {
        pair.caller
            .metric("sidecar_connections_open", &[("direction", "outbound")])
            > 1.5
    })
    .await;
    let mut third = TcpStream::connect(pair.out()).await.unwrap();
    raw::write(&mut third, "GET /third HTTP/1.1\nhost: target\n\n").await;
    raw::write(&mut first, "GET /again HTTP/1.1\nhost: target\n\n").await;
    raw::until(&mut first, "ok").await;
    assert!(app.seen().iter().all(|s| s.target != "/third"));
    drop(first);
    raw::until(&mut third, "ok").await;
}

#[tokio::test]
async fn requests_beyond_the_bound_are_refused() {
    let (answer, held) = tokio::sync::watch::channel(false);
    let (asked, mut asked_here) = tokio::sync::mpsc::unbounded_channel();
    let app = App::streaming(move |_| {
        let mut held = held.clone();
        asked.send(()).unwrap();
        Box::pin(async move {
            held.wait_for(|answer| *answer).await.unwrap();
            Response::new(full("ok"))
        })
    })
    .await;
    for (inbound, outbound, who) in [
        (
            json!({}),
            json!({"defaults": {"breaker": {"max_requests": 1}, "retries": {"max": 0}}}),
            "outbound",
        ),
        (
            json!({"settings": {"breaker": {"max_requests": 1}}}),
            json!({"defaults": {"retries": {"max": 0}}}),
            "inbound",
        ),
    ] {
        answer.send_replace(false);
        let pair = Pair::new(app.address, inbound, outbound).await;
        let out = pair.out();
        let first = tokio::spawn(async move { crate::support::send(out, get("/")).await });
        within("the first request", asked_here.recv())
            .await
            .unwrap();
        let second = pair.send(request("POST", "/", "x")).await;
        assert_eq!(second.status, 503, "{who}");
        assert_eq!(second.header("retry-after"), Some("1"));
        answer.send_replace(true);
        assert_eq!(within("its answer", first).await.unwrap().status, 200);
        let labels = [("direction", who), ("reason", "overloaded")];
        let sidecar = if who == "inbound" {
            &pair.target
        } else {
            &pair.caller
        };
        assert!(
            sidecar.metric("sidecar_faults_total", &labels) > 0.5,
            "{who}"
        );
    }
}
