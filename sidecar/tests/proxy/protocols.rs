//! What passes through a pair, whatever is spoken on the way.

use crate::raw;
use crate::support::{App, AppBody, Collected, Pair, Seen, full, get, h1, h2, request};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{HeaderMap, Request, Response, Version};
use mesh_tests::within;
use serde_json::json;
use std::convert::Infallible;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const BETWEEN: [&str; 2] = ["http1", "http2"];

/// A body that is fed by hand.
fn fed() -> (mpsc::Sender<Frame<Bytes>>, AppBody) {
    let (feed, frames) = mpsc::channel(1);
    let frames = futures_util::stream::unfold(frames, |mut frames| async move {
        let frame: Frame<Bytes> = frames.recv().await?;
        Some((Ok::<_, Infallible>(frame), frames))
    });
    (feed, BodyExt::boxed(StreamBody::new(frames)))
}

fn echo(seen: &Seen) -> Response<AppBody> {
    Response::new(full(seen.body.clone()))
}

#[tokio::test]
async fn requests_and_answers_pass_by_both_protocols_on_all_three_ways() {
    for between in BETWEEN {
        for app_h2 in [false, true] {
            let app = App::answering(echo).await;
            let inbound = json!({"app_h2": app_h2});
            let pair = Pair::new(app.address, inbound, json!({"between": between})).await;
            let by_h1 = pair.send(request("POST", "/a", "one")).await;
            assert_eq!((by_h1.status, by_h1.text()), (200, "one"));
            let mut client = h2(pair.out()).await;
            let by_h2 = Request::post("http://target/b").body(Full::<Bytes>::from("two"));
            let by_h2 = client.send_request(by_h2.unwrap()).await.unwrap();
            assert_eq!(Collected::of(by_h2).await.text(), "two");
            let version = if app_h2 {
                Version::HTTP_2
            } else {
                Version::HTTP_11
            };
            let seen = app.seen();
            assert!(seen.iter().all(|s| s.version == version), "{seen:?}");
            let targets: Vec<_> = seen.iter().map(|s| s.target.as_str()).collect();
            assert_eq!(targets, ["/a", "/b"]);
            assert_eq!(seen[0].body, "one");
        }
    }
}

