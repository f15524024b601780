//! `probe http://127.0.0.1:8589/ready`: exits 0 when the answer is 2xx, else 1, and says why.
//!
//! Our images hold neither shell nor curl, and a health check of Docker or an `exec` probe of Kubernetes is a
//! program. The standard library alone: it starts every few seconds in every container.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

/// Longest connecting, writing and reading each; below what Docker and Kubernetes wait here.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The status line and no more: what is said besides is not looked at.
const LONGEST_ANSWER: u64 = 1024;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let outcome = match (arguments.next(), arguments.next()) {
        (Some(url), None) => ask(&url),
        _ => Err("usage: probe http://HOST:PORT/PATH".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody is left to tell when it cannot be written.
            let _ = writeln!(io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    }
}

fn ask(url: &str) -> Result<(), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| format!("{url} does not begin with http://"))?;
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    if host.contains('@') || path.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return Err(format!("{url} cannot be asked"));
    }
    let failed = |error: &dyn Display| format!("{url}: {error}");
    let mut addresses = host.to_socket_addrs().map_err(|e| failed(&e))?;
    let address = addresses.next().ok_or_else(|| failed(&"no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(|e| failed(&e))?;
    let io = |error: io::Error| failed(&error);
    stream.set_read_timeout(Some(TIMEOUT)).map_err(io)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(io)?;
    // One word, since an answer may come before a second one.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(io)?;
    match status(stream).map_err(io)? {
        Some(200..=299) => Ok(()),
        Some(status) => Err(failed(&format_args!("HTTP {status}"))),
        None => Err(failed(&"no HTTP")),
    }
}

/// The status of an answer, as soon as its first line is there.
fn status(stream: TcpStream) -> io::Result<Option<u16>> {
    let mut answer = Vec::new();
    let mut stream = stream.take(LONGEST_ANSWER);
    let mut buffer = [0; 256];
    loop {
        let read = stream.read(&mut buffer)?;
        answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if read == 0 || answer.contains(&b'\n') {
            break;
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let line = line.lines().next().unwrap_or_default();
    let rest = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..));
    Ok(rest
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok()))
}
