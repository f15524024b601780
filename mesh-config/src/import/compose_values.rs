//! Single values of a Compose file: texts with variables, ports, volumes, durations, environments.

use super::found::{Cursor, Entity, Found};
use super::interpolate;
use super::written::Text;
use crate::container::{Port, Volume};
use crate::schema::tree::Value;
use crate::secret_names::{holds_secret, is_secret_name};
use std::collections::BTreeMap;

/// Most ports that a range may stand for.
const MAX_RANGE: u16 = 100;

/// A text of a field, with its variables at their defaults.
pub(super) fn text(entity: &mut Entity<'_>, name: &str, found: &mut Found<'_>) -> Option<String> {
    let at = entity.take(name)?;
    plain(&at, found)
}

/// A text in which no variable is left: one with a default has it, and is named; one without is lost.
pub(super) fn plain(at: &Cursor<'_>, found: &mut Found<'_>) -> Option<String> {
    let Some(text) = found.scalar(at) else {
        found.lose(at, format!("it is {}, where text is wanted", at.kind()));
        return None;
    };
    use interpolate::Text as T;
    match interpolate::read(&text) {
        Some(T::Plain(text)) => Some(text),
        Some(T::Variable {
            name,
            default: Some(default),
        }) => {
            found.lose(
                at,
                format!("the variable {name}: its default is written here"),
            );
            Some(default)
        }
        Some(T::Mixed {
            names,
            default: Some(default),
        }) => {
            let names = names.join(", ");
            found.lose(
                at,
                format!("the variables {names}: their defaults are written here"),
            );
            Some(default)
        }
        Some(T::Variable { name, .. }) => {
            found.lose(
                at,
                format!("the variable {name} has no default: write its value"),
            );
            None
        }
        Some(T::Mixed { names, .. }) => {
            let names = names.join(", ");
            found.lose(
                at,
                format!("of the variables {names} one has no default: write the value"),
            );
            None
        }
        None => {
            found.lose(
                at,
                "its variables are written in a way that is not read here",
            );
            None
        }
    }
}

/// A command: a list, or a line that a shell would split.
pub(super) fn words(at: Option<Cursor<'_>>, found: &mut Found<'_>) -> Vec<String> {
    let Some(at) = at else { return Vec::new() };
    if matches!(at.node.value, Value::List(_)) {
        return at.items().filter_map(|at| plain(&at, found)).collect();
    }
    let Some(line) = plain(&at, found) else {
        return Vec::new();
    };
    shlex::split(&line).unwrap_or_else(|| {
        found.lose(&at, "its quotes do not end");
        Vec::new()
    })
}

/// Variables of a container. A secret becomes a reference to a variable of the environment.
pub(super) fn environment(
    service: &str,
    at: Option<Cursor<'_>>,
    found: &mut Found<'_>,
) -> BTreeMap<String, Text> {
    let mut all = BTreeMap::new();
    for (name, value, at) in pairs(at, found) {
        if all.contains_key(&name) {
            found.lose(&at, "the variable stands there twice");
            continue;
        }
        if let Some(text) = variable(service, &name, value, &at, found) {
            all.insert(name, text);
        }
    }
    all
}

/// Names and texts of a mapping, or of a list of `NAME=text`; no text where the host's is meant.
fn pairs<'n>(
    at: Option<Cursor<'n>>,
    found: &mut Found<'_>,
) -> Vec<(String, Option<String>, Cursor<'n>)> {
    let Some(at) = at else { return Vec::new() };
    let mut all = Vec::new();
    for item in at.items() {
        match found.scalar(&item) {
            Some(text) => match text.split_once('=') {
                Some((name, text)) => all.push((name.to_owned(), Some(text.to_owned()), item)),
                None => all.push((text, None, item)),
            },
            None => found.lose(&item, "it is no text"),
        }
    }
    for (key, item) in at.entries() {
        let text = found.scalar(&item);
        if text.is_none() && !item.is_null() {
            found.lose(
                &item,
                format!("it is {}, where text is wanted", item.kind()),
            );
            continue;
        }
        all.push((key.text.clone(), text, item));
    }
    all
}

