//! What is wrong only because something else is: of a list of agents that cannot be read, no agent is missing.
//!
//! Such findings send a reader to places that are right. They are left out, and come back when what they follow from
//! is mended and they are true.

use crate::finding::{Finding, Severity};

/// Codes of what cannot be read, so that nobody knows what it says.
const UNREAD: [&str; 5] = [
    "wrong_type",
    "invalid_name",
    "invalid_amount",
    "empty",
    "missing",
];

/// Takes out every finding that follows from another one.
pub(super) fn once(findings: &mut Vec<Finding>) {
    let unread = Unread::of(findings);
    findings.retain(|finding| !unread.explains(finding));
}

/// What could not be read.
#[derive(Default)]
struct Unread {
    /// Paths of what has the wrong type, or no value of its own.
    paths: Vec<String>,
    agents: bool,
    services: bool,
    exchanges: bool,
    routers: bool,
    registry: bool,
}

impl Unread {
    fn of(findings: &[Finding]) -> Self {
        let mut unread = Self::default();
        for finding in findings {
            if finding.severity != Severity::Error || !UNREAD.contains(&finding.code) {
                continue;
            }
            let path = finding.path.as_str();
            unread.agents |= is_name_of(path, "agents", "id");
            unread.services |= is_name_of(path, "services", "name");
            unread.exchanges |=
                is_name_of(path, "messaging.exchanges", "name") || path == "messaging";
            unread.routers |=
                within(path, "gateway.filters.agent_router") || path == "gateway.filters";
            unread.routers |= path == "gateway";
            unread.registry |= within(path, "registry");
            if finding.code != "missing" {
                unread.paths.push(path.to_owned());
            }
        }
        unread
    }

    fn explains(&self, finding: &Finding) -> bool {
        let path = finding.path.as_str();
        // A slip of the hand is one, whatever else there is.
        let slip = |hint: &String| hint.starts_with("did you mean");
        if finding.hint.as_ref().is_some_and(slip) {
            return false;
        }
        match finding.code {
            "no_agents" | "no_general_agent" | "unknown_agent" | "unknown_consumer"
            | "unreachable_agent" => self.agents,
            "unknown_service" | "unknown_container" => self.agents || self.services,
            // Of the list itself, and of who is named by a rule.
            "filter_config" => {
                self.agents && (path.ends_with("agent_router.agents") || path.contains(".to."))
            }
            "unknown_exchange" => self.exchanges || self.agents,
            "unknown_resource" => {
                // The list of all of them, or this one's amount.
                let named = path.rsplit_once(".resources.").map_or("", |(_, name)| name);
                let amount = format!("orchestrator.resources.{named}");
                let all = ["orchestrator", "orchestrator.resources", &amount];
                self.paths.iter().any(|path| all.contains(&path.as_str()))
            }
            "no_router" => {
                let route = path.strip_suffix(".to").unwrap_or(path);
                let own = format!("{route}.filters");
                self.routers || self.paths.iter().any(|path| within(path, &own))
            }
            "conflict" => path == "identity.source" && self.registry,
            "missing" => self.paths.iter().any(|outer| {
                let run = outer.strip_suffix(".run").unwrap_or(outer);
                let endpoint = path.strip_suffix(".endpoint");
                // Which of both an agent has nobody knows then.
                path != outer && (within(path, outer) || endpoint == Some(run))
            }),
            _ => false,
        }
    }
}

/// Whether a list, one of its items or the name of one could not be read.
fn is_name_of(path: &str, list: &str, name: &str) -> bool {
    let Some(rest) = path.strip_prefix(list) else {
        return false;
    };
    let item = rest
        .strip_suffix(name)
        .and_then(|rest| rest.strip_suffix('.'));
    let item = item.unwrap_or(rest);
    rest.is_empty() || (item.starts_with('[') && item.ends_with(']') && !item.contains('.'))
}

fn within(path: &str, outer: &str) -> bool {
    let rest = path.strip_prefix(outer);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Place;

    #[test]
    fn names_of_lists() {
        for path in ["agents", "agents[0]", "agents[12].id"] {
            assert!(is_name_of(path, "agents", "id"), "{path}");
        }
        for path in ["agents[0].run", "agents[0].sidecar.id", "agentsx", "mesh"] {
            assert!(!is_name_of(path, "agents", "id"), "{path}");
        }
    }

    #[test]
    fn what_follows_goes_and_what_does_not_stays() {
        let finding = |code, path: &str| Finding::error(code, Place::default(), path, "");
        let mut findings = vec![
            finding("wrong_type", "gateway"),
            finding("missing", "gateway.auth"),
            finding("missing", "mesh"),
            finding("wrong_type", "agents[1].run"),
            finding("missing", "agents[1].endpoint"),
            finding("missing", "agents[2].endpoint"),
            finding("unknown_agent", "orchestrator.planner.general_agent"),
        ];
        once(&mut findings);
        let left: Vec<&str> = findings.iter().map(|f| f.path.as_str()).collect();
        let wanted = [
            "gateway",
            "mesh",
            "agents[1].run",
            "agents[2].endpoint",
            "orchestrator.planner.general_agent",
        ];
        assert_eq!(left, wanted);
        findings.push(finding("missing", "agents[0].id"));
        once(&mut findings);
        assert!(findings.iter().all(|f| f.code != "unknown_agent"));
    }
}
