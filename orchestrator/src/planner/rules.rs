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

    /// The agents for each task type that a rule or a capability names, as far as there are any.
    pub fn task_types(&self) -> BTreeMap<String, Vec<String>> {
        let capabilities = self.catalog.agents().iter().flat_map(|a| &a.capabilities);
        self.rules
            .keys()
            .chain(capabilities)
            .filter_map(|task_type| {
                let (agents, _) = self.choose(task_type).ok()?;
                let agents = agents.into_iter().map(String::from).collect();
                Some((task_type.clone(), agents))
            })
            .collect()
    }

    /// The agent that takes what no rule and no capability covers, if there is one.
    pub fn general_agent(&self) -> Option<&AgentId> {
        self.general.as_ref()
    }

    /// The agents for a task type, in order, once each, and a risk for each replacement.
    fn choose(&self, task_type: &str) -> Result<(Vec<AgentId>, Vec<String>), PlannerError> {
        let mut agents: Vec<AgentId> = Vec::new();
        let mut risks = Vec::new();
        match self.rules.get(task_type) {
            Some(names) => {
                for name in names {
                    if let Some(agent) = self.named(name) {
                        push_new(&mut agents, agent);
                        continue;
                    }
                    match self.instead(task_type, name) {
                        Some((agent, why)) => {
                            risks.push(format!(
                                "{name} is not in this mesh: {agent} takes its place ({why})"
                            ));
                            push_new(&mut agents, agent);
                        }
                        None => risks.push(format!(
                            "{name} is not in this mesh, and nobody takes its place"
                        )),
                    }
                }
            }
            None => {
                if let Some((agent, _)) = self.instead(task_type, task_type) {
                    push_new(&mut agents, agent);
                }
            }
        }
        if agents.is_empty() {
            return Err(PlannerError::UnknownTaskType {
                known: self.known(),
            });
        }
        Ok((agents, risks))
    }

    fn named(&self, name: &str) -> Option<AgentId> {
        let id: AgentId = name.parse().ok()?;
        self.catalog.find(&id).map(|a| a.id.clone())
    }

    /// Who does the work of `name`, and why that one.
    fn instead(&self, task_type: &str, name: &str) -> Option<(AgentId, &'static str)> {
        let capable = self
            .catalog
            .capable(name)
            .next()
            .or_else(|| self.catalog.capable(task_type).next());
        match capable {
            Some(agent) => Some((agent.id.clone(), "it has the capability")),
            None => Some((self.general.clone()?, "the general agent")),
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

fn push_new(agents: &mut Vec<AgentId>, agent: AgentId) {
    if !agents.contains(&agent) {
        agents.push(agent);
    }
}

#[async_trait]
impl Planner for RulesPlanner {
    async fn draft(
        &self,
        request: &TaskRequest,
        _findings: &[Finding],
    ) -> Result<Draft, PlannerError> {
        let (agents, risks) = self.choose(&request.task_type)?;
        Ok(Draft {
            steps: agents
                .into_iter()
                .map(|agent| DraftStep {
                    // The plan's clients find a step under its agent's name.
                    id: Some(agent.as_str().to_owned()),
                    agent: agent.into(),
                    action: format!("Process {}", request.task_type),
                    ..DraftStep::default()
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
            })
            .collect();
        RulesPlanner::new(
            plan_rules(),
            general.map(|g| g.parse().unwrap()),
            Arc::new(Catalog::new(agents)),
        )
    }

    fn chosen(planner: &RulesPlanner, task_type: &str) -> (Vec<String>, usize) {
        let (agents, risks) = planner.choose(task_type).unwrap();
        (agents.into_iter().map(String::from).collect(), risks.len())
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
    fn task_types_are_told_as_they_are_planned() {
        let planner = planner(
            &[
                ("data-processor", &["data_processing", "count_words"]),
                ("general-agent", &[]),
            ],
            Some("general-agent"),
        );
        let told = planner.task_types();
        assert_eq!(told["count_words"], ["data-processor"]);
        assert_eq!(told["data_processing"], ["data-processor"]);
        assert_eq!(told["code_generation"], ["general-agent"]);
        assert_eq!(told.len(), plan_rules().len() + 1);
        for (task_type, agents) in told {
            assert_eq!(chosen(&planner, &task_type).0, agents);
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
            (vec!["data-processor".into()], 0)
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
