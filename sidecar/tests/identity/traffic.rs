//! Connections that send all the time, some of them new and some that stand, so that no moment of a rotation passes
//! without a handshake and without a byte on an old connection.

use crate::mesh::{Member, name};
use mesh_sidecar::identity::{Alpn, Identity, Tls};
use mesh_tests::wait_for;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Connections that begin anew after a few exchanges, and as many that stand.
const CONNECTIONS: usize = 32;
/// Exchanges on a connection that begins anew.
const EXCHANGES: usize = 4;

/// Traffic from one member to another until it is dropped.
pub struct Traffic {
    count: Arc<Count>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Count {
    handshakes: AtomicUsize,
    /// On connections that stood from the beginning.
    standing: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Traffic {
    pub async fn start(server: &Member, client: &Member) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (called, wanted) = (server.identity.clone(), server.first().await);
        client.first().await;
        let count = Arc::<Count>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, called, Arc::clone(&count)));
        for n in 0..2 * CONNECTIONS {
            let (calling, count) = (client.identity.clone(), Arc::clone(&count));
            let service = wanted.id().service.to_string();
            tasks.spawn(async move {
                loop {
                    let tls = calling.tls().unwrap();
                    let stands = n < CONNECTIONS;
                    if let Err(why) = call(&tls, address, &service, stands, &count).await {
                        count.failures.lock().unwrap().push(why);
                    }
                }
            });
        }
        let traffic = Self {
            count,
            _tasks: tasks,
        };
        traffic.goes_on("the beginning").await;
        traffic
    }

    /// Waits until some hundred more handshakes and exchanges went well, and no one failed.
    pub async fn goes_on(&self, during: &str) {
        let count = &self.count;
        let now = || {
            (
                count.handshakes.load(Ordering::Relaxed),
                count.standing.load(Ordering::Relaxed),
            )
        };
        let before = now();
        wait_for(during, || async {
            let failures = count.failures.lock().unwrap();
            assert!(failures.is_empty(), "{during}: {failures:?}");
            let now = now();
            now.0 > before.0 + 128 && now.1 > before.1 + 128
        })
        .await;
    }
}

async fn serve(listener: TcpListener, identity: Identity, count: Arc<Count>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let tls = identity.tls().unwrap();
        let count = Arc::clone(&count);
        connections.spawn(async move {
            match tls.accept(stream).await {
                Ok(mut accepted) => {
                    let mut byte = [0];
                    while accepted.stream.read_exact(&mut byte).await.is_ok() {
                        if accepted.stream.write_all(&byte).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => count.failures.lock().unwrap().push(error.to_string()),
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn call(
    tls: &Tls,
    address: SocketAddr,
    service: &str,
    stands: bool,
    count: &Count,
) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.unwrap();
    let connected = tls.connect(stream, &name(service), Alpn::Http1).await;
    let mut stream = connected.map_err(|error| error.to_string())?.stream;
    if stands {
        loop {
            exchange(&mut stream).await?;
            count.standing.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    for _ in 0..EXCHANGES {
        exchange(&mut stream).await?;
    }
    count.handshakes.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    stream.shutdown().await.map_err(|error| error.to_string())
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), String> {
    let mut byte = [7];
    let exchanged = async {
        stream.write_all(&byte).await?;
        stream.read_exact(&mut byte).await
    };
    exchanged
        .await
        .map(|_| ())
        .map_err(|error| error.to_string())
}
