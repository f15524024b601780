//! The load of proxies: wrk, which costs less per request than what it measures.

use crate::chain;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// What is sent, on how many keep-alive connections.
#[derive(Debug, Clone)]
pub struct Load {
    path: &'static str,
    connections: u32,
    script: PathBuf,
}

/// What a run reached.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Reached {
    /// Requests, all of them answered well.
    pub requests: f64,
    /// Requests per second.
    pub per_s: f64,
    /// Milliseconds, half of the requests took less.
    pub p50_ms: f64,
    /// Milliseconds, 99 of 100 requests took less.
    pub p99_ms: f64,
    /// Answers that were none, or none of 2xx and 3xx.
    errors: f64,
}

/// Prints what it reached, for [`Reached`].
const DONE: &str = r#"
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "per_s": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n',
    summary.requests, summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"#;

impl Load {
    /// The task of [`chain::body`] with `token`, on 32 connections; `file` becomes wrk's script.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn task(file: &Path, token: &str) -> Result<Self> {
        let body = chain::body();
        let text = format!(
            "wrk.method = \"POST\"\nwrk.body = [==[{body}]==]\n\
             wrk.headers[\"content-type\"] = \"application/json\"\n\
             wrk.headers[\"authorization\"] = \"Bearer {token}\"\n"
        );
        Self::scripted(chain::PATH, 32, file, &text)
    }

    /// A GET of `/` with `host` as its host, on 64 connections; `file` becomes wrk's script.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn get(file: &Path, host: &str) -> Result<Self> {
        // wrk looks for its own `Host` under this spelling.
        Self::scripted(
            "/",
            64,
            file,
            &format!("wrk.headers[\"Host\"] = \"{host}\"\n"),
        )
    }

    fn scripted(path: &'static str, connections: u32, file: &Path, text: &str) -> Result<Self> {
        fs::write(file, format!("{text}{DONE}"))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self {
            path,
            connections,
            script: file.to_owned(),
        })
    }

    /// Loads `address` for `seconds`.
    ///
    /// # Errors
    /// When wrk is not there, or one request was answered otherwise than well.
    pub async fn run(&self, address: SocketAddr, seconds: u32) -> Result<Reached> {
        let out = Command::new("wrk")
            .args(["-t", "1", "-c", &self.connections.to_string()])
            .args(["-d", &format!("{seconds}s"), "-s"])
            .arg(&self.script)
            .arg(format!("http://{address}{}", self.path))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("is wrk installed? benches/setup.sh installs it")?;
        let text = String::from_utf8_lossy(&out.stdout);
        let line = text.lines().rev().find(|line| line.starts_with('{'));
        let line =
            line.with_context(|| format!("wrk: {text}{}", String::from_utf8_lossy(&out.stderr)))?;
        let reached: Reached = serde_json::from_str(line)?;
        ensure!(
            reached.errors == 0.0,
            "wrk counts {} failures:\n{text}",
            reached.errors
        );
        Ok(reached)
    }
}
