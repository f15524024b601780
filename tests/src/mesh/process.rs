//! One program of a mesh, which can be killed and started again.

use crate::GENEROUS;
use crate::binary::binary;
use crate::server::{Server, directory};
use reqwest::{Client, StatusCode};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// How long one question may take. Readiness asks the store, which has two seconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// Whoever asks whether a part is ready is no client whose traces are wanted.
const UNRECORDED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// A program and how it is started.
#[derive(Debug)]
pub(super) struct Process {
    program: &'static str,
    arguments: Vec<String>,
    /// Asked until it answers with `answer`.
    ready_url: String,
    answer: StatusCode,
    environment: Vec<(&'static str, String)>,
    running: Option<Server>,
    home: TempDir,
}

impl Process {
    pub(super) fn new(
        program: &'static str,
        arguments: Vec<String>,
        ready_url: String,
        answer: StatusCode,
    ) -> Self {
        Self {
            program,
            arguments,
            ready_url,
            answer,
            environment: Vec::new(),
            running: None,
            home: directory(program),
        }
    }

    /// The same with `environment` beside what it inherits.
    pub(super) fn in_environment(mut self, environment: Vec<(&'static str, String)>) -> Self {
        self.environment = environment;
        self
    }

    pub(super) fn launch(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.program);
        self.running = Some(Server::start(
            &binary(self.program),
            &self.arguments,
            &self.environment,
            self.home.path(),
        ));
    }

    pub(super) async fn stop(&mut self) {
        if let Some(server) = self.running.take() {
            server.stop().await;
        }
    }

    pub(super) async fn kill(&mut self) {
        if let Some(server) = self.running.take() {
            server.kill().await;
        }
    }

    pub(super) async fn ready(&self, name: &str, client: &Client) {
        let deadline = Instant::now() + GENEROUS;
        loop {
            let asked = client.get(&self.ready_url).timeout(PATIENCE);
            let says = match asked.header("traceparent", UNRECORDED).send().await {
                Ok(answer) if answer.status() == self.answer => return,
                Ok(answer) => format!(
                    "answers {}: {}",
                    answer.status(),
                    answer.text().await.unwrap_or_default()
                ),
                Err(error) => error.to_string(),
            };
            let log = || self.log();
            assert!(
                Instant::now() < deadline,
                "{name} is not ready: {says}; its log ends:\n{}",
                log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last lines of its log, over all its lives.
    pub(super) fn log(&self) -> String {
        let file = self.home.path().join(format!("{}.log", self.program));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}
