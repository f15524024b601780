//! Resident memory of a sidecar that has nothing to do.

use super::Bench;
use crate::load::{Call, until_right};
use crate::mesh;
use crate::process::{Process, free_address, free_port};
use crate::row::{Goal, Row};
use crate::servers::RabbitMq;
use anyhow::Result;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

/// What the row says.
pub const ABOUT: &str = "Resident memory (VmRSS) of a sidecar process that is connected to RabbitMQ and has been idle for five seconds.";

const IDLE: Duration = Duration::from_secs(5);
const READY: Duration = Duration::from_secs(30);

/// Measures the row.
pub async fn measure(bench: &Bench) -> Result<Row> {
    let scratch = bench.scratch.path();
    let broker = RabbitMq::start(scratch).await?;
    let port = free_port()?;
    let mut agent = Process::part("agent", scratch, ["agent", "--port", &port.to_string()])?;
    agent
        .listening(([127, 0, 0, 1], port).into(), READY)
        .await?;
    let mut rounds = Vec::new();
    for round in 0..bench.rounds {
        let admin = free_address()?;
        let config = json!({
            "service": "idle",
            "app": {"url": format!("http://127.0.0.1:{port}")},
            "admin_listen": admin,
            "worker": {"bus": {"backend": "rabbitmq", "url": broker.url()}},
        });
        let name = format!("sidecar-{round}");
        let sidecar = mesh::sidecar(&bench.binary("sidecar"), scratch, &name, &config)?;
        until_right(&Call::get(admin, "/ready"), READY).await?;
        sleep(IDLE).await;
        rounds.push(sidecar.resident_mib()?);
    }
    Ok(Row::alone("sidecar-rss", "MiB", &rounds).with_goal(Goal::AtMost(12.0)))
}
