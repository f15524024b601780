//! What of a text is secret: every value that mesh.yaml names as one, put out of sight before the text is kept.
//!
//! Our own lines hold no secrets. What an agent's program prints is its own affair, and a log that others may be
//! sent is no place for a broker's password.

use crate::secret::Secrets;
use std::borrow::Cow;
use std::collections::BTreeSet;
use url::Url;

/// Shortest text that is masked, in bytes: shorter ones stand in any line by chance.
const SHORTEST: usize = 6;
/// What stands for a secret.
const MASK: &[u8] = b"***";

/// Puts secrets out of sight; nothing is one by default.
#[derive(Clone, Default)]
pub struct Masks(Vec<Vec<u8>>);

impl std::fmt::Debug for Masks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masks({})", self.0.len())
    }
}

impl Secrets {
    /// What hides these values: whole, line by line, and the password of a URL by itself.
    pub fn masks(&self) -> Masks {
        let mut hidden = BTreeSet::new();
        for value in self.values() {
            hidden.extend(value.lines().filter(|line| !line.starts_with("-----")));
            hidden.insert(value);
        }
        let passwords = self.values().filter_map(|value| {
            let url = Url::parse(value).ok()?;
            url.password().map(str::to_owned)
        });
        let passwords: Vec<String> = passwords.collect();
        hidden.extend(passwords.iter().map(String::as_str));
        let mut all = BTreeSet::new();
        for text in hidden.into_iter().filter(|text| text.len() >= SHORTEST) {
            all.insert(text.as_bytes().to_vec());
            // As it stands within a text of JSON.
            let quoted = serde_json::Value::from(text).to_string();
            all.insert(quoted.as_bytes()[1..quoted.len() - 1].to_vec());
        }
        let mut all: Vec<_> = all.into_iter().collect();
        // The whole before its parts.
        all.sort_by_key(|text| std::cmp::Reverse(text.len()));
        Masks(all)
    }
}

impl Masks {
    /// `text` with every secret in it put out of sight.
    pub fn apply<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let mut shown = Cow::Borrowed(text);
        for secret in &self.0 {
            if find(&shown, secret).is_some() {
                shown = Cow::Owned(without(&shown, secret));
            }
        }
        shown
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

fn without(mut text: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(text.len());
    while let Some(at) = find(text, secret) {
        let (before, rest) = text.split_at(at);
        shown.extend_from_slice(before);
        shown.extend_from_slice(MASK);
        text = rest.get(secret.len()..).unwrap_or_default();
    }
    shown.extend_from_slice(text);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Source;
    use std::path::Path;

    #[test]
    fn values_lines_and_passwords_are_hidden_and_short_words_are_not() {
        let sources = [
            "amqp://user:hunter22@broker:5672/%2f",
            "-----BEGIN KEY-----\nabcdefgh\nijklmnop\n-----END KEY-----",
            "guest",
            "with \"quotes\"",
        ]
        .map(|text| Source::Inline(text.to_owned()));
        let named = sources.iter().map(|source| (String::new(), source));
        let secrets = Secrets::resolve(named, Path::new("."), &|_| None).unwrap();
        let masks = secrets.masks();
        let shown = |text: &str| String::from_utf8(masks.apply(text.as_bytes()).into()).unwrap();
        assert_eq!(shown("to amqp://user:hunter22@broker:5672/%2f!"), "to ***!");
        assert_eq!(shown("hunter22hunter22 x"), "****** x");
        assert_eq!(shown("key abcdefgh, ijklmnop"), "key ***, ***");
        assert_eq!(shown(r#"{"a": "with \"quotes\""}"#), r#"{"a": "***"}"#);
        assert_eq!(shown("a guest BEGIN KEY"), "a guest BEGIN KEY");
        assert!(matches!(Masks::default().apply(b"x"), Cow::Borrowed(_)));
        assert_eq!(format!("{masks:?}").matches("hunter").count(), 0);
    }
}
