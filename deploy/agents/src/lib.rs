//! Small real agents, plain HTTP, that know nothing of the mesh.
//!
//! They show what an agent has to be: `POST /process` with JSON in and out, `GET /health`, and the
//! same answer for the same `Idempotency-Key`. Each is a [`Router`]; [`serve`] runs any of them.

pub mod data_processor;
pub mod general_agent;
pub mod hardware_optimizer;
mod machine;
mod process;
pub mod resource_arbitrator;

pub use axum::Router;
pub use machine::Roots;
use std::str::FromStr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long open requests have once an agent is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Which agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`hardware_optimizer`].
    HardwareOptimizer,
    /// [`resource_arbitrator`].
    ResourceArbitrator,
    /// [`data_processor`].
    DataProcessor,
    /// [`general_agent`].
    GeneralAgent,
}

/// What agents are told from outside.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where the machine's figures are read.
    pub roots: Roots,
    /// The model that the general agent asks, if any.
    pub model: Option<general_agent::Model>,
}

impl Kind {
    /// Every agent there is.
    pub const ALL: [Self; 4] = [
        Self::HardwareOptimizer,
        Self::ResourceArbitrator,
        Self::DataProcessor,
        Self::GeneralAgent,
    ];

    /// The agent's name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::HardwareOptimizer => "hardware-optimizer",
            Self::ResourceArbitrator => "resource-arbitrator",
            Self::DataProcessor => "data-processor",
            Self::GeneralAgent => "general-agent",
        }
    }

    /// The agent, with a state of its own.
    pub fn router(self, options: &Options) -> Router {
        match self {
            Self::HardwareOptimizer => hardware_optimizer::router(options.roots.clone()),
            Self::ResourceArbitrator => resource_arbitrator::router(options.roots.clone()),
            Self::DataProcessor => data_processor::router(),
            Self::GeneralAgent => general_agent::router(options.model.clone()),
        }
    }
}

/// A name that no agent has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no agent {0}; there are hardware-optimizer, resource-arbitrator, data-processor, general-agent"
)]
pub struct UnknownAgent(String);

impl FromStr for Kind {
    type Err = UnknownAgent;

    fn from_str(name: &str) -> Result<Self, UnknownAgent> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownAgent(name.to_owned()))
    }
}

/// Serves `router` until `shutdown` is cancelled and open requests are answered, or ten seconds more.
///
/// # Errors
/// What the system says of the listener.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let late = shutdown.clone();
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .into_future();
    tokio::select! {
        ended = served => ended,
        () = async {
            late.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        } => {
            tracing::warn!("requests were still open at the end");
            Ok(())
        }
    }
}
