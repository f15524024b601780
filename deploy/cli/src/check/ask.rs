//! Questions to services over HTTP: one client, bounded in time and size, and its failures in words.

use mesh_local::probe;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// How long one answer may take.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// A client that believes the authorities in the PEM file `ca`, or the system's.
pub fn client(ca: Option<&Path>) -> Result<Client, String> {
    let Some(ca) = ca else {
        return probe::client().map_err(|e| e.to_string());
    };
    let pem = std::fs::read(ca).map_err(|e| format!("cannot read {}: {e}", ca.display()))?;
    let authorities = reqwest::Certificate::from_pem_bundle(&pem);
    let authorities = authorities.map_err(|_| format!("{} is no PEM", ca.display()))?;
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only(authorities)
        .build()
        .map_err(|e| e.to_string())
}

/// The answer in JSON; otherwise why there is none.
pub async fn answer(request: RequestBuilder) -> Result<Value, String> {
    let mut response = request.timeout(PATIENCE).send().await.map_err(|error| {
        let why = if error.is_timeout() {
            "no answer in time"
        } else if error.is_connect() {
            "nobody listens there"
        } else {
            "the connection broke"
        };
        why.to_owned()
    })?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("answers {}", status.as_u16()));
    }
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err("its answer is too long".to_owned());
        }
    }
    serde_json::from_slice(&body).map_err(|_| "its answer is no JSON".to_owned())
}

/// The items of a list within a value; none where there is no list.
pub fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten()
}