fn variable(
    service: &str,
    name: &str,
    value: Option<String>,
    at: &Cursor<'_>,
    found: &mut Found<'_>,
) -> Option<Text> {
    let of = |variable: &str, found: &mut Found<'_>| {
        found.refer(variable, &at.path);
        Some(Text::Variable {
            env: variable.to_owned(),
        })
    };
    let Some(value) = value else {
        // As it is where Compose runs.
        return of(name, found);
    };
    use interpolate::Text as T;
    match interpolate::read(&value) {
        Some(T::Plain(text)) if is_secret_name(name) || holds_secret(&text) => {
            if text.is_empty() {
                return Some(Text::Plain(text));
            }
            let env = found.secret(&[service, name], &at.path);
            Some(Text::Variable { env })
        }
        Some(T::Plain(text)) => Some(Text::Plain(text)),
        Some(T::Variable {
            name: host,
            default,
        }) => {
            let secret = is_secret_name(name) || is_secret_name(&host);
            match default {
                Some(default) if !secret && !holds_secret(&default) => {
                    found.lose(
                        at,
                        format!("the variable {host}: its default is written here"),
                    );
                    Some(Text::Plain(default))
                }
                Some(_) => {
                    found.note(format!(
                        "{host} had a default, which is a secret and not carried over"
                    ));
                    of(&host, found)
                }
                None => of(&host, found),
            }
        }
        Some(T::Mixed { names, default }) => {
            let secret = is_secret_name(name)
                || names.iter().any(|name| is_secret_name(name))
                || default.as_deref().is_none_or(holds_secret);
            match default {
                Some(default) if !secret => {
                    let names = names.join(", ");
                    found.lose(
                        at,
                        format!("the variables {names}: their defaults are written here"),
                    );
                    Some(Text::Plain(default))
                }
                _ => {
                    let env = found.secret(&[service, name], &at.path);
                    let names = names.join(", ");
                    found.note(format!(
                        "{env} is the whole text of {}, made of {names}",
                        at.path
                    ));
                    Some(Text::Variable { env })
                }
            }
        }
        None => {
            found.lose(
                at,
                "its variables are written in a way that is not read here",
            );
            None
        }
    }
}

/// Arguments of a build, which the image remembers: a secret among them is lost.
pub(super) fn arguments(at: Option<Cursor<'_>>, found: &mut Found<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (name, value, at) in pairs(at, found) {
        use interpolate::Text as T;
        match value.as_deref().and_then(interpolate::read) {
            Some(T::Plain(text)) if !is_secret_name(&name) && !holds_secret(&text) => {
                all.insert(name, text);
            }
            Some(T::Plain(_)) => found.lose(
                &at,
                "an image remembers its arguments: no secret belongs there",
            ),
            Some(T::Variable {
                default: Some(default),
                ..
            })
            | Some(T::Mixed {
                default: Some(default),
                ..
            }) if !is_secret_name(&name) => {
                found.lose(&at, "its variable: the default is written here");
                all.insert(name, default);
            }
            _ => found.lose(&at, "its value is not in the file"),
        }
    }
    all
}

/// Published ports, in either form, ranges written out.
pub(super) fn ports(list: Vec<Cursor<'_>>, found: &mut Found<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for at in list {
        let text = match &at.node.value {
            Value::Map(_) => long_port(&at, found),
            _ => plain(&at, found),
        };
        let Some(text) = text else { continue };
        match expanded(&text) {
            Some(ports) => all.extend(ports),
            None => found.lose(&at, "it is no port that can be published"),
        }
    }
    all
}

fn long_port(at: &Cursor<'_>, found: &mut Found<'_>) -> Option<String> {
    let mut entity = Entity::of(at, found)?;
    let target = text(&mut entity, "target", found)?;
    let published = text(&mut entity, "published", found);
    let address = text(&mut entity, "host_ip", found);
    let protocol = text(&mut entity, "protocol", found);
    // Words for people, and for a cluster of Docker's own.
    for key in ["name", "app_protocol", "mode"] {
        entity.take(key);
    }
    entity.finish(found, &|_| None);
    let mut text = match (address, published) {
        (Some(address), published) => {
            let published = published.unwrap_or_default();
            format!("{address}:{published}:{target}")
        }
        (None, Some(published)) => format!("{published}:{target}"),
        (None, None) => target,
    };
    if protocol.as_deref() == Some("udp") {
        text.push_str("/udp");
    }
    Some(text)
}

