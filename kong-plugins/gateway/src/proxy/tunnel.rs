//! WebSocket: a connection of HTTP/1.1 that becomes something else, after the filters have passed the
//! request.

use crate::body::Body;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// Bytes that are copied at a time, each way.
const BUFFER: usize = 16 * 1024;

/// A client's connection.
pub(crate) struct Client {
    pub address: SocketAddr,
    tunnel: RefCell<Option<Tunnel>>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            tunnel: RefCell::new(None),
        }
    }

    /// What is to be run when the connection has ended as HTTP.
    pub(crate) fn take_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.take()
    }
}

/// Two connections that are to be joined.
pub(crate) struct Tunnel {
    client: OnUpgrade,
    service: OnUpgrade,
    /// Longest silence of both sides.
    longest: Duration,
    /// Holds the request's passage through the filters and its entry in the metrics.
    held: Body,
}

/// The client's end, when the request asks for a WebSocket. Anything else that `Upgrade` names is left out,
/// as every header of one hop is.
pub(super) fn wanted(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    let headers = request.headers();
    // Most requests have no such header.
    if !headers.contains_key(UPGRADE)
        || request.method() != Method::GET
        || request.version() != Version::HTTP_11
        || !names(headers, &UPGRADE, "websocket")
        || !names(headers, &CONNECTION, "upgrade")
    {
        return None;
    }
    Some(hyper::upgrade::on(request))
}

fn names(headers: &HeaderMap, header: &http::HeaderName, word: &str) -> bool {
    let values = headers.get_all(header).iter();
    let mut words = values.flat_map(|v| v.as_bytes().split(|b| *b == b','));
    words.any(|w| w.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

/// Writes what asks for a WebSocket, or says that it is one.
pub(super) fn set(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Leaves the two ends with the client's connection, which joins them when the answer is out.
pub(super) fn open(
    response: Response<Body>,
    client: &Client,
    ends: (OnUpgrade, OnUpgrade),
    longest: Duration,
) -> Response<Body> {
    debug_assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let (mut parts, held) = response.into_parts();
    set(&mut parts.headers);
    client.tunnel.replace(Some(Tunnel {
        client: ends.0,
        service: ends.1,
        longest,
        held,
    }));
    Response::from_parts(parts, Body::full(""))
}

impl Tunnel {
    /// Carries bytes both ways until one side ends, or both are silent for too long.
    pub(crate) async fn run(self) {
        let Self {
            client,
            service,
            longest,
            mut held,
        } = self;
        let (Ok(client), Ok(service)) = (client.await, service.await) else {
            return;
        };
        let (client_in, client_out) = tokio::io::split(TokioIo::new(client));
        let (service_in, service_out) = tokio::io::split(TokioIo::new(service));
        let last = Cell::new(Instant::now());
        let sent = Cell::new(0);
        let silence = async {
            loop {
                let end = last.get() + longest;
                if end <= Instant::now() {
                    return;
                }
                tokio::time::sleep_until(end).await;
            }
        };
        let both = async {
            let up = copy(client_in, service_out, |_| last.set(Instant::now()));
            let down = copy(service_in, client_out, |bytes| {
                last.set(Instant::now());
                sent.set(sent.get() + bytes);
            });
            tokio::join!(up, down);
        };
        tokio::select! {
            () = both => {}
            () = silence => {}
        }
        held.count(sent.get());
    }
}

/// Copies until the end or an error, which the other side then learns as an end.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    seen: impl Fn(u64),
) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(read) = from.read(&mut buffer).await {
        let part = buffer.get(..read).unwrap_or_default();
        if part.is_empty() || to.write_all(part).await.is_err() || to.flush().await.is_err() {
            break;
        }
        seen(part.len() as u64);
    }
    // The other side may have gone already.
    let _ = to.shutdown().await;
}
