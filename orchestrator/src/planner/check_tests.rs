//! Each code, and what passes.

use super::super::finding::MAX_FINDINGS;
use super::*;
use crate::config::Agent;
use crate::resources::Amounts;

const BOUNDS: Bounds = Bounds {
    max_steps: 6,
    max_width: 3,
};

fn catalog() -> Catalog {
    let agent = |id: &str, capabilities: &[&str]| Agent {
        id: id.parse().unwrap(),
        capabilities: capabilities.iter().map(|c| (*c).to_owned()).collect(),
        description: String::new(),
        queue_kind: None,
        concurrency: 1,
        resources: Default::default(),
        originators: None,
    };
    Catalog::new(vec![
        agent("data-processor", &["count"]),
        agent("general-agent", &[]),
    ])
}

fn step(id: &str, agent: &str, dependencies: &[&str]) -> DraftStep {
    DraftStep {
        id: (!id.is_empty()).then(|| id.to_owned()),
        agent: agent.to_owned(),
        action: "do it".to_owned(),
        dependencies: dependencies.iter().map(|d| (*d).to_owned()).collect(),
        ..DraftStep::default()
    }
}

fn run(steps: Vec<DraftStep>) -> Result<CheckedPlan, Vec<Finding>> {
    let draft = Draft {
        steps,
        ..Draft::default()
    };
    check(draft, PlanSource::Ollama, &catalog(), BOUNDS)
}

fn found(steps: Vec<DraftStep>) -> Vec<(Code, Option<String>)> {
    run(steps)
        .unwrap_err()
        .into_iter()
        .map(|f| (f.code, f.step))
        .collect()
}

#[test]
fn a_sound_plan_passes_with_agents_for_dependencies() {
    let checked = run(vec![
        step("", "data_processor", &[]),
        step("", "general-agent", &["data-processor"]),
        step("", "general-agent", &["data_processor", "general-agent"]),
    ])
    .unwrap();
    let ids: Vec<_> = checked
        .plan
        .execution_plan
        .iter()
        .map(|s| s.id.as_str())
        .collect();
    assert_eq!(ids, ["data-processor", "general-agent", "general-agent-2"]);
    assert_eq!(checked.dag.before(2), [0, 1]);
    assert_eq!(checked.plan.agents_required.len(), 2);
    assert_eq!(
        checked.plan.execution_plan[1].dependencies,
        ["data-processor".parse().unwrap()]
    );
}

#[test]
fn each_fault_has_its_code_and_its_step() {
    let at = |code, step: &str| vec![(code, Some(step.to_owned()))];
    assert_eq!(found(vec![step("a", "nobody", &[])]), at(Code::P001, "a"));
    let unable = DraftStep {
        capability: Some("paint".into()),
        ..step("a", "data-processor", &[])
    };
    assert_eq!(found(vec![unable]), at(Code::P002, "a"));
    let twice = vec![
        step("a", "general-agent", &[]),
        step("a", "general-agent", &[]),
    ];
    assert_eq!(found(twice), at(Code::P003, "a"));
    assert_eq!(
        found(vec![step("a", "general-agent", &["b"])]),
        at(Code::P004, "a")
    );
    let unclear = vec![
        step("a", "general-agent", &[]),
        step("b", "general-agent", &[]),
        step("c", "data-processor", &["general-agent"]),
    ];
    assert_eq!(found(unclear), at(Code::P005, "c"));
    let cycle = vec![
        step("a", "general-agent", &["b"]),
        step("b", "general-agent", &["a"]),
    ];
    assert_eq!(found(cycle), at(Code::P006, "a"));
    assert_eq!(
        found(vec![step("a", "general-agent", &["a"])]),
        at(Code::P006, "a")
    );
    let mute = DraftStep {
        action: " ".into(),
        ..step("a", "general-agent", &[])
    };
    assert_eq!(found(vec![mute]), at(Code::P009, "a"));
    let long = DraftStep {
        action: "ü".repeat(MAX_ACTION + 1),
        ..step("a", "general-agent", &[])
    };
    assert_eq!(found(vec![long]), at(Code::P009, "a"));
    assert_eq!(
        found(vec![step("a b", "general-agent", &[])]),
        at(Code::P011, "#1")
    );
    let slow = DraftStep {
        timeout: Some(0),
        ..step("a", "general-agent", &[])
    };
    assert_eq!(found(vec![slow]), at(Code::P012, "a"));
    let unread = DraftStep {
        faults: vec!["payload cannot be read".into()],
        ..step("a", "general-agent", &[])
    };
    assert_eq!(found(vec![unread]), at(Code::P013, "a"));
}

