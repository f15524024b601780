//! Plans by table: task type to agents. Their steps do not wait for each other.

use super::check::Finding;
use super::draft::{Draft, DraftStep};
use super::{Catalog, Planner, PlannerError};
use async_trait::async_trait;
use mesh_protocol::AgentId;
use mesh_protocol::plan::PlanSource;
use mesh_protocol::task::TaskRequest;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The planner.
pub struct RulesPlanner {
    rules: BTreeMap<String, Vec<String>>,
    general: Option<AgentId>,
    catalog: Arc<Catalog>,
}

impl RulesPlanner {
    /// A planner over `rules`; names in it need not be agents of this mesh.
    pub fn new(
        rules: BTreeMap<String, Vec<String>>,
        general: Option<AgentId>,
        catalog: Arc<Catalog>,
    ) -> Self {
        let general = general.filter(|g| catalog.find(g).is_some());
        Self {
            rules,
            general,
            catalog,
        }
    }

    /// Who does the steps of each task type that a rule or a capability names, as far as there is anybody.
    pub fn task_types(&self) -> BTreeMap<String, Vec<Slot>> {
        let capabilities = self.catalog.agents().iter().flat_map(|a| &a.capabilities);
        self.rules
            .keys()
            .chain(capabilities)
            .filter_map(|task_type| {
                let (slots, _) = self.choose(task_type).ok()?;
                Some((task_type.clone(), slots))
            })
            .collect()
    }

    /// The agent that takes what no rule and no capability covers, if there is one.
    pub fn general_agent(&self) -> Option<&AgentId> {
        self.general.as_ref()
    }

    /// Who does the steps of a task type, in order, once each, and a risk for each replacement.
    fn choose(&self, task_type: &str) -> Result<(Vec<Slot>, Vec<String>), PlannerError> {
        let mut slots: Vec<Slot> = Vec::new();
        let mut risks = Vec::new();
        match self.rules.get(task_type) {
            Some(names) => {
                for name in names {
                    if let Some(agent) = self.named(name) {
                        self.push_new(&mut slots, Slot::Agent(agent));
                    }
                }
                for name in names.iter().filter(|name| self.named(name).is_none()) {
                    match self.instead(task_type, name) {
                        Some(slot) => {
                            risks.push(format!("{name} is not in this mesh: {}", slot.told()));
                            self.push_new(&mut slots, slot);
                        }
                        None => risks.push(format!(
                            "{name} is not in this mesh, and nobody takes its place"
                        )),
                    }
                }
            }
            None => slots.extend(self.instead(task_type, task_type)),
        }
        if slots.is_empty() {
            return Err(PlannerError::UnknownTaskType {
                known: self.known(),
            });
        }
        Ok((slots, risks))
    }

    /// One who has a step already does the work of those whose place he can take.
    fn push_new(&self, slots: &mut Vec<Slot>, slot: Slot) {
        let taken = match &slot {
            Slot::Agent(_) => slots.contains(&slot),
            Slot::Capability(capability) => slots.iter().any(|there| match there {
                Slot::Agent(agent) => self.catalog.capable(capability).any(|a| a.id == *agent),
                Slot::Capability(_) => *there == slot,
            }),
        };
        if !taken {
            slots.push(slot);
        }
    }

    fn named(&self, name: &str) -> Option<AgentId> {
        let id: AgentId = name.parse().ok()?;
        self.catalog.find(&id).map(|a| a.id.clone())
    }

    /// Who does the work of `name`.
    fn instead(&self, task_type: &str, name: &str) -> Option<Slot> {
        let able = |capability: &&str| self.catalog.capable(capability).next().is_some();
        match [name, task_type].into_iter().find(able) {
            Some(capability) => Some(Slot::Capability(capability.to_owned())),
            None => Some(Slot::Agent(self.general.clone()?)),
        }
    }

    /// The task types that would be taken without a general agent.
    fn known(&self) -> Vec<String> {
        let capabilities = self
            .catalog
            .agents()
            .iter()
            .flat_map(|a| a.capabilities.iter().cloned());
        let rules = self
            .rules
            .iter()
            .filter(|(_, names)| names.iter().any(|n| self.named(n).is_some()))
            .map(|(task_type, _)| task_type.clone());
        let known: BTreeSet<String> = capabilities.chain(rules).collect();
        known.into_iter().collect()
    }
}

/// Who does a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slot {
    /// This agent.
    Agent(AgentId),
    /// Whoever can do this.
    Capability(String),
}

impl Slot {
    fn told(&self) -> String {
        match self {
            Self::Agent(agent) => format!("{agent} takes its place (the general agent)"),
            Self::Capability(name) => format!("who has the capability {name} takes its place"),
        }
    }
}

