//! `GET /log` and `PUT /log`: the filter of the log, such as `info,mesh_sidecar=debug`, as plain text.
//!
//! Whoever may read metrics need not be one who may silence the log: only this machine may.

use super::{HEAD, from_elsewhere, plain, response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use mesh_trace::LogHandle;
use mesh_trace::logs::MAX_FILTER;
use std::net::SocketAddr;

pub(super) const PATH: &str = "/log";

pub(super) async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    logs: Option<&LogHandle>,
) -> Response<Full<Bytes>> {
    if let Some(refused) = from_elsewhere(&request, peer) {
        return refused;
    }
    let Some(logs) = logs else {
        return plain(StatusCode::NOT_FOUND, "the log is not this sidecar's\n");
    };
    if request.method() == Method::PUT {
        if let Err(refused) = change(request, logs).await {
            return refused;
        }
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "use GET or PUT\n");
        let allowed = header::HeaderValue::from_static("GET, HEAD, PUT");
        refused.headers_mut().insert(header::ALLOW, allowed);
        return refused;
    }
    text(StatusCode::OK, &logs.filter())
}

async fn change(request: Request<Incoming>, logs: &LogHandle) -> Result<(), Response<Full<Bytes>>> {
    let body = Limited::new(request.into_body(), MAX_FILTER).collect();
    let body = match tokio::time::timeout(HEAD, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err(plain(StatusCode::PAYLOAD_TOO_LARGE, "too long a filter\n")),
        Err(_) => {
            return Err(plain(
                StatusCode::REQUEST_TIMEOUT,
                "the filter did not come\n",
            ));
        }
    };
    let filter = str::from_utf8(&body)
        .map_err(|_| plain(StatusCode::BAD_REQUEST, "the filter is no text\n"))?;
    let before = logs.filter();
    match logs.set(filter) {
        Ok(()) => {
            tracing::warn!(before, now = logs.filter(), "the log's filter is changed");
            Ok(())
        }
        Err(error) => Err(text(StatusCode::BAD_REQUEST, &error.to_string())),
    }
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain", format!("{text}\n").into())
}
