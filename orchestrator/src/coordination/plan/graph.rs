//! What can be said of a collaboration's graph; pure.

use crate::run::dag::Dag;
use mesh_protocol::AgentId;
use mesh_protocol::collaboration::Collaboration;
use serde::Serialize;

/// The figures of a graph.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GraphMetrics {
    /// Agents.
    pub nodes: usize,
    /// Edges that data flows along; barriers are none.
    pub edges: usize,
    /// Edges of all that there could be, 0 to 1; 0 for one node.
    pub density: f64,
    /// Agents on the longest way, barriers included.
    pub depth: usize,
    /// Most agents that can work at the same time.
    pub width: usize,
    /// The heaviest way by its edges' weights; of several the longest.
    pub critical_path: Vec<AgentId>,
    /// Its weight.
    pub critical_path_weight: u64,
}

/// The figures of `collaboration`, whose graph with its barriers is `dag`.
pub fn metrics(collaboration: &Collaboration, dag: &Dag) -> GraphMetrics {
    let nodes = collaboration.nodes.len();
    let edges = collaboration.edges.len();
    let weight = |from: usize, to: usize| -> u64 {
        let name = |place: usize| collaboration.nodes.get(place).map(|node| &node.agent);
        let (Some(from), Some(to)) = (name(from), name(to)) else {
            return 0;
        };
        let edge = collaboration.edges_to(to).find(|edge| edge.from == *from);
        edge.map_or(0, |edge| edge.weight.into())
    };
    // For each node the best way that ends there: weight, nodes, and the node before.
    let mut best: Vec<(u64, usize, Option<usize>)> = vec![(0, 1, None); dag.len()];
    let mut depths = vec![1; dag.len()];
    for &place in dag.order() {
        for &before in dag.before(place) {
            let (heavy, long, _) = best[before];
            let way = (heavy + weight(before, place), long + 1, Some(before));
            if (way.0, way.1) > (best[place].0, best[place].1) {
                best[place] = way;
            }
            depths[place] = depths[place].max(depths[before] + 1);
        }
    }
    let end = (0..dag.len()).max_by_key(|place| (best[*place].0, best[*place].1));
    let mut critical_path = Vec::new();
    let mut next = end;
    while let Some(place) = next {
        critical_path.extend(
            collaboration
                .nodes
                .get(place)
                .map(|node| node.agent.clone()),
        );
        next = best[place].2;
    }
    critical_path.reverse();
    #[allow(clippy::cast_precision_loss)]
    let density = if nodes < 2 {
        0.0
    } else {
        edges as f64 / (nodes * (nodes - 1)) as f64
    };
    GraphMetrics {
        nodes,
        edges,
        density,
        depth: depths.into_iter().max().unwrap_or(0),
        width: dag.width(),
        critical_path,
        critical_path_weight: end.map_or(0, |place| best[place].0),
    }
}