#[async_trait]
impl Planner for RulesPlanner {
    async fn draft(
        &self,
        request: &TaskRequest,
        _findings: &[Finding],
    ) -> Result<Draft, PlannerError> {
        let (slots, risks) = self.choose(&request.task_type)?;
        Ok(Draft {
            steps: slots
                .into_iter()
                .map(|slot| {
                    let (agent, capability) = match slot {
                        Slot::Agent(agent) => (agent.into(), None),
                        Slot::Capability(name) => (String::new(), Some(name)),
                    };
                    DraftStep {
                        // The plan's clients find a step under its agent's name, which the check makes its id.
                        agent,
                        capability,
                        action: format!("Process {}", request.task_type),
                        ..DraftStep::default()
                    }
                })
                .collect(),
            estimated_time: 60.0,
            confidence: 0.7,
            risks,
            ..Draft::default()
        })
    }

    fn source(&self) -> PlanSource {
        PlanSource::Rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Agent, plan_rules};

    fn planner(agents: &[(&str, &[&str])], general: Option<&str>) -> RulesPlanner {
        let agents = agents
            .iter()
            .map(|(id, capabilities)| Agent {
                id: id.parse().unwrap(),
                capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
                description: String::new(),
                queue_kind: None,
                concurrency: 1,
                resources: Default::default(),
                originators: None,
            })
            .collect();
        RulesPlanner::new(
            plan_rules(),
            general.map(|g| g.parse().unwrap()),
            Arc::new(Catalog::new(agents)),
        )
    }

    /// A capability is shown as `(capability)`.
    fn chosen(planner: &RulesPlanner, task_type: &str) -> (Vec<String>, usize) {
        let (slots, risks) = planner.choose(task_type).unwrap();
        (slots.iter().map(shown).collect(), risks.len())
    }

    fn shown(slot: &Slot) -> String {
        match slot {
            Slot::Agent(agent) => agent.to_string(),
            Slot::Capability(name) => format!("({name})"),
        }
    }

    #[test]
    fn the_table_holds_where_its_agents_are() {
        let planner = planner(
            &[("hardware-optimizer", &[]), ("resource-arbitrator", &[])],
            None,
        );
        assert_eq!(
            chosen(&planner, "system_optimization"),
            (
                vec!["hardware-optimizer".into(), "resource-arbitrator".into()],
                0
            )
        );
    }

    #[test]
    fn a_missing_agent_is_replaced_by_capability_then_by_the_general_agent() {
        let able = planner(
            &[
                ("data-processor", &["data_processing"]),
                ("general-agent", &[]),
            ],
            Some("general-agent"),
        );
        // vector-indexer is replaced by data-processor, which has a step already.
        assert_eq!(
            chosen(&able, "data_processing"),
            (vec!["data-processor".into()], 1)
        );
        assert_eq!(
            chosen(&able, "code_generation"),
            (vec!["general-agent".into()], 2)
        );
        assert_eq!(
            chosen(&able, "never_heard_of"),
            (vec!["general-agent".into()], 0)
        );
    }

    #[test]
    fn several_who_can_take_a_place_have_one_step_together() {
        let planner = planner(
            &[
                ("coder-a", &["code_generation", "qa-validator"]),
                ("coder-b", &["code_generation"]),
                ("security-scanner", &[]),
                ("auditor", &["security_scan"]),
            ],
            None,
        );
        assert_eq!(
            chosen(&planner, "code_generation"),
            (vec!["(code_generation)".into(), "(qa-validator)".into()], 2)
        );
        assert_eq!(
            chosen(&planner, "security_scan"),
            (vec!["security-scanner".into(), "(security_scan)".into()], 1)
        );
    }

    #[test]
    fn task_types_are_told_as_they_are_planned() {
        let planner = planner(
            &[
                ("data-processor", &["data_processing", "count_words"]),
                ("general-agent", &[]),
            ],
            Some("general-agent"),
        );
        let told = planner.task_types();
        let told: BTreeMap<String, Vec<String>> = told
            .into_iter()
            .map(|(name, slots)| (name, slots.iter().map(shown).collect()))
            .collect();
        assert_eq!(told["count_words"], ["(count_words)"]);
        assert_eq!(told["data_processing"], ["data-processor"]);
        assert_eq!(told["code_generation"], ["general-agent"]);
        assert_eq!(told.len(), plan_rules().len() + 1);
        for (task_type, slots) in told {
            assert_eq!(chosen(&planner, &task_type).0, slots);
        }
    }

    #[test]
    fn types_that_nobody_takes_are_not_told() {
        let planner = planner(&[("data-processor", &["count_words"])], None);
        let told: Vec<String> = planner.task_types().into_keys().collect();
        assert_eq!(told, ["count_words", "data_processing"]);
        assert_eq!(planner.general_agent(), None);
    }

    #[test]
    fn an_unknown_type_goes_by_capability_or_names_the_known_ones() {
        let planner = planner(&[("data-processor", &["count_words"])], None);
        assert_eq!(
            chosen(&planner, "count_words"),
            (vec!["(count_words)".into()], 0)
        );
        assert_eq!(
            planner.choose("never_heard_of"),
            Err(PlannerError::UnknownTaskType {
                known: vec!["count_words".into(), "data_processing".into()]
            })
        );
        // One of the rule's two agents is there: the other is left out, and said to be.
        assert_eq!(
            chosen(&planner, "data_processing"),
            (vec!["data-processor".into()], 1)
        );
    }
}
