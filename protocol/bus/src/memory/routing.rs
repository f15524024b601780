//! Which queues an exchange gives a message to, as AMQP 0-9-1 has it.

use crate::ExchangeKind;

/// Whether a binding under `pattern` takes a message with routing key `key`.
pub(super) fn takes(kind: ExchangeKind, pattern: &str, key: &str) -> bool {
    match kind {
        ExchangeKind::Fanout => true,
        ExchangeKind::Direct => pattern == key,
        ExchangeKind::Topic => topic_matches(pattern, key),
    }
}

/// `*` stands for one word, `#` for any number of words. Linear in the words but for the last `#`:
/// an earlier one never needs another length once a later one was reached.
fn topic_matches(pattern: &str, key: &str) -> bool {
    let pattern: Vec<&str> = words(pattern).collect();
    let key: Vec<&str> = words(key).collect();
    let (mut p, mut k) = (0, 0);
    let mut last_hash: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), key.get(k)) {
            (None, None) => return true,
            (Some(&"#"), _) => {
                last_hash = Some((p, k));
                p += 1;
                continue;
            }
            (Some(word), Some(have)) if *word == "*" || word == have => {
                p += 1;
                k += 1;
                continue;
            }
            _ => {}
        }
        match &mut last_hash {
            Some((hash, from)) if *from < key.len() => {
                *from += 1;
                p = *hash + 1;
                k = *from;
            }
            _ => return false,
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('.').filter(move |_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_match_as_in_amqp() {
        for (pattern, key, expected) in [
            ("task.a.*", "task.a.execute", true),
            ("task.a.*", "task.a", false),
            ("task.a.*", "task.a.b.c", false),
            ("task.a.*", "task.b.execute", false),
            ("#", "", true),
            ("#", "a.b.c", true),
            ("a.#", "a", true),
            ("a.#.z", "a.z", true),
            ("a.#.z", "a.b.c.z", true),
            ("a.#.z", "a.b.c", false),
            ("#.b.#.d", "a.b.c.b.d", true),
            ("#.b.*", "a.b.b.c", true),
            ("#.#", "", true),
            ("*", "", false),
            ("*.*", "a.", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(topic_matches(pattern, key), expected, "{pattern} {key}");
        }
    }
}
