//! Clients that ask again and again, and what became of each request.

use reqwest::{Client, RequestBuilder};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What became of a request.
#[derive(Debug, Clone)]
pub struct Answered {
    /// When that was known.
    pub at: Instant,
    /// Why it is no good answer.
    pub failure: Option<String>,
}

/// Clients at work.
pub struct Load {
    answers: Arc<Mutex<Vec<Answered>>>,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

/// Whether an answer, by its status and its body, is what was asked for.
pub type Judge = fn(u16, &str) -> bool;

impl Load {
    /// Starts `clients`, each with a connection of its own, each pausing for `pause` between two requests.
    pub fn start(
        clients: usize,
        pause: Duration,
        judge: Judge,
        request: impl Fn(&Client) -> RequestBuilder + Send + Sync + 'static,
    ) -> Self {
        let mut load = Self {
            answers: Arc::default(),
            stop: CancellationToken::new(),
            clients: JoinSet::new(),
        };
        let request = Arc::new(request);
        for _ in 0..clients {
            let (answers, stop) = (Arc::clone(&load.answers), load.stop.clone());
            let request = Arc::clone(&request);
            load.clients.spawn(async move {
                let client = Client::builder().no_proxy().build().unwrap();
                while !stop.is_cancelled() {
                    let failure = ask(request(&client), judge).await.err();
                    let answered = Answered {
                        at: Instant::now(),
                        failure,
                    };
                    answers.lock().unwrap().push(answered);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        load
    }

    /// What was answered since `moment`.
    pub fn since(&self, moment: Instant) -> Vec<Answered> {
        let answers = self.answers.lock().unwrap();
        answers.iter().filter(|a| a.at >= moment).cloned().collect()
    }

    /// How much was answered so far.
    pub fn count(&self) -> usize {
        self.answers.lock().unwrap().len()
    }

    /// Lets every client finish what it is at, and returns everything that was answered.
    pub async fn stop(mut self) -> Vec<Answered> {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut self.answers.lock().unwrap())
    }
}

async fn ask(request: RequestBuilder, judge: Judge) -> Result<(), String> {
    let answer = request.send().await.map_err(told)?;
    let status = answer.status().as_u16();
    let body = answer.text().await.map_err(told)?;
    if judge(status, &body) {
        Ok(())
    } else {
        Err(format!("{status}: {body}"))
    }
}

/// An error with its causes.
fn told(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// That all is well, by the status alone.
pub fn ok(status: u16, _body: &str) -> bool {
    status == 200
}

/// That a task came to a good end.
pub fn completed(status: u16, body: &str) -> bool {
    let task: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    status == 200 && task["status"] == "completed"
}
