//! What Consul says of who may call whom, beside what mesh.yaml says.
//!
//! Sidecars go by mesh.yaml alone, so a difference opens nothing here. It matters to whoever reads Consul, and to
//! proxies that are not ours. Compared is whether a service may call another one at all; where Consul has nothing to
//! say of a pair, or speaks of paths and methods, nothing differs.

use super::finding::Finding;
use mesh_config::Mesh;
use mesh_config::render;
use mesh_config::secret::Secrets;
use serde_json::Value;

/// Stands for every service.
const ANY: &str = "*";

/// Every pair of services of which `live` (`GET /v1/connect/intentions`) says otherwise.
pub fn compare(mesh: &Mesh, live: &Value) -> Vec<Finding> {
    // Who may call is in no secret.
    let Ok(sidecars) = render::sidecars(mesh, &Secrets::none()) else {
        return Vec::new();
    };
    let names: Vec<&str> = sidecars
        .iter()
        .map(|config| config.service.as_str())
        .collect();
    let mut findings = Vec::new();
    for config in &sidecars {
        let to = config.service.as_str();
        for from in names.iter().copied().filter(|from| *from != to) {
            let open = render::may_call(config, from);
            let Some(allowed) = said(live, from, to).filter(|allowed| *allowed != open) else {
                continue;
            };
            let says = |open| if open { "allows" } else { "denies" };
            let what = format!(
                "Consul {} {from} to call {to}, and mesh.yaml {} it",
                says(allowed),
                says(open)
            );
            findings.push(Finding::warn("intention_differs", what).mend(format!(
                "mend it in Consul (consul intention get {from} {to}), or in mesh.yaml, which sidecars go by"
            )));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::pass(
            "Consul has no intentions that mesh.yaml has otherwise",
        ));
    }
    findings
}

/// Whether Consul lets `from` call `to`: its most precise intention decides. `None` where it has none, or one with
/// more to it than yes or no.
fn said(live: &Value, from: &str, to: &str) -> Option<bool> {
    let name = |intention: &Value, field: &str| intention.get(field)?.as_str().map(str::to_owned);
    let all = live.as_array()?.iter();
    let matching = all.filter_map(|intention| {
        let source = name(intention, "SourceName")?;
        let destination = name(intention, "DestinationName")?;
        let speaks = [(&source, from), (&destination, to)]
            .iter()
            .all(|(said, meant)| *said == ANY || *said == meant);
        // Consul's order: an exact destination counts for more than an exact source.
        let rank = (destination != ANY, source != ANY);
        speaks.then_some((rank, intention))
    });
    let (_, decides) = matching.max_by_key(|(rank, _)| *rank)?;
    match decides.get("Action")?.as_str()? {
        "allow" => Some(true),
        "deny" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_most_precise_intention_decides() {
        let intention = |source: &str, destination: &str, action: &str| json!({"SourceName": source, "DestinationName": destination, "Action": action});
        let live = json!([
            intention("*", "*", "deny"),
            intention("*", "b", "allow"),
            intention("a", "*", "deny"),
            intention("c", "b", "deny"),
            intention("d", "b", ""),
        ]);
        for (from, to, wanted) in [
            ("a", "b", Some(true)),
            ("a", "x", Some(false)),
            ("c", "b", Some(false)),
            ("x", "y", Some(false)),
            ("d", "b", None),
        ] {
            assert_eq!(said(&live, from, to), wanted, "{from} {to}");
        }
        assert_eq!(said(&json!([]), "a", "b"), None);
        assert_eq!(said(&json!({"odd": 1}), "a", "b"), None);
    }

    #[test]
    fn what_the_mesh_has_otherwise_is_named_and_the_rest_is_not() {
        let yaml = "version: 1\nmesh: m\ngateway: {auth: {development: true}}\n\
            orchestrator: {planner: {general_agent: a}}\nagents: [{id: a, run: {builtin: general-agent}}]\n";
        let mesh = mesh_config::compile("mesh.yaml", yaml).unwrap().mesh;
        let one = |source: &str, destination: &str, action: &str| {
            let live =
                json!([{"SourceName": source, "DestinationName": destination, "Action": action}]);
            let found = compare(&mesh, &live).into_iter();
            let differing = found.filter(|f| f.code.is_some()).map(|f| f.what);
            differing.collect::<Vec<_>>()
        };
        assert!(one("gateway", "orchestrator", "allow").is_empty());
        let denied = one("gateway", "orchestrator", "deny");
        assert_eq!(
            denied,
            ["Consul denies gateway to call orchestrator, and mesh.yaml allows it"]
        );
        let opened = one("gateway", "a", "allow");
        assert_eq!(
            opened,
            ["Consul allows gateway to call a, and mesh.yaml denies it"]
        );
        assert!(one("elsewhere", "a", "allow").is_empty());
    }
}
