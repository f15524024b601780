//! What goes wrong, and how it is put right again.

use crate::link::Mode;
use crate::stage::Stage;
use serde::Serialize;
use std::time::Duration;

/// How much later everything passes the wire of a slow store, each way.
const SLOW: Duration = Duration::from_millis(150);
/// How far a clock jumps.
const AHEAD: &str = "+3600";

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// `kill -9` of the first orchestrator.
    OrchestratorKilled,
    /// `kill -9` of the second one.
    SecondOrchestratorKilled,
    /// `kill -9` of the gateway.
    GatewayKilled,
    /// `kill -9` of the sidecar beside the gateway.
    GatewaySidecarKilled,
    /// `kill -9` of the sidecar beside the first orchestrator.
    OrchestratorSidecarKilled,
    /// `kill -9` of an agent's sidecar.
    SidecarKilled,
    /// `kill -9` of an agent.
    AgentKilled,
    /// RabbitMQ is stopped in an orderly way.
    BrokerStopped,
    /// `kill -9` of RabbitMQ.
    BrokerKilled,
    /// RabbitMQ's disk alarm: it takes no more messages.
    DiskAlarm,
    /// Every connection to RabbitMQ is reset, and so are new ones.
    BrokerCut,
    /// Between one sidecar and RabbitMQ nothing passes, and nobody is told.
    SidecarPartitioned,
    /// `kill -9` of Redis, which has an append-only file.
    StoreKilled,
    /// The replica of Redis becomes the primary.
    StoreFailedOver,
    /// Redis answers late.
    StoreSlow,
    /// Redis takes no more writes for want of memory.
    StoreFull,
    /// The wall clock of the orchestrators jumps an hour ahead, and back.
    ClockJumped,
}

/// What a fault happens to: two of the same part do not happen at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The gateway and its sidecar.
    Gateway,
    /// The orchestrators, their sidecars and their clocks.
    Orchestrator,
    /// A sidecar that steps go to.
    Sidecar,
    /// An agent.
    Agent,
    /// RabbitMQ.
    Broker,
    /// Redis.
    Store,
}

impl Fault {
    /// Every fault that happens with one orchestrator.
    pub const ALL: [Self; 16] = [
        Self::OrchestratorKilled,
        Self::SidecarKilled,
        Self::AgentKilled,
        Self::BrokerStopped,
        Self::StoreKilled,
        Self::SidecarPartitioned,
        Self::DiskAlarm,
        Self::StoreSlow,
        Self::BrokerCut,
        Self::StoreFull,
        Self::BrokerKilled,
        Self::StoreFailedOver,
        Self::ClockJumped,
        Self::GatewayKilled,
        Self::GatewaySidecarKilled,
        Self::OrchestratorSidecarKilled,
    ];

    /// What it happens to.
    pub fn part(self) -> Part {
        match self {
            Self::GatewayKilled | Self::GatewaySidecarKilled => Part::Gateway,
            Self::OrchestratorKilled
            | Self::SecondOrchestratorKilled
            | Self::OrchestratorSidecarKilled
            | Self::ClockJumped => Part::Orchestrator,
            Self::SidecarKilled | Self::SidecarPartitioned => Part::Sidecar,
            Self::AgentKilled => Part::Agent,
            Self::BrokerStopped | Self::BrokerKilled | Self::DiskAlarm | Self::BrokerCut => {
                Part::Broker
            }
            Self::StoreKilled | Self::StoreFailedOver | Self::StoreSlow | Self::StoreFull => {
                Part::Store
            }
        }
    }

    /// The part of the mesh that it kills, and the name of an agent otherwise.
    fn killed(self) -> Option<&'static str> {
        match self {
            Self::OrchestratorKilled => Some("orchestrator"),
            Self::SecondOrchestratorKilled => Some("orchestrator-2"),
            Self::GatewayKilled => Some("gateway"),
            Self::GatewaySidecarKilled => Some("sidecar gateway"),
            Self::OrchestratorSidecarKilled => Some("sidecar orchestrator"),
            Self::SidecarKilled => Some("sidecar second"),
            _ => None,
        }
    }

    /// Makes it happen.
    pub async fn inject(self, stage: &Stage) {
        if let Some(name) = self.killed() {
            return stage.mesh.lock().await.kill(name).await;
        }
        match self {
            Self::AgentKilled => stage.kill_agent("third").await,
            Self::BrokerStopped => stage.broker.lock().await.stop().await,
            Self::BrokerKilled => stage.broker.lock().await.kill().await,
            Self::DiskAlarm => stage.broker.lock().await.disk_alarm(true).await,
            Self::BrokerCut => stage.broker_links.iter().for_each(|l| l.set(Mode::Cut)),
            Self::SidecarPartitioned => stage.partition(Mode::Held),
            Self::StoreKilled => stage.stores.lock().await.kill().await,
            Self::StoreFailedOver => stage.stores.lock().await.fail_over().await,
            Self::StoreSlow => stage.stores.lock().await.set(Mode::Slow(SLOW)),
            Self::StoreFull => stage.stores.lock().await.fill(true).await,
            Self::ClockJumped => stage.set_clocks(AHEAD),
            _ => {}
        }
    }

    /// Puts it right.
    pub async fn lift(self, stage: &Stage) {
        if let Some(name) = self.killed() {
            return stage.mesh.lock().await.launch(name);
        }
        match self {
            Self::AgentKilled => stage.start_agent("third").await,
            Self::BrokerStopped | Self::BrokerKilled => {
                stage.broker.lock().await.start_again().await;
            }
            Self::DiskAlarm => stage.broker.lock().await.disk_alarm(false).await,
            Self::BrokerCut => stage.broker_links.iter().for_each(|l| l.set(Mode::Open)),
            Self::SidecarPartitioned => stage.partition(Mode::Open),
            Self::StoreKilled => stage.stores.lock().await.start_again().await,
            Self::StoreSlow => stage.stores.lock().await.set(Mode::Open),
            Self::StoreFull => stage.stores.lock().await.fill(false).await,
            Self::ClockJumped => stage.set_clocks("+0"),
            // The new primary stays; the next failover leads back.
            _ => {}
        }
    }
}
