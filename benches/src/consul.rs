//! Consul for one measurement: one server in dev mode, all in memory, and what is written into its catalogue.

use crate::load::{Call, Line, until_right};
use crate::process::{Process, free_port};
use anyhow::{Context, Result};
use http::Method;
use mesh_tests::server::installed;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// With its election it takes a few seconds; a busy machine gets the rest.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Most operations that Consul takes in one transaction.
const OPERATIONS: usize = 64;

/// A Consul agent that is its own server.
#[derive(Debug)]
pub struct Consul {
    address: SocketAddr,
    _server: Process,
}

impl Consul {
    /// Starts it, with its files under `directory`; it has a leader then.
    ///
    /// # Errors
    /// When it does not come up; with the end of its log.
    pub async fn start(directory: &Path) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let config = json!({
            "node_name": "bench",
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "disable_update_check": true,
            "log_level": "warn",
            "ports": {
                "http": address.port(), "https": -1, "grpc": -1, "dns": -1,
                "serf_lan": free_port()?, "serf_wan": free_port()?, "server": free_port()?,
            },
        });
        let file = directory.join("consul.json");
        fs::write(&file, format!("{config:#}\n"))?;
        let mut command = Command::new(installed("consul"));
        command
            .args(["agent", "-dev", "-config-file"])
            .arg(&file)
            .current_dir(directory);
        let mut server = Process::start("consul", directory, command)
            .context("is Consul installed? `make setup` unpacks it")?;
        server.listening(address, START_LIMIT).await?;
        let leader = Call {
            expect: ":",
            ..Call::get(address, "/v1/status/leader")
        };
        until_right(&leader, START_LIMIT)
            .await
            .with_context(|| server.log_end())?;
        Ok(Self {
            address,
            _server: server,
        })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes into the catalogue, in as many transactions as it takes.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn write(&self, operations: &[Value]) -> Result<()> {
        let mut line = Line::open(self.address).await?;
        for some in operations.chunks(OPERATIONS) {
            let call = Call {
                method: Method::PUT,
                ..Call::post(self.address, "/v1/txn", &Value::from(some), "")
            };
            line.call(&call).await?;
        }
        Ok(())
    }
}

/// An instance in the catalogue, on a node that no agent speaks for.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The node.
    pub node: String,
    /// The service.
    pub service: String,
    /// Tells it from others of the service.
    pub id: String,
    /// Where it is reached.
    pub address: SocketAddr,
}

impl Instance {
    /// Puts it there, passing.
    pub fn register(&self) -> [Value; 2] {
        [
            json!({"Service": {"Verb": "set", "Node": self.node, "Service": {
                "ID": self.id,
                "Service": self.service,
                "Address": self.address.ip().to_string(),
                "Port": self.address.port(),
            }}}),
            json!({"Check": {"Verb": "set", "Check": {
                "Node": self.node,
                "CheckID": self.id,
                "Name": "agent",
                "Status": "passing",
                "ServiceID": self.id,
            }}}),
        ]
    }

    /// Takes it out, and its check with it.
    pub fn deregister(&self) -> Value {
        json!({"Service": {"Verb": "delete", "Node": self.node, "Service": {
            "ID": self.id,
            "Service": self.service,
        }}})
    }
}

/// A node for instances.
pub fn node(name: &str) -> Value {
    json!({"Node": {"Verb": "set", "Node": {"Node": name, "Address": "127.0.0.1"}}})
}
