//! The upstream of every gateway: answers 200 with what it saw, as JSON, and remembers it.
//!
//! `GET /.verdicts/seen/ID` says what it saw of the request that carried `x-verdicts-id: ID`, so that a
//! refusal can be shown to have let nothing through. A request with `x-verdicts-hold` is answered once
//! `GET /.verdicts/release/ID` was asked. `GET /.verdicts/jwks` is a key set for filters that fetch one.

use crate::request::{HOLD, ID};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Header by which an answer is known to be the echo's.
pub(crate) const MARK: &str = "x-verdicts-echo";
/// Path of its own requests.
pub(crate) const OWN: &str = "/.verdicts/";
/// Requests that it remembers.
const MEMORY: usize = 100_000;
const MAX_HEAD: usize = 8 * 1024 * 1024;
const MAX_HEADERS: usize = 8192;

/// What it saw of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The target.
    pub path: String,
    /// Names in lower case, and values of which each byte is a character (ISO 8859-1).
    pub headers: Vec<(String, String)>,
    /// The body in base64.
    pub body: String,
    /// Its bytes.
    pub length: usize,
}

impl Seen {
    pub(crate) fn new(
        method: &str,
        path: &str,
        headers: &[(String, Vec<u8>)],
        body: &[u8],
    ) -> Self {
        let headers = headers.iter();
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: headers
                .map(|(name, value)| (name.clone(), latin1(value)))
                .collect(),
            length: body.len(),
            body: STANDARD.encode(body),
        }
    }

    /// The values of a header.
    pub fn values(&self, name: &str) -> Vec<Vec<u8>> {
        self.headers
            .iter()
            .filter(|(own, _)| own == name)
            .map(|(_, value)| from_latin1(value))
            .collect()
    }

    /// The body.
    pub fn bytes(&self) -> Vec<u8> {
        STANDARD.decode(&self.body).unwrap_or_default()
    }
}

/// The echo, which runs until this is dropped.
#[derive(Debug)]
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Memory {
    seen: HashMap<String, Vec<Seen>>,
    order: VecDeque<String>,
    released: HashMap<String, watch::Sender<bool>>,
}

impl Echo {
    /// Starts one.
    ///
    /// # Panics
    /// When `address` cannot be listened on.
    pub async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address)
            .await
            .unwrap_or_else(|error| panic!("the echo cannot listen on {address}: {error}"));
        let address = listener.local_addr().expect("the echo's own address");
        let task = tokio::spawn(serve(listener));
        Self { address, task }
    }

    /// Until it ends, which it does not by itself.
    pub async fn ended(mut self) {
        let _ = (&mut self.task).await;
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener) {
    let memory: Arc<Mutex<Memory>> = Arc::default();
    while let Ok((stream, _)) = listener.accept().await {
        let memory = Arc::clone(&memory);
        let service = service_fn(move |request| answer(request, Arc::clone(&memory)));
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD);
        tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    memory: Arc<Mutex<Memory>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(own) = request.uri().path().strip_prefix(OWN) {
        return Ok(about(own, &memory));
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let body = body.unwrap_or_default();
    let headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    let path = parts.uri.to_string();
    let seen = Seen::new(parts.method.as_str(), &path, &headers, &body);
    let id = seen.values(ID).concat();
    let id = String::from_utf8_lossy(&id).into_owned();
    let json = serde_json::to_vec(&seen).unwrap_or_default();
    let hold = {
        let mut memory = memory.lock().unwrap();
        memory.remember(&id, seen);
        parts
            .headers
            .contains_key(HOLD)
            .then(|| memory.hold(&id).subscribe())
    };
    if let Some(mut hold) = hold {
        let _ = hold.wait_for(|released| *released).await;
    }
    Ok(json_response(json))
}

/// What the runner asks of the echo itself.
fn about(own: &str, memory: &Mutex<Memory>) -> Response<Full<Bytes>> {
    let mut memory = memory.lock().unwrap();
    let (what, id) = own.split_once('/').unwrap_or((own, ""));
    let json = match what {
        "seen" => serde_json::to_vec(&memory.seen.get(id).cloned().unwrap_or_default()),
        "release" => {
            memory.hold(id).send_replace(true);
            serde_json::to_vec(&true)
        }
        "jwks" => serde_json::to_vec(&crate::keys::jwks()),
        _ => serde_json::to_vec(&false),
    };
    json_response(json.unwrap_or_default())
}

fn json_response(json: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(json));
    let headers = response.headers_mut();
    headers.insert(
        "content-type",
        hyper::header::HeaderValue::from_static("application/json"),
    );
    headers.insert(MARK, hyper::header::HeaderValue::from_static("1"));
    response
}

impl Memory {
    fn remember(&mut self, id: &str, seen: Seen) {
        if self.order.len() >= MEMORY
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
            self.released.remove(&oldest);
        }
        self.order.push_back(id.to_owned());
        self.seen.entry(id.to_owned()).or_default().push(seen);
    }

    fn hold(&mut self, id: &str) -> &watch::Sender<bool> {
        self.released
            .entry(id.to_owned())
            .or_insert_with(|| watch::Sender::new(false))
    }
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn from_latin1(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
        .collect()
}
