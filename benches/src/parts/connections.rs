//! Clients of an mTLS listener: many that rest, and many that come and go.

use crate::tls::{Client, HTTP1, Stream};
use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinHandle, JoinSet, LocalSet};

/// Connections that are opened at the same time: enough to keep a server busy, below any queue of a listener.
const AT_ONCE: usize = 64;

/// To whom, and as whom.
#[derive(Debug, Clone, clap::Args)]
pub struct Peer {
    /// Where it listens
    #[arg(long)]
    pub peer: SocketAddr,
    /// The client's certificate, in PEM
    #[arg(long)]
    pub certificate: PathBuf,
    /// Its key, in PEM
    #[arg(long)]
    pub key: PathBuf,
}

impl Peer {
    fn client(&self, alpn: &str) -> Result<Client> {
        Client::new(self.peer, &self.certificate, &self.key, alpn)
    }
}

/// Connections that rest after one request each.
#[derive(Debug, Clone, clap::Args)]
pub struct Rest {
    #[command(flatten)]
    peer: Peer,
    /// Host of the request
    #[arg(long)]
    pub host: String,
    /// Whether HTTP/2 is spoken; HTTP/1.1 when not
    #[arg(long)]
    pub http2: bool,
    /// How many
    #[arg(long)]
    pub count: usize,
}

/// Full handshakes, each on a connection of its own.
#[derive(Debug, Clone, clap::Args)]
pub struct Handshakes {
    #[command(flatten)]
    peer: Peer,
    /// For how long
    #[arg(long)]
    pub seconds: u64,
}

#[expect(dead_code, reason = "kept for its end")]
enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Rest {
    /// Opens all of them, prints a line, and keeps them until the process is ended.
    ///
    /// # Errors
    /// When one is not opened, is answered otherwise than well, or is closed.
    pub async fn run(self) -> Result<()> {
        let client = self
            .peer
            .client(if self.http2 { "h2" } else { "http/1.1" })?;
        // Whoever holds the sender holds the connection.
        let mut senders = Vec::with_capacity(self.count);
        let mut connections = FuturesUnordered::new();
        let mut opened = stream::iter(0..self.count)
            .map(|_| async { self.ask(client.open().await?).await })
            .buffer_unordered(AT_ONCE);
        while let Some(opened) = opened.next().await {
            let (sender, connection) = opened?;
            senders.push(sender);
            connections.push(connection);
        }
        writeln!(std::io::stdout(), "open")?;
        connections.next().await;
        bail!("a connection that rested was closed")
    }

    async fn ask(&self, stream: Stream) -> Result<(Sender, JoinHandle<()>)> {
        let io = TokioIo::new(stream);
        let (sender, connection, answer) = if self.http2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            let connection = tokio::spawn(async move { drop(connection.await) });
            let uri = format!("https://{}/", self.host);
            let request = Request::get(uri).body(Empty::new())?;
            let answer = sender.send_request(request).await?;
            (Sender::Http2(sender), connection, answer)
        } else {
            let (mut sender, connection) = http1::handshake(io).await?;
            let connection = tokio::spawn(async move { drop(connection.await) });
            let request = Request::get("/").header(header::HOST, &self.host);
            let answer = sender.send_request(request.body(Empty::new())?).await?;
            (Sender::Http1(sender), connection, answer)
        };
        drained(answer).await?;
        Ok((sender, connection))
    }
}

async fn drained(answer: Response<Incoming>) -> Result<()> {
    let status = answer.status();
    answer.into_body().collect().await?;
    ensure!(status.is_success(), "answered {status}");
    Ok(())
}

impl Handshakes {
    /// Begins the next handshake when the last one is done, on [`AT_ONCE`] connections, and prints how many there
    /// were and in how many seconds.
    ///
    /// # Errors
    /// When one fails.
    pub async fn run(self) -> Result<()> {
        let client = Rc::new(self.peer.client(HTTP1)?);
        let begin = Instant::now();
        let end = begin + Duration::from_secs(self.seconds);
        let count = LocalSet::new()
            .run_until(async {
                let mut loops = JoinSet::new();
                for _ in 0..AT_ONCE {
                    let client = Rc::clone(&client);
                    loops.spawn_local(async move {
                        let mut count = 0_u64;
                        while Instant::now() < end {
                            greet(&client).await?;
                            count += 1;
                        }
                        Ok::<_, anyhow::Error>(count)
                    });
                }
                let mut count = 0;
                while let Some(done) = loops.join_next().await {
                    count += done??;
                }
                Ok::<_, anyhow::Error>(count)
            })
            .await?;
        let seconds = begin.elapsed().as_secs_f64();
        let said = serde_json::json!({"count": count, "seconds": seconds});
        writeln!(std::io::stdout(), "{said}")?;
        Ok(())
    }
}

/// One handshake. The server has looked at the client's certificate when it answers the end of the connection with
/// its own, whatever it says before; a refusal would be an alert.
async fn greet(client: &Client) -> Result<()> {
    let mut stream = client.open().await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}
