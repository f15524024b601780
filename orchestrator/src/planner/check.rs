//! The one check between a proposal and a run; pure. Its codes: [`Code`].
//!
//! Width (P008) is the largest set of steps of which none waits for another, see [`Dag::width`].

use super::draft::{Draft, DraftStep, clip};
use super::finding::Findings;
use super::{Catalog, CheckedPlan};
use crate::run::dag::{Dag, DagError};
use mesh_protocol::plan::{Plan, PlanSource, PlanStep};
use mesh_protocol::task::MAX_TIMEOUT_S;
use mesh_protocol::{AgentId, StepId};
use std::collections::HashMap;

pub use super::finding::{Code, Finding};

/// Longest action, in characters: it is an instruction, not a document.
pub const MAX_ACTION: usize = 2000;
/// Longest role or capability, in characters.
pub const MAX_WORD: usize = 200;
/// Most risks that are kept, each of at most [`MAX_RISK`] characters.
pub const MAX_RISKS: usize = 20;
/// Longest risk, in characters.
pub const MAX_RISK: usize = 500;

/// Bounds on a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most steps.
    pub max_steps: usize,
    /// Most steps that can run at the same time.
    pub max_width: usize,
}

/// Makes a plan of a proposal.
///
/// # Errors
/// What is wrong with it, at most 20 findings.
pub fn check(
    draft: Draft,
    source: PlanSource,
    catalog: &Catalog,
    bounds: Bounds,
) -> Result<CheckedPlan, Vec<Finding>> {
    let mut findings = Findings(Vec::new());
    if draft.steps.is_empty() {
        findings.add(Code::P010, None, "the plan has no steps: give at least one");
    }
    if draft.steps.len() > bounds.max_steps {
        let detail = format!(
            "the plan has {} steps: give at most {}",
            draft.steps.len(),
            bounds.max_steps
        );
        findings.add(Code::P007, None, detail);
        // Everything below is bounded by the number of steps.
        return Err(findings.0);
    }
    let ids = step_ids(&draft.steps, &mut findings);
    let agents: Vec<Option<AgentId>> = draft
        .steps
        .iter()
        .zip(&ids)
        .map(|(step, id)| check_agent(step, id, catalog, &mut findings))
        .collect();
    for fault in &draft.faults {
        findings.add(Code::P013, None, fault);
    }
    for (step, id) in draft.steps.iter().zip(&ids) {
        for fault in &step.faults {
            findings.add(Code::P013, Some(id), fault);
        }
        check_texts(step, id, &mut findings);
        check_resources(step, id, catalog, &mut findings);
    }
    let before: Vec<Vec<usize>> = draft
        .steps
        .iter()
        .zip(&ids)
        .map(|(step, id)| dependencies(step, id, &ids, &agents, &mut findings))
        .collect();
    let dag = check_graph(before, &ids, bounds, &mut findings);
    let steps = build(draft.steps, &ids, agents, dag.as_ref(), catalog);
    match (dag, steps) {
        (Some(dag), Some(steps)) if findings.0.is_empty() => {
            let mut agents_required: Vec<AgentId> = Vec::new();
            for step in &steps {
                if !agents_required.contains(&step.agent) {
                    agents_required.push(step.agent.clone());
                }
            }
            let plan = Plan {
                source,
                agents_required,
                execution_plan: steps,
                resources: draft.resources,
                estimated_time: draft.estimated_time,
                confidence: draft.confidence,
                risks: draft
                    .risks
                    .iter()
                    .take(MAX_RISKS)
                    .map(|r| clip(r, MAX_RISK))
                    .collect(),
                collaboration: None,
            };
            Ok(CheckedPlan { plan, dag })
        }
        _ => Err(findings.0),
    }
}

