//! A run as the fields of a hash, and back.

use crate::store::{Owner, RunRecord, StepRecord, Summary, TaskStatus, progress};
use mesh_protocol::plan::Plan;
use mesh_protocol::{StepId, TaskId, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;

/// The fields that a list reads.
pub(super) const SUMMARY_FIELDS: [&str; 6] = [
    "task_type",
    "status",
    "created_at",
    "finished_at",
    "steps_completed",
    "steps_total",
];

/// A field of a hash and its value.
pub(super) type Field = (String, Vec<u8>);

/// Every field of a run.
pub(super) fn fields(run: &RunRecord) -> Vec<Field> {
    let mut fields: Vec<Field> = vec![
        ("plan".into(), json(&run.plan)),
        ("status".into(), run.status.as_str().into()),
        ("request".into(), json(&run.request)),
        // Apart from the request, since lists show it and requests can be large.
        ("task_type".into(), run.request.task_type.clone().into()),
        ("trace".into(), json(&run.trace)),
        ("created_at".into(), run.created_at.to_string().into()),
        ("deadline".into(), run.deadline.to_string().into()),
        ("steps_total".into(), run.steps.len().to_string().into()),
        ("steps_completed".into(), run.completed().to_string().into()),
        ("fence".into(), run.fence.to_string().into()),
        ("version".into(), run.version.to_string().into()),
    ];
    if let Some(key) = &run.key {
        fields.push(("key".into(), json(key)));
    }
    if let Some(reply) = &run.reply {
        fields.push(("reply".into(), json(reply)));
    }
    if let Some(name) = &run.client_task_id {
        fields.push(("client_task_id".into(), json(name)));
    }
    if let Some(owner) = &run.owner {
        fields.push(("owner".into(), json(owner)));
    }
    if let Some(assertion) = &run.assertion {
        fields.push(("assertion".into(), assertion.clone().into()));
    }
    if let Some(at) = run.finished_at {
        fields.push(("finished_at".into(), at.to_string().into()));
    }
    if let Some(error) = &run.error {
        fields.push(("error".into(), json(error)));
    }
    for (step, record) in run.plan.execution_plan.iter().zip(&run.steps) {
        fields.push((step.id.redis_field(), json(record)));
    }
    fields
}

/// Where a result lies that was handed over.
fn handed_field(step: &StepId) -> String {
    format!("handed:{step}")
}

/// Whose the run is, as far as that can be read.
pub(super) fn owner(fields: &HashMap<String, Vec<u8>>) -> Option<Owner> {
    optional(fields, "owner").ok().flatten()
}

/// JSON of a record.
pub(super) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // Records of texts, numbers and JSON values always serialise.
    serde_json::to_vec(value).unwrap_or_default()
}

/// The run of these fields; what is wrong with them otherwise.
pub(super) fn read(id: &TaskId, fields: &HashMap<String, Vec<u8>>) -> Result<RunRecord, String> {
    let plan: Plan = parse(fields, "plan")?;
    let steps = plan
        .execution_plan
        .iter()
        .map(|step| parse::<StepRecord>(fields, &step.id.redis_field()))
        .collect::<Result<_, _>>()?;
    let status = text(fields, "status")?;
    let handed = plan
        .execution_plan
        .iter()
        .filter_map(|step| optional(fields, &handed_field(&step.id)).transpose())
        .collect::<Result<_, _>>()?;
    Ok(RunRecord {
        task_id: id.clone(),
        request: parse(fields, "request")?,
        owner: optional(fields, "owner")?,
        assertion: match fields.get("assertion") {
            Some(_) => Some(text(fields, "assertion")?),
            None => None,
        },
        trace: parse(fields, "trace")?,
        created_at: time(fields, "created_at")?,
        deadline: time(fields, "deadline")?,
        status: TaskStatus::parse(&status).ok_or_else(|| format!("status is {status}"))?,
        finished_at: match fields.get("finished_at") {
            Some(_) => Some(time(fields, "finished_at")?),
            None => None,
        },
        error: optional(fields, "error")?,
        key: optional(fields, "key")?,
        reply: optional(fields, "reply")?,
        client_task_id: optional(fields, "client_task_id")?,
        // Runs of versions without leases have neither.
        fence: optional(fields, "fence")?.unwrap_or(0),
        version: optional(fields, "version")?.unwrap_or(0),
        handed,
        steps,
        plan,
    })
}

/// What a list shows of a run; none where fields are missing or are none of a run's.
pub(super) fn summary(id: &TaskId, row: &[Option<String>]) -> Option<Summary> {
    let field = |name: &str| {
        let place = SUMMARY_FIELDS.iter().position(|f| *f == name)?;
        row.get(place)?.as_deref()
    };
    Some(Summary {
        task_id: id.clone(),
        task_type: field("task_type")?.to_owned(),
        status: TaskStatus::parse(field("status")?)?,
        progress: progress(
            field("steps_completed")?.parse().ok()?,
            field("steps_total")?.parse().ok()?,
        ),
        created_at: field("created_at")?.parse().ok()?,
        finished_at: field("finished_at").and_then(|t| t.parse().ok()),
    })
}

fn parse<T: DeserializeOwned>(fields: &HashMap<String, Vec<u8>>, name: &str) -> Result<T, String> {
    let bytes = fields
        .get(name)
        .ok_or_else(|| format!("field {name} is missing"))?;
    serde_json::from_slice(bytes).map_err(|e| format!("field {name}: {e}"))
}

fn optional<T: DeserializeOwned>(
    fields: &HashMap<String, Vec<u8>>,
    name: &str,
) -> Result<Option<T>, String> {
    match fields.get(name) {
        None => Ok(None),
        Some(_) => parse(fields, name).map(Some),
    }
}

fn text(fields: &HashMap<String, Vec<u8>>, name: &str) -> Result<String, String> {
    let bytes = fields
        .get(name)
        .ok_or_else(|| format!("field {name} is missing"))?;
    String::from_utf8(bytes.clone()).map_err(|_| format!("field {name} is not UTF-8"))
}

fn time(fields: &HashMap<String, Vec<u8>>, name: &str) -> Result<Timestamp, String> {
    text(fields, name)?
        .parse()
        .map_err(|e| format!("field {name}: {e}"))
}
