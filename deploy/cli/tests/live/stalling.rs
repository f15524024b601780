//! A way to the management API that stops in the middle: the so-many-th queue is asked for, and nothing comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The way.
pub struct Stalling {
    pub url: String,
    stalled: watch::Receiver<bool>,
    open: watch::Sender<bool>,
}

impl Stalling {
    /// A way to `management` (`http://HOST:PORT`) on which `most` queues are declared, and no more until
    /// [`Self::open`].
    pub async fn new(management: &str, most: usize) -> Self {
        let to: SocketAddr = management.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stall, stalled) = watch::channel(false);
        let (open, opened) = watch::channel(false);
        let (stall, seen) = (Arc::new(stall), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (stall, seen, mut opened) =
                    (Arc::clone(&stall), Arc::clone(&seen), opened.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(to).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    tokio::spawn(async move {
                        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                    });
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                        let bytes = &buffer[..read];
                        // A request is written in one piece: it is short, and none follows before its answer.
                        if bytes.starts_with(b"PUT /api/queues/")
                            && seen.fetch_add(1, Ordering::SeqCst) >= most
                        {
                            stall.send_replace(true);
                            if opened.wait_for(|open| *open).await.is_err() {
                                return;
                            }
                        }
                        if to_server.write_all(bytes).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, stalled, open }
    }

    /// Waits until somebody stands there.
    pub async fn stalled(&mut self) {
        let stalled = self.stalled.wait_for(|stalled| *stalled);
        mesh_tests::within("somebody in the middle of it", stalled)
            .await
            .unwrap();
    }

    /// Lets everybody on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}