#[tokio::test]
async fn answers_without_a_body_have_none_and_say_what_they_said() {
    for between in BETWEEN {
        let app = App::answering(|seen| {
            let response = match (seen.method.as_str(), seen.target.as_str()) {
                ("HEAD", _) => Response::builder().header("content-length", "1234"),
                (_, "/204") => Response::builder().status(204),
                (_, "/304") => Response::builder()
                    .status(304)
                    .header("etag", "\"a\"")
                    .header("content-length", "55"),
                (_, "/205") => Response::builder().status(205),
                _ => Response::builder().header("x-empty", "1"),
            };
            response.body(full("")).unwrap()
        })
        .await;
        let pair = Pair::between(app.address, between).await;
        let head = pair.send(request("HEAD", "/", "")).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), Some("1234"), "{between}");
        for (path, status) in [("/204", 204), ("/304", 304), ("/205", 205), ("/", 200)] {
            let answer = pair.get(path).await;
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}");
            match status {
                204 => assert_eq!(answer.header("content-length"), None),
                304 => assert_eq!(answer.header("etag"), Some("\"a\"")),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn large_bodies_stream_both_ways_at_once() {
    const PARTS: usize = 200;
    for between in BETWEEN {
        let app = App::streaming(|request| {
            Box::pin(async move {
                // Each part goes back as it comes.
                let parts = request.into_body().into_data_stream();
                let back = parts.map(|part| Ok(Frame::data(part.unwrap())));
                Response::new(BodyExt::boxed(StreamBody::new(back)))
            })
        })
        .await;
        let pair = Pair::between(app.address, between).await;
        let (feed, body) = fed();
        let request = Request::post("/").header("host", "target").body(body);
        // The answer begins before the request ends.
        let sending = h1(pair.out(), request.unwrap());
        let feeding = async {
            for number in 0..PARTS {
                let part = vec![u8::try_from(number).unwrap(); 16 * 1024];
                feed.send(Frame::data(part.into())).await.unwrap();
            }
            drop(feed);
        };
        let collecting = async {
            let answer = sending.await;
            answer.into_body().collect().await.unwrap().to_bytes()
        };
        let (all, ()) = within("the echo", async { tokio::join!(collecting, feeding) }).await;
        assert_eq!(all.len(), PARTS * 16 * 1024, "{between}");
        let right = all
            .chunks(16 * 1024)
            .enumerate()
            .all(|(number, part)| part.iter().all(|b| usize::from(*b) == number));
        assert!(right, "{between}");
    }
}

#[tokio::test]
async fn a_stream_of_events_arrives_one_by_one() {
    for between in BETWEEN {
        let (feeds, mut fed_here) = mpsc::unbounded_channel();
        let app = App::streaming(move |_| {
            let (feed, body) = fed();
            feeds.send(feed).unwrap();
            let response = Response::builder().header("content-type", "text/event-stream");
            Box::pin(async move { response.body(body).unwrap() })
        })
        .await;
        let pair = Pair::between(app.address, between).await;
        let answer = within("the head, before any event", h1(pair.out(), get("/"))).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let feed = fed_here.recv().await.unwrap();
        let mut events = answer.into_body();
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            feed.send(Frame::data(event.clone().into())).await.unwrap();
            let got = within("the event", events.frame()).await.unwrap().unwrap();
            assert_eq!(got.into_data().unwrap(), event, "{between}");
        }
        // Whoever listens no more is not written to any more.
        drop(events);
        within("the program to notice", async {
            while feed.send(Frame::data("data: x\n\n".into())).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn grpc_has_its_trailers_both_ways() {
    for between in BETWEEN {
        let app = App::answering(|_| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let body = Full::new(Bytes::from_static(b"\0\0\0\0\x02hi"));
            let body = body
                .with_trailers(async move { Some(Ok(trailers)) })
                .boxed();
            let response = Response::builder().header("content-type", "application/grpc");
            response.body(body).unwrap()
        })
        .await;
        let outbound = json!({"between": between});
        let pair = Pair::new(app.address, json!({"app_h2": true}), outbound).await;
        let mut client = h2(pair.out()).await;
        // Reserved headers come no further as trailers, either.
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "1".parse().unwrap());
        trailers.insert("x_mesh_agent", "evil".parse().unwrap());
        let body = Full::new(Bytes::from_static(b"\0\0\0\0\x02yo"));
        let body = body.with_trailers(async move { Some(Ok::<_, Infallible>(trailers)) });
        let request = Request::post("http://target/pkg.Service/Method")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body.boxed())
            .unwrap();
        let answer = client.send_request(request).await.unwrap();
        let answer = Collected::of(answer).await;
        assert_eq!(&answer.body[5..], b"hi");
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0", "{between}");
        let seen = app.only();
        assert_eq!(seen.header("te"), Some("trailers"));
        let trailers = seen.trailers.unwrap();
        assert_eq!(trailers["x-checksum"], "1");
        assert!(!trailers.contains_key("x_mesh_agent"));
    }
}

#[tokio::test]
async fn a_grpc_error_without_a_body_passes() {
    let app = App::answering(|_| {
        let response = Response::builder().header("grpc-status", "5");
        response.body(full("")).unwrap()
    })
    .await;
    let pair = Pair::new(app.address, json!({"app_h2": true}), json!({})).await;
    let mut client = h2(pair.out()).await;
    let request = Request::post("http://target/a").body(Full::<Bytes>::default());
    let answer = client.send_request(request.unwrap()).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "5");
}

#[tokio::test]
async fn a_websocket_is_a_tunnel_after_the_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for between in BETWEEN {
        let address = listener.local_addr().unwrap();
        let pair = Pair::between(address, between).await;
        let mut client = TcpStream::connect(pair.out()).await.unwrap();
        raw::write(
            &mut client,
            "GET /chat HTTP/1.1\nhost: target\nconnection: keep-alive, Upgrade\nupgrade: WebSocket\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\nsec-websocket-version: 13\n\n",
        )
        .await;
        let (mut app, head) = accepted(&listener).await;
        assert!(head.starts_with("get /chat http/1.1"), "{head}");
        for line in [
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-key: dgh",
        ] {
            assert!(head.contains(line), "{head}");
        }
        // What comes with the head belongs to the other protocol; what looks like no HTTP passes.
        let agree = "HTTP/1.1 101 Switching Protocols\nconnection: Upgrade\nupgrade: websocket\n\
                     sec-websocket-accept: s3p\n\nhello";
        raw::write(&mut app, agree).await;
        let answer = raw::until(&mut client, "hello").await.to_lowercase();
        for line in [
            "http/1.1 101",
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-accept: s3p",
        ] {
            assert!(answer.contains(line), "{answer}");
        }
        for word in ["one\n\n x \0", "two: \r three"] {
            raw::write(&mut client, word).await;
            raw::until(&mut app, &word.replace('\n', "\r\n")).await;
            raw::write(&mut app, word).await;
            raw::until(&mut client, &word.replace('\n', "\r\n")).await;
        }
        let counted = || {
            pair.caller
                .metric("sidecar_requests_total", &[("code", "101")])
        };
        assert!(counted() < 0.5, "it lives on");
        drop(client);
        assert_eq!(raw::to_end(&mut app).await, "");
        drop(app);
        mesh_tests::wait_for("the end", async || counted() > 0.5).await;
    }
}

