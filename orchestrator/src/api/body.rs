//! A request's body, whole and bounded in size and time. Its content type does not matter.

use super::failure::Failure;
use axum::body::Body;
use futures_util::StreamExt;
use http::{HeaderMap, header};
use std::time::Duration;

/// Time for a body to arrive: a megabyte over a slow line.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads at most `limit` bytes.
///
/// # Errors
/// 413, 408, or 400 when the connection broke.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>, Failure> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<usize>().ok())
        .unwrap_or(0);
    if announced > limit {
        return Err(Failure::too_large(limit));
    }
    let whole = async {
        let mut bytes = Vec::with_capacity(announced);
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Failure::body_lost())?;
            if bytes.len() + chunk.len() > limit {
                return Err(Failure::too_large(limit));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    tokio::time::timeout(PATIENCE, whole)
        .await
        .unwrap_or_else(|_| Err(Failure::body_slow()))
}
