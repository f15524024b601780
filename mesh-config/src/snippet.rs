//! Which text of the file may be shown beside a finding: what a reader claimed as no secret.
//!
//! The default is to blot. Every scalar and every key of the tree is a token with a place; a token is
//! open only when a reader of plain values took it (a name, a port, a duration). What nobody asked for,
//! what has the wrong type and what belongs to a secret stays closed, wherever it stands and however it
//! is written, so that a new field can be forgotten here without being shown. Between two open tokens
//! stands only YAML's own punctuation; from an open token to the next open one across a closed one,
//! nothing of the file is repeated.

use crate::finding::Place;
use crate::schema::tree::{Node, Value};
use crate::sources::Sources;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Most characters of a line that are shown.
const LONGEST: usize = 160;
const BLOT: char = '…';

/// Where a token begins: file, line and column.
type Start = (u32, usize, usize);

/// Where tokens begin.
pub(crate) type Places = BTreeSet<Start>;

/// The tokens of all files.
#[derive(Debug, Default)]
pub(crate) struct Tokens(BTreeMap<Start, Token>);

/// Where tokens stand, before it is known which of them may be shown. Taken of each file as it was parsed: what
/// another file or an environment puts out is a token of its line all the same.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    tokens: Vec<(Start, usize)>,
    /// Where an alias stands, and where its value was written.
    aliases: Vec<(Start, Place)>,
}