/// The steps' ids: as given, else the agent's name, numbered where that is taken.
fn step_ids(steps: &[DraftStep], findings: &mut Findings) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for id in steps.iter().filter_map(|s| s.id.as_ref()) {
        *seen.entry(id.clone()).or_default() += 1;
    }
    let mut twice: Vec<&String> = seen
        .iter()
        .filter(|(_, n)| **n > 1)
        .map(|(i, _)| i)
        .collect();
    twice.sort_unstable();
    for id in twice {
        findings.add(
            Code::P003,
            Some(id),
            "several steps have this id: give each step an id of its own",
        );
    }
    let mut ids = Vec::with_capacity(steps.len());
    for (place, step) in steps.iter().enumerate() {
        let id = match &step.id {
            Some(id) => id.clone(),
            None => {
                let name = step
                    .agent
                    .parse::<AgentId>()
                    .map_or_else(|_| format!("step-{}", place + 1), String::from);
                let mut id = name.clone();
                let mut number = 1;
                while seen.contains_key(&id) {
                    number += 1;
                    id = format!("{name}-{number}");
                }
                seen.insert(id.clone(), 1);
                id
            }
        };
        if let Err(error) = id.parse::<StepId>() {
            let place = format!("#{}", place + 1);
            findings.add(Code::P011, Some(&place), format!("{error}"));
        }
        ids.push(id);
    }
    ids
}

fn check_agent(
    step: &DraftStep,
    id: &str,
    catalog: &Catalog,
    findings: &mut Findings,
) -> Option<AgentId> {
    if let (true, Some(capability)) = (step.agent.is_empty(), &step.capability) {
        let detail = format!(
            "no agent has the capability {:?}: name one that an agent has, or an agent",
            clip(capability, 64)
        );
        findings.add(Code::P002, Some(id), detail);
        return None;
    }
    let agent = step
        .agent
        .parse::<AgentId>()
        .ok()
        .and_then(|name| catalog.find(&name));
    let Some(agent) = agent else {
        let known: Vec<&str> = catalog.agents().iter().map(|a| a.id.as_str()).collect();
        let detail = format!(
            "there is no agent {:?}: choose one of {}",
            clip(&step.agent, 64),
            known.join(", ")
        );
        findings.add(Code::P001, Some(id), detail);
        return None;
    };
    if let Some(capability) = &step.capability
        && !agent.capabilities.contains(capability)
    {
        let able: Vec<&str> = catalog.capable(capability).map(|a| a.id.as_str()).collect();
        let mend = if able.is_empty() {
            "no agent has it: leave the capability out".to_owned()
        } else {
            format!("choose one of {}", able.join(", "))
        };
        let detail = format!(
            "{} has no capability {:?}: {mend}",
            agent.id,
            clip(capability, 64)
        );
        findings.add(Code::P002, Some(id), detail);
    }
    Some(agent.id.clone())
}

fn check_resources(step: &DraftStep, id: &str, catalog: &Catalog, findings: &mut Findings) {
    let needs = step.resources.iter().flatten();
    for (name, amount) in needs {
        let detail = match catalog.capacity().get(name) {
            Some(there) if amount <= there => continue,
            Some(there) => format!("it takes {amount} of {name}, and there is {there}: take less"),
            None => {
                let known: Vec<&str> = catalog.capacity().keys().map(String::as_str).collect();
                let known = match known.is_empty() {
                    true => "none are declared: leave them out".to_owned(),
                    false => format!("choose of {}", known.join(", ")),
                };
                format!("there is no resource {:?}: {known}", clip(name, 64))
            }
        };
        findings.add(Code::P014, Some(id), detail);
    }
}

