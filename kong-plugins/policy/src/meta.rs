//! Keeps each filter's `.meta.json` for Kong, and its `.schema.json` for mesh.yaml's editors, true to its configuration
//! type.
//!
//! The files are in the repository, beside their filters, so that building a filter needs no generator.
//! `MESH_BLESS=1 cargo test -p mesh-policy meta` writes them anew.

use crate::Filter;
use crate::config::{AgentRouter, JwtAuth, RateLimit, TaskAdmission};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// Kong reads JSON Schema draft 4. What it lacks is put in its words; everything is inline, and
/// descriptions are left out, since Kong shows neither.
fn draft4(value: &mut Value) {
    match value {
        Value::Object(object) => {
            drop_null(object);
            for name in [
                "$schema",
                "title",
                "description",
                "format",
                "default",
                "examples",
            ] {
                // A property may have such a name, but then its value is a schema.
                if object.get(name).is_some_and(|value| !value.is_object()) {
                    object.remove(name);
                }
            }
            if let Some(constant) = object.remove("const") {
                object.insert("enum".to_owned(), json!([constant]));
            }
            merge_enums(object);
            object.values_mut().for_each(draft4);
        }
        Value::Array(values) => values.iter_mut().for_each(draft4),
        _ => {}
    }
}

/// "This, or null" of an optional field is "this": what is absent is left out, never null.
fn drop_null(object: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = object.get("anyOf") else {
        return;
    };
    let null = json!({"type": "null"});
    if let [Value::Object(schema), other] = variants.as_slice()
        && *other == null
    {
        let schema = schema.clone();
        object.remove("anyOf");
        object.extend(schema);
    }
}

/// `oneOf` of constants, as an enum with documented variants has it, is one `enum`.
fn merge_enums(object: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = object.get("oneOf") else {
        return;
    };
    let constants: Option<Vec<Value>> = variants
        .iter()
        .map(|variant| variant.get("const").cloned())
        .collect();
    if let Some(constants) = constants {
        object.remove("oneOf");
        object.insert("enum".to_owned(), Value::Array(constants));
    }
}

fn meta<C: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft07()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<C>().to_value();
    draft4(&mut schema);
    json!({
        "config_schema": schema,
        // Group 2 of each is the label's value; both the Lua and the PCRE readers of Kong take these.
        "metrics": {"label_patterns": [
            {"label": "decision", "pattern": "(_decision_([a-z]+))"},
            {"label": "reason", "pattern": "(_reason_([a-z_]+))"},
        ]},
    })
}

/// What mesh.yaml's own schema says of a filter's configuration: the same with what its fields mean, in the draft
/// that editors read (2020-12).
fn described<C: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<C>().to_value();
    if let Some(object) = schema.as_object_mut() {
        for name in ["$schema", "title"] {
            object.remove(name);
        }
    }
    schema
}

/// The schema of every filter's configuration, by the filter's name.
fn schemas() -> [(&'static str, Value); 4] {
    [
        (crate::admission::Policy::NAME, described::<TaskAdmission>()),
        (crate::routing::Policy::NAME, described::<AgentRouter>()),
        (crate::jwt::Policy::NAME, described::<JwtAuth>()),
        (crate::rate_limit::Policy::NAME, described::<RateLimit>()),
    ]
}

/// The meta file of every filter, by its name.
fn metas() -> [(&'static str, Value); 4] {
    [
        (crate::admission::Policy::NAME, meta::<TaskAdmission>()),
        (crate::routing::Policy::NAME, meta::<AgentRouter>()),
        (crate::jwt::Policy::NAME, meta::<JwtAuth>()),
        (crate::rate_limit::Policy::NAME, meta::<RateLimit>()),
    ]
}

#[test]
fn meta_files_are_true() {
    let all =
        |kind, files: [(&'static str, Value); 4]| files.map(|(name, file)| (name, kind, file));
    let files = [all("meta", metas()), all("schema", schemas())].concat();
    for (name, kind, file) in files {
        let filters = concat!(env!("CARGO_MANIFEST_DIR"), "/../filters");
        let path = format!("{filters}/{name}/{name}.{kind}.json");
        let wanted = format!("{file:#}\n");
        if std::env::var_os("MESH_BLESS").is_some() {
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, wanted, "{name} is stale: run with MESH_BLESS=1");
    }
}

#[test]
fn meta_holds_what_draft_4_knows_only() {
    for (name, meta) in metas() {
        let text = meta.to_string();
        for word in [
            "$ref",
            "$defs",
            "$schema",
            "const\"",
            "exclusive",
            "\"examples\"",
            "anyOf",
        ] {
            assert!(!text.contains(word), "{word} in {name}: {text}");
        }
    }
}
