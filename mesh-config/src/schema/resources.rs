//! `orchestrator.resources` and `agents[].resources`: names and amounts.

use super::reader::{At, Reader, Spot};
use super::tree::Value;
use crate::finding::Finding;
use mesh_orchestrator::resources::{MAX_AMOUNT, MAX_NAMES, is_name, parse_amount};

/// How much of one resource.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Amount {
    pub name: String,
    pub amount: u64,
}

/// A mapping of names to whole numbers or sizes, each from 1.
pub(super) fn resources(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Vec<At<Amount>>> {
    if let Value::Map(entries) = &spot.node.value
        && entries.len() > MAX_NAMES
    {
        let message = format!("{} has more than {MAX_NAMES} names", spot.path);
        let finding = Finding::error("out_of_range", spot.node.place, spot.path, message);
        reader.push(finding.hint("count together what is taken together"));
        return None;
    }
    reader.entries(spot, "^[A-Za-z0-9._:-]{1,64}$", |reader, key, spot| {
        reader.open_at(key.place);
        let amount = amount(reader, spot)?;
        if !is_name(&key.text) {
            let message = format!("`{}` cannot be a resource", key.text);
            let finding = Finding::error("invalid_name", key.place, spot.path, message);
            reader.push(finding.hint("at most 64 letters, digits, '.', '_', '-' and ':'"));
            return None;
        }
        Some(At {
            value: Amount {
                name: key.text.clone(),
                amount,
            },
            place: spot.node.place,
            path: spot.path.to_owned(),
        })
    })
}

fn amount(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<u64> {
    reader.say(|| {
        let size = "^\\s*[0-9]+\\s*(KiB|MiB|GiB|TiB)?\\s*$";
        serde_json::json!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": MAX_AMOUNT},
            {"type": "string", "pattern": size},
            {"$ref": "#/$defs/variable"},
        ]})
    });
    let read = match &spot.node.value {
        Value::Int(n) => u64::try_from(*n).ok().filter(|n| *n <= MAX_AMOUNT),
        Value::Text(text) => parse_amount(text),
        Value::Float => None,
        _ => {
            reader.wrong_type(spot, "a whole number, or a size such as 16GiB");
            return None;
        }
    };
    reader.open(spot.node);
    match read {
        Some(amount) if amount > 0 => Some(amount),
        _ => {
            let message = format!("{} is no amount", spot.path);
            let finding = Finding::error("invalid_amount", spot.node.place, spot.path, message);
            reader.push(finding.hint(format!(
                "write a whole number from 1 to {MAX_AMOUNT}, or one with KiB, MiB, GiB or TiB, such as 16GiB"
            )));
            None
        }
    }
}
