//! Single values: durations, sizes, addresses, names, secrets.

use super::reader::{Reader, Spot};
use super::tree::{Node, Value};
use crate::finding::{Finding, nearest};
use mesh_protocol::AgentId;
use serde_json::json;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

pub(crate) use super::secrets::source;

/// Text; a number is taken as it was written, since `id: 7` means the name.
pub(crate) fn text(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    reader.say(|| json!({"type": ["string", "number"]}));
    let text = match &spot.node.value {
        Value::Text(text) => text.clone(),
        Value::Int(_) | Value::Float => reader.written(spot.node)?,
        // A variable's value is text where text is wanted.
        Value::Bool(_) if spot.node.variables.is_some() => reader.written(spot.node)?,
        _ => {
            reader.wrong_type(spot, "text");
            return None;
        }
    };
    reader.open(spot.node);
    if text.trim().is_empty() {
        let message = format!("{} is empty", spot.path);
        let finding = Finding::error("empty", spot.node.place, spot.path, message);
        reader.push(finding.hint("write a value, or leave the key out"));
        return None;
    }
    Some(text)
}

/// The number that a node is; a variable's value is one in quotes, too, since `{...}` takes no other form.
pub(super) fn whole(node: &Node) -> Option<i128> {
    match &node.value {
        Value::Int(number) => Some(*number),
        Value::Text(text) if node.variables.is_some() => text.trim().parse().ok(),
        _ => None,
    }
}

