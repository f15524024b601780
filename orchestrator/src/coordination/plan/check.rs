//! The one check between a proposed collaboration and a run; pure. Its codes: [`Code`].

use super::draft::{Draft, DraftEdge, DraftNode, DraftPoint};
use super::finding::{Code, Finding, Findings};
use crate::planner::check::{Bounds, MAX_ACTION, MAX_RISK, MAX_RISKS, MAX_WORD};
use crate::planner::draft::clip;
use crate::planner::{Catalog, CheckedPlan};
use crate::run::dag::{Dag, DagError};
use mesh_protocol::collaboration::{
    Collaboration, Edge, LEAST, MOST, Node, SynchronizationPoint, USUAL,
};
use mesh_protocol::plan::{Plan, PlanSource, PlanStep, Resources};
use mesh_protocol::{AgentId, StepId};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Most edges: each pair of the usual most steps would be more than anybody reads.
const MAX_EDGES: usize = 1_000;
/// Most synchronization points.
const MAX_POINTS: usize = 20;
/// What an edge carries that does not say, as in the plan.
const UNKNOWN: &str = "unknown";

/// What a collaboration is held against.
pub struct Ground<'a> {
    /// Those that take steps.
    pub catalog: &'a Catalog,
    /// Those that only hear.
    pub listeners: &'a BTreeSet<AgentId>,
    /// Bounds on nodes, and on how many work at the same time.
    pub bounds: Bounds,
}

/// Makes a plan of a proposal.
///
/// # Errors
/// What is wrong with it, at most 20 findings.
pub fn check(
    draft: Draft,
    source: PlanSource,
    ground: &Ground<'_>,
) -> Result<CheckedPlan, Vec<Finding>> {
    let Draft {
        nodes,
        edges,
        points,
        estimated_time,
        risks,
        mut findings,
        usage: _,
    } = draft;
    if too_many(
        nodes.len(),
        edges.len(),
        points.len(),
        ground,
        &mut findings,
    ) {
        // Everything below is bounded by these.
        return Err(findings.0);
    }
    let nodes = check_nodes(nodes, ground, &mut findings);
    let places: HashMap<AgentId, usize> = nodes
        .iter()
        .enumerate()
        .filter_map(|(place, node)| Some((node.as_ref()?.agent.clone(), place)))
        .collect();
    let edges = check_edges(edges, &places, &mut findings);
    let points = check_points(points, &places, &mut findings);
    let (Some(nodes), true) = (
        nodes.into_iter().collect::<Option<Vec<Node>>>(),
        findings.0.is_empty(),
    ) else {
        return Err(findings.0);
    };
    let before = predecessors(nodes.len(), &edges, &points, &places);
    let dag = match Dag::new(before.clone()) {
        Ok(dag) => dag,
        Err(error) => {
            let stuck = match error {
                DagError::Cycle(stuck) => stuck,
                DagError::NoStep(_) => Vec::new(),
            };
            let detail = format!(
                "{} wait for one another: take an edge or a synchronization point away",
                clip(&circle(&stuck, &before, &nodes), 500)
            );
            findings.add(Code::C005, "edges", detail);
            return Err(findings.0);
        }
    };
    let width = dag.width();
    if width > ground.bounds.max_width {
        let detail = format!(
            "{width} agents can work at the same time: let some wait for others, so that at most {} can",
            ground.bounds.max_width
        );
        findings.add(Code::C009, "", detail);
        return Err(findings.0);
    }
    let Some(steps) = steps(&nodes, &dag, ground.catalog) else {
        findings.add(Code::C010, "nodes", "an agent's name cannot be a step's");
        return Err(findings.0);
    };
    let plan = Plan {
        source,
        agents_required: nodes.iter().map(|node| node.agent.clone()).collect(),
        execution_plan: steps,
        resources: Resources::default(),
        estimated_time,
        confidence: 0.5,
        risks: risks
            .iter()
            .take(MAX_RISKS)
            .map(|risk| clip(risk, MAX_RISK))
            .collect(),
        collaboration: Some(Box::new(Collaboration {
            nodes,
            edges,
            synchronization_points: points,
        })),
    };
    Ok(CheckedPlan { plan, dag })
}

