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
    // Reports duplicates; the names are the user's own, so none is unknown.
    reader.fields(spot)?;
    let Value::Map(entries) = &spot.node.value else {
        return None;
    };
    if entries.len() > MAX_NAMES {
        let message = format!("{} has more than {MAX_NAMES} names", spot.path);
        reader.error("out_of_range", spot, message);
        return None;
    }
    let mut amounts = Vec::with_capacity(entries.len());
    for (key, node) in entries {
        let path = format!("{}.{}", spot.path, key.text);
        reader.open_at(key.place);
        if !is_name(&key.text) {
            let message = format!("`{}` cannot be a resource", key.text);
            let finding = Finding::error("invalid_name", key.place, path, message);
            reader.push(finding.hint("at most 64 letters, digits, '.', '_', '-' and ':'"));
            continue;
        }
        if let Some(amount) = amount(reader, Spot { node, path: &path }) {
            let name = key.text.clone();
            amounts.push(At {
                value: Amount { name, amount },
                place: node.place,
                path,
            });
        }
    }
    Some(amounts)
}

fn amount(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<u64> {
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