impl Standing {
    /// Takes the tokens of a file.
    pub fn take(&mut self, node: &Node) {
        match &node.value {
            Value::List(items) => items.iter().for_each(|item| self.take(item)),
            Value::Map(entries) => {
                for (key, value) in entries {
                    self.tokens.push((at(key.place), key.place.width));
                    self.take(value);
                }
            }
            _ => {
                self.tokens.push((at(node.place), node.place.width));
                if at(node.place) != at(node.defined) {
                    self.aliases.push((at(node.place), node.defined));
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Token {
    width: usize,
    open: bool,
}

/// The lines of files, each file divided once however much is wrong in it.
pub(crate) struct Lines<'s> {
    sources: &'s Sources,
    known: HashMap<u32, Vec<&'s str>>,
}

impl<'s> Lines<'s> {
    pub fn of(sources: &'s Sources) -> Self {
        Self {
            sources,
            known: HashMap::new(),
        }
    }

    /// The line of `place`, as the parser counts them, for which a lone CR ends a line too: another line than
    /// the one that is meant would be blotted at the wrong places.
    fn line(&mut self, place: Place) -> Option<&'s str> {
        let sources = self.sources;
        let lines = self.known.entry(place.file).or_insert_with(|| {
            let mut rest = sources.text(place.file);
            let mut lines = Vec::new();
            while let Some(end) = rest.find(['\n', '\r']) {
                lines.push(rest.get(..end).unwrap_or_default());
                let ends = if rest.get(end..).is_some_and(|r| r.starts_with("\r\n")) {
                    2
                } else {
                    1
                };
                rest = rest.get(end + ends..).unwrap_or_default();
            }
            lines.push(rest);
            lines
        });
        lines.get(place.line.checked_sub(1)?).copied()
    }
}

/// A line as it is shown, and what of it is marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snippet {
    pub line: String,
    /// Characters before the marks.
    pub indent: usize,
    /// Marks, at least one.
    pub width: usize,
}

impl Tokens {
    /// The tokens, of which those at `open` may be shown.
    pub fn of(standing: &Standing, open: &Places) -> Self {
        let mut tokens = Self::default();
        for (start, width) in &standing.tokens {
            tokens.add(*start, *width, open.contains(start));
        }
        for (alias, defined) in &standing.aliases {
            if !open.contains(alias) {
                tokens.add(at(*defined), defined.width, false);
            }
        }
        tokens
    }

    /// A place that is read twice is open only if both readings say so.
    fn add(&mut self, start: Start, width: usize, open: bool) {
        let token = self.0.entry(start).or_insert(Token { width, open });
        token.open &= open;
        token.width = token.width.min(width);
    }

    /// The line of `place`, blotted. None where the file holds no such line.
    pub fn snippet(&self, lines: &mut Lines<'_>, place: Place) -> Option<Snippet> {
        let line = lines.line(place)?;
        // Of a file that is no YAML nobody knows what in it is a secret.
        let own = (place.file, 0, 0)..(place.file + 1, 0, 0);
        self.0.range(own).next()?;
        if line.trim().is_empty() {
            return None;
        }
        let line: Vec<char> = line.chars().collect();
        let mut shown = self.shown(&line, place);
        blot_credentials(&mut shown);
        let column = place.column.saturating_sub(1);
        let indent = shown.iter().take_while(|(at, _)| *at < column).count();
        // What is marked may lie within a blot.
        let inside = shown.get(indent).is_none_or(|(at, _)| *at > column);
        let indent = indent.saturating_sub(usize::from(inside));
        let end = column.saturating_add(place.width);
        let width = shown.iter().filter(|(at, _)| (column..end).contains(at));
        let width = width.count().max(1);
        if shown.len() > LONGEST {
            shown.truncate(LONGEST);
            shown.push((line.len(), BLOT));
        }
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        Some(Snippet {
            line: shown.iter().map(|(_, c)| plain(*c)).collect(),
            indent: indent.min(LONGEST),
            width: width.min(LONGEST),
        })
    }

    /// The characters that may be shown, each with where it stood.
    fn shown(&self, line: &[char], place: Place) -> Vec<(usize, char)> {
        let (file, number) = (place.file, place.line);
        let here = (file, number, 0)..(file, number + 1, 0);
        let starts: Vec<(usize, Token)> = self
            .0
            .range(here)
            .map(|((_, _, column), token)| (column.saturating_sub(1).min(line.len()), *token))
            .collect();
        let below = (file, number + 1, 0)..(file + 1, 0, 0);
        let next_line = || self.0.range(below.clone()).next().map(|(_, t)| t.open);
        let before = self.0.range((file, 0, 0)..(file, number, 0)).next_back();
        let mut out = Vec::with_capacity(line.len());
        let part = |from: usize, to: usize| {
            let chars = line.get(from..to.max(from)).unwrap_or_default();
            (from..).zip(chars.iter().copied())
        };
        // What stands before the first token: punctuation, or the rest of what began above.
        let first = starts.first().map_or(line.len(), |(at, _)| *at);
        let follows = starts.first().map(|(_, t)| t.open).or_else(next_line);
        let inherited = before.is_some_and(|(_, t)| t.open) && follows != Some(false);
        let marks = |c: &char| matches!(c, ' ' | '-' | '[' | '{');
        if inherited || line.iter().take(first).all(marks) {
            out.extend(part(0, first));
        } else {
            let indent = line.iter().take_while(|c| **c == ' ').count();
            out.extend(part(0, indent));
            out.push((indent, BLOT));
            out.push((indent, ' '));
        }
        for (n, (from, token)) in starts.iter().enumerate() {
            let next = starts.get(n + 1);
            let to = next.map_or(line.len(), |(at, _)| *at);
            let end = from.saturating_add(token.width).min(to);
            match (token.open, next.map(|(_, t)| t.open).or_else(next_line)) {
                (true, Some(false)) => {
                    out.extend(part(*from, end));
                    let rest = line.get(end..to).unwrap_or_default();
                    let colon = usize::from(rest.first() == Some(&':'));
                    out.extend(part(end, end + colon));
                    if next.is_some() || rest.iter().skip(colon).any(|c| *c != ' ') {
                        out.push((end + colon, ' '));
                        out.push((end + colon, BLOT));
                    }
                }
                (true, _) => {
                    out.extend(part(*from, end));
                    let gap = line.get(end..to).unwrap_or_default();
                    // A comment may say what the value was before.
                    let comment = gap.windows(2).position(|w| w == [' ', '#']);
                    out.extend(part(end, comment.map_or(to, |at| end + at)));
                    if comment.is_some() {
                        out.push((to, ' '));
                        out.push((to, BLOT));
                    }
                }
                (false, _) => {
                    if out.last().is_none_or(|(_, c)| *c != BLOT) {
                        out.push((*from, BLOT));
                    }
                    if next.is_some_and(|(_, t)| t.open) {
                        out.push((to, ','));
                        out.push((to, ' '));
                    }
                }
            }
        }
        out
    }
}

pub(crate) fn at(place: Place) -> Start {
    (place.file, place.line, place.column)
}

/// A URL in a plain value has no credentials where a schema says so; elsewhere people write them.
fn blot_credentials(shown: &mut Vec<(usize, char)>) {
    let text: Vec<char> = shown.iter().map(|(_, c)| *c).collect();
    let scheme = text.windows(3).position(|w| w == [':', '/', '/']);
    let at = text.iter().rposition(|c| *c == '@');
    if let (Some(scheme), Some(at)) = (scheme, at)
        && at > scheme + 3
        && let Some((column, _)) = shown.get(scheme + 3).copied()
    {
        shown.splice(scheme + 3..at, [(column, BLOT)]);
    }
}

#[cfg(test)]
mod tests;
