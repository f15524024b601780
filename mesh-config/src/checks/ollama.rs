//! The model server, its consumers, and whether the builtin agent reaches it.

use super::{error, ids, listed, warning};
use crate::finding::{Finding, nearest};
use crate::mesh::Builtin;
use crate::schema::{At, File, Ollama};

/// Consumers that are no agents.
const OWN: [&str; 2] = ["planner", "local"];

/// Every finding about the model server.
pub(super) fn run(file: &File, out: &mut Vec<Finding>) {
    let Some(ollama) = &file.orchestrator.planner.ollama else {
        return;
    };
    budgets(file, &ollama.value, out);
    if let Some(cache) = &ollama.value.cache
        && let (Some(entries), Some(ttl)) = (&cache.value.entries, &cache.value.ttl)
        && entries.value == 0
    {
        let message = format!("{} has no effect: no plan is kept", ttl.path);
        out.push(warning("no_effect", ttl, message).hint("leave it out, or keep some entries"));
    }
    if let Some(model) = &ollama.value.model {
        for other in &ollama.value.models {
            if other.value == model.value {
                let message = format!("{}: the planner's model is shared anyway", other.path);
                out.push(warning("no_effect", other, message).hint("leave it out"));
            }
        }
    }
    ways(file, ollama, out);
}

fn budgets(file: &File, ollama: &Ollama, out: &mut Vec<Finding>) {
    let Some(budgets) = &ollama.budgets else {
        return;
    };
    let known: Vec<&str> = ids(file).chain(OWN).collect();
    for consumer in &budgets.value.consumers {
        let name = consumer.value.0.as_str();
        if known.contains(&name) {
            continue;
        }
        let message = format!("{}: nobody here is called {name}", consumer.path);
        let hint = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("consumers here: {}", listed(&known)),
        };
        out.push(error("unknown_consumer", consumer, message).hint(hint));
    }
}

/// Where intentions are written down, the builtin agent that asks the model needs one of them.
fn ways(file: &File, ollama: &At<Ollama>, out: &mut Vec<Finding>) {
    let Some(intentions) = &file.intentions else {
        return;
    };
    for agent in &file.agents {
        let run = agent.value.run.as_ref();
        let asks = run
            .and_then(|run| run.value.builtin.as_ref())
            .is_some_and(|builtin| builtin.value == Builtin::GeneralAgent);
        let Some(id) = agent.value.id.as_ref().filter(|_| asks) else {
            continue;
        };
        let name = id.value.as_str();
        let open = intentions
            .value
            .iter()
            .any(|i| super::trust::allows(&i.value, name, "orchestrator"));
        if !open {
            let message = format!("no intention lets {name} ask the model");
            out.push(warning("no_way", ollama, message).hint(format!(
                "add `{{from: {name}, to: orchestrator, paths: [{}]}}`",
                mesh_orchestrator::api::MODELS
            )));
        }
    }
}
