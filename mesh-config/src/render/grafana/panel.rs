//! A panel of Grafana's dashboard model as types: what it asks, and how it shows it.

use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub(super) struct DataSource {
    pub r#type: &'static str,
    pub uid: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Panel {
    pub id: u32,
    pub r#type: &'static str,
    pub title: &'static str,
    pub description: &'static str,
    pub datasource: DataSource,
    pub grid_pos: GridPos,
    pub targets: Vec<Target>,
    pub field_config: FieldConfig,
    pub options: Options,
}

#[derive(Debug, Serialize)]
pub(super) struct GridPos {
    pub x: u16,
    pub y: u16,
    pub w: u16,
    pub h: u16,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Target {
    pub ref_id: String,
    pub datasource: DataSource,
    pub expr: String,
    pub legend_format: &'static str,
    pub editor_mode: &'static str,
    pub range: bool,
    pub instant: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct FieldConfig {
    pub defaults: Defaults,
    pub overrides: Vec<()>,
}

#[derive(Debug, Serialize)]
pub(super) struct Defaults {
    pub unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Thresholds>,
}

#[derive(Debug, Serialize)]
pub(super) struct Thresholds {
    pub mode: &'static str,
    pub steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub color: &'static str,
    /// From where on; `null` for the first.
    pub value: Option<u8>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Options {
    #[serde(rename_all = "camelCase")]
    Graph { legend: Legend, tooltip: Tooltip },
    #[serde(rename_all = "camelCase")]
    Number {
        reduce_options: Reduce,
        color_mode: &'static str,
        graph_mode: &'static str,
        text_mode: &'static str,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Legend {
    pub show_legend: bool,
    pub display_mode: &'static str,
    pub placement: &'static str,
    pub calcs: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct Tooltip {
    pub mode: &'static str,
    pub sort: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Reduce {
    pub calcs: Vec<&'static str>,
    pub fields: &'static str,
    pub values: bool,
}
