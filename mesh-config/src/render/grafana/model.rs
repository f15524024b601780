//! Grafana's dashboard model as types, and a dashboard that is laid out row by row.
//!
//! The classic model, schema version 39 (Grafana 10.4 and 11; newer ones read it too).

use serde::Serialize;

/// `schemaVersion`.
const SCHEMA: u16 = 39;
/// Columns of Grafana's grid.
const COLUMNS: u16 = 24;
/// Kind and uid of the data source that is provisioned.
pub(super) const PROMETHEUS: &str = "prometheus";

/// A dashboard.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dashboard {
    pub uid: &'static str,
    title: &'static str,
    description: &'static str,
    tags: Vec<&'static str>,
    schema_version: u16,
    version: u32,
    editable: bool,
    graph_tooltip: u8,
    refresh: &'static str,
    timezone: &'static str,
    time: Time,
    templating: Listed<Variable>,
    annotations: Listed<Annotation>,
    links: Vec<Link>,
    panels: Vec<Panel>,
    #[serde(skip)]
    x: u16,
    #[serde(skip)]
    y: u16,
    /// Of the panels that stand in the current row.
    #[serde(skip)]
    height: u16,
}

#[derive(Debug, Serialize)]
struct Time {
    from: &'static str,
    to: &'static str,
}