#[test]
fn faults_of_the_whole() {
    let many = |count: usize| {
        (0..count)
            .map(|n| step(&format!("s{n}"), "general-agent", &[]))
            .collect::<Vec<_>>()
    };
    assert_eq!(found(vec![]), [(Code::P010, None)]);
    assert_eq!(found(many(7)), [(Code::P007, None)]);
    assert_eq!(found(many(4)), [(Code::P008, None)]);
    assert!(run(many(3)).is_ok());
    let unread = Draft {
        steps: many(1),
        faults: vec!["edges".into()],
        ..Draft::default()
    };
    let findings = check(unread, PlanSource::Ollama, &catalog(), BOUNDS).unwrap_err();
    assert_eq!((findings[0].code, &findings[0].step), (Code::P013, &None));
}

#[test]
fn a_model_cannot_flood_the_answer() {
    let draft = Draft {
        steps: vec![step("a", "general-agent", &[])],
        risks: vec!["x".repeat(10_000); 1000],
        ..Draft::default()
    };
    let plan = check(draft, PlanSource::Ollama, &catalog(), BOUNDS)
        .unwrap()
        .plan;
    assert_eq!(plan.risks.len(), MAX_RISKS);
    assert!(plan.risks.iter().all(|r| r.len() == MAX_RISK));
    let wrong = (0..6).flat_map(|n| {
        let mut s = step(&format!("s{n}"), "nobody", &["x", "y", "z", "u", "v", "w"]);
        s.action.clear();
        [s]
    });
    assert_eq!(run(wrong.collect()).unwrap_err().len(), MAX_FINDINGS);
}

#[test]
fn a_capability_without_an_agent_is_the_assigners_or_refused() {
    let nobody = DraftStep {
        capability: Some("fly".to_owned()),
        ..step("a", "", &[])
    };
    assert_eq!(found(vec![nobody]), [(Code::P002, Some("a".to_owned()))]);
    assert_eq!(found(vec![step("a", "", &[])])[0].0, Code::P001);
}

#[test]
fn resources_are_the_agents_unless_the_step_names_its_own() {
    let amounts = |of: &[(&str, u64)]| -> Amounts {
        of.iter()
            .map(|(name, n)| ((*name).to_owned(), *n))
            .collect()
    };
    let mut agents = catalog().agents().to_vec();
    agents[0].resources = amounts(&[("gpu", 1)]);
    let catalog = Catalog::new(agents).with_resources(amounts(&[("gpu", 1), ("memory", 100)]));
    let check_with = |catalog: &Catalog, resources: Option<Amounts>| {
        let draft = Draft {
            steps: vec![DraftStep {
                resources,
                ..step("a", "data-processor", &[])
            }],
            ..Draft::default()
        };
        check(draft, PlanSource::Ollama, catalog, BOUNDS)
    };
    let taken = |resources| {
        let checked = check_with(&catalog, resources).unwrap();
        checked.plan.execution_plan[0].resources.clone()
    };
    assert_eq!(taken(None), amounts(&[("gpu", 1)]));
    assert_eq!(taken(Some(Amounts::new())), Amounts::new());
    let own = amounts(&[("memory", 100)]);
    assert_eq!(taken(Some(own.clone())), own);
    for (wrong, said) in [
        (amounts(&[("memory", 101)]), "there is 100"),
        (amounts(&[("tpu", 1)]), "choose of gpu, memory"),
    ] {
        let findings = check_with(&catalog, Some(wrong)).unwrap_err();
        assert_eq!(findings[0].code, Code::P014);
        assert!(findings[0].detail.contains(said), "{findings:?}");
    }
    // Where nothing is declared, nothing is taken.
    let bare = Catalog::new(catalog.agents().to_vec());
    let checked = check_with(&bare, None).unwrap();
    assert!(checked.plan.execution_plan[0].resources.is_empty());
    let findings = check_with(&bare, Some(own)).unwrap_err();
    assert!(
        findings[0].detail.contains("none are declared"),
        "{findings:?}"
    );
}
