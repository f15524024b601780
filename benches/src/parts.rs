//! The small parts around a measurement, each run by this binary in a process of its own.

mod agent;
mod bare;
mod config;
mod connections;
mod model;

pub use agent::Agent;
pub use bare::BareLoop;
pub use config::Config;
pub use connections::{Handshakes, Peer, Rest};
pub use model::Model;

use anyhow::Result;

/// Which part to play.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Part {
    /// An agent that answers at once, after a fixed time, or never
    Agent(Agent),
    /// Queue to agent to queue, without our code
    BareLoop(BareLoop),
    /// Check a mesh.yaml and render all of it
    Config(Config),
    /// Full handshakes, one after the other
    Handshakes(Handshakes),
    /// A model that answers one plan, over Ollama's API
    Model(Model),
    /// Connections that rest
    Rest(Rest),
}

impl Part {
    /// Plays the part until the process is ended.
    ///
    /// # Errors
    /// When it cannot go on.
    pub async fn play(self) -> Result<()> {
        match self {
            Self::Agent(agent) => agent.serve().await,
            Self::BareLoop(bare) => bare.run().await,
            Self::Config(config) => config.run(),
            Self::Handshakes(handshakes) => handshakes.run().await,
            Self::Model(model) => model.serve().await,
            Self::Rest(rest) => rest.run().await,
        }
    }
}
