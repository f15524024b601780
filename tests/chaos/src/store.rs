//! Redis with a replica, behind one wire that leads to whichever is the primary.

use crate::link::{Link, Mode};
use mesh_tests::redis::{self, Store};
use mesh_tests::wait_for;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// What `maxmemory` is on a store that is full: less than any server takes when it is empty.
const FULL: &str = "1mb";

/// Both servers.
#[derive(Debug)]
pub struct Pair {
    servers: [Store; 2],
    /// Which is the primary.
    primary: usize,
    link: Link,
}

impl Pair {
    /// Starts both; the second follows the first.
    pub async fn start() -> Self {
        let (first, second) = tokio::join!(redis::start(), redis::start());
        let pair = Self {
            link: Link::to(first.port()).await,
            servers: [first, second],
            primary: 0,
        };
        let [first, second] = &pair.servers;
        let follow = format!("REPLICAOF 127.0.0.1 {}", first.port());
        command(second.port(), &follow).await;
        pair.followed().await;
        pair
    }

    /// The URL, through the wire.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.link.port())
    }

    /// Changes what the wire does.
    pub fn set(&self, mode: Mode) {
        self.link.set(mode);
    }

    /// Kills the primary.
    pub async fn kill(&mut self) {
        self.primary().kill().await;
    }

    /// Starts the primary again, with the file that it kept.
    pub async fn start_again(&mut self) {
        self.primary().start_again().await;
    }

    /// Lets the primary refuse what takes memory, or not any more.
    pub async fn fill(&self, full: bool) {
        let limit = if full { FULL } else { "0" };
        let port = self.servers[self.primary].port();
        command(port, &format!("CONFIG SET maxmemory {limit}")).await;
    }

    /// The replica becomes the primary, in the way of a planned failover: the old one takes no writes until the
    /// new one has them all. (What is lost when a primary dies before its replica has heard of its last writes,
    /// no client can get back.)
    pub async fn fail_over(&mut self) {
        self.followed().await;
        let (old, new) = (
            self.servers[self.primary].port(),
            self.servers[1 - self.primary].port(),
        );
        command(old, &format!("FAILOVER TO 127.0.0.1 {new}")).await;
        wait_for("the failover", || async move {
            role(new).await.starts_with("$6")
        })
        .await;
        self.primary = 1 - self.primary;
        self.link.lead_to(new);
    }

    /// Waits until the replica has what the primary has.
    async fn followed(&self) {
        let port = self.servers[1 - self.primary].port();
        wait_for("the replica to follow", || async move {
            info(port).await.contains("master_link_status:up")
        })
        .await;
    }

    fn primary(&mut self) -> &mut Store {
        &mut self.servers[self.primary]
    }
}

/// The first line of what a server says to an inline command.
async fn command(port: u16, text: &str) -> String {
    let said = ask(port, text, 1).await.expect("ask the store");
    assert!(!said.starts_with('-'), "{text}: {said}");
    said
}

async fn role(port: u16) -> String {
    // The second line is the length of the word: 6 for master, 5 for slave.
    let said = ask(port, "ROLE", 2).await.unwrap_or_default();
    said.lines().nth(1).unwrap_or_default().to_owned()
}

async fn info(port: u16) -> String {
    ask(port, "INFO replication", 12).await.unwrap_or_default()
}

async fn ask(port: u16, text: &str, lines: usize) -> std::io::Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(format!("{text}\r\n").as_bytes()).await?;
        let mut reader = BufReader::new(stream);
        let mut said = String::new();
        for _ in 0..lines {
            reader.read_line(&mut said).await?;
        }
        Ok(said)
    };
    match tokio::time::timeout(Duration::from_secs(5), asked).await {
        Ok(said) => said,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}
