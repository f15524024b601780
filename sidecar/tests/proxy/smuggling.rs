//! Requests that two readers could take for different ones: refused with 400, and the connection closed, on the way
//! in and on the way out.

use crate::raw;
use crate::support::{App, Pair};
use mesh_sidecar::identity::Alpn;
use mesh_tests::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Line ends are written as they are sent.
const REFUSED: &[(&str, &str)] = &[
    (
        "two lengths",
        "POST / HTTP/1.1\r\nhost: target\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    ),
    (
        "two equal lengths",
        "POST / HTTP/1.1\r\nhost: target\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nab",
    ),
    (
        "a list of lengths",
        "POST / HTTP/1.1\r\nhost: target\r\ncontent-length: 2, 2\r\n\r\nab",
    ),
    (
        "length, then chunked",
        "POST / HTTP/1.1\r\nhost: target\r\ncontent-length: 30\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: target\r\n\r\n",
    ),
    (
        "chunked, then length",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked\r\ncontent-length: 30\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: target\r\n\r\n",
    ),
    (
        "a signed length",
        "POST / HTTP/1.1\r\nhost: target\r\ncontent-length: +2\r\n\r\nab",
    ),
    (
        "a negative length",
        "POST / HTTP/1.1\r\nhost: target\r\ncontent-length: -1\r\n\r\n",
    ),
    (
        "a length in hexadecimal",
        "POST / HTTP/1.1\r\nhost: target\r\ncontent-length: 0x2\r\n\r\nab",
    ),
    (
        "an empty length",
        "POST / HTTP/1.1\r\nhost: target\r\ncontent-length:\r\n\r\n",
    ),
    (
        "a length beyond all bounds",
        "POST / HTTP/1.1\r\nhost: target\r\ncontent-length: 99999999999999999999\r\n\r\n",
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice in a list",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "another coding",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "identity",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: identity\r\n\r\n",
    ),
    (
        "chunked that does not come last",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked with a vertical tab",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in HTTP/1.0",
        "POST / HTTP/1.0\r\nhost: target\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a space before the colon",
        "POST / HTTP/1.1\r\nhost: target\r\ncontent-length : 2\r\n\r\nab",
    ),
    (
        "a tab before the colon",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding\t: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a folded line",
        "POST / HTTP/1.1\r\nhost: target\r\nx: 1\r\n content-length: 2\r\n\r\nab",
    ),
    (
        "a folded line by a tab",
        "GET / HTTP/1.1\r\nhost: target\r\nx: 1\r\n\tmore\r\n\r\n",
    ),
    (
        "a space before the first header",
        "GET / HTTP/1.1\r\n host: target\r\n\r\n",
    ),
    ("lines without CR", "GET / HTTP/1.1\nhost: target\n\n"),
    (
        "one line without CR",
        "POST / HTTP/1.1\r\nhost: target\r\nx: 1\ncontent-length: 2\r\n\r\nab",
    ),
    ("an end without CR", "GET / HTTP/1.1\r\nhost: target\r\n\n"),
    (
        "a CR alone",
        "POST / HTTP/1.1\r\nhost: target\r\nx: 1\rcontent-length: 2\r\n\r\nab",
    ),
    (
        "a CR before the end",
        "GET / HTTP/1.1\r\nhost: target\r\r\n\r\n",
    ),
    ("a NUL", "GET / HTTP/1.1\r\nhost: target\r\nx: a\0b\r\n\r\n"),
    (
        "a header without a name",
        "GET / HTTP/1.1\r\nhost: target\r\n: 1\r\n\r\n",
    ),
    (
        "a header without a colon",
        "GET / HTTP/1.1\r\nhost: target\r\nx\r\n\r\n",
    ),
    (
        "two spaces in the request line",
        "GET  / HTTP/1.1\r\nhost: target\r\n\r\n",
    ),
    (
        "a chunk of no size",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked\r\n\r\n\r\nab\r\n0\r\n\r\n",
    ),
    (
        "a chunk of a size that is none",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked\r\n\r\nxy\r\nab\r\n0\r\n\r\n",
    ),
    (
        "a chunk of a signed size",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked\r\n\r\n-2\r\nab\r\n0\r\n\r\n",
    ),
    (
        "a chunk with a prefix",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked\r\n\r\n0x2\r\nab\r\n0\r\n\r\n",
    ),
    (
        "a chunk beyond all bounds",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked\r\n\r\n10000000000000002\r\nab\r\n0\r\n\r\n",
    ),
    (
        "a chunk's size without CR",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n",
    ),
    (
        "a chunk's extension without CR",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked\r\n\r\n2;a\nab\r\n0\r\n\r\n",
    ),
    (
        "a chunk longer than its size",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    ),
    (
        "a chunk that ends without CR",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\n0\r\n\r\n",
    ),
    (
        "trailers without CR",
        "POST / HTTP/1.1\r\nhost: target\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: 1\n\r\n",
    ),
];

#[tokio::test]
async fn every_form_is_refused_and_the_connection_closed() {
    let app = App::start().await;
    let pair = Pair::between(app.address, "http1").await;
    let inbound = pair.target.inbound.unwrap();
    for (what, bytes) in REFUSED {
        for at_once in [true, false] {
            let parts: Vec<&[u8]> = if at_once {
                vec![bytes.as_bytes()]
            } else {
                bytes.as_bytes().chunks(7).collect()
            };
            let mut plain = tokio::net::TcpStream::connect(pair.out()).await.unwrap();
            let mut tls = pair
                .mesh
                .connect("caller", "target", inbound, Alpn::Http1)
                .await;
            for part in parts {
                // It may be closed before all of it is sent.
                let _ = plain.write_all(part).await;
                let _ = tls.write_all(part).await;
                let _ = tls.flush().await;
                tokio::task::yield_now().await;
            }
            for (way, answer) in [
                ("out", raw::to_end(&mut plain).await),
                ("in", raw::to_end(&mut tls).await),
            ] {
                assert!(
                    answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"),
                    "{way} {at_once} {what}: {answer:?}"
                );
                assert_eq!(
                    answer.matches("HTTP/1.").count(),
                    1,
                    "{way} {at_once} {what}: {answer:?}"
                );
            }
        }
    }
    assert!(app.seen().is_empty(), "{:?}", app.seen());
    // Each of them once as a head that cannot be read, or as a request that was answered.
    let sent = f64::from(u32::try_from(2 * REFUSED.len()).unwrap());
    for (sidecar, way) in [(&pair.caller, "outbound"), (&pair.target, "inbound")] {
        wait_for("the counters", async || {
            let counted = ["malformed", "bad_request"].map(|reason| {
                let labels = [("direction", way), ("reason", reason)];
                sidecar.metric("sidecar_faults_total", &labels)
            });
            counted.iter().sum::<f64>() >= sent
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_legal_passes_however_it_is_cut() {
    let app = App::answering(|seen| {
        let text = format!("<{} {:?}>", seen.target, seen.body);
        hyper::Response::new(crate::support::full(text))
    })
    .await;
    let pair = Pair::between(app.address, "http1").await;
    let long = "v".repeat(300);
    let requests = format!(
        "\r\nPOST /1 HTTP/1.1\r\nHost: target\r\nContent-Length:  2 \r\n\r\nab\
         POST /2 HTTP/1.1\r\nhost:target\r\nTRANSFER-ENCODING: Chunked\r\n\r\n2\r\nab\r\n0A;x=\"y\"\r\n0123456789\r\n0\r\nx: y\r\n\r\n\
         GET /3 HTTP/1.1\r\nhost: target\r\nx-long: {long}\r\nx-empty:\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n\
         POST /4 HTTP/1.1\r\nhost: target\r\ncontent-length: 0\r\n\r\n\
         GET /5 HTTP/1.1\r\nhost: target\r\nconnection: close\r\n\r\n"
    );
    for size in [1, 2, 3, 5, 8, 13, 64, 4096] {
        let mut stream = tokio::net::TcpStream::connect(pair.out()).await.unwrap();
        for part in requests.as_bytes().chunks(size) {
            stream.write_all(part).await.unwrap();
            if size > 1 {
                tokio::task::yield_now().await;
            }
        }
        let answers = raw::to_end(&mut stream).await;
        let mut bodies: Vec<_> = answers
            .split('<')
            .skip(1)
            .map(|b| b.split('>').next().unwrap())
            .collect();
        bodies.dedup();
        let expected = [
            r#"/1 b"ab""#,
            r#"/2 b"ab0123456789""#,
            r#"/3 b"""#,
            r#"/4 b"""#,
            r#"/5 b"""#,
        ];
        assert_eq!(bodies, expected, "{size}: {answers}");
    }
}

#[tokio::test]
async fn what_comes_after_a_refused_request_is_not_read() {
    let app = App::start().await;
    let pair = Pair::between(app.address, "http2").await;
    let mut stream = tokio::net::TcpStream::connect(pair.out()).await.unwrap();
    raw::write(&mut stream, "GET /one HTTP/1.1\nhost: target\n\nGET /two HTTP/1.1\nhost: target\nhost: target\n\nGET /three HTTP/1.1\nhost: target\n\n").await;
    let mut all = Vec::new();
    mesh_tests::within("the end", stream.read_to_end(&mut all))
        .await
        .unwrap();
    let answers = String::from_utf8(all).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 400").count(), 1, "{answers}");
    assert_eq!(app.only().target, "/one");
}