fn check_texts(step: &DraftStep, id: &str, findings: &mut Findings) {
    if step.action.trim().is_empty() {
        findings.add(Code::P009, Some(id), "action is empty: say what to do");
    }
    for (name, text, max) in [
        ("action", Some(&step.action), MAX_ACTION),
        ("role", step.role.as_ref(), MAX_WORD),
        ("capability", step.capability.as_ref(), MAX_WORD),
    ] {
        if text.is_some_and(|t| t.chars().count() > max) {
            let detail = format!("{name} is longer than {max} characters: shorten it");
            findings.add(Code::P009, Some(id), detail);
        }
    }
    if let Some(timeout) = step.timeout
        && !(1..=u64::from(MAX_TIMEOUT_S)).contains(&timeout)
    {
        let detail = format!("timeout is {timeout} s: give 1 to {MAX_TIMEOUT_S}, or none");
        findings.add(Code::P012, Some(id), detail);
    }
}

/// The places of the steps that `step` waits for: named by step id, or by agent where that is clear.
fn dependencies(
    step: &DraftStep,
    id: &str,
    ids: &[String],
    agents: &[Option<AgentId>],
    findings: &mut Findings,
) -> Vec<usize> {
    let mut places = Vec::new();
    for name in &step.dependencies {
        if let Some(place) = ids.iter().position(|other| other == name) {
            places.push(place);
            continue;
        }
        let agent = name.parse::<AgentId>().ok();
        let mut of_agent = agents
            .iter()
            .enumerate()
            .filter(|(_, a)| agent.is_some() && **a == agent)
            .map(|(place, _)| place);
        match (of_agent.next(), of_agent.next()) {
            (Some(place), None) => places.push(place),
            (Some(_), Some(_)) => {
                let detail = format!("{name} has several steps: name the step by its id");
                findings.add(Code::P005, Some(id), detail);
            }
            (None, _) => {
                let detail = format!(
                    "dependency {:?} does not exist: use the id of another step",
                    clip(name, 64)
                );
                findings.add(Code::P004, Some(id), detail);
            }
        }
    }
    places
}

fn check_graph(
    before: Vec<Vec<usize>>,
    ids: &[String],
    bounds: Bounds,
    findings: &mut Findings,
) -> Option<Dag> {
    match Dag::new(before) {
        Ok(dag) => {
            // The width costs a matching; few steps cannot be wide.
            if dag.len() > bounds.max_width {
                let width = dag.width();
                if width > bounds.max_width {
                    let detail = format!(
                        "{width} steps can run at the same time: let some wait for others, so that \
                         at most {} can",
                        bounds.max_width
                    );
                    findings.add(Code::P008, None, detail);
                }
            }
            Some(dag)
        }
        Err(DagError::Cycle(steps)) => {
            let names: Vec<&str> = steps
                .iter()
                .filter_map(|s| ids.get(*s))
                .map(String::as_str)
                .collect();
            let detail = format!(
                "these steps wait for each other: {}: remove a dependency",
                clip(&names.join(", "), 300)
            );
            findings.add(Code::P006, names.first().copied(), detail);
            None
        }
        Err(DagError::NoStep(_)) => None,
    }
}

fn build(
    steps: Vec<DraftStep>,
    ids: &[String],
    agents: Vec<Option<AgentId>>,
    dag: Option<&Dag>,
    catalog: &Catalog,
) -> Option<Vec<PlanStep>> {
    let dag = dag?;
    let ids: Vec<StepId> = ids
        .iter()
        .map(|id| id.parse().ok())
        .collect::<Option<_>>()?;
    steps
        .into_iter()
        .zip(agents)
        .enumerate()
        .map(|(place, (step, agent))| {
            let agent = agent?;
            let own = step.resources.filter(|_| !catalog.capacity().is_empty());
            Some(PlanStep {
                id: ids.get(place)?.clone(),
                resources: own.unwrap_or_else(|| catalog.takes(&agent)),
                assignment: step.assignment,
                agent,
                action: step.action,
                role: step.role,
                capability: step.capability,
                dependencies: dag
                    .before(place)
                    .iter()
                    .filter_map(|b| ids.get(*b).cloned())
                    .collect(),
                payload: step.payload,
                timeout: step.timeout.and_then(|t| u32::try_from(t).ok()),
            })
        })
        .collect()
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
