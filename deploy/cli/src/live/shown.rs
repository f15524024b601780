//! Differences as people and programs see them: unified, secrets masked.

use super::resource::{Action, Change};
use crate::screen::{Paint, Screen, plain};
use mesh_config::secret::Secrets;
use serde_json::{Value, json};
use similar::TextDiff;
use std::io;

/// Words in the names of fields that hold secrets.
const WORDS: [&str; 9] = [
    "secret",
    "password",
    "passwd",
    "authorization",
    "jwk",
    "token",
    "credential",
    "signing",
    "private",
];
/// Words in the names of fields that end in `key` and hold none.
const OPEN: [&str; 2] = ["public", "routing"];

/// Whether a text itself says that it holds a secret, whoever wrote it.
fn speaks(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let login = || {
        let (_, rest) = lower.split_once("://")?;
        let (user, _) = rest.split(['/', '?', '#']).next()?.rsplit_once('@')?;
        user.split_once(':').filter(|(_, word)| !word.is_empty())
    };
    text.contains("PRIVATE KEY")
        || ["bearer ", "authorization:", "cookie:"]
            .iter()
            .any(|word| lower.contains(word))
        || login().is_some()
}

/// Hides what is secret.
pub struct Mask<'s>(pub &'s Secrets);

impl Mask<'_> {
    fn hides(&self, field: &str, text: &str) -> bool {
        let field = field.to_ascii_lowercase();
        let holds = |words: &[&str]| words.iter().any(|word| field.contains(word));
        let key = (field.ends_with("key") || field == "key_alt") && !holds(&OPEN);
        let named = holds(&WORDS) || key;
        named || speaks(text) || self.0.are_in(text)
    }

    /// Whether what stands in the place of `value` on the other side is secret: then `value` is, too, though nothing else
    /// says so. A password that mesh.yaml has no more is one still. In a list it may stand in any place.
    fn counterpart_hides(&self, value: &Value, other: Option<&Value>, field: &str) -> bool {
        match other {
            Some(Value::String(other)) => self.hides(field, other),
            Some(Value::Array(items)) if !items.contains(value) => {
                let mut texts = items.iter().filter_map(Value::as_str);
                texts.any(|text| self.hides(field, text))
            }
            _ => false,
        }
    }

    /// The value with its secrets hidden; those that are other than in `other` are marked.
    fn masked(&self, value: &Value, other: Option<&Value>, field: &str, mark: &str) -> Value {
        match value {
            Value::String(text)
                if !text.is_empty()
                    && (self.hides(field, text) || self.counterpart_hides(value, other, field)) =>
            {
                let differs = other.is_some_and(|other| other != value);
                format!("***{}", if differs { mark } else { "" }).into()
            }
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(n, item)| {
                    let beside = other.and_then(|other| other.get(n));
                    if item.is_string() && self.counterpart_hides(item, other, field) {
                        return format!("***{mark}").into();
                    }
                    self.masked(item, beside, field, mark)
                })
                .collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| {
                    let other = other.and_then(|other| other.get(name));
                    (name.clone(), self.masked(value, other, name, mark))
                })
                .collect(),
            other => other.clone(),
        }
    }

    /// The difference, unified, in the form of `diff -u`.
    pub fn unified(&self, change: &Change) -> String {
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        let text = |value: Option<&Value>, other: Option<&Value>, mark: &str| {
            let Some(value) = value else {
                return String::new();
            };
            let masked = self.masked(value, other, "", mark);
            serde_json::to_string_pretty(&masked).unwrap_or_default() + "\n"
        };
        let before = text(before, after, " (another one)");
        let after = text(after, change.before.as_ref(), "");
        let diff = TextDiff::from_lines(&before, &after);
        diff.unified_diff()
            .context_radius(3)
            .header("held", "mesh.yaml")
            .to_string()
    }

    /// The difference for programs.
    pub fn json(&self, change: &Change) -> Value {
        json!({
            "part": change.key.part,
            "kind": change.key.kind,
            "name": change.key.name,
            "action": change.action,
            "diff": self.unified(change),
            "note": change.note,
        })
    }

    /// The difference for people.
    pub fn print(&self, screen: &mut Screen, change: &Change) -> io::Result<()> {
        let (paint, action) = painted(change.action);
        let action = screen.paint(paint, action);
        screen.line(format!("{action} {}", plain(&change.key.to_string())))?;
        if let Some(note) = &change.note {
            let note = screen.paint(Paint::Odd, plain(note));
            screen.line(format!("    {note}"))?;
        }
        for line in self.unified(change).lines() {
            let line = plain(line);
            let line = match line.chars().next() {
                Some('+') => screen.paint(Paint::Good, line),
                Some('-') => screen.paint(Paint::Bad, line),
                Some('@') => screen.paint(Paint::Dim, line),
                _ => line,
            };
            screen.line(format!("    {line}"))?;
        }
        Ok(())
    }
}

