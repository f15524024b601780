//! A wire that can be cut, held and slowed: a TCP proxy on loopback between two parts.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Bytes that are read at a time.
const CHUNK: usize = 64 * 1024;
/// Chunks on the way through a slow wire, each way: what a kernel's buffers would hold.
const ON_THE_WAY: usize = 64;

/// What the wire does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Open,
    /// Passes everything on, later.
    Slow(Duration),
    /// Accepts and passes nothing on: what a partition looks like to both ends.
    Held,
    /// Resets what is open and what comes.
    Cut,
}

/// The wire.
#[derive(Debug)]
pub struct Link {
    port: u16,
    state: watch::Sender<State>,
    server: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    to: u16,
    /// Connections of an earlier generation are reset.
    generation: u64,
}

impl Link {
    /// A wire to `port` on 127.0.0.1.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = State {
            mode: Mode::Open,
            to: port,
            generation: 0,
        };
        let (sender, receiver) = watch::channel(state);
        Self {
            port: address.port(),
            state: sender,
            server: tokio::spawn(serve(listener, receiver)),
        }
    }

    /// Where it begins.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what it does, for what is open as well.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| {
            state.mode = mode;
            if mode == Mode::Cut {
                state.generation += 1;
            }
        });
    }

    /// Leads to another port from now on; what is open is reset.
    pub fn lead_to(&self, port: u16) {
        self.state.send_modify(|state| {
            state.to = port;
            state.generation += 1;
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, state: watch::Receiver<State>) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(connection(near, state.clone()));
    }
}

async fn connection(near: TcpStream, mut state: watch::Receiver<State>) {
    let begun = *state.borrow_and_update();
    if begun.mode == Mode::Cut {
        return reset(near);
    }
    let far = SocketAddr::from((Ipv4Addr::LOCALHOST, begun.to));
    let Ok(far) = TcpStream::connect(far).await else {
        return reset(near);
    };
    for side in [&near, &far] {
        // A wire adds no waiting of its own.
        let _unsupported = side.set_nodelay(true);
        // What is cut is reset, not closed in an orderly way.
        let _unsupported = side.set_zero_linger();
    }
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let there = pass(near_in, far_out, state.clone());
    let back = pass(far_in, near_out, state.clone());
    tokio::select! {
        () = async { tokio::join!(there, back); } => {}
        _ = state.wait_for(|now| now.generation != begun.generation) => {}
    }
}

fn reset(stream: TcpStream) {
    let _unsupported = stream.set_zero_linger();
    drop(stream);
}

/// Passes on what comes from `from`, until it ends.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let chunk = buffer.get(..length).unwrap_or_default().to_vec();
            if sender.send((Instant::now(), chunk)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((at, chunk)) = chunks.recv().await {
            let open = state.wait_for(|now| now.mode != Mode::Held).await;
            let Ok(mode) = open.map(|state| state.mode) else {
                return;
            };
            if let Mode::Slow(delay) = mode {
                tokio::time::sleep_until(at + delay).await;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The other end hears of an orderly end in an orderly way.
        let _gone = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
