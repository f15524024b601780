//! What agents take of what there is.

use super::{error, warning};
use crate::finding::{Finding, nearest};
use crate::schema::File;

/// Every finding about resources.
pub(super) fn run(file: &File, out: &mut Vec<Finding>) {
    let declared = file.orchestrator.resources.as_ref();
    let declared: Vec<_> = declared.iter().flat_map(|d| &d.value).collect();
    let names = || declared.iter().map(|at| at.value.name.as_str());
    for agent in &file.agents {
        let Some(taken) = &agent.value.resources else {
            continue;
        };
        for at in &taken.value {
            let name = &at.value.name;
            match declared.iter().find(|d| d.value.name == *name) {
                None => {
                    let message = format!("{}: there is no resource {name}", at.path);
                    let hint = match nearest(name, names()) {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!(
                            "say how much there is: `orchestrator: {{resources: {{{name}: ...}}}}`"
                        ),
                    };
                    out.push(error("unknown_resource", at, message).hint(hint));
                }
                Some(there) if there.value.amount < at.value.amount => {
                    let message = format!(
                        "{}: a step takes {} of {name}, and there is {}",
                        at.path, at.value.amount, there.value.amount
                    );
                    out.push(
                        error("resources_exceeded", at, message).hint(
                            "no step of this agent would ever run: take less, or declare more",
                        ),
                    );
                }
                Some(_) => {}
            }
        }
    }
    let taken = |name: &str| {
        let mut all = file
            .agents
            .iter()
            .filter_map(|a| a.value.resources.as_ref());
        all.any(|taken| taken.value.iter().any(|at| at.value.name == name))
    };
    if let Some(at) = &file.orchestrator.resources
        && !declared.is_empty()
        && file.agents_listed
        && !declared.iter().any(|at| taken(&at.value.name))
    {
        let message = format!("{}: no agent takes anything of it", at.path);
        out.push(warning("no_effect", at, message).hint(
            "say what a step takes: `agents: [{resources: {...}}]`; only plans of a model and outside agents ask by themselves",
        ));
    }
}
