//! A proposal, as loose as models write it; nothing in it has been checked.

use mesh_protocol::plan::Resources;
use serde_json::{Map, Value};

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
}

/// A proposed step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DraftStep {
    /// Its id; the agent's name when it has none.
    pub id: Option<String>,
    /// Who shall do it.
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
            risks: texts(value.get("risks")),
        })
    }
}

impl DraftStep {
    fn from_json(value: &Value) -> Self {
        let text = |name: &str| {
            value
                .get(name)
                .and_then(loose_text)
                .filter(|t| !t.is_empty())
        };
        Self {
            id: text("id"),
            agent: text("agent").unwrap_or_default(),
            action: text("action").unwrap_or_default(),
            role: text("role"),
            capability: text("capability"),
            dependencies: texts(value.get("dependencies")),
            payload: value.get("payload").and_then(Value::as_object).cloned(),
            timeout: value.get("timeout").and_then(Value::as_u64),
        }
    }
}

fn loose_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(loose_text).collect())
        .unwrap_or_default()
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
        assert_eq!(draft.steps[1], DraftStep::default());
        assert_eq!(draft.resources.cpu, "20");
        assert!((draft.estimated_time - 90.0).abs() < 1e-9);
        assert!((draft.confidence - 1.0).abs() < 1e-9);
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
