//! Consul, one server in dev mode: all in memory, so it comes back empty after every start.
//!
//! Connect and its certificate authority are on; access control and TLS where a test asks for them.

use crate::server::{Server, directory, free_port};
use crate::{GENEROUS, wait_for, within};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// What a Consul is started with beyond the usual.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Access control: nothing may be done without a token.
    pub acl: bool,
    /// A file of configuration besides, in HCL.
    pub more: Option<String>,
    /// Certificate and key, in PEM, for HTTPS beside HTTP.
    pub tls: Option<(String, String)>,
    /// Meta of the node, such as its `zone`.
    pub node_meta: BTreeMap<String, String>,
}

/// A Consul agent that is its own server.
#[derive(Debug)]
pub struct Consul {
    server: Option<Server>,
    directory: TempDir,
    setup: Setup,
    /// The port for HTTP, on 127.0.0.1.
    pub http_port: u16,
    https_port: u16,
    other_ports: [u16; 4],
    token: Option<String>,
    client: Client,
}

/// The Consul that tests of one binary share; each registers services of its own names.
pub async fn shared() -> &'static Consul {
    static SHARED: OnceCell<Consul> = OnceCell::const_new();
    SHARED.get_or_init(start).await
}

/// A Consul for one test, which may stop it.
pub async fn start() -> Consul {
    start_with(Setup::default()).await
}

/// A Consul with access control, which denies what no token allows; [`Consul::token`] may do everything.
pub async fn start_with_acl() -> Consul {
    let setup = Setup {
        acl: true,
        ..Setup::default()
    };
    start_with(setup).await
}

/// A Consul as `setup` says.
pub async fn start_with(setup: Setup) -> Consul {
    let mut consul = Consul {
        server: None,
        directory: directory("consul"),
        setup,
        http_port: free_port(),
        https_port: free_port(),
        other_ports: std::array::from_fn(|_| free_port()),
        token: None,
        client: Client::new(),
    };
    consul.start_again().await;
    consul
}

impl Consul {
    /// Its URL over plain HTTP.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// Its URL over TLS, where [`Setup::tls`] was given.
    pub fn https_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.https_port)
    }

    /// The process id of the server.
    ///
    /// # Panics
    /// While it is stopped.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("consul runs").pid()
    }

    /// The token that may do everything. Every start makes another.
    ///
    /// # Panics
    /// Without [`Setup::acl`].
    pub fn token(&self) -> &str {
        self.token.as_deref().expect("access control is on")
    }

    /// Starts it after [`Self::stop`] or [`Self::kill`], on the same ports and empty; returns when it has a
    /// leader and a certificate authority.
    pub async fn start_again(&mut self) {
        let file = self.directory.path().join("consul.json");
        std::fs::write(&file, format!("{:#}\n", self.config())).expect("write its configuration");
        let file = file.display().to_string();
        let mut arguments = vec!["agent", "-dev", "-config-file", &file];
        let more = self.directory.path().join("more.hcl");
        let more_file = more.display().to_string();
        if let Some(text) = &self.setup.more {
            std::fs::write(&more, text).expect("write more of its configuration");
            arguments.extend(["-config-file", &more_file]);
        }
        let server = Server::start("consul", &arguments, &[], self.directory.path());
        server.listens_on(self.http_port).await;
        self.server = Some(server);
        self.token = None;
        if self.setup.acl {
            self.token = Some(self.bootstrap().await);
        }
        wait_for("consul's certificate authority", || async {
            self.ask(Method::GET, "/v1/connect/ca/roots", None)
                .await
                .is_ok_and(|answer| {
                    answer["ActiveRootID"]
                        .as_str()
                        .is_some_and(|id| !id.is_empty())
                })
        })
        .await;
    }

    /// Ends it in an orderly way.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// Kills it.
    pub async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill().await;
        }
    }

    /// What it answers to a `GET` of `path`, such as `/v1/catalog/services`.
    ///
    /// # Panics
    /// When it does not answer 2xx.
    pub async fn get(&self, path: &str) -> Value {
        match self.ask(Method::GET, path, None).await {
            Ok(answer) => answer,
            Err(why) => panic!("GET {path}: {why}"),
        }
    }

    /// What it answers to a `PUT` of `body` to `path`; null when that is nothing.
    ///
    /// # Panics
    /// When it does not answer 2xx.
    pub async fn put(&self, path: &str, body: Value) -> Value {
        match self.ask(Method::PUT, path, Some(body)).await {
            Ok(answer) => answer,
            Err(why) => panic!("PUT {path}: {why}"),
        }
    }

    /// What it answers to a `POST` of `body` to `path`.
    ///
    /// # Panics
    /// When it does not answer 2xx.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        match self.ask(Method::POST, path, Some(body)).await {
            Ok(answer) => answer,
            Err(why) => panic!("POST {path}: {why}"),
        }
    }

    /// Deletes what is at `path`.
    ///
    /// # Panics
    /// When it does not answer 2xx.
    pub async fn delete(&self, path: &str) {
        if let Err(why) = self.ask(Method::DELETE, path, None).await {
            panic!("DELETE {path}: {why}");
        }
    }

    /// A token that may do what `rules` (Consul's ACL language) allow.
    pub async fn token_for(&self, name: &str, rules: &str) -> String {
        self.put("/v1/acl/policy", json!({"Name": name, "Rules": rules}))
            .await;
        let token = json!({"Policies": [{"Name": name}]});
        let answer = self.put("/v1/acl/token", token).await;
        answer["SecretID"].as_str().expect("a token").to_owned()
    }

    /// The first token; refused while there is no leader.
    async fn bootstrap(&self) -> String {
        within("consul's first token", async {
            loop {
                let answer = self.ask(Method::PUT, "/v1/acl/bootstrap", None).await;
                if let Some(token) = answer.unwrap_or_default()["SecretID"].as_str() {
                    return token.to_owned();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, String> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.url()))
            .timeout(GENEROUS);
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|error| error.to_string())?;
        let status = response.status();
        let text = response.text().await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(format!("{status}: {text}"));
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    fn config(&self) -> Value {
        let [grpc, serf_lan, serf_wan, server] = self.other_ports;
        let https = if self.setup.tls.is_some() {
            i32::from(self.https_port)
        } else {
            -1
        };
        let mut config = json!({
            "node_name": format!("node-{}", self.http_port),
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "disable_update_check": true,
            "log_level": "warn",
            "node_meta": self.setup.node_meta,
            "connect": {"enabled": true},
            // Without it there are no metrics for Prometheus.
            "telemetry": {"prometheus_retention_time": "60s"},
            "ports": {
                "http": self.http_port, "https": https, "grpc": grpc, "dns": -1,
                "serf_lan": serf_lan, "serf_wan": serf_wan, "server": server,
            },
        });
        if self.setup.acl {
            config["acl"] = json!({"enabled": true, "default_policy": "deny"});
        }
        if let Some((certificate, key)) = &self.setup.tls {
            for (field, file, text) in [
                ("cert_file", "certificate.pem", certificate),
                ("key_file", "key.pem", key),
            ] {
                let path = self.directory.path().join(file);
                std::fs::write(&path, text).expect("write a PEM file");
                config[field] = json!(path);
            }
        }
        config
    }
}
