//! The three ways of asking: over HTTP, by a connection, by a command.
//!
//! Each answer is bounded in size and time, and nothing is left behind: a connection is closed, a command that
//! takes too long is killed with everything it started.

use crate::config::{HealthCheck, Place};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process_group};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, timeout, timeout_at};

/// How much of an answer's body is read, so that the program can send it and close: its status says all.
const MAX_BODY: usize = 64 * 1024;
/// Where most programs say how they are.
const USUAL: &str = "/health";
/// How much of what a command says goes into a reason, in bytes.
const MAX_WORDS: usize = 200;
/// How long the last words of a command that ended are waited for: something it started may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// What the sidecar is told by its environment and a command need not know.
const SECRETS: [&str; 2] = ["CONSUL_HTTP_TOKEN", "RABBITMQ_URL"];

/// What is asked, and where.
pub(super) enum Ask {
    Http {
        address: SocketAddr,
        path: Uri,
        /// Whether a program without this page is well all the same.
        may_lack: bool,
    },
    Tcp {
        address: SocketAddr,
    },
    Command {
        program: String,
        arguments: Vec<String>,
    },
}

pub(super) fn too_late(limit: Duration) -> String {
    format!("agent does not answer within {} ms", limit.as_millis())
}

impl Ask {
    pub(super) fn new(check: &HealthCheck, place: &Place) -> Self {
        let address = place.address;
        match check {
            HealthCheck::Usual => Self::http(place, USUAL, true),
            HealthCheck::Http { path } => Self::http(place, path, false),
            HealthCheck::Tcp => Self::Tcp { address },
            HealthCheck::Command { command } => {
                let mut words = command.iter().cloned();
                Self::Command {
                    program: words.next().unwrap_or_default(),
                    arguments: words.collect(),
                }
            }
        }
    }

    fn http(place: &Place, path: &str, may_lack: bool) -> Self {
        let address = place.address;
        match format!("{}{path}", place.base_path).parse() {
            Ok(path) => Self::Http {
                address,
                path,
                may_lack,
            },
            // The configuration was checked: both are paths, and so is one after the other.
            Err(_) => Self::Tcp { address },
        }
    }

    /// Asks once; an error says what is wrong, in words for people.
    pub(super) async fn ask(&self, limit: Duration) -> Result<(), String> {
        match self {
            Self::Http {
                address,
                path,
                may_lack,
            } => match http(*address, path, limit).await? {
                status if status.is_success() => Ok(()),
                StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::NOT_IMPLEMENTED
                    if *may_lack =>
                {
                    Ok(())
                }
                status => Err(format!("agent answers {path} with {}", status.as_u16())),
            },
            Self::Tcp { address } => match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(unreachable(&error)),
                Err(_) => Err("agent does not accept connections in time".to_owned()),
            },
            Self::Command { program, arguments } => command(program, arguments, limit).await,
        }
    }
}

fn unreachable(error: &dyn std::fmt::Display) -> String {
    format!("agent cannot be reached: {error}")
}

async fn http(address: SocketAddr, path: &Uri, limit: Duration) -> Result<StatusCode, String> {
    let end = Instant::now() + limit;
    let late = |_| too_late(limit);
    let stream = timeout_at(end, TcpStream::connect(address)).await;
    let stream = stream.map_err(late)?.map_err(|e| unreachable(&e))?;
    let request = Request::get(path.clone())
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, "mesh-sidecar")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let broken = |e: hyper::Error| format!("agent does not answer {path}: {e}");
    let (mut sender, connection) = timeout_at(end, http1::handshake(TokioIo::new(stream)))
        .await
        .map_err(late)?
        .map_err(broken)?;
    let exchange = async {
        let response = timeout_at(end, sender.send_request(request)).await;
        let response = response.map_err(late)?.map_err(broken)?;
        let status = response.status();
        let mut body = response.into_body();
        let _ = timeout_at(end, async {
            let mut read = 0;
            while let Some(Ok(frame)) = body.frame().await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > MAX_BODY {
                    break;
                }
            }
        })
        .await;
        Ok(status)
    };
    let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // It may end before its last bytes were read.
        _ = &mut connection => exchange.await,
    }
}

/// Kills a command and what it started, unless it has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // One that is gone needs no killing.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn command(program: &str, arguments: &[String], limit: Duration) -> Result<(), String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    for name in SECRETS {
        command.env_remove(name);
    }
    let mut child = command
        .spawn()
        .map_err(|e| format!("health command cannot be started: {e}"))?;
    // Declared after the child and so dropped before it: its group cannot be another's by then.
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(group.and_then(Pid::from_raw));
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let ended = {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut words = std::pin::pin!(async {
            tokio::join!(keep(stdout, &mut said), keep(stderr, &mut complained));
        });
        let end = async {
            tokio::select! {
                ended = child.wait() => {
                    let _ = timeout(LAST_WORDS, &mut words).await;
                    ended
                }
                () = &mut words => child.wait().await,
            }
        };
        timeout(limit, end).await
    };
    let Ok(ended) = ended else {
        return Err(format!(
            "health command does not end within {} ms",
            limit.as_millis()
        ));
    };
    group.0 = None;
    let status = ended.map_err(|e| format!("health command cannot be waited for: {e}"))?;
    if status.success() {
        return Ok(());
    }
    let words = if complained.is_empty() {
        said
    } else {
        complained
    };
    let words = words_of(&words);
    let separator = if words.is_empty() { "" } else { ": " };
    // `exit status: 2`, or `signal: 9 (SIGKILL)`.
    Err(format!(
        "health command ended with {status}{separator}{words}"
    ))
}

/// Reads to the end, so that the command can write, and keeps the beginning.
async fn keep(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        let room = MAX_WORDS.saturating_sub(kept.len());
        kept.extend(buffer.iter().take(read.min(room)));
    }
}

fn words_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(clean).collect()
}
