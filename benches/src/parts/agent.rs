//! An agent that costs next to nothing: what is measured is the way to it.

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpListener;

const ANSWER: &[u8] = br#"{"status":"done","figures":{"load":0.42,"memory_mib":1824,"disk_free_gib":77},"advice":[]}"#;

/// An agent that answers at once, after a fixed time, or never.
#[derive(Debug, Clone, clap::Args)]
pub struct Agent {
    /// Where to listen, on loopback
    #[arg(long)]
    pub port: u16,
    /// How long a step takes
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// Never answer
    #[arg(long)]
    pub hold: bool,
}

impl Agent {
    /// Serves until the process is ended.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn serve(self) -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await?;
        let delay = Duration::from_millis(self.delay_ms);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = service_fn(move |request| answer(request, delay, self.hold));
            // Ends with its connection.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    delay: Duration,
    hold: bool,
) -> Result<Response<Full<Bytes>>> {
    request.into_body().collect().await?;
    if hold {
        // Until whoever asked hangs up.
        std::future::pending::<()>().await;
    }
    if !delay.is_zero() {
        // The runtime's timer rounds up to whole milliseconds, which would be the agent's own delay;
        // a thread's sleep is exact to less than 0.1 ms.
        tokio::task::spawn_blocking(move || std::thread::sleep(delay)).await?;
    }
    Ok(Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from_static(ANSWER)))?)
}
