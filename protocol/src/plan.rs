//! What the orchestrator decided to do: steps, each for one agent, with what they wait for.

use crate::collaboration::Collaboration;
use crate::names::{AgentId, StepId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A checked plan, in the form clients of the plan's API read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Who made it.
    pub source: PlanSource,
    /// Every agent that has a step, once each, in order of first use.
    pub agents_required: Vec<AgentId>,
    /// The steps; those whose dependencies are done may run at the same time.
    pub execution_plan: Vec<PlanStep>,
    /// Estimated needs.
    #[serde(default)]
    pub resources: Resources,
    /// Estimated duration in seconds.
    #[serde(default)]
    pub estimated_time: f64,
    /// 0.0 to 1.0.
    #[serde(default)]
    pub confidence: f64,
    /// What could go wrong, and what was replaced while planning.
    #[serde(default)]
    pub risks: Vec<String>,
    /// The graph behind the steps, where agents were asked to work together: each step has its agent's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collaboration: Option<Box<Collaboration>>,
}

/// Who made a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanSource {
    /// The task-type table.
    Rules,
    /// A language model.
    Ollama,
    /// The client itself.
    Client,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    /// Unique within the plan.
    pub id: StepId,
    /// Who does it.
    pub agent: AgentId,
    /// What to do, for the agent to read.
    pub action: String,
    /// The part the agent plays; the action again when the plan names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Capability for which the agent was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Steps whose results this one needs.
    #[serde(default)]
    pub dependencies: Vec<StepId>,
    /// Input of this step; the task's payload when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Map<String, Value>>,
    /// Time budget of the step in seconds; the orchestrator's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// What it takes of the mesh's declared resources while it runs, by name: bytes of memory, or so many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, u64>,
    /// Why this agent, where the plan named a capability and no agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Assignment>,
}

/// How an agent was found for a step that is bound to a capability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// What it had to be able to do.
    pub capability: String,
    /// Who does it.
    pub chosen: AgentId,
    /// Why.
    pub why: Why,
    /// Those who could, as they stood then; the best first, at most [`Assignment::MAX_CANDIDATES`]. None where there was only
    /// one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
}

impl Assignment {
    /// Most candidates that are told of: plans are stored and read by people.
    pub const MAX_CANDIDATES: usize = 5;
}

/// Why an agent was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Nobody else can.
    Only,
    /// Its key leads there.
    Sticky,
    /// The one to which its key leads cannot be used now.
    StickyFallback,
    /// It is expected to finish first.
    Soonest,
    /// Several are equal, or nothing is known of them yet: they take turns.
    Turn,
    /// None can be used as far as is known; this one is the least bad.
    NoneUsable,
}

impl Why {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Only => "only",
            Self::Sticky => "sticky",
            Self::StickyFallback => "sticky_fallback",
            Self::Soonest => "soonest",
            Self::Turn => "turn",
            Self::NoneUsable => "none_usable",
        }
    }
}

/// One who could have been chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The agent.
    pub agent: AgentId,
    /// When it would have been done, in milliseconds from then; none where nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
    /// Steps before this one.
    pub queue: u64,
    /// How well its last steps went, 0 to 1.
    pub score: f64,
}

/// Estimated needs of a plan, in the plan's loose units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Per cent of one machine, as text.
    pub cpu: String,
    /// Mebibytes, as text.
    pub memory: String,
    /// Whether a GPU is needed.
    pub gpu: bool,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu: "50".to_owned(),
            memory: "1024".to_owned(),
            gpu: false,
        }
    }
}