pub(crate) fn boolean(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<bool> {
    reader.say(|| json!({"type": "boolean"}));
    let value = match &spot.node.value {
        Value::Bool(value) => Some(*value),
        Value::Text(text) if spot.node.variables.is_some() => text.trim().parse().ok(),
        _ => None,
    };
    if let Some(value) = value {
        reader.open(spot.node);
        return Some(value);
    }
    reader.wrong_type(spot, "true or false");
    None
}

/// A whole number within `range`.
pub(crate) fn integer<T>(
    range: RangeInclusive<i128>,
) -> impl Fn(&mut Reader<'_>, Spot<'_>) -> Option<T>
where
    T: TryFrom<i128>,
{
    move |reader, spot| {
        let (low, high) = (range.start(), range.end());
        reader
            .say(|| json!({"type": "integer", "minimum": number(*low), "maximum": number(*high)}));
        let Some(n) = whole(spot.node) else {
            reader.wrong_type(spot, &format!("a whole number from {low} to {high}"));
            return None;
        };
        reader.open(spot.node);
        if !range.contains(&n) {
            let message = format!("{} must be from {low} to {high}, not {n}", spot.path);
            let finding = Finding::error("out_of_range", spot.node.place, spot.path, message);
            reader.push(finding.hint(format!("write {}", n.clamp(*low, *high))));
            return None;
        }
        T::try_from(n).ok()
    }
}

/// A bound as JSON has it.
fn number(bound: i128) -> serde_json::Value {
    i64::try_from(bound).map_or(serde_json::Value::Null, Into::into)
}

/// A duration as mesh.yaml writes it, in the largest unit that holds it whole.
pub(crate) fn written_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    let unit = units
        .iter()
        .find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit));
    match unit {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// A size as mesh.yaml writes it.
fn written_size(bytes: usize) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units
        .iter()
        .find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    match unit {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// A duration with its unit, such as `500ms`, `30s`, `5m`, `1h`, within `range`.
pub(crate) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&mut Reader<'_>, Spot<'_>) -> Option<Duration> {
    move |reader, spot| {
        const HINT: &str = "write a whole number and ms, s, m or h, such as 30s";
        let (least, most) = (
            written_duration(*range.start()),
            written_duration(*range.end()),
        );
        reader.say(|| json!({"type": "string", "pattern": "^\\s*[0-9]+\\s*(ms|s|m|min|h)\\s*$"}));
        reader.note(|| format!("A duration from {least} to {most}."));
        let written = match &spot.node.value {
            Value::Text(text) => text.trim().to_owned(),
            Value::Int(n) => {
                reader.open(spot.node);
                let message = format!("{} is {n} of what?", spot.path);
                let finding = Finding::error("missing_unit", spot.node.place, spot.path, message);
                reader.push(finding.hint(format!("write {n}s or {n}ms")));
                return None;
            }
            _ => {
                reader.wrong_type(spot, "a duration, such as 30s");
                return None;
            }
        };
        reader.open(spot.node);
        let Some(duration) = parse_duration(&written) else {
            let message = format!("{}: `{written}` is no duration", spot.path);
            let finding = Finding::error("invalid_duration", spot.node.place, spot.path, message);
            reader.push(finding.hint(HINT));
            return None;
        };
        if !range.contains(&duration) {
            let message = format!(
                "{} must be from {least} to {most}, not {written}",
                spot.path
            );
            let finding = Finding::error("out_of_range", spot.node.place, spot.path, message);
            let nearer = duration.clamp(*range.start(), *range.end());
            reader.push(finding.hint(format!("write {}", written_duration(nearer))));
            return None;
        }
        Some(duration)
    }
}

pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let millis = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// A size in bytes with its unit, such as `64KiB` or `1MiB`, within `range`.
pub(crate) fn size(
    range: RangeInclusive<usize>,
) -> impl Fn(&mut Reader<'_>, Spot<'_>) -> Option<usize> {
    move |reader, spot| {
        let (least, most) = (written_size(*range.start()), written_size(*range.end()));
        reader.say(|| json!({"type": "string", "pattern": "^\\s*[0-9]+\\s*(B|KiB|MiB|GiB)\\s*$"}));
        reader.note(|| format!("A size from {least} to {most}."));
        let written = match &spot.node.value {
            Value::Text(text) => text.trim().to_owned(),
            Value::Int(n) => {
                reader.open(spot.node);
                let message = format!("{} is {n} of what?", spot.path);
                let finding = Finding::error("missing_unit", spot.node.place, spot.path, message);
                reader.push(finding.hint(format!("write {n}B, {n}KiB or {n}MiB")));
                return None;
            }
            _ => {
                reader.wrong_type(spot, "a size, such as 1MiB");
                return None;
            }
        };
        reader.open(spot.node);
        let Some(bytes) = parse_size(&written) else {
            let message = format!("{}: `{written}` is no size", spot.path);
            let finding = Finding::error("invalid_size", spot.node.place, spot.path, message);
            reader.push(finding.hint("write a whole number and B, KiB, MiB or GiB, such as 1MiB"));
            return None;
        };
        if !range.contains(&bytes) {
            let message = format!(
                "{} must be from {least} to {most}, not {written}",
                spot.path
            );
            let finding = Finding::error("out_of_range", spot.node.place, spot.path, message);
            let nearer = bytes.clamp(*range.start(), *range.end());
            reader.push(finding.hint(format!("write {}", written_size(nearer))));
            return None;
        }
        Some(bytes)
    }
}

fn parse_size(text: &str) -> Option<usize> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: usize = number.parse().ok()?;
    let factor = match unit.trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// An address to listen on.
pub(crate) fn listen(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<SocketAddr> {
    reader.note(|| "An address in figures and a port.".to_owned());
    let text = text(reader, spot);
    reader.say(|| json!({"type": "string", "pattern": "^(\\[.+\\]|[0-9.]+):[0-9]+$"}));
    let text = text?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let message = format!("{}: `{text}` is no address and port", spot.path);
    let hint = match text.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => {
            format!("write the address in figures, such as 127.0.0.1:{port}; no name is resolved")
        }
        _ => "write 127.0.0.1:PORT, or [::1]:PORT".to_owned(),
    };
    reader.push(Finding::error("invalid_address", spot.node.place, spot.path, message).hint(hint));
    None
}

/// A URL with one of `schemes` and a host; it may hold a password, so it is neither shown nor repeated.
pub(crate) fn url(
    schemes: &'static [&'static str],
    example: &'static str,
) -> impl Fn(&mut Reader<'_>, Spot<'_>) -> Option<url::Url> {
    move |reader, spot| {
        let text = reader.veiled(|reader| text(reader, spot));
        reader.say(|| {
            // Schemes are the same in capitals, which nobody writes; white space around it is dropped.
            let pattern = format!("^\\s*({})://", schemes.join("|"));
            json!({"type": "string", "pattern": pattern, "examples": [example]})
        });
        let text = text?;
        match url::Url::parse(&text) {
            Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => Some(url),
            _ => {
                let message = format!("{} is no {} URL", spot.path, schemes.join(" or "));
                let finding = Finding::error("invalid_url", spot.node.place, spot.path, message);
                reader.push(finding.hint(format!("write {example}")));
                None
            }
        }
    }
}

