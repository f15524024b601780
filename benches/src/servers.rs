//! RabbitMQ and Redis for one measurement: free ports, a directory of their own, gone afterwards.

use crate::process::{Process, free_port};
use anyhow::{Context, Result};
use lapin::options::QueueDeleteOptions;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const RABBITMQ: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// Erlang starts in a few seconds; a slow disk and a busy machine get the rest.
const START_LIMIT: Duration = Duration::from_secs(60);
/// For one answer of Redis; forgetting a million tasks takes it a second or two.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A RabbitMQ node on loopback.
#[derive(Debug)]
pub struct RabbitMq {
    /// Its AMQP port.
    pub port: u16,
    node: Process,
    _names: Process,
}

impl RabbitMq {
    /// Starts a node that keeps its data under `directory`.
    ///
    /// # Errors
    /// When it does not come up; with the end of its log.
    pub async fn start(directory: &Path) -> Result<Self> {
        let home = directory.join("rabbitmq");
        fs::create_dir_all(&home)?;
        let (port, distribution, names_port) = (free_port()?, free_port()?, free_port()?);
        // Its own name server, or Erlang would leave one behind for the whole machine.
        let mut names = Command::new("epmd");
        names.args(["-address", "127.0.0.1", "-port", &names_port.to_string()]);
        let mut names = Process::start("epmd", directory, names)?;
        names.listening(loopback(names_port), START_LIMIT).await?;

        fs::write(
            home.join("rabbitmq.conf"),
            format!("listeners.tcp.1 = 127.0.0.1:{port}\nlog.file.level = warning\n"),
        )?;
        fs::write(home.join("enabled_plugins"), "[].\n")?;
        let mut server = Command::new(RABBITMQ);
        server
            .env("HOME", &home)
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", names_port.to_string())
            .env("RABBITMQ_NODENAME", format!("bench-{port}@localhost"))
            .env("RABBITMQ_DIST_PORT", distribution.to_string())
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            )
            .env("RABBITMQ_CONFIG_FILE", home.join("rabbitmq.conf"))
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                home.join("enabled_plugins"),
            )
            .env("RABBITMQ_MNESIA_BASE", home.join("data"))
            .env("RABBITMQ_LOG_BASE", home.join("log"))
            .env("RABBITMQ_PID_FILE", home.join("pid"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", home.join("generated"));
        let mut node = Process::start("rabbitmq", directory, server).with_context(|| {
            format!("is RabbitMQ installed ({RABBITMQ})? `make setup` installs it")
        })?;
        node.listening(loopback(port), START_LIMIT).await?;
        let server = Self {
            port,
            node,
            _names: names,
        };
        server.connect().await?;
        Ok(server)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Processor time so far, in seconds.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn cpu_s(&self) -> Result<f64> {
        self.node.group_cpu_s()
    }

    /// A connection for setting up and counting.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn connect(&self) -> Result<lapin::Connection> {
        lapin::Connection::connect(&self.url(), lapin::ConnectionProperties::default())
            .await
            .with_context(|| format!("RabbitMQ does not answer\n{}", self.node.log_end()))
    }
}

impl RabbitMq {
    /// Deletes queues, whether or not they are there; who uses them declares them.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn forget(&self, queues: &[String]) -> Result<()> {
        let connection = self.connect().await?;
        let channel = connection.create_channel().await?;
        for queue in queues {
            channel
                .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
                .await?;
        }
        connection.close(200, "done".into()).await?;
        Ok(())
    }
}

/// A Redis server on loopback that writes nothing to disk.
#[derive(Debug)]
pub struct Redis {
    /// Its port.
    pub port: u16,
    server: Process,
}

impl Redis {
    /// Starts a server.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(directory: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(directory);
        let mut server = Process::start("redis", directory, command)
            .context("is Redis installed? `make setup` installs it")?;
        server.listening(loopback(port), START_LIMIT).await?;
        Ok(Self { port, server })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// A connection for setting up and counting.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn connect(&self) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(self.url())?;
        let settings = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_LIMIT));
        Ok(client
            .get_multiplexed_async_connection_with_config(&settings)
            .await?)
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn clear(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        Ok(redis::cmd("FLUSHALL").exec_async(&mut connection).await?)
    }

    /// Processor time so far, in seconds.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn cpu_s(&self) -> Result<f64> {
        self.server.cpu_s()
    }

    /// Resident memory in MiB.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn resident_mib(&self) -> Result<f64> {
        self.server.resident_mib()
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
