//! A proposal, as loose as models write it; nothing in it has been checked.
//!
//! What has one meaning is read, however it is written: a lone text as a list of one, digits as a
//! number. What has none is left out and kept as a fault, since a plan without it is another plan:
//! steps whose dependencies are lost run in the wrong order. Estimates and risks are for people,
//! change nothing that runs, and are no reason to refuse a plan.

use crate::resources::{Amounts, read_amount};
use mesh_protocol::plan::{Assignment, Resources};
use serde_json::{Map, Value};

/// What a plan can say. The agents required follow from the steps; models repeat them.
const PLAN_KEYS: [&str; 6] = [
    "execution_plan",
    "resources",
    "estimated_time",
    "confidence",
    "risks",
    "agents_required",
];
/// What a step can say.
const STEP_KEYS: [&str; 10] = [
    "id",
    "agent",
    "action",
    "role",
    "capability",
    "dependencies",
    "payload",
    "timeout",
    "resources",
    "sticky",
];

/// A proposed plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Draft {
    /// The steps.
    pub steps: Vec<DraftStep>,
    /// Estimated needs.
    pub resources: Resources,
    /// Estimated duration in seconds.
    pub estimated_time: f64,
    /// 0.0 to 1.0.
    pub confidence: f64,
    /// What could go wrong.
    pub risks: Vec<String>,
    /// What could not be read, outside the steps.
    pub faults: Vec<String>,
    /// What it cost, where a model wrote it and says so.
    pub usage: Usage,
}

/// What a proposal cost a model, in tokens; none where nobody says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of the question.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
    }
}

/// A proposed step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DraftStep {
    /// Its id; the agent's name when it has none.
    pub id: Option<String>,
    /// Who shall do it; empty where whoever has the capability may.
    pub agent: String,
    /// What to do.
    pub action: String,
    /// The part the agent plays.
    pub role: Option<String>,
    /// Capability that it needs.
    pub capability: Option<String>,
    /// Step ids, or agent names.
    pub dependencies: Vec<String>,
    /// Input of its own.
    pub payload: Option<Map<String, Value>>,
    /// Time budget in seconds.
    pub timeout: Option<u64>,
    /// What it takes of the mesh's resources; its agent's where it says nothing.
    pub resources: Option<Amounts>,
    /// Key by which it sticks to one of several agents.
    pub sticky: Option<String>,
    /// How its agent was found, if it was.
    pub assignment: Option<Assignment>,
    /// What could not be read.
    pub faults: Vec<String>,
}

impl Draft {
    /// Reads a model's JSON: what cannot be read as it should is left out, and the check says so.
    ///
    /// # Errors
    /// There is no `execution_plan` to read.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let Some(steps) = value.get("execution_plan").and_then(Value::as_array) else {
            return Err("the answer has no execution_plan".to_owned());
        };
        let resources = value.get("resources");
        let loose = |name: &str, default: String| {
            resources
                .and_then(|r| r.get(name))
                .and_then(loose_text)
                .map_or(default, |t| clip(&t, 64))
        };
        let defaults = Resources::default();
        Ok(Self {
            steps: steps.iter().map(DraftStep::from_json).collect(),
            resources: Resources {
                cpu: loose("cpu", defaults.cpu),
                memory: loose("memory", defaults.memory),
                gpu: resources
                    .and_then(|r| r.get("gpu"))
                    .and_then(Value::as_bool)
                    .unwrap_or(false),
            },
            estimated_time: number(value.get("estimated_time"))
                .unwrap_or(60.0)
                .clamp(0.0, 86_400.0),
            confidence: number(value.get("confidence"))
                .unwrap_or(0.5)
                .clamp(0.0, 1.0),
            risks: texts(value.get("risks")).0,
            faults: unknown_keys(value, "a plan", &PLAN_KEYS)
                .into_iter()
                .collect(),
            usage: Usage::default(),
        })
    }
}

impl DraftStep {
    fn from_json(value: &Value) -> Self {
        let mut fields = Fields {
            value,
            faults: Vec::new(),
        };
        if !value.is_object() {
            let fault = format!("it is no object: give one with {}", STEP_KEYS.join(", "));
            fields.faults.push(fault);
        }
        fields
            .faults
            .extend(unknown_keys(value, "a step", &STEP_KEYS));
        let word = |fields: &mut Fields<'_>, name| {
            fields
                .read(name, "a text", loose_text)
                .filter(|t| !t.is_empty())
        };
        Self {
            id: word(&mut fields, "id"),
            agent: word(&mut fields, "agent").unwrap_or_default(),
            action: word(&mut fields, "action").unwrap_or_default(),
            role: word(&mut fields, "role"),
            capability: word(&mut fields, "capability"),
            dependencies: fields.dependencies(),
            payload: fields.read("payload", "an object", |v| v.as_object().cloned()),
            timeout: fields.read("timeout", "a whole number of seconds", whole),
            resources: fields.read("resources", "an object of whole numbers", amounts),
            sticky: word(&mut fields, "sticky"),
            assignment: None,
            faults: fields.faults,
        }
    }
}

/// The fields of a step, and what of them could not be read. `null` is the same as nothing.
struct Fields<'a> {
    value: &'a Value,
    faults: Vec<String>,
}

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.value.get(name).filter(|v| !v.is_null())
    }

    fn read<T>(
        &mut self,
        name: &str,
        wanted: &str,
        reading: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(name)?;
        let read = reading(value);
        if read.is_none() {
            self.fault(name, wanted);
        }
        read
    }

    fn dependencies(&mut self) -> Vec<String> {
        let (names, whole) = texts(self.get("dependencies"));
        if !whole {
            self.fault("dependencies", "a list of step ids");
        }
        names
    }

    fn fault(&mut self, name: &str, wanted: &str) {
        self.faults
            .push(format!("{name} cannot be read: give {wanted}"));
    }
}

