//! What the orchestrator decided to do: steps, each for one agent, with what they wait for.

use crate::collaboration::Collaboration;
use crate::names::{AgentId, StepId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