#[derive(Debug, Serialize)]
struct Listed<T> {
    list: Vec<T>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Variable {
    name: &'static str,
    label: &'static str,
    r#type: &'static str,
    /// For a variable of data sources: which kind.
    query: &'static str,
    hide: u8,
    refresh: u8,
    regex: &'static str,
    multi: bool,
    include_all: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Annotation {
    name: &'static str,
    datasource: DataSource,
    enable: bool,
    icon_color: &'static str,
    expr: &'static str,
    title_format: &'static str,
    text_format: &'static str,
}

/// To the other dashboards of the mesh.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    title: &'static str,
    r#type: &'static str,
    tags: Vec<&'static str>,
    as_dropdown: bool,
    include_vars: bool,
    keep_time: bool,
    target_blank: bool,
    icon: &'static str,
    tooltip: &'static str,
    url: &'static str,
}

#[derive(Debug, Clone, Serialize)]
struct DataSource {
    r#type: &'static str,
    uid: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Panel {
    id: u32,
    r#type: &'static str,
    title: &'static str,
    description: &'static str,
    datasource: DataSource,
    grid_pos: GridPos,
    targets: Vec<Target>,
    field_config: FieldConfig,
    options: Options,
}

#[derive(Debug, Serialize)]
struct GridPos {
    x: u16,
    y: u16,
    w: u16,
    h: u16,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    ref_id: String,
    datasource: DataSource,
    expr: String,
    legend_format: &'static str,
    editor_mode: &'static str,
    range: bool,
    instant: bool,
}

#[derive(Debug, Serialize)]
struct FieldConfig {
    defaults: Defaults,
    overrides: Vec<()>,
}

#[derive(Debug, Serialize)]
struct Defaults {
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thresholds: Option<Thresholds>,
}

#[derive(Debug, Serialize)]
struct Thresholds {
    mode: &'static str,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    color: &'static str,
    /// From where on; `null` for the first.
    value: Option<u8>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Options {
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
struct Legend {
    show_legend: bool,
    display_mode: &'static str,
    placement: &'static str,
    calcs: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Tooltip {
    mode: &'static str,
    sort: &'static str,
}

#[derive(Debug, Serialize)]
struct Reduce {
    calcs: Vec<&'static str>,
    fields: &'static str,
    values: bool,
}

/// Which numbers are good.
#[derive(Debug, Clone, Copy)]
pub(super) enum Good {
    /// None at all: everything from 1 is red.
    Zero,
    /// Any: it says how much.
    Any,
}

const DATASOURCE: DataSource = DataSource {
    r#type: PROMETHEUS,
    // The variable, so that a dashboard can be shown of another Prometheus.
    uid: "${datasource}",
};

impl Dashboard {
    pub(super) fn new(uid: &'static str, title: &'static str, description: &'static str) -> Self {
        Self {
            uid,
            title,
            description,
            tags: vec!["mesh"],
            schema_version: SCHEMA,
            version: 1,
            editable: true,
            graph_tooltip: 1,
            refresh: "30s",
            timezone: "browser",
            time: Time {
                from: "now-1h",
                to: "now",
            },
            templating: Listed {
                list: vec![Variable {
                    name: "datasource",
                    label: "Prometheus",
                    r#type: "datasource",
                    query: PROMETHEUS,
                    hide: 0,
                    refresh: 1,
                    regex: "",
                    multi: false,
                    include_all: false,
                }],
            },
            annotations: Listed {
                list: vec![Annotation {
                    name: "Alerts",
                    datasource: DATASOURCE,
                    enable: true,
                    icon_color: "red",
                    expr: r#"ALERTS{alertname=~"Mesh.*", alertstate="firing"}"#,
                    title_format: "{{alertname}}",
                    text_format: "{{severity}} {{agent}} {{service}} {{job}}",
                }],
            },
            links: vec![Link {
                title: "Mesh",
                r#type: "dashboards",
                tags: vec!["mesh"],
                as_dropdown: false,
                include_vars: true,
                keep_time: true,
                target_blank: false,
                icon: "external link",
                tooltip: "",
                url: "",
            }],
            panels: Vec::new(),
            x: 0,
            y: 0,
            height: 0,
        }
    }

    /// A graph, half as wide as the dashboard; `queries` are expressions and what their lines are called.
    pub(super) fn graph(
        self,
        title: &'static str,
        description: &'static str,
        unit: &'static str,
        queries: &[(&str, &'static str)],
    ) -> Self {
        let options = Options::Graph {
            legend: Legend {
                show_legend: true,
                display_mode: "list",
                placement: "bottom",
                calcs: Vec::new(),
            },
            tooltip: Tooltip {
                mode: "multi",
                sort: "desc",
            },
        };
        let defaults = Defaults {
            unit,
            min: Some(0),
            thresholds: None,
        };
        self.panel(
            "timeseries",
            title,
            description,
            queries,
            defaults,
            options,
            (12, 8),
        )
    }

    /// The latest number, a quarter as wide as the dashboard.
    pub(super) fn number(
        self,
        title: &'static str,
        description: &'static str,
        unit: &'static str,
        good: Good,
        query: &str,
    ) -> Self {
        let step = |color, value| Step { color, value };
        let steps = match good {
            Good::Zero => vec![step("green", None), step("red", Some(1))],
            Good::Any => vec![step("blue", None)],
        };
        let options = Options::Number {
            reduce_options: Reduce {
                calcs: vec!["lastNotNull"],
                fields: "",
                values: false,
            },
            color_mode: "value",
            graph_mode: "area",
            text_mode: "auto",
        };
        let defaults = Defaults {
            unit,
            min: None,
            thresholds: Some(Thresholds {
                mode: "absolute",
                steps,
            }),
        };
        self.panel(
            "stat",
            title,
            description,
            &[(query, "")],
            defaults,
            options,
            (6, 4),
        )
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a panel has that many parts, and two callers"
    )]
    fn panel(
        mut self,
        kind: &'static str,
        title: &'static str,
        description: &'static str,
        queries: &[(&str, &'static str)],
        defaults: Defaults,
        options: Options,
        (w, h): (u16, u16),
    ) -> Self {
        if self.x + w > COLUMNS {
            self.x = 0;
            self.y += self.height;
            self.height = 0;
        }
        let targets = queries
            .iter()
            .zip('A'..='Z')
            .map(|(&(expr, legend), id)| Target {
                ref_id: id.to_string(),
                datasource: DATASOURCE,
                expr: expr.to_owned(),
                legend_format: legend,
                editor_mode: "code",
                range: true,
                instant: false,
            });
        self.panels.push(Panel {
            // From 1, in the order of reading.
            id: u32::try_from(self.panels.len()).unwrap_or_default() + 1,
            r#type: kind,
            title,
            description,
            datasource: DATASOURCE,
            grid_pos: GridPos {
                x: self.x,
                y: self.y,
                w,
                h,
            },
            targets: targets.collect(),
            field_config: FieldConfig {
                defaults,
                overrides: Vec::new(),
            },
            options,
        });
        self.x += w;
        self.height = self.height.max(h);
        self
    }
}