/// The first connection that sends a head: not a health check. And the head, in lower case.
async fn accepted(listener: &TcpListener) -> (TcpStream, String) {
    loop {
        let (mut stream, _) = within("a connection", listener.accept()).await.unwrap();
        let mut one = [0];
        if within("a byte or the end", stream.peek(&mut one))
            .await
            .unwrap()
            > 0
        {
            let head = raw::until(&mut stream, "\r\n\r\n").await.to_lowercase();
            return (stream, head);
        }
    }
}

#[tokio::test]
async fn a_websocket_that_is_declined_is_an_answer_and_the_end() {
    let app = App::start().await;
    for between in BETWEEN {
        let pair = Pair::between(app.address, between).await;
        let mut client = TcpStream::connect(pair.out()).await.unwrap();
        raw::write(
            &mut client,
            "GET / HTTP/1.1\nhost: target\nconnection: upgrade\nupgrade: websocket\n\n",
        )
        .await;
        let answer = raw::to_end(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.contains("connection: close") && answer.ends_with("ok"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn nobody_is_switched_who_did_not_ask() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let once = json!({"defaults": {"retries": {"max": 0}}});
    let pair = Pair::new(listener.local_addr().unwrap(), json!({}), once).await;
    let mut client = TcpStream::connect(pair.out()).await.unwrap();
    raw::write(
        &mut client,
        "GET / HTTP/1.1\nhost: target\nconnection: upgrade\nupgrade: h2c\n\n",
    )
    .await;
    let (mut app, head) = accepted(&listener).await;
    assert!(!head.contains("upgrade"), "{head}");
    raw::write(
        &mut app,
        "HTTP/1.1 101 Switching Protocols\nupgrade: h2c\nconnection: upgrade\n\n",
    )
    .await;
    raw::until(&mut client, "HTTP/1.1 502").await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it() {
    let app = App::answering(echo).await;
    for between in BETWEEN {
        let pair = Pair::between(app.address, between).await;
        let mut client = TcpStream::connect(pair.out()).await.unwrap();
        let head = "POST / HTTP/1.1\nhost: target\nexpect: 100-continue\ncontent-length: 4\n\n";
        raw::write(&mut client, head).await;
        raw::until(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
        raw::write(&mut client, "body").await;
        let answer = raw::until(&mut client, "body").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn interim_answers_do_not_take_the_place_of_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for between in BETWEEN {
        let pair = Pair::between(listener.local_addr().unwrap(), between).await;
        let mut client = TcpStream::connect(pair.out()).await.unwrap();
        raw::write(&mut client, "GET / HTTP/1.1\nhost: target\n\n").await;
        let (mut app, _) = accepted(&listener).await;
        let early = "HTTP/1.1 103 Early Hints\nlink: </a>\n\n";
        raw::write(&mut app, early).await;
        raw::write(&mut app, "HTTP/1.1 200 OK\ncontent-length: 4\n\ndone").await;
        let answer = raw::until(&mut client, "done").await;
        assert!(answer.contains("HTTP/1.1 200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn a_chunked_answer_and_one_until_the_end_arrive_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for between in BETWEEN {
        let pair = Pair::between(listener.local_addr().unwrap(), between).await;
        for (framing, body) in [
            (
                "transfer-encoding: chunked\n",
                "3\nabc\n4;ext=1\ndefg\n0\n\n",
            ),
            ("connection: close\n", "abcdefg"),
            ("content-length: 7\n", "abcdefg"),
        ] {
            let asking = tokio::spawn(h1(pair.out(), get("/")));
            let (mut app, _) = accepted(&listener).await;
            raw::write(&mut app, &format!("HTTP/1.1 200 OK\n{framing}\n{body}")).await;
            drop(app);
            let answer = Collected::of(within("an answer", asking).await.unwrap()).await;
            assert_eq!(answer.text(), "abcdefg", "{between} {framing}");
        }
    }
}

#[tokio::test]
async fn many_requests_share_few_connections() {
    let app = App::start().await;
    for between in BETWEEN {
        let pair = Pair::between(app.address, between).await;
        let many = (0..50).map(|_| pair.get("/"));
        let answers = futures_util::future::join_all(many).await;
        for answer in answers {
            assert_eq!(answer.status, 200, "{between}: {}", answer.text());
        }
        let labels = [("direction", "inbound")];
        let open = pair.target.metric("sidecar_connections_open", &labels);
        if between == "http2" {
            assert!(open < 1.5, "{open}");
        }
        let handshakes = || {
            pair.target.metric(
                "sidecar_tls_handshakes_total",
                &[("direction", "inbound"), ("outcome", "ok")],
            )
        };
        let before = handshakes();
        for _ in 0..20 {
            assert_eq!(pair.get("/").await.status, 200);
        }
        assert!(
            (handshakes() - before).abs() < 0.5,
            "{between}: connections are kept"
        );
    }
}
