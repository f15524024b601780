//! What the screen itself sees; `tests/proxy/smuggling.rs` has it with hyper behind it.

use super::*;

const LEGAL: &[u8] = b"\r\n\r\nPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length:\t 3 \r\n\r\na\nb\
    POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\n\n\n\n\r\n00a\r\n0123456789\r\n0\r\nx: y\r\n\r\n\
    GET /c HTTP/1.1\r\ncontent-length: 0\r\nx: Content-Length: 5\r\nUpgrade: h2c, foo\r\n\r\n\
    GET /d HTTP/1.1\r\nconnection: upgrade\r\nupgrade: foo, WebSocket\r\n\r\n\n\n\0 any\nthing \r";

/// What is left of `bytes` when they come in parts of `size`.
fn seen(bytes: &[u8], size: usize) -> (Vec<u8>, State) {
    let mut screen = Screen::default();
    let mut all = bytes.to_vec();
    for part in all.chunks_mut(size) {
        screen.look(part);
    }
    (all, screen.state)
}

#[test]
fn what_is_legal_passes_untouched_however_it_is_cut() {
    for size in 1..LEGAL.len() {
        let (all, state) = seen(LEGAL, size);
        assert_eq!(all, LEGAL, "{size}");
        assert_eq!(state, State::Opaque, "{size}");
    }
}

#[test]
fn what_is_not_is_spoilt_from_the_same_byte_on() {
    let long = "x".repeat(KEPT);
    for (good, bad) in [
        ("GET / HTTP/1.1\r\nhost: a", "\nx: 1\r\n\r\n"),
        ("GET / HTTP/1.1", "\n\r\n"),
        ("GET / HTTP/1.1\r\nhost: a\r\n", "\n"),
        ("GET / HTTP/1.1\r\na: b\r\n c\r", "\n\r\n"),
        (
            "P / HTTP/1.1\r\ncontent-length: 1\r\nContent-length: 1\r",
            "\n\r\na",
        ),
        (
            "P / HTTP/1.1\r\nCONTENT-LENGTH: 1\r\ntransfer-encoding: chunked\r",
            "\n\r\na",
        ),
        (
            "P / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r",
            "\n\r\na",
        ),
        ("P / HTTP/1.1\r\ncontent-length: 1_0\r", "\n\r\n"),
        ("P / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", "g"),
        (
            "P / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            " 1\r\n",
        ),
        (
            "P / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1",
            "\na\r\n",
        ),
        (
            "P / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n123456789abcdef",
            "0\r\n",
        ),
        (
            "P / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y",
            "\n\r\n",
        ),
        (
            &format!("P / HTTP/1.1\r\ncontent-length: {long}1\r"),
            "\n\r\n",
        ),
        (&format!("P / HTTP/1.1\r\nx: {long}"), "\n\r\n"),
    ] {
        let bytes = [good, bad].concat();
        for size in 1..=bytes.len() {
            let (all, state) = seen(bytes.as_bytes(), size);
            assert_eq!(state, State::Spoilt, "{size} {bytes:?}");
            assert_eq!(&all[..good.len()], good.as_bytes(), "{size} {bytes:?}");
            assert_eq!(all[good.len()], 0, "{size} {bytes:?}");
        }
    }
}

#[test]
fn it_is_known_whether_a_head_has_begun() {
    let mut screen = Screen::default();
    for (bytes, within) in [
        ("", false),
        ("\r\n", false),
        ("G", true),
        ("ET / HTTP/1.1\r\n", true),
        ("host: a\r\ncontent-length: 2\r\n", true),
        ("\r\n", false),
        ("a", false),
        ("b", false),
        ("GET", true),
    ] {
        screen.look(&mut bytes.as_bytes().to_vec());
        assert_eq!(screen.within_head(), within, "{bytes:?}");
    }
}
