//! Prometheus.

use crate::server::{Server, directory, free_port};
use crate::{GENEROUS, wait_for};
use reqwest::Client;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

/// A Prometheus that scrapes what its configuration says.
#[derive(Debug)]
pub struct Prometheus {
    server: Server,
    _directory: TempDir,
    port: u16,
    client: Client,
}

/// One element of what a query answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels, `__name__` among them.
    pub labels: BTreeMap<String, String>,
    /// Its value now.
    pub value: f64,
}

/// Starts one with the text of a `prometheus.yml`; returns when it is ready.
pub async fn start(config: &str) -> Prometheus {
    let directory = directory("prometheus");
    let file = directory.path().join("prometheus.yml");
    std::fs::write(&file, config).expect("write its configuration");
    start_in(directory, &file).await
}

/// Starts one with a `prometheus.yml` and the rules beside it; returns when it is ready.
pub async fn start_with(file: &Path) -> Prometheus {
    start_in(directory("prometheus"), file).await
}

async fn start_in(directory: TempDir, file: &Path) -> Prometheus {
    let port = free_port();
    let arguments = [
        format!("--config.file={}", file.display()),
        format!(
            "--storage.tsdb.path={}",
            directory.path().join("data").display()
        ),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--log.level=warn".to_owned(),
    ];
    let server = Server::start("prometheus", &arguments, &[], directory.path());
    server.listens_on(port).await;
    let prometheus = Prometheus {
        server,
        _directory: directory,
        port,
        client: Client::new(),
    };
    wait_for("prometheus to be ready", || async {
        let ready = prometheus
            .client
            .get(format!("{}/-/ready", prometheus.url()));
        ready
            .send()
            .await
            .is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    prometheus
}

impl Prometheus {
    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// What an expression gives now, which must be a vector; empty before the first scrape.
    ///
    /// # Panics
    /// When it is no expression.
    pub async fn query(&self, expression: &str) -> Vec<Sample> {
        let data = self.ask("query", &[("query", expression)]).await;
        let result = data["result"].as_array().expect("a vector");
        result.iter().map(sample).collect()
    }

    /// The labels of every series, `__name__` among them.
    pub async fn series(&self) -> Vec<BTreeMap<String, String>> {
        let data = self
            .ask("series", &[("match[]", r#"{__name__=~".+"}"#)])
            .await;
        serde_json::from_value(data).expect("labels")
    }

    /// What its API has at a path such as `targets` or `rules`.
    ///
    /// # Panics
    /// When it refuses.
    pub async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let url = format!("{}/api/v1/{path}", self.url());
        let url = reqwest::Url::parse_with_params(&url, query).expect("a URL");
        let answer = self.client.get(url).timeout(GENEROUS).send().await;
        let mut answer: Value = answer.expect("ask").json().await.expect("JSON");
        assert_eq!(answer["status"], "success", "{path} {query:?}: {answer}");
        answer["data"].take()
    }
}

fn sample(element: &Value) -> Sample {
    let labels = element["metric"].as_object().expect("labels");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Sample {
        labels: labels
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
        value: text(&element["value"][1]).parse().expect("a number"),
    }
}
