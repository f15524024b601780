//! Statistics, keywords and a summary of English text, without a model.
//!
//! The summary follows H. P. Luhn, "The Automatic Creation of Literature Abstracts", IBM Journal of
//! Research and Development 2 (1958): words that are frequent and not stop words are significant; a
//! sentence scores by its densest cluster of them, significant words squared over the cluster's
//! length; the best sentences are quoted in their own order.

use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// Most keywords.
const KEYWORDS: usize = 10;
/// Most sentences of a summary.
const SENTENCES: usize = 3;
/// Most insignificant words between two significant ones of one cluster, as Luhn chose.
const GAP: usize = 4;
/// Longest sentence that is quoted, in characters.
const SHOWN: usize = 400;
/// Words that carry no subject.
const STOP_WORDS: &str = "a about above after again all also am an and any are as at be because been \
before being below between both but by can could did do does doing down during each few for from \
further had has have having he her here hers him his how i if in into is it its itself just me more \
most my no nor not now of off on once only or other our out over own same she should so some such \
than that the their them then there these they this those through to too under until up very was we \
were what when where which while who whom why will with without would you your";

/// What reading a text gave.
pub(super) struct Reading {
    pub(super) statistics: Statistics,
    pub(super) keywords: Vec<Keyword>,
    /// Sentences, as they stand in the text.
    pub(super) summary: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Statistics {
    characters: usize,
    words: usize,
    different_words: usize,
    sentences: usize,
    words_per_sentence: f64,
}

#[derive(Serialize)]
pub(super) struct Keyword {
    word: String,
    count: usize,
}

/// Reads `text`.
pub(super) fn read(text: &str) -> Reading {
    let sentences: Vec<(&str, Vec<String>)> = sentences(text)
        .into_iter()
        .map(|sentence| (sentence, words(sentence)))
        .filter(|(_, words)| !words.is_empty())
        .collect();
    let stop: HashSet<&str> = STOP_WORDS.split_whitespace().collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut total = 0;
    for word in sentences.iter().flat_map(|(_, words)| words) {
        *counts.entry(word).or_default() += 1;
        total += 1;
    }
    let statistics = Statistics {
        characters: text.chars().count(),
        words: total,
        different_words: counts.len(),
        sentences: sentences.len(),
        words_per_sentence: (total as f64 / sentences.len().max(1) as f64 * 100.0).round() / 100.0,
    };
    let mut ranked: Vec<(&str, usize)> = counts
        .into_iter()
        .filter(|(word, _)| {
            word.chars().count() > 2
                && !stop.contains(word)
                && !word.chars().all(|c| c.is_ascii_digit())
        })
        .collect();
    ranked.sort_by(|(a, n), (b, m)| m.cmp(n).then(a.cmp(b)));
    // What occurs once is significant only where nothing occurs twice.
    let least = ranked.first().map_or(1, |(_, most)| (*most).min(2));
    let significant: HashSet<&str> = ranked
        .iter()
        .filter(|(_, count)| *count >= least)
        .map(|(word, _)| *word)
        .collect();
    let mut scored: Vec<(usize, f64)> = sentences
        .iter()
        .enumerate()
        .map(|(at, (_, words))| (at, score(words, &significant)))
        .filter(|(_, score)| *score > 0.0)
        .collect();
    scored.sort_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
    scored.truncate(SENTENCES);
    scored.sort_by_key(|(at, _)| *at);
    let summary = scored
        .iter()
        .filter_map(|(at, _)| sentences.get(*at))
        .map(|(sentence, _)| sentence.chars().take(SHOWN).collect())
        .collect();
    let keywords = ranked
        .iter()
        .take(KEYWORDS)
        .map(|(word, count)| Keyword {
            word: (*word).to_owned(),
            count: *count,
        })
        .collect();
    Reading {
        statistics,
        keywords,
        summary,
    }
}

/// Sentences end with `.`, `!` or `?` before white space, or with the line.
fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some(end) = rest
            .char_indices()
            .zip(rest.chars().skip(1))
            .find(|((_, c), next)| matches!(c, '.' | '!' | '?') && next.is_whitespace())
            .map(|((at, _), _)| at + 1)
        {
            let (sentence, after) = rest.split_at(end);
            found.push(sentence.trim());
            rest = after;
        }
        found.push(rest.trim());
    }
    found
}

fn words(sentence: &str) -> Vec<String> {
    sentence
        .split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '-')
        .map(|word| word.trim_matches(['\'', '-']).to_lowercase())
        .filter(|word| !word.is_empty())
        .collect()
}

/// The densest cluster of significant words.
fn score(words: &[String], significant: &HashSet<&str>) -> f64 {
    let mut best = 0.0_f64;
    let mut cluster: Option<(usize, usize, usize)> = None;
    for (at, word) in words.iter().enumerate() {
        if !significant.contains(word.as_str()) {
            continue;
        }
        let (start, count) = match cluster {
            Some((start, last, count)) if at - last <= GAP + 1 => (start, count + 1),
            _ => (at, 1),
        };
        cluster = Some((start, at, count));
        best = best.max((count * count) as f64 / (at - start + 1) as f64);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_told_apart() {
        assert_eq!(
            sentences("Version 1.5 is out. Is it? Yes!\nA line"),
            ["Version 1.5 is out.", "Is it?", "Yes!", "A line"]
        );
        assert_eq!(sentences("ü. ä"), ["ü.", "ä"]);
    }

    #[test]
    fn odd_texts_are_read() {
        for text in ["", " ", "...", "????", "a", "\u{0}\n\n", "日本語。"] {
            let _ = read(text);
        }
    }
}
