//! Compose's `$` in texts: `$$`, `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and their kin.
//!
//! mesh.yaml holds values: what a variable would put in has to be known, be a default, or be a reference.

/// What a text comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    /// Without any variable; `$$` is `$`.
    Plain(String),
    /// One variable and no more, with its default where it has one.
    Variable {
        name: String,
        default: Option<String>,
    },
    /// Variables within text, with what it comes to where each is its default; None where one has none.
    Mixed {
        names: Vec<String>,
        default: Option<String>,
    },
}

/// Most variables of one text.
const MOST: usize = 64;

/// Reads a text; None for one that Compose refuses, or whose default holds variables itself.
pub(super) fn read(text: &str) -> Option<Text> {
    let mut plain = String::new();
    let mut names: Vec<String> = Vec::new();
    let mut defaults: Vec<Option<String>> = Vec::new();
    let mut whole = Some(String::new());
    let mut rest = text;
    let mut around = false;
    while let Some((before, after)) = rest.split_once('$') {
        plain.push_str(before);
        around |= !before.is_empty();
        if let Some(after) = after.strip_prefix('$') {
            plain.push('$');
            around = true;
            push(&mut whole, before, Some("$"));
            rest = after;
            continue;
        }
        let (name, default, after) = variable(after)?;
        push(&mut whole, before, default.as_deref());
        names.push(name);
        defaults.push(default);
        if names.len() > MOST {
            return None;
        }
        rest = after;
    }
    plain.push_str(rest);
    around |= !rest.is_empty();
    push(&mut whole, rest, Some(""));
    Some(match names.len() {
        0 => Text::Plain(plain),
        1 if !around => Text::Variable {
            name: names.pop()?,
            default: defaults.pop()?,
        },
        _ => Text::Mixed {
            names,
            default: whole,
        },
    })
}

fn push(whole: &mut Option<String>, before: &str, value: Option<&str>) {
    match (whole.as_mut(), value) {
        (Some(text), Some(value)) => {
            text.push_str(before);
            text.push_str(value);
        }
        _ => *whole = None,
    }
}

/// The variable after a `$`: its name, its default, and what follows it.
fn variable(after: &str) -> Option<(String, Option<String>, &str)> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let Some(inner) = after.strip_prefix('{') else {
        let end = after.find(|c| !legal(c)).unwrap_or(after.len());
        let (name, rest) = after.split_at(end);
        return is_name(name).then(|| (name.to_owned(), None, rest));
    };
    let (inner, rest) = inner.split_once('}')?;
    let end = inner.find(|c| !legal(c)).unwrap_or(inner.len());
    let (name, more) = inner.split_at(end);
    if !is_name(name) {
        return None;
    }
    let default = match more.strip_prefix(':').unwrap_or(more) {
        "" => None,
        default if default.starts_with('-') => Some(default.get(1..)?.to_owned()),
        // A message, for where it is not set.
        message if message.starts_with('?') => None,
        _ => return None,
    };
    if default.as_deref().is_some_and(|text| text.contains('$')) {
        return None;
    }
    Some((name.to_owned(), default, rest))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_text_comes_to() {
        let plain = |text: &str| Some(Text::Plain(text.to_owned()));
        let one = |name: &str, default: Option<&str>| {
            Some(Text::Variable {
                name: name.to_owned(),
                default: default.map(str::to_owned),
            })
        };
        assert_eq!(read("a"), plain("a"));
        assert_eq!(read(""), plain(""));
        assert_eq!(read("pg -U $$USER"), plain("pg -U $USER"));
        assert_eq!(read("$A"), one("A", None));
        assert_eq!(read("${A}"), one("A", None));
        assert_eq!(read("${A:-b c}"), one("A", Some("b c")));
        assert_eq!(read("${A-}"), one("A", Some("")));
        assert_eq!(read("${A:?set it}"), one("A", None));
        let mixed = |names: &[&str], default: Option<&str>| {
            Some(Text::Mixed {
                names: names.iter().map(|&name| name.to_owned()).collect(),
                default: default.map(str::to_owned),
            })
        };
        assert_eq!(read("x:${A:-1}.$B"), mixed(&["A", "B"], None));
        assert_eq!(read("x:${A:-1}$$"), mixed(&["A"], Some("x:1$")));
        assert_eq!(read("$A$B"), mixed(&["A", "B"], None));
        for bad in [
            "$",
            "${",
            "${}",
            "${A",
            "a$",
            "$1",
            "${A:+b}",
            "${A:-${B}}",
            "${A!}",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
