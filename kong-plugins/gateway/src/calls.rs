//! Calls that filters make on their ticks: made one by one, to addresses, with an end in time.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use mesh_wasm_host::{Call, CallAnswer};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest body that is read of an answer, in bytes; filters take no longer one.
const MAX_BODY: usize = 1 << 20;
/// Longest call; what a filter wants to know on its tick is old by then.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes the call. It always ends, and says how.
pub(crate) async fn make(call: &Call) -> CallAnswer {
    // A name is not looked up: Kong would ask a name server of its own choice.
    let Ok(address) = call.authority.parse::<SocketAddr>() else {
        return CallAnswer::failed("resolver failure");
    };
    let timeout = match call.timeout {
        Duration::ZERO => MAX_TIMEOUT,
        timeout => timeout.min(MAX_TIMEOUT),
    };
    match tokio::time::timeout(timeout, exchange(address, call)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            tracing::debug!(authority = %call.authority, %error, "a filter's call failed");
            CallAnswer::failed("broken connection")
        }
        Err(_) => CallAnswer::failed("timeout"),
    }
}

async fn exchange(
    address: SocketAddr,
    call: &Call,
) -> Result<CallAnswer, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = http::Request::builder()
        .method(call.method.clone())
        .uri(&call.path)
        .body(Full::new(call.body.clone()))?;
    *request.headers_mut() = call.headers.clone();
    let answered = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body: Bytes = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
        Ok(CallAnswer::answered(head.status, head.headers, body))
    };
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => {
            ended?;
            answered.await
        }
    }
}
