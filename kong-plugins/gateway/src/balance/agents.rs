//! Agents by their id, for services that lead to whichever agent the filters chose.
//!
//! In front of a real Kong stands no such map: there the service leads to the sidecar beside the
//! gateway, which reads the same header.

use super::{Pool, Target};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The instances of every agent.
#[derive(Debug, Default)]
pub(crate) struct Agents(HashMap<String, Arc<Pool>>);

impl Agents {
    /// Reads `agent id → address:port`; what is wrong goes into `problems`.
    pub(crate) fn read(given: &BTreeMap<String, Vec<String>>, problems: &mut Vec<String>) -> Self {
        let mut agents = HashMap::new();
        for (id, places) in given {
            let mut targets: Vec<Target> = Vec::new();
            for place in places {
                match Target::read(place, None, 1) {
                    Ok(target) => targets.push(target),
                    Err(problem) => problems.push(format!("agent {id}: {problem}")),
                }
            }
            let pool = Pool::with(id, targets, super::Checks::default(), 0.0);
            agents.insert(id.clone(), Arc::new(pool));
        }
        Self(agents)
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Pool>> {
        self.0.get(id)
    }
}