/// The keys of `value` that mean nothing here, as one fault.
fn unknown_keys(value: &Value, what: &str, known: &[&str]) -> Option<String> {
    let names: Vec<&str> = value
        .as_object()?
        .iter()
        .filter(|(name, value)| !known.contains(&name.as_str()) && !value.is_null())
        .map(|(name, _)| name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        format!(
            "{:?} means nothing here: {what} has only {}",
            clip(&names.join(", "), 200),
            known.join(", ")
        )
    })
}

fn loose_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The texts of a list, or a text alone; and whether that is all there was.
fn texts(value: Option<&Value>) -> (Vec<String>, bool) {
    let parts = match value {
        None => return (Vec::new(), true),
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let texts: Vec<String> = parts.iter().filter_map(loose_text).collect();
    let whole = texts.len() == parts.len();
    (texts, whole)
}

/// How much of what; nothing of something is as if it were not named.
fn amounts(value: &Value) -> Option<Amounts> {
    let read = |(name, value): (&String, &Value)| Some((name.clone(), read_amount(value)?));
    let mut amounts: Amounts = value.as_object()?.iter().map(read).collect::<Option<_>>()?;
    amounts.retain(|_, amount| *amount > 0);
    Some(amounts)
}

/// A whole number, as one or as its digits.
fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::String(digits) => digits.trim().parse().ok(),
        _ => value.as_u64(),
    }
}

/// A number, or the number that a text begins with ("60 seconds").
fn number(value: Option<&Value>) -> Option<f64> {
    let number = match value? {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => {
            let digits = |c: char| c.is_ascii_digit() || c == '.';
            let end = text.find(|c| !digits(c)).unwrap_or(text.len());
            text.get(..end)?.parse().ok()?
        }
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// The first `max` characters.
pub fn clip(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn loose_answers_are_read() {
        let draft = Draft::from_json(&json!({
            "execution_plan": [{"id": 1, "agent": "a", "action": "x", "dependencies": [2, null]}, 7],
            "resources": {"cpu": 20, "gpu": "yes"},
            "estimated_time": "90 seconds",
            "confidence": 7,
        }))
        .unwrap();
        assert_eq!(draft.steps[0].id.as_deref(), Some("1"));
        assert_eq!(draft.steps[0].dependencies, ["2"]);
        assert_eq!(
            draft.steps[0].faults,
            ["dependencies cannot be read: give a list of step ids"]
        );
        assert_eq!(draft.steps[1].agent, "");
        assert!(draft.steps[1].faults[0].starts_with("it is no object"));
        assert_eq!(draft.resources.cpu, "20");
        assert!((draft.estimated_time - 90.0).abs() < 1e-9);
        assert!((draft.confidence - 1.0).abs() < 1e-9);
    }

    fn step(fields: Value) -> DraftStep {
        let plan = Draft::from_json(&json!({"execution_plan": [fields]})).unwrap();
        plan.steps.into_iter().next().unwrap()
    }

    #[test]
    fn one_meaning_is_read_however_it_is_written() {
        for (value, wanted) in [
            (json!("a"), vec!["a"]),
            (json!(["a", 1]), vec!["a", "1"]),
            (json!(2), vec!["2"]),
            (json!(null), vec![]),
            (json!([]), vec![]),
        ] {
            let step = step(json!({"dependencies": value}));
            assert_eq!(step.dependencies, wanted, "{value}");
            assert!(step.faults.is_empty(), "{value}");
        }
        assert_eq!(step(json!({"timeout": "7"})).timeout, Some(7));
        let taken = step(json!({"resources": {"gpu": true, "memory": "2KiB", "cpu": 0}}));
        let amounts = [("gpu".to_owned(), 1), ("memory".to_owned(), 2048)];
        assert_eq!(taken.resources, Some(amounts.into()));
        assert_eq!(
            step(json!({"role": null, "note": null})),
            DraftStep::default()
        );
    }

    #[test]
    fn what_cannot_be_read_is_a_fault() {
        for (fields, named) in [
            (json!({"dependencies": [{"id": "a"}]}), "dependencies"),
            (json!({"dependencies": {"a": 1}}), "dependencies"),
            (json!({"dependencies": [null, ["a"]]}), "dependencies"),
            (json!({"dependencies": false}), "dependencies"),
            (json!({"depends_on": ["a"]}), "depends_on"),
            (json!({"payload": "x"}), "payload"),
            (json!({"timeout": 2.5}), "timeout"),
            (json!({"timeout": -1}), "timeout"),
            (json!({"timeout": "soon"}), "timeout"),
            (json!({"resources": {"gpu": "some"}}), "resources"),
            (json!({"resources": [1]}), "resources"),
            (json!({"id": ["a"]}), "id"),
            (json!({"agent": {"name": "a"}}), "agent"),
        ] {
            let faults = step(fields).faults;
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(named), "{faults:?}");
        }
        let edges = json!({"execution_plan": [], "edges": [["a", "b"]], "agents_required": []});
        let faults = Draft::from_json(&edges).unwrap().faults;
        assert!(faults[0].contains("\"edges\""), "{faults:?}");
        let many: Map<String, Value> = (0..9999).map(|n| (format!("k{n}"), n.into())).collect();
        assert!(step(many.into()).faults[0].len() < 400);
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for value in [
            json!({}),
            json!([]),
            json!({"execution_plan": "x"}),
            json!(null),
        ] {
            assert!(Draft::from_json(&value).is_err(), "{value}");
        }
    }
}
