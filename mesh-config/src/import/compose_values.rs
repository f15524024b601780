//! Single values of a Compose file: texts with variables, durations, environments.

use super::cursor::Cursor;
use super::found::{Entity, Found};
use super::interpolate;
use super::written::Text;
use crate::schema::tree::Value;
use crate::secret_names::{command_holds_secret, holds_secret, is_secret_name};
use std::collections::BTreeMap;

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

/// Why a command with a secret in it is left out.
pub(super) const TOLD: &str = "it holds a secret: put it into `environment`, as {env: NAME}, and let a shell read it: [sh, -c, 'x --password $NAME']";

/// A command that no secret stands in.
pub(super) fn open_words(at: Option<Cursor<'_>>, found: &mut Found<'_>) -> Vec<String> {
    let Some(at) = at else { return Vec::new() };
    let words = words(Some(at.clone()), found);
    if command_holds_secret(words.iter().map(String::as_str)) {
        found.lose(&at, TOLD);
        return Vec::new();
    }
    words
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
    fn durations_are_summed() {
        assert_eq!(milliseconds("1m30s"), Some(90_000));
        assert_eq!(milliseconds("500ms"), Some(500));
        for bad in ["", "5", "1.5s", "5us", "s", "99999999999999999999h"] {
            assert_eq!(milliseconds(bad), None, "{bad}");
        }
    }
}
