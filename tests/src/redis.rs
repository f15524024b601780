//! Redis.

use crate::server::{Server, directory, free_port};
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;
use tokio::sync::OnceCell;

const DATABASES: u32 = 1024;

/// A Redis server that keeps every write, so that it has them again after a kill.
#[derive(Debug)]
pub struct Store {
    server: Option<Server>,
    directory: TempDir,
    port: u16,
    last_database: AtomicU32,
}

/// The store that all tests of one binary share; each takes a [`Store::database`] of its own.
pub async fn shared() -> &'static Store {
    static SHARED: OnceCell<Store> = OnceCell::const_new();
    SHARED.get_or_init(start).await
}

/// A store for one test, which may stop it.
pub async fn start() -> Store {
    let mut store = Store {
        server: None,
        directory: directory("redis"),
        port: free_port(),
        last_database: AtomicU32::new(0),
    };
    store.start_again().await;
    store
}

impl Store {
    /// The URL of database 0.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server.
    ///
    /// # Panics
    /// While it is stopped.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("the store runs").pid()
    }

    /// The URL of an empty database.
    ///
    /// # Panics
    /// When all are taken.
    pub fn database(&self) -> String {
        let number = self.last_database.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(number < DATABASES, "no database is left");
        format!("redis://127.0.0.1:{}/{number}", self.port)
    }

    /// Starts it after [`Self::stop`] or [`Self::kill`], with what it kept.
    pub async fn start_again(&mut self) {
        let port = self.port.to_string();
        let databases = DATABASES.to_string();
        let home = self.directory.path().display().to_string();
        let arguments = [
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--dir",
            &home,
            "--databases",
            &databases,
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ];
        let server = Server::start("redis-server", &arguments, &[], self.directory.path());
        server.listens_on(self.port).await;
        self.server = Some(server);
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

    /// Removes everything it kept; only while it is stopped.
    pub fn forget(&self) {
        assert!(self.server.is_none(), "the store is stopped");
        std::fs::remove_dir_all(self.directory.path().join("appendonlydir"))
            .expect("remove its data");
    }
}