fn painted(action: Action) -> (Paint, &'static str) {
    match action {
        Action::Created => (Paint::Good, "Created"),
        Action::Updated => (Paint::Odd, "Updated"),
        Action::Deleted => (Paint::Bad, "Deleted"),
    }
}

/// `2 created, 1 updated, 0 deleted`.
pub fn counts(changes: &[Change]) -> String {
    let of = |action| {
        changes
            .iter()
            .filter(|change| change.action == action)
            .count()
    };
    format!(
        "{} created, {} updated, {} deleted",
        of(Action::Created),
        of(Action::Updated),
        of(Action::Deleted)
    )
}

#[cfg(test)]
mod tests {
    use super::super::resource::{Key, Part};
    use super::*;

    fn change(before: Value, after: Value) -> Change {
        Change {
            key: Key::new(Part::Kong, (0, "plugin"), "p"),
            action: Action::Updated,
            before: Some(before),
            after: Some(after),
            note: None,
        }
    }

    #[test]
    fn a_secret_that_changed_is_seen_to_change_and_not_seen() {
        let nothing = Secrets::none();
        let mask = Mask(&nothing);
        let keys =
            |secret: &str| json!({"config": {"keys": [{"kid": "a", "secret": secret}], "n": 1}});
        let said = mask.unified(&change(keys("hunter1"), keys("hunter2")));
        assert!(!said.contains("hunter"), "{said}");
        assert!(
            said.contains("-        \"secret\": \"*** (another one)\""),
            "{said}"
        );
        assert!(said.contains("+        \"secret\": \"***\""), "{said}");
        let same = mask.unified(&change(
            keys("hunter1"),
            json!({"config": keys("hunter1")["config"], "m": 2}),
        ));
        assert!(!same.contains("another one"), "{same}");
    }

    #[test]
    fn a_secret_that_mesh_yaml_has_no_more_is_not_seen_either() {
        // Held are words that mesh.yaml does not know; what stands in their place there is secret.
        let source = mesh_config::secret::Source::Env("T".to_owned());
        let secrets = Secrets::resolve([("t".to_owned(), &source)], ".".as_ref(), &|_| {
            Some("swordfish".to_owned())
        });
        let secrets = secrets.unwrap();
        let mask = Mask(&secrets);
        let add = |headers: Value| json!({"config": {"add": {"headers": headers, "x": "plain"}}});
        let said = mask.unified(&change(
            add(json!(["x-a:1", "x-t:hunter1"])),
            add(json!(["x-t:swordfish", "x-a:1"])),
        ));
        assert!(
            !said.contains("hunter") && !said.contains("sword"),
            "{said}"
        );
        assert!(said.contains("\"***") && said.contains("x-a:1"), "{said}");
        let one = |text: &str| json!({"config": {"value": text}});
        let said = mask.unified(&change(one("hunter1"), one("swordfish")));
        assert!(!said.contains("hunter"), "{said}");
        // Nobody wrote these here, and they say themselves what they are.
        for text in [
            "Authorization:hunter1",
            "x:Bearer hunter1",
            "redis://u:hunter1@redis:6379/0",
        ] {
            let gone = Change {
                after: None,
                ..change(add(json!([text])), Value::Null)
            };
            assert!(!mask.unified(&gone).contains("hunter"), "{text}");
        }
        let open = mask.unified(&change(one("http://a/b"), one("http://a/@c:d")));
        assert!(open.contains("http://a/b"), "{open}");
    }
}
