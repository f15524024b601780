//! `filters:` of the gateway and of a route: each filter's own configuration, as its policy has it.
//!
//! Its type is the policy's, so nothing is written twice; here it is kept as JSON, with the place of
//! every value, until the policy itself says what is wrong with it. What is in it is not shown beside a
//! finding: somebody may have put a secret where none belongs.

use super::reader::{At, Reader, Spot, join};
use super::tree::{Node, Value};
use crate::finding::{Finding, Place};
use crate::load;
use crate::secret_names::is_secret_name;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// Settings by filter.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    pub jwt_auth: Option<At<Setting>>,
    pub rate_limit: Option<At<Setting>>,
    pub task_admission: Option<At<Setting>>,
    pub agent_router: Option<At<Setting>>,
}

/// One filter's configuration as it stands in the file.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// None: `false`, the filter does not run here.
    pub config: Option<Map<String, Json>>,
    /// Where each value stands, by its path within the configuration (`limits[0].name`).
    pub places: BTreeMap<String, Place>,
}

pub(super) fn filters(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Filters> {
    let mut f = reader.fields(spot)?;
    let filters = Filters {
        jwt_auth: f.optional(reader, "jwt_auth", setting_of("jwt_auth")),
        rate_limit: f.optional(reader, "rate_limit", setting_of("rate_limit")),
        task_admission: f.optional(reader, "task_admission", setting_of("task_admission")),
        agent_router: f.optional(reader, "agent_router", setting_of("agent_router")),
    };
    f.finish(reader);
    Some(filters)
}

/// A configuration that has a name in the schema.
pub(super) fn setting_of(
    name: &'static str,
) -> impl Fn(&mut Reader<'_>, Spot<'_>) -> Option<Setting> {
    move |reader, spot| {
        let off = json!({"const": false});
        let config = json!({"$ref": format!("#/$defs/{name}")});
        match name {
            "jwks_url" => reader.say(|| config),
            _ => reader.say(|| json!({"anyOf": [off, config]})),
        }
        setting(reader, spot)
    }
}

pub(super) fn setting(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Setting> {
    let mut places = BTreeMap::new();
    if matches!(spot.node.value, Value::Bool(false)) {
        reader.open(spot.node);
        return Some(Setting {
            config: None,
            places,
        });
    }
    if !matches!(spot.node.value, Value::Map(_)) {
        reader.wrong_type(spot, "a mapping, or false");
        return None;
    }
    let before = reader.findings.len();
    let config = json(
        reader,
        spot.node,
        spot.path,
        "",
        &mut places,
        Numbers::Whole,
    )?;
    match config {
        Json::Object(config) if reader.findings.len() == before => Some(Setting {
            config: Some(config),
            places,
        }),
        _ => None,
    }
}

/// Which numbers are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Whole ones alone: no filter has others.
    Whole,
    /// Fractions too.
    All,
}

/// The tree as JSON; `within` is the path from the configuration on.
pub(super) fn json(
    reader: &mut Reader<'_>,
    node: &Node,
    base: &str,
    within: &str,
    places: &mut BTreeMap<String, Place>,
    numbers: Numbers,
) -> Option<Json> {
    places.insert(within.to_owned(), node.place);
    // What is a secret by its name stays a reference: the whole of it is rendered for everybody to read.
    let name = within.rsplit('.').next().unwrap_or_default();
    if let Some(variables) = &node.variables
        && numbers == Numbers::All
        && (is_secret_name(name) || load::names_secret(&variables.written))
    {
        reader.secret.insert(node.place);
        return match load::alone(&variables.written) {
            Some(variable) => Some(serde_json::json!({ "env": variable })),
            None => {
                let path = join(base, within);
                let message = format!("{path} would be put together in the clear");
                let finding = Finding::error("variable_in_secret", node.place, path, message);
                reader.push(
                    finding.hint("put the whole value into one variable: ${NAME}, or {env: NAME}"),
                );
                None
            }
        };
    }
    Some(match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(number) => match (u64::try_from(*number), i64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => {
                let path = join(base, within);
                let message = format!("{path} is too large a number");
                reader.push(Finding::error("out_of_range", node.place, path, message));
                return None;
            }
        },
        Value::Float if numbers == Numbers::All => {
            let written = reader.written(node).and_then(|text| text.parse().ok());
            match written.and_then(serde_json::Number::from_f64) {
                Some(number) => Json::Number(number),
                None => {
                    let path = join(base, within);
                    let message = format!("{path} is no number that JSON has");
                    reader.push(Finding::error("wrong_type", node.place, path, message));
                    return None;
                }
            }
        }
        Value::Float => {
            let path = join(base, within);
            let message = format!("{path} must be a whole number");
            let finding = Finding::error("wrong_type", node.place, path, message);
            reader.push(finding.hint("quote it, if it is meant as text"));
            return None;
        }
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => {
            let items = items.iter().enumerate().map(|(number, item)| {
                let within = format!("{within}[{number}]");
                json(reader, item, base, &within, places, numbers)
            });
            Json::Array(items.collect::<Option<_>>()?)
        }
        Value::Map(_) => {
            let path = join(base, within);
            // Reports keys that stand twice.
            let mut object = Map::new();
            reader.fields(Spot { node, path: &path })?;
            if let Value::Map(entries) = &node.value {
                for (key, value) in entries {
                    let within = join(within, &key.text);
                    object.insert(
                        key.text.clone(),
                        json(reader, value, base, &within, places, numbers)?,
                    );
                }
            }
            Json::Object(object)
        }
    })
}

/// The filters' own schemas, which their policies write and keep.
const SCHEMAS: [(&str, &str); 4] = [
    (
        "jwt_auth",
        include_str!("../../../kong-plugins/filters/jwt_auth/jwt_auth.schema.json"),
    ),
    (
        "rate_limit",
        include_str!("../../../kong-plugins/filters/rate_limit/rate_limit.schema.json"),
    ),
    (
        "task_admission",
        include_str!("../../../kong-plugins/filters/task_admission/task_admission.schema.json"),
    ),
    (
        "agent_router",
        include_str!("../../../kong-plugins/filters/agent_router/agent_router.schema.json"),
    ),
];

/// What the mesh knows, and puts in itself: of the configuration, and of the objects in it that lead to the
/// orchestrator.
const KNOWN: [&str; 5] = ["revision", "assertion", "issuers", "table_key", "agents"];
const REACHING: [&str; 3] = ["authority", "host", "token"];

/// The schema of every filter's configuration as mesh.yaml holds it, and of keys by URL.
pub(super) fn described() -> Map<String, Json> {
    let mut all = Map::new();
    for (name, text) in SCHEMAS {
        let mut schema: Json = serde_json::from_str(text).unwrap_or_default();
        if name == "jwt_auth" {
            let url = schema["properties"]["issuers"]["items"]["properties"]["jwks_url"].clone();
            all.insert("jwks_url".to_owned(), url);
        }
        without(&mut schema, &KNOWN);
        for object in ["exchange", "load"] {
            if schema["properties"][object].is_object() {
                without(&mut schema["properties"][object], &REACHING);
            }
        }
        all.insert(name.to_owned(), schema);
    }
    all
}

fn without(schema: &mut Json, names: &[&str]) {
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.retain(|name, _| !names.contains(&name.as_str()));
    }
    if let Some(required) = schema["required"].as_array_mut() {
        required.retain(|name| !name.as_str().is_some_and(|name| names.contains(&name)));
    }
    // A route lays its own over the gateway's: what is required may stand there.
    if let Some(object) = schema.as_object_mut() {
        object.remove("required");
    }
}
