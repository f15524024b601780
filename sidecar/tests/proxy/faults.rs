//! Programs and peers that hang, break off and answer for ever; what is tried again and what is not.

use crate::raw;
use crate::support::{App, Mesh, Pair, full, get, h1, request, send};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Request, Response};
use mesh_sidecar::registry::{Health, Registered, Registry};
use mesh_tests::{wait_for, within};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A program by hand: each connection that sends something is handed to `then` with its number.
async fn by_hand<F>(
    then: impl Fn(usize, TcpStream, String) -> F + Send + Sync + 'static,
) -> (std::net::SocketAddr, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let then = Arc::new(then);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (then, counted) = (Arc::clone(&then), Arc::clone(&counted));
            tokio::spawn(async move {
                if stream.peek(&mut [0]).await.unwrap_or(0) == 0 {
                    return;
                }
                let head = raw::until(&mut stream, "\r\n\r\n").await;
                let number = counted.fetch_add(1, Ordering::SeqCst);
                then(number, stream, head).await;
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn a_program_that_hangs_is_given_up_in_time() {
    for between in ["http1", "http2"] {
        let (address, count) = by_hand(|_, stream, _| async move {
            let _held = stream;
            std::future::pending::<()>().await;
        })
        .await;
        let settings = json!({"response_timeout_ms": 150});
        // Whichever of the two gives up first.
        for (inbound, outbound) in [(settings.clone(), json!({})), (json!({}), settings)] {
            let outbound = json!({"between": between, "defaults": outbound});
            let pair = Pair::new(address, json!({"settings": inbound}), outbound).await;
            let before = count.load(Ordering::SeqCst);
            let answer = pair.send(request("POST", "/", "x")).await;
            assert_eq!(answer.status, 504, "{between}");
            assert_eq!(
                answer.header("content-type"),
                Some("application/problem+json")
            );
            assert_eq!(
                count.load(Ordering::SeqCst),
                before + 1,
                "it is not asked again"
            );
        }
    }
}

/// A program on threads of its own, which closes each connection with its first answer and says nothing of it before.
fn closing() -> std::net::SocketAddr {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                let mut line = String::new();
                while stream.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                // A health check leaves without a word.
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                let _ = stream.get_mut().write_all(answer);
            });
        }
    });
    address
}

