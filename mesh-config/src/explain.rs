//! What each code means, for `mesh explain`: the meaning, an example wrong and right, the mend.
//!
//! The texts are in `explain/*.txt`. A test insists that every code of the source is there and no other one is,
//! and tries the examples.

const TEXTS: [&str; 5] = [
    include_str!("explain/form.txt"),
    include_str!("explain/files.txt"),
    include_str!("explain/parts.txt"),
    include_str!("explain/gateway.txt"),
    include_str!("explain/around.txt"),
];

/// One code, explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The code.
    pub code: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Part of a mesh.yaml, or a whole one, that is wrong.
    pub wrong: Option<Example>,
    /// The same as it would be right.
    pub right: Option<Example>,
    /// What to do.
    pub mend: &'static str,
}

/// Part of a mesh.yaml, or a whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Example {
    /// In YAML's flow form, without what does not matter.
    Part(&'static str),
    /// A whole text.
    Whole(String),
}

/// Every explanation in one text, by the order of the text: a head `## CODE`, a line of meaning, then lines
/// `wrong: …`, `right: …`, `mend: …`.
pub fn read(text: &'static str) -> Vec<Explanation> {
    let mut all: Vec<Explanation> = Vec::new();
    for line in text.lines() {
        if let Some(code) = line.strip_prefix("## ") {
            all.push(Explanation {
                code,
                meaning: "",
                wrong: None,
                right: None,
                mend: "",
            });
            continue;
        }
        let Some(last) = all.last_mut() else { continue };
        let whole = |text: &str| Some(Example::Whole(text.replace("\\n", "\n")));
        if let Some(text) = line.strip_prefix("wrong: ") {
            last.wrong = Some(Example::Part(text));
        } else if let Some(text) = line.strip_prefix("right: ") {
            last.right = Some(Example::Part(text));
        } else if let Some(text) = line.strip_prefix("wrong-file: ") {
            last.wrong = whole(text);
        } else if let Some(text) = line.strip_prefix("right-file: ") {
            last.right = whole(text);
        } else if let Some(text) = line.strip_prefix("mend: ") {
            last.mend = text;
        } else if !line.is_empty() {
            last.meaning = line;
        }
    }
    all
}

/// Every code that mesh.yaml can be reported with.
pub fn explanations() -> Vec<Explanation> {
    TEXTS.into_iter().flat_map(read).collect()
}