/// `3000-3002:80-82` as three.
fn expanded(text: &str) -> Option<Vec<String>> {
    if let Some(port) = Port::read(text) {
        return Some(vec![port.to_string()]);
    }
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, format!("/{protocol}")),
        None => (text, String::new()),
    };
    let range = |text: &str| -> Option<(u16, u16)> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
        let length = to.checked_sub(from)?;
        (length < MAX_RANGE).then_some((from, length))
    };
    let (before, inner) = match ports.rsplit_once(':') {
        Some((before, inner)) => (Some(before), inner),
        None => (None, ports),
    };
    let (inner, length) = range(inner)?;
    let outer = match before {
        None => None,
        Some(before) => {
            let (address, host) = match before.rsplit_once(':') {
                Some((address, host)) => (format!("{address}:"), host),
                None => (String::new(), before),
            };
            let (host, hosts) = range(host)?;
            if hosts != length {
                return None;
            }
            Some((address, host))
        }
    };
    let each = (0..=length).map(|n| {
        let inner = inner.checked_add(n)?;
        let text = match &outer {
            Some((address, host)) => format!("{address}{}:{inner}{protocol}", host.checked_add(n)?),
            None => format!("{inner}{protocol}"),
        };
        Port::read(&text).map(|port| port.to_string())
    });
    each.collect()
}

/// Mounts, in either form.
pub(super) fn volumes(list: Vec<Cursor<'_>>, found: &mut Found<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for at in list {
        let text = match &at.node.value {
            Value::Map(_) => long_volume(&at, found),
            _ => plain(&at, found),
        };
        let Some(text) = text else { continue };
        match Volume::read(&text) {
            Some(volume) => all.push(volume.to_string()),
            None => found.lose(&at, "it is no volume that mesh.yaml can say"),
        }
    }
    all
}

fn long_volume(at: &Cursor<'_>, found: &mut Found<'_>) -> Option<String> {
    let mut entity = Entity::of(at, found)?;
    let kind = text(&mut entity, "type", found).unwrap_or_default();
    if !matches!(kind.as_str(), "bind" | "volume") {
        found.lose(at, "only volumes and paths of the host are carried over");
        return None;
    }
    let source = text(&mut entity, "source", found);
    let target = text(&mut entity, "target", found)?;
    let read_only = entity.take("read_only").and_then(|at| found.scalar(&at));
    entity.finish(found, &|_| None);
    let source = source.map(|source| source + ":").unwrap_or_default();
    let mode = if read_only.as_deref() == Some("true") {
        ":ro"
    } else {
        ""
    };
    Some(format!("{source}{target}{mode}"))
}

/// The named volumes among mounts.
pub(super) fn volumes_of(mounts: &[String]) -> impl Iterator<Item = String> + '_ {
    let read = mounts.iter().filter_map(|text| Volume::read(text));
    read.filter(|volume| !volume.is_path())
        .filter_map(|volume| volume.source)
}

/// Compose's durations, such as `1m30s`, as one whole number with its unit.
pub(super) fn duration(at: &Cursor<'_>, found: &mut Found<'_>) -> Option<String> {
    let text = plain(at, found)?;
    let millis = milliseconds(&text);
    let Some(millis) = millis else {
        found.lose(at, "it is no duration of whole milliseconds");
        return None;
    };
    Some(match millis {
        0 => "0s".to_owned(),
        n if n % 3_600_000 == 0 => format!("{}h", n / 3_600_000),
        n if n % 60_000 == 0 => format!("{}m", n / 60_000),
        n if n % 1000 == 0 => format!("{}s", n / 1000),
        n => format!("{n}ms"),
    })
}

fn milliseconds(text: &str) -> Option<u64> {
    let mut sum = 0u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        sum = sum.checked_add(number.checked_mul(factor)?)?;
        rest = after;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_out_and_durations_summed() {
        let ports = |text: &str| expanded(text).unwrap_or_default().join(" ");
        assert_eq!(ports("80"), "80");
        assert_eq!(ports("3000-3002:80-82"), "3000:80 3001:81 3002:82");
        assert_eq!(
            ports("127.0.0.1:5-6:7-8/udp"),
            "127.0.0.1:5:7/udp 127.0.0.1:6:8/udp"
        );
        for bad in [
            "",
            "1-2:3",
            "2-1:2-1",
            "1-65535:1-65535",
            "a:b",
            "65535-65536",
            "x-y",
        ] {
            assert_eq!(expanded(bad), None, "{bad}");
        }
        assert_eq!(milliseconds("1m30s"), Some(90_000));
        assert_eq!(milliseconds("500ms"), Some(500));
        for bad in ["", "5", "1.5s", "5us", "s", "99999999999999999999h"] {
            assert_eq!(milliseconds(bad), None, "{bad}");
        }
    }
}