#[tokio::test]
async fn a_program_that_closes_after_each_answer_is_waited_for_by_nobody() {
    let address = closing();
    for between in ["http1", "http2"] {
        let pair = Pair::between(address, between).await;
        for _ in 0..100 {
            let mut client = TcpStream::connect(pair.out()).await.unwrap();
            for _ in 0..3 {
                raw::write(&mut client, "GET / HTTP/1.1\nhost: target\n\n").await;
                let answer = raw::until(&mut client, "ok").await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer() {
    let app = App::answering(|seen| Response::new(full(seen.body.len().to_string()))).await;
    let settings = json!({"response_timeout_ms": 200});
    for between in ["http1", "http2"] {
        let outbound = json!({"between": between, "defaults": settings});
        let pair = Pair::new(app.address, json!({"settings": settings}), outbound).await;
        let mut client = TcpStream::connect(pair.out()).await.unwrap();
        raw::write(
            &mut client,
            "POST / HTTP/1.1\nhost: target\ncontent-length: 120000\n\n",
        )
        .await;
        for _ in 0..12 {
            client.write_all(&[b'x'; 10_000]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        raw::until(&mut client, "120000").await;
    }
}

#[tokio::test]
async fn a_program_that_breaks_off_is_a_bad_gateway_or_a_broken_answer() {
    for between in ["http1", "http2"] {
        let (address, _) = by_hand(|_, mut stream, head| async move {
            let part = match head.split(' ').nth(1).unwrap() {
                "/length" => "HTTP/1.1 200 OK\ncontent-length: 100000\n\nabc",
                "/chunked" => "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n3\nabc\n",
                "/bad-chunk" => "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n3\nabc\nxyz\n",
                "/half-a-head" => "HTTP/1.1 200 OK\nx: ",
                "/no-http" => "hello\n\n",
                _ => "",
            };
            raw::write(&mut stream, part).await;
        })
        .await;
        let pair = Pair::between(address, between).await;
        for path in ["/", "/half-a-head", "/no-http"] {
            let answer = pair.send(request("POST", path, "x")).await;
            assert_eq!(answer.status, 502, "{between} {path}");
        }
        for path in ["/length", "/chunked", "/bad-chunk"] {
            let answer = h1(pair.out(), get(path)).await;
            // The head may be out before that is known.
            if answer.status() == 502 {
                continue;
            }
            assert_eq!(answer.status(), 200, "{between} {path}");
            let body = within("the end", answer.into_body().collect()).await;
            assert!(
                body.is_err(),
                "{between} {path}: nobody takes it for the whole"
            );
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_is_carried_in_bounded_memory_until_the_client_goes() {
    let sent = Arc::new(AtomicUsize::new(0));
    for between in ["http1", "http2"] {
        let counted = Arc::clone(&sent);
        let (address, _) = by_hand(move |_, mut stream, _| {
            let counted = Arc::clone(&counted);
            async move {
                raw::write(&mut stream, "HTTP/1.1 200 OK\ncontent-type: text/plain\n\n").await;
                while stream.write_all(&[b'x'; 65_536]).await.is_ok() {
                    counted.fetch_add(65_536, Ordering::SeqCst);
                }
                counted.store(0, Ordering::SeqCst);
            }
        })
        .await;
        let pair = Pair::between(address, between).await;
        let mut answer = h1(pair.out(), get("/")).await.into_body();
        let mut read = 0;
        while read < 1024 * 1024 {
            let frame = within("more", answer.frame()).await.unwrap().unwrap();
            read += frame.into_data().unwrap().len();
        }
        // Nobody reads on: windows and buffers fill, and then nothing is taken from the program.
        let last = AtomicUsize::new(0);
        wait_for("backpressure", async || {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = sent.load(Ordering::SeqCst);
            last.swap(now, Ordering::SeqCst) == now
        })
        .await;
        let taken = last.load(Ordering::SeqCst);
        assert!(
            taken < 64 * 1024 * 1024,
            "{between}: {taken} bytes were taken"
        );
        drop(answer);
        wait_for("the program to be let go", async || {
            sent.load(Ordering::SeqCst) == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_that_rested_and_was_closed_is_no_error() {
    // Each connection answers once and is closed without having said so.
    let (address, count) = by_hand(|_, mut stream, _| async move {
        raw::write(&mut stream, "HTTP/1.1 200 OK\ncontent-length: 2\n\nok").await;
    })
    .await;
    for between in ["http1", "http2"] {
        let pair = Pair::between(address, between).await;
        for number in 0..20 {
            let answer = pair.get("/").await;
            assert_eq!(answer.status, 200, "{between} {number}");
        }
    }
    assert_eq!(count.load(Ordering::SeqCst), 40);
}

/// Registers an instance of `target` that is not a sidecar's.
pub async fn registered(mesh: &Mesh, id: &str, address: std::net::SocketAddr) {
    let instance = Registered {
        id: id.to_owned(),
        service: "target".parse().unwrap(),
        address,
        tags: Vec::new(),
        meta: BTreeMap::new(),
        weight: 1,
        ttl: Duration::from_secs(600),
        forget_after: Duration::from_secs(600),
    };
    mesh.registry.register(&instance).await.unwrap();
    mesh.registry.report(id, &Health::Passing).await.unwrap();
}

#[tokio::test]
async fn a_dead_instance_is_left_alone_and_nobody_notices() {
    let app = App::start().await;
    let mesh = Mesh::new();
    let _target = mesh.before("target", app.address, json!({})).await;
    // Nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    registered(&mesh, "dead", gone.local_addr().unwrap()).await;
    drop(gone);
    let caller = mesh
        .beside(
            "caller",
            json!({"defaults": {"outlier": {"consecutive_failures": 2}}}),
        )
        .await;
    for number in 0..60 {
        // A POST too: nobody has seen it.
        let answer = send(caller.out(), request("POST", "/", "x")).await;
        assert_eq!(answer.status, 200, "{number}");
    }
    let labels = [("direction", "outbound"), ("peer", "target")];
    assert!(caller.metric("sidecar_ejections_total", &labels) > 0.5);
    assert!(caller.metric("sidecar_retries_total", &labels) > 0.5);
    assert_eq!(app.seen().len(), 60);
}

#[tokio::test]
async fn what_may_be_repeated_is_tried_elsewhere_and_what_may_not_is_not() {
    let ill = App::answering(|_| Response::builder().status(503).body(full("ill")).unwrap()).await;
    let well = App::start().await;
    for between in ["http1", "http2"] {
        let mesh = Mesh::new();
        let _ill = mesh.before("target", ill.address, json!({})).await;
        let _well = mesh.before("target", well.address, json!({})).await;
        let settings =
            json!({"outlier": {"consecutive_failures": 1_000}, "retries": {"min_per_s": 1_000}});
        let caller = mesh
            .beside("caller", json!({"between": between, "defaults": settings}))
            .await;
        let (mut posts, mut gets) = (Vec::new(), Vec::new());
        for _ in 0..60 {
            posts.push(send(caller.out(), request("POST", "/", "x")).await.status);
            gets.push(send(caller.out(), request("PUT", "/", "y")).await.status);
        }
        assert!(gets.iter().all(|status| *status == 200), "{gets:?}");
        assert!(posts.contains(&503) && posts.contains(&200), "{posts:?}");
        assert!(well.seen().iter().any(|s| s.body == "y"));
    }
}

#[tokio::test]
async fn retries_are_bounded() {
    let ill = App::answering(|_| Response::builder().status(503).body(full("ill")).unwrap()).await;
    let settings = json!({
        "retries": {"max": 2, "budget_percent": 0, "min_per_s": 3},
        "breaker": {"failure_percent": 0},
        "outlier": {"consecutive_failures": 1_000},
    });
    let pair = Pair::new(
        ill.address,
        json!({"settings": {"breaker": {"failure_percent": 0}}}),
        json!({"defaults": settings}),
    )
    .await;
    let answer = pair.get("/").await;
    assert_eq!((answer.status, answer.text()), (503, "ill"));
    assert_eq!(ill.seen().len(), 3, "a first try and two more");
}

#[tokio::test]
async fn a_long_body_is_sent_again_only_while_nothing_of_it_is_lost() {
    let app = App::answering(|seen| Response::new(full(seen.body.len().to_string()))).await;
    let mesh = Mesh::new();
    let _target = mesh.before("target", app.address, json!({})).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    registered(&mesh, "dead", gone.local_addr().unwrap()).await;
    drop(gone);
    let settings = json!({"outlier": {"consecutive_failures": 1_000}, "retries": {"min_per_s": 1_000, "max_body_bytes": 10}});
    let caller = mesh.beside("caller", json!({"defaults": settings})).await;
    for number in 0..30 {
        // No connection came about, so nothing of it was taken.
        let answer = send(caller.out(), request("POST", "/", vec![b'x'; 100_000])).await;
        assert_eq!((answer.status, answer.text()), (200, "100000"), "{number}");
    }
}

#[tokio::test]
async fn a_service_that_fails_is_left_alone_and_tried_again() {
    let ill = Arc::new(AtomicUsize::new(1));
    let now = Arc::clone(&ill);
    let app = App::answering(move |_| {
        let status = if now.load(Ordering::SeqCst) == 1 {
            503
        } else {
            200
        };
        Response::builder().status(status).body(full("")).unwrap()
    })
    .await;
    let breaker = json!({"min_requests": 5, "failure_percent": 50, "open_ms": 100});
    let settings = json!({"breaker": breaker, "retries": {"max": 0}});
    let pair = Pair::new(
        app.address,
        json!({"settings": {"breaker": {"failure_percent": 0}}}),
        json!({"defaults": settings}),
    )
    .await;
    let open = || {
        pair.caller
            .metric("sidecar_breaker_open", &[("peer", "target")])
    };
    while open() < 0.5 {
        assert_eq!(pair.get("/").await.status, 503);
        assert!(app.seen().len() < 50);
    }
    let asked = app.seen().len();
    let answer = pair.get("/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("left alone"), "{}", answer.text());
    assert_eq!(app.seen().len(), asked, "the program is not asked");
    ill.store(0, Ordering::SeqCst);
    wait_for("an answer", async || pair.get("/").await.status == 200).await;
    assert!(open() < 0.5);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let left = CancellationToken::new();
    for between in ["http1", "http2"] {
        let left = left.child_token();
        let (token, (asked, mut asked_here)) =
            (left.clone(), tokio::sync::mpsc::unbounded_channel());
        let app = App::streaming(move |_| {
            let guard = token.clone().drop_guard();
            asked.send(()).unwrap();
            Box::pin(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
                Response::new(full(""))
            })
        })
        .await;
        let pair = Pair::between(app.address, between).await;
        let mut client = TcpStream::connect(pair.out()).await.unwrap();
        raw::write(&mut client, "GET / HTTP/1.1\nhost: target\n\n").await;
        within("the request", asked_here.recv()).await.unwrap();
        drop(client);
        within("the program to be let go", left.cancelled()).await;
        wait_for("the count", async || {
            pair.caller
                .metric("sidecar_requests_total", &[("code", "499")])
                > 0.5
        })
        .await;
    }
}

#[tokio::test]
async fn without_a_program_it_is_a_bad_gateway() {
    let app = App::start().await;
    let pair = Pair::between(app.address, "http2").await;
    assert_eq!(pair.get("/").await.status, 200);
    drop(app);
    wait_for("the end of its connections", async || {
        pair.get("/").await.status != 200
    })
    .await;
    let request = Request::post("/")
        .header("host", "target")
        .body(http_body_util::Full::<Bytes>::default());
    let status = pair.send(request.unwrap()).await.status;
    assert!(matches!(status, 502 | 503), "{status}");
}
