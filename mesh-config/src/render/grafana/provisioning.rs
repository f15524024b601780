//! Grafana's provisioning files as types: where dashboards lie, and what they ask.

use super::model::PROMETHEUS;
use crate::mesh::Mesh;
use crate::render::prometheus::duration;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct Providers {
    #[serde(rename = "apiVersion")]
    api_version: u8,
    providers: Vec<Provider>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Provider {
    name: String,
    folder: String,
    r#type: &'static str,
    /// What is rendered stands in mesh.yaml; changed here it would be gone with the next rendering.
    allow_ui_updates: bool,
    disable_deletion: bool,
    options: Options,
}

#[derive(Debug, Serialize)]
struct Options {
    path: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Sources {
    #[serde(rename = "apiVersion")]
    api_version: u8,
    datasources: Vec<Source>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    name: &'static str,
    uid: &'static str,
    r#type: &'static str,
    access: &'static str,
    url: String,
    is_default: bool,
    editable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_data: Option<JsonData>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonData {
    #[serde(skip_serializing_if = "Option::is_none")]
    http_method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_interval: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    derived_fields: Vec<DerivedField>,
}

/// A link out of a log line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DerivedField {
    name: &'static str,
    matcher_regex: &'static str,
    url: &'static str,
    datasource_uid: &'static str,
}

pub(super) fn providers(mesh: &Mesh) -> Providers {
    Providers {
        api_version: 1,
        providers: vec![Provider {
            name: mesh.name.clone(),
            folder: mesh.name.clone(),
            r#type: "file",
            allow_ui_updates: false,
            disable_deletion: false,
            options: Options {
                path: mesh.telemetry.grafana.dashboards.clone(),
            },
        }],
    }
}

pub(super) fn sources(mesh: &Mesh) -> Sources {
    let grafana = &mesh.telemetry.grafana;
    let source = |name, uid, kind, url: &str, json_data| Source {
        name,
        uid,
        r#type: kind,
        access: "proxy",
        url: url.to_owned(),
        is_default: uid == PROMETHEUS,
        editable: false,
        json_data,
    };
    let prometheus = JsonData {
        // Long expressions do not fit into every proxy's longest URL.
        http_method: Some("POST"),
        // What `$__rate_interval` is computed from.
        time_interval: Some(duration(mesh.telemetry.scrape_interval)),
        ..JsonData::default()
    };
    let mut datasources = vec![source(
        "Prometheus",
        PROMETHEUS,
        PROMETHEUS,
        &grafana.prometheus,
        Some(prometheus),
    )];
    if let Some(loki) = &grafana.loki {
        let to_trace = grafana.jaeger.iter().map(|_| DerivedField {
            name: "trace",
            // As the parts' JSON logs write it.
            matcher_regex: r#""trace_id":"([0-9a-f]{32})""#,
            // `$$` is a `$` that provisioning does not take for a variable of the environment.
            url: "$${__value.raw}",
            datasource_uid: "jaeger",
        });
        let data = JsonData {
            derived_fields: to_trace.collect(),
            ..JsonData::default()
        };
        datasources.push(source("Loki", "loki", "loki", loki, Some(data)));
    }
    if let Some(jaeger) = &grafana.jaeger {
        datasources.push(source("Jaeger", "jaeger", "jaeger", jaeger, None));
    }
    Sources {
        api_version: 1,
        datasources,
    }
}
