//! Agents that are programs of their own: started, watched, ended.
//!
//! A child leads a process group, so that what it starts itself ends with it. It is started again when
//! it ends early, with growing pauses; at the end it is asked (SIGTERM) and, after a while, made to go.

use crate::LocalError;
use crate::group::{Group, Groups};
use mesh_protocol::AgentId;
use rustix::process::Signal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a child has between being asked to end and being made to.
const GRACE: Duration = Duration::from_secs(5);
/// First pause before a child is started again; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Longest line of a child's output that is logged, in bytes.
const MAX_LINE: usize = 4096;

/// A program that is an agent.
pub(crate) struct Program {
    pub agent: AgentId,
    pub command: Vec<String>,
    pub dir: PathBuf,
    /// Where it will listen; nobody else may, or steps would go to a stranger.
    pub address: Option<SocketAddr>,
    pub groups: Groups,
}

/// A program that was started.
pub(crate) struct Running {
    program: Program,
    child: Child,
    /// The group it leads, until the child itself has ended.
    group: Option<Group>,
}

impl Program {
    /// Starts it for the first time, so that a name that does not exist is heard of at once.
    ///
    /// # Errors
    /// [`LocalError::Child`].
    pub fn start(self) -> Result<Running, LocalError> {
        let (child, group) = self.spawn()?;
        Ok(Running {
            program: self,
            child,
            group: Some(group),
        })
    }

    fn spawn(&self) -> Result<(Child, Group), LocalError> {
        let refused = |detail: String| LocalError::Child {
            agent: self.agent.clone(),
            command: self.command.join(" "),
            detail,
        };
        let Some((name, arguments)) = self.command.split_first() else {
            return Err(refused("the command is empty".to_owned()));
        };
        // A relative path with a slash is relative to mesh.yaml's directory, like `dir`.
        let program = if name.contains('/') {
            self.dir.join(name)
        } else {
            Path::new(name).to_owned()
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (mut child, group) = self
            .groups
            .start(&mut command)
            .map_err(|e| refused(e.to_string()))?;
        // The readers end with the pipes, which end with the child's process group.
        if let Some(out) = child.stdout.take() {
            tokio::spawn(log_lines(self.agent.clone(), "stdout", out));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(log_lines(self.agent.clone(), "stderr", err));
        }
        tracing::info!(agent = %self.agent, pid = child.id(), "agent started");
        Ok((child, group))
    }

    /// Starts it again, unless something else has taken its place by then.
    async fn again(&self) -> Result<(Child, Group), LocalError> {
        if let Some(address) = self.address {
            crate::app::free(&format!("agent {}", self.agent), address).await?;
        }
        self.spawn()
    }
}

impl Running {
    /// Keeps the child alive until `shutdown`, then ends it and waits for its end.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            tokio::select! {
                () = shutdown.cancelled() => break,
                ended = self.child.wait() => {
                    if begun.elapsed() > LONGEST_PAUSE {
                        pause = FIRST_PAUSE;
                    }
                    let status = ended.map(|s| s.to_string()).unwrap_or_default();
                    tracing::warn!(agent = %self.program.agent, status, ?pause, "agent ended, starting it again");
                    // What it started may hold its port.
                    self.group = None;
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            match self.program.again().await {
                Ok((child, group)) => {
                    self.group = Some(group);
                    self.child = child;
                }
                Err(error) => tracing::error!(%error, "agent does not start"),
            }
        }
        self.end().await;
    }

    async fn end(&mut self) {
        let Some(group) = self.group.take() else {
            return;
        };
        group.signal(Signal::TERM);
        let ended = tokio::time::timeout(GRACE, self.child.wait()).await;
        drop(group);
        if ended.is_err() {
            tracing::warn!(agent = %self.program.agent, "agent did not end when asked");
            let _ = self.child.wait().await;
        }
    }
}

/// `stream` is what `mesh logs` tells a program's own lines by.
async fn log_lines(agent: AgentId, stream: &'static str, output: impl AsyncRead + Unpin) {
    let mut reader = BufReader::with_capacity(MAX_LINE, output);
    let mut line = Vec::new();
    loop {
        // `fill_buf` hands out at most MAX_LINE bytes, so a line without an end cannot grow.
        let (used, complete) = match reader.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(bytes) => {
                let end = bytes.iter().position(|&b| b == b'\n');
                let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
                line.extend_from_slice(part);
                (end.map_or(bytes.len(), |at| at + 1), end.is_some())
            }
        };
        reader.consume(used);
        if complete || line.len() >= MAX_LINE {
            let text = String::from_utf8_lossy(&line);
            tracing::info!(%agent, stream, "{}", text.trim_end());
            line.clear();
        }
    }
    if !line.is_empty() {
        tracing::info!(%agent, stream, "{}", String::from_utf8_lossy(&line).trim_end());
    }
}