fn too_many(
    nodes: usize,
    edges: usize,
    points: usize,
    ground: &Ground<'_>,
    findings: &mut Findings,
) -> bool {
    if nodes == 0 {
        findings.add(
            Code::C007,
            "nodes",
            "there are no nodes: name at least one agent",
        );
    }
    let mut any = false;
    for (name, there, most) in [
        ("nodes", nodes, ground.bounds.max_steps),
        ("edges", edges, MAX_EDGES),
        ("synchronization_points", points, MAX_POINTS),
    ] {
        if there > most {
            let detail = format!("there are {there}: give at most {most}");
            findings.add(Code::C008, name, detail);
            any = true;
        }
    }
    any
}

fn check_nodes(
    nodes: Vec<DraftNode>,
    ground: &Ground<'_>,
    findings: &mut Findings,
) -> Vec<Option<Node>> {
    let mut seen = HashSet::new();
    let checked = nodes.into_iter().enumerate().map(|(n, node)| {
        let place = format!("nodes[{n}]");
        let named: Option<AgentId> = node.agent.parse().ok();
        let agent = named.filter(|id| match ground.catalog.find(id) {
            Some(_) => true,
            None => {
                if ground.listeners.contains(id) {
                    let detail = format!(
                        "{id} registered by itself and has no queue: it hears messages and takes no steps"
                    );
                    findings.add(Code::C002, format!("{place}.agent"), detail);
                } else {
                    unknown(&node.agent, &place, ground, findings);
                }
                false
            }
        });
        if node.agent.parse::<AgentId>().is_err() {
            unknown(&node.agent, &place, ground, findings);
        }
        if let Some(id) = &agent
            && !seen.insert(id.clone())
        {
            let detail = format!("{id} has a node already: give each agent one, with all it does as its role");
            findings.add(Code::C003, format!("{place}.agent"), detail);
        }
        text(&node.role, MAX_ACTION, &format!("{place}.role"), findings);
        let priority = number(node.priority, &format!("{place}.priority"), findings);
        Some(Node {
            agent: agent?,
            role: node.role,
            priority,
        })
    });
    checked.collect()
}

fn unknown(name: &str, place: &str, ground: &Ground<'_>, findings: &mut Findings) {
    let known: Vec<&str> = ground
        .catalog
        .agents()
        .iter()
        .map(|a| a.id.as_str())
        .collect();
    let detail = format!(
        "there is no agent {:?}: choose one of {}",
        clip(name, 64),
        clip(&known.join(", "), 500)
    );
    findings.add(Code::C001, format!("{place}.agent"), detail);
}

fn text(text: &str, most: usize, place: &str, findings: &mut Findings) {
    if text.trim().is_empty() {
        findings.add(Code::C010, place, "it is empty: say what it is");
    } else if text.chars().count() > most {
        findings.add(Code::C010, place, format!("it may have {most} characters"));
    }
}

fn number(number: Option<u64>, place: &str, findings: &mut Findings) -> u8 {
    let Some(number) = number else { return USUAL };
    match u8::try_from(number) {
        Ok(number) if (LEAST..=MOST).contains(&number) => number,
        _ => {
            let detail = format!("it must be from {LEAST} to {MOST}, not {number}");
            findings.add(Code::C011, place, detail);
            USUAL
        }
    }
}

/// The agent of that name, if it has a node.
fn end(
    name: &str,
    place: String,
    places: &HashMap<AgentId, usize>,
    findings: &mut Findings,
) -> Option<AgentId> {
    let agent = name.parse().ok().filter(|id| places.contains_key(id));
    if agent.is_none() {
        let detail = format!("{:?} has no node: add one, or name another", clip(name, 64));
        findings.add(Code::C004, place, detail);
    }
    agent
}

fn check_edges(
    edges: Vec<DraftEdge>,
    places: &HashMap<AgentId, usize>,
    findings: &mut Findings,
) -> Vec<Edge> {
    let mut seen = HashSet::new();
    let checked = edges.into_iter().enumerate().filter_map(|(n, edge)| {
        let place = format!("edges[{n}]");
        let from = end(&edge.from, format!("{place}.from"), places, findings);
        let to = end(&edge.to, format!("{place}.to"), places, findings);
        let data = edge.data.unwrap_or_else(|| UNKNOWN.to_owned());
        text(&data, MAX_WORD, &format!("{place}.data"), findings);
        let weight = number(edge.weight, &format!("{place}.weight"), findings);
        let (from, to) = (from?, to?);
        if !seen.insert((from.clone(), to.clone())) {
            let detail = format!("there is an edge from {from} to {to} already: give one");
            findings.add(Code::C006, place, detail);
        }
        Some(Edge {
            from,
            to,
            data,
            weight,
        })
    });
    checked.collect()
}

