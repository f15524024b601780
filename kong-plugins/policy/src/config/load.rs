//! Where a filter learns how busy the agents are.

use serde::{Deserialize, Serialize};

/// The orchestrator's account of its agents, see `mesh_protocol::load`, and how long it is believed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// `ADDRESS:PORT` to connect to: the sidecar beside the gateway, or the orchestrator itself.
    pub authority: String,
    /// The host that is asked for; what `authority` says when left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Sent as `Authorization: Bearer TOKEN`; none when empty. A secret.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// How often it is asked, in milliseconds; every worker of the gateway asks for itself.
    #[serde(default = "interval_ms")]
    pub interval_ms: u32,
    /// After how many intervals without an answer what is known counts as stale.
    #[serde(default = "stale_after")]
    pub stale_after: u32,
    /// What happens to a request while what is known is stale, or nothing is known yet.
    #[serde(default)]
    pub when_stale: WhenStale,
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load")
            .field("authority", &self.authority)
            .field("host", &self.host)
            .field("interval_ms", &self.interval_ms)
            .field("stale_after", &self.stale_after)
            .field("when_stale", &self.when_stale)
            .finish_non_exhaustive()
    }
}

/// What happens while nobody knows how busy the agents are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WhenStale {
    /// The request passes as if every agent had time.
    #[default]
    Pass,
    /// The request is refused (503).
    Refuse,
}

fn interval_ms() -> u32 {
    2_000
}

fn stale_after() -> u32 {
    5
}