/// A URL that is rendered into files that anyone may read.
pub(crate) fn open_url(
    schemes: &'static [&'static str],
    example: &'static str,
) -> impl Fn(&mut Reader<'_>, Spot<'_>) -> Option<url::Url> {
    move |reader, spot| {
        let url = url(schemes, example)(reader, spot)?;
        if let Err(more) = bare(&url) {
            let message = format!("{} must not hold {more}", spot.path);
            let finding = Finding::error("invalid_url", spot.node.place, spot.path, message);
            reader.push(finding.hint(format!(
                "write no more than scheme, host, port and path, such as {example}"
            )));
            return None;
        }
        reader.open(spot.node);
        Some(url)
    }
}

/// What a base URL holds beyond scheme, host, port and path, if it does: whoever joins a path to it
/// would lose it or send it along.
pub(crate) fn bare(url: &url::Url) -> Result<(), &'static str> {
    if !url.username().is_empty() || url.password().is_some() {
        Err("a user's name or password")
    } else if url.query().is_some() || url.fragment().is_some() {
        Err("a query or a fragment")
    } else {
        Ok(())
    }
}

pub(crate) fn agent_id(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<AgentId> {
    reader.note(|| "Lower-case letters, digits and inner hyphens.".to_owned());
    let text = text(reader, spot)?;
    match text.parse() {
        Ok(id) => Some(id),
        Err(error) => {
            let message = format!("{}: {error}, not `{text}`", spot.path);
            let finding = Finding::error("invalid_name", spot.node.place, spot.path, message);
            let lower = text.to_ascii_lowercase().replace([' ', '.'], "-");
            reader.push(match lower.parse::<AgentId>() {
                Ok(id) => finding.hint(format!("write {id}")),
                Err(_) => finding.hint("such as data-processor"),
            });
            None
        }
    }
}

/// A word of `known`, as the value it stands for.
pub(crate) fn choice<T: Copy>(
    known: &'static [(&'static str, T)],
) -> impl Fn(&mut Reader<'_>, Spot<'_>) -> Option<T> {
    move |reader, spot| {
        let text = text(reader, spot);
        reader.say(|| {
            let words: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            json!({"type": "string", "enum": words})
        });
        let text = text?;
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let names = || known.iter().map(|(name, _)| *name);
        let message = format!("{}: `{text}` is not known", spot.path);
        let hint = match nearest(&text, names()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("known here: {}", names().collect::<Vec<_>>().join(", ")),
        };
        let finding = Finding::error("unknown_value", spot.node.place, spot.path, message);
        reader.push(finding.hint(hint));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(parse_duration("500ms"), ms(500));
        assert_eq!(parse_duration("5m"), ms(300_000));
        assert_eq!(parse_duration("1 h"), ms(3_600_000));
        for bad in ["", "s", "5", "5d", "-5s", "1.5s", "99999999999999999999h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        assert_eq!(parse_size("1MiB"), Some(1_048_576));
        assert_eq!(parse_size("0B"), Some(0));
        for bad in ["1", "1MB", "1.5MiB", "99999999999999999999B", "GiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