fn check_points(
    points: Vec<DraftPoint>,
    places: &HashMap<AgentId, usize>,
    findings: &mut Findings,
) -> Vec<SynchronizationPoint> {
    let checked = points.into_iter().enumerate().map(|(n, point)| {
        let place = format!("synchronization_points[{n}]");
        let (after, before) = match point {
            DraftPoint::Note(note) => {
                text(&note, MAX_RISK, &place, findings);
                return SynchronizationPoint::Note(note);
            }
            DraftPoint::Barrier { after, before } => (after, before),
        };
        let mut ends = |names: Vec<String>, side: &str| {
            if names.is_empty() || names.len() > places.len() {
                let detail = "name the agents, each once: who is done, and who waits for that";
                findings.add(Code::C010, format!("{place}.{side}"), detail);
                return Vec::new();
            }
            let ends = names.iter().enumerate().filter_map(|(n, name)| {
                end(name, format!("{place}.{side}[{n}]"), places, findings)
            });
            ends.collect()
        };
        SynchronizationPoint::Barrier {
            after: ends(after, "after"),
            before: ends(before, "before"),
        }
    });
    checked.collect()
}

/// Whom each node waits for, by edges and by barriers.
fn predecessors(
    nodes: usize,
    edges: &[Edge],
    points: &[SynchronizationPoint],
    places: &HashMap<AgentId, usize>,
) -> Vec<Vec<usize>> {
    let mut before = vec![BTreeSet::new(); nodes];
    let mut wait = |who: &AgentId, whom: &AgentId| {
        if let (Some(who), Some(whom)) = (places.get(who), places.get(whom))
            && let Some(waits) = before.get_mut(*who)
        {
            waits.insert(*whom);
        }
    };
    for edge in edges {
        wait(&edge.to, &edge.from);
    }
    for point in points {
        if let SynchronizationPoint::Barrier { after, before } = point {
            for who in before {
                for whom in after {
                    wait(who, whom);
                }
            }
        }
    }
    before
        .into_iter()
        .map(|w| w.into_iter().collect())
        .collect()
}

/// One circle among the nodes that wait for ever, as `a → b → a`. Each of them waits for another of them, so
/// whoever follows that comes to where it was.
fn circle(stuck: &[usize], before: &[Vec<usize>], nodes: &[Node]) -> String {
    let among: HashSet<usize> = stuck.iter().copied().collect();
    let mut path: Vec<usize> = Vec::new();
    let mut next = stuck.first().copied();
    while let Some(here) = next {
        if let Some(start) = path.iter().position(|p| *p == here) {
            path.drain(..start);
            path.push(here);
            break;
        }
        path.push(here);
        let waits = before.get(here).into_iter().flatten();
        next = waits.copied().find(|whom| among.contains(whom));
    }
    // From who is waited for to who waits, as the edges lead.
    let names: Vec<&str> = path
        .iter()
        .rev()
        .filter_map(|place| nodes.get(*place))
        .map(|node| node.agent.as_str())
        .collect();
    names.join(" → ")
}

fn steps(nodes: &[Node], dag: &Dag, catalog: &Catalog) -> Option<Vec<PlanStep>> {
    let ids: Vec<StepId> = nodes
        .iter()
        .map(|node| node.agent.as_str().parse().ok())
        .collect::<Option<_>>()?;
    let steps = nodes.iter().enumerate().map(|(place, node)| {
        Some(PlanStep {
            id: ids.get(place)?.clone(),
            assignment: None,
            resources: catalog.takes(&node.agent),
            agent: node.agent.clone(),
            action: node.role.clone(),
            role: Some(node.role.clone()),
            capability: None,
            dependencies: dag
                .before(place)
                .iter()
                .filter_map(|whom| ids.get(*whom).cloned())
                .collect(),
            payload: None,
            timeout: None,
        })
    });
    steps.collect()
}
