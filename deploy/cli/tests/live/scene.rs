//! A directory with a mesh.yaml, the command, and the hand that changes what was applied.

use mesh_tests::rabbitmq::{self, Broker, Release};
use mesh_tests::within;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// RabbitMQ with its management API, which the tests of this binary share.
pub async fn broker(release: Release) -> &'static Broker {
    static THREE: OnceCell<Broker> = OnceCell::const_new();
    static FOUR: OnceCell<Broker> = OnceCell::const_new();
    let (place, start) = match release {
        Release::Three => (&THREE, rabbitmq::start_with_management(release)),
        Release::Four => (&FOUR, rabbitmq::start_with_management(release)),
    };
    place.get_or_init(|| start).await
}

/// A mesh, its broker, and what is done to both.
pub struct Scene {
    pub dir: TempDir,
    /// The broker's URL, with a virtual host of this scene's own.
    pub url: String,
    pub vhost: String,
    /// The management API itself, whatever mesh.yaml says.
    pub management: String,
    client: reqwest::Client,
}

impl Scene {
    pub async fn new(release: Release) -> Self {
        let broker = broker(release).await;
        let url = broker.vhost().await;
        Self {
            dir: tempfile::tempdir().unwrap(),
            vhost: url.rsplit('/').next().unwrap().to_owned(),
            url,
            management: broker.management_url(),
            client: reqwest::Client::new(),
        }
    }

    /// A mesh of one agent, with `messaging` (more of its fields) and `more` (more sections).
    pub fn write(&self, management: &str, messaging: &str, more: &str) {
        let yaml = format!(
            "version: 1\nmesh: m\ngateway: {{auth: {{development: true}}}}\n\
             orchestrator: {{planner: {{general_agent: worker}}}}\n\
             messaging:\n  backend: rabbitmq\n  url: {{env: RABBITMQ_URL}}\n  management: {{url: \"{management}\"}}\n{messaging}\n\
             store: {{backend: redis, url: {{env: REDIS_URL}}}}\n{more}\n\
             agents: [{{id: worker, endpoint: 'http://127.0.0.1:9', delivery: {{delayed_retries: 1}}}}]\n"
        );
        std::fs::write(self.dir.path().join("mesh.yaml"), yaml).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        command(self.dir.path(), &self.url, arguments)
    }

    pub async fn mesh(&self, arguments: &[&str]) -> Output {
        run(self.command(arguments)).await
    }

    /// Applies, and everything has to stand.
    pub async fn apply(&self) {
        let out = self.mesh(&["apply", "--yes"]).await;
        assert_eq!(out.status.code(), Some(0), "{}", both(&out));
    }

    /// What differs: part, kind, name, action. The exit code has to say the same.
    pub async fn differences(&self) -> Vec<String> {
        let out = self.mesh(&["diff", "-o", "json"]).await;
        let report: Value =
            serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", both(&out)));
        let changes = report["changes"].as_array().unwrap();
        let code = if changes.is_empty() { 0 } else { 2 };
        assert_eq!(out.status.code(), Some(code), "{}", both(&out));
        let word = |change: &Value, field: &str| change[field].as_str().unwrap().to_owned();
        let said = changes.iter().map(|c| {
            ["action", "part", "kind", "name"]
                .map(|field| word(c, field))
                .join(" ")
        });
        said.collect()
    }

    /// What somebody does at the management API; the path begins behind `/api/`.
    pub async fn by_hand(&self, method: Method, path: &str, body: Value) -> Value {
        let url = format!("{}/api/{path}", self.management);
        let asked = self
            .client
            .request(method, &url)
            .basic_auth("guest", Some("guest"));
        let asked = if body.is_null() {
            asked
        } else {
            asked.json(&body)
        };
        let answer = within("the management API", asked.send()).await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The names of the queues that there are.
    pub async fn queues(&self) -> Vec<String> {
        let all = self
            .by_hand(Method::GET, &format!("queues/{}", self.vhost), Value::Null)
            .await;
        let names = all.as_array().unwrap().iter();
        names
            .map(|queue| queue["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Puts a message into a queue.
    pub async fn publish(&self, queue: &str) {
        let body = json!({"properties": {"delivery_mode": 2}, "routing_key": queue, "payload": "x", "payload_encoding": "string"});
        let path = format!("exchanges/{}/amq.default/publish", self.vhost);
        let answer = self.by_hand(Method::POST, &path, body).await;
        assert_eq!(answer["routed"], true);
    }

    /// Takes a message out of a queue, if there is one.
    pub async fn get(&self, queue: &str) -> Vec<Value> {
        let body = json!({"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"});
        let path = format!("queues/{}/{queue}/get", self.vhost);
        let answer = self.by_hand(Method::POST, &path, body).await;
        answer.as_array().unwrap().clone()
    }
}

pub fn command(dir: &Path, url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("RABBITMQ_URL", url)
        .stdin(Stdio::null());
    command
}

pub async fn run(mut command: Command) -> Output {
    let done = tokio::task::spawn_blocking(move || command.output());
    within("the command", done).await.unwrap().unwrap()
}

/// What a command said, for a test that fails.
pub fn both(out: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "{:?}\n{}{}",
        out.status.code(),
        text(&out.stdout),
        text(&out.stderr)
    )
}
