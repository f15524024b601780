//! Which metrics and labels an expression of PromQL names.
//!
//! No parser: what is rendered is written by us, and a real Prometheus parses it as well. Words are told apart by what
//! follows them, which is all that PromQL itself goes by.

use std::collections::BTreeSet;

/// One metric with what is asked of its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    /// Label, operator, value.
    pub matchers: Vec<(String, String, String)>,
}

/// What an expression names.
#[derive(Debug, Default)]
pub struct Names {
    pub selectors: Vec<Selector>,
    /// Labels by which is aggregated or joined.
    pub labels: BTreeSet<String>,
}

const WORDS: [&str; 13] = [
    "and", "or", "unless", "bool", "offset", "sum", "min", "max", "count", "avg", "topk", "Inf",
    "NaN",
];
const LISTS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

pub fn names(expression: &str) -> Names {
    let mut names = Names::default();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            rest = &rest[rest.find(']').expect("a range ends") + 1..];
        } else if first.is_ascii_digit() {
            // With its unit.
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else if begins_word(first) {
            let length = rest.find(|c: char| !(begins_word(c) || c.is_ascii_digit()));
            let (word, after) = rest.split_at(length.unwrap_or(rest.len()));
            rest = word_of(word, after.trim_start(), &mut names);
        } else {
            rest = &rest[first.len_utf8()..];
        }
        rest = rest.trim_start();
    }
    names
}

fn begins_word(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == ':'
}

fn word_of<'t>(word: &str, after: &'t str, names: &mut Names) -> &'t str {
    if LISTS.contains(&word) {
        let (list, rest) = after
            .strip_prefix('(')
            .and_then(|r| r.split_once(')'))
            .expect("a list");
        let labels = list.split(',').map(|label| label.trim().to_owned());
        names
            .labels
            .extend(labels.filter(|label| !label.is_empty()));
        return rest;
    }
    if WORDS.contains(&word) || after.starts_with('(') {
        return after;
    }
    let (matchers, rest) = match after.strip_prefix('{') {
        Some(inside) => matchers(inside),
        None => (Vec::new(), after),
    };
    names.selectors.push(Selector {
        metric: word.to_owned(),
        matchers,
    });
    rest
}

/// Up to the closing brace.
fn matchers(mut rest: &str) -> (Vec<(String, String, String)>, &str) {
    let mut all = Vec::new();
    loop {
        rest = rest.trim_start().trim_start_matches(',').trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return (all, after);
        }
        let at = rest.find(['=', '!']).expect("an operator");
        let (label, after) = rest.split_at(at);
        let length = after.find(['"', '\'']).expect("a value");
        let (operator, after) = after.split_at(length);
        let quote = after.chars().next().expect("a quote");
        let (value, after) = after[1..].split_once(quote).expect("a value ends");
        all.push((
            label.trim().to_owned(),
            operator.trim().to_owned(),
            value.to_owned(),
        ));
        rest = after;
    }
}

#[test]
fn metrics_and_labels_are_told_from_words() {
    let found = names(
        r#"histogram_quantile(0.95, sum by (agent, le) (rate(a_bucket{x="1", y!~'p|q'}[5m]))) > 1e3 and on (job) (up == 0) unless b:c:d offset 10m"#,
    );
    let metrics: Vec<&str> = found.selectors.iter().map(|s| s.metric.as_str()).collect();
    assert_eq!(metrics, ["a_bucket", "up", "b:c:d"]);
    let matcher = |l: &str, o: &str, v: &str| (l.to_owned(), o.to_owned(), v.to_owned());
    assert_eq!(
        found.selectors[0].matchers,
        [matcher("x", "=", "1"), matcher("y", "!~", "p|q")]
    );
    let labels: Vec<&str> = found.labels.iter().map(String::as_str).collect();
    assert_eq!(labels, ["agent", "job", "le"]);
}
