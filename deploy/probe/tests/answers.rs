//! What it makes of answers, and of none.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

fn probe(url: &str) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_probe"))
        .arg(url)
        .output()
        .unwrap();
    (
        out.status.code(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    )
}

/// What the probe says of a server that answers with these bytes.
fn of(answer: &'static [u8]) -> (Option<i32>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 1024];
        let read = stream.read(&mut asked).unwrap();
        stream.write_all(answer).unwrap();
        String::from_utf8_lossy(&asked[..read]).into_owned()
    });
    let said = probe(&format!("http://{address}/ready"));
    let asked = server.join().unwrap();
    assert!(asked.starts_with("GET /ready HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("Host: {address}\r\n")), "{asked}");
    said
}

#[test]
fn only_2xx_is_well() {
    assert_eq!(
        of(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").0,
        Some(0)
    );
    assert_eq!(of(b"HTTP/1.0 204 No Content\r\n\r\n").0, Some(0));
    let (code, said) = of(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
    assert_eq!(code, Some(1));
    assert!(said.contains("HTTP 503"), "{said}");
    for odd in [
        &b""[..],
        b"hello\r\n",
        b"HTTP/1.1\r\n",
        b"HTTP/1.1 2\xc3\x28x\r\n",
    ] {
        let (code, said) = of(odd);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("no HTTP"), "{said}");
    }
}

#[test]
fn nobody_there_and_nothing_asked_are_failures() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(probe(&format!("http://{free}/")).0, Some(1));
    for bad in [
        "https://127.0.0.1:1/",
        "127.0.0.1:1",
        "http://a@127.0.0.1:1/",
        "http://127.0.0.1:1/a b",
    ] {
        let (code, said) = probe(bad);
        assert_eq!(code, Some(1), "{bad}: {said}");
    }
}
