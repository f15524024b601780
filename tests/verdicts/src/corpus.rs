//! The corpus as it is written: one file, one chain of filters, many cases.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file of the corpus.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Set when it is read: `FILTER-FILE`, the name of its chain in every gateway.
    #[serde(skip)]
    pub name: String,
    /// Set when it is read: its directory.
    #[serde(skip)]
    pub group: String,
    /// What its cases show, in a sentence.
    pub about: String,
    /// The chain.
    pub config: Vec<Use>,
    /// What its cases have where they say nothing else.
    #[serde(default)]
    pub defaults: Step,
    /// Expectations by name.
    #[serde(default)]
    pub expectations: BTreeMap<String, Expected>,
    /// The cases, in the order in which they are asked.
    pub cases: Vec<Case>,
}

/// One filter of a chain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// Its name.
    pub filter: String,
    /// Its configuration, with placeholders in its texts.
    pub config: Value,
}

/// One request, or several in their order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is, unique in its file.
    pub name: String,
    /// One request.
    #[serde(default)]
    pub token: Option<Token>,
    /// Further tokens by name, for `${token:NAME}`.
    #[serde(default)]
    pub tokens: BTreeMap<String, Token>,
    /// Sent without the file's token.
    #[serde(default)]
    pub without_token: bool,
    /// Of one request: what is sent.
    #[serde(default)]
    pub request: Request,
    /// Of one request: what must come of it.
    #[serde(default)]
    pub expect: Option<Expectation>,
    /// Several requests instead.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Gateways that answer otherwise by themselves, before or after any filter.
    #[serde(default)]
    pub differs: BTreeMap<String, Difference>,
}

/// One request of a case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The token; it is sent as bearer token unless the request names it.
    #[serde(default)]
    pub token: Option<Token>,
    /// Further tokens by name.
    #[serde(default)]
    pub tokens: BTreeMap<String, Token>,
    /// Sent without the file's token.
    #[serde(default)]
    pub without_token: bool,
    /// What is sent.
    #[serde(default)]
    pub request: Request,
    /// What must come of it.
    #[serde(default)]
    pub expect: Option<Expectation>,
    /// How often it is sent, one after the other.
    #[serde(default = "once")]
    pub times: usize,
    /// How many are sent at the same time; the upstream holds them until all others are answered.
    #[serde(default)]
    pub at_once: Option<AtOnce>,
    /// It is sent again until it is answered as expected, but not for ever.
    #[serde(default)]
    pub eventually: bool,
    /// Milliseconds that pass before it is sent.
    #[serde(default)]
    pub wait_ms: u64,
}

fn once() -> usize {
    1
}

/// Requests at the same time.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtOnce {
    /// How many pass.
    pub pass: usize,
    /// How many are refused, as the step expects.
    pub refused: usize,
}

/// What is sent. Texts have placeholders.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The method; GET.
    #[serde(default)]
    pub method: Option<String>,
    /// The target; `/`.
    #[serde(default)]
    pub path: Option<String>,
    /// Header lines in their order; those of the file go first.
    #[serde(default)]
    pub headers: Vec<Line>,
    /// The body.
    #[serde(default)]
    pub body: Option<Content>,
    /// In how many chunks the body is sent (RFC 9112, section 7.1); without: whole, with its length.
    #[serde(default)]
    pub chunks: Option<usize>,
}

/// A header line, or many.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// Name and value.
    One(String, Content),
    /// Lines that differ by `${i}`, from 0.
    Many {
        /// How many.
        many: usize,
        /// Their names.
        name: String,
        /// Their values.
        value: String,
    },
}

/// Bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// As they are written.
    Text(String),
    /// In base64.
    Base64 {
        /// The bytes.
        base64: String,
    },
    /// The same again and again.
    Repeat {
        /// What.
        repeat: String,
        /// How often.
        times: usize,
        /// What stands before it.
        #[serde(default)]
        before: String,
        /// What stands behind it.
        #[serde(default)]
        after: String,
    },
}

/// A token that is made when it is sent. What is not said is the file's, what that does not say is a good token.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Key that signs, a file in `keys`; `none` leaves the signature empty.
    #[serde(default)]
    pub key: Option<String>,
    /// Algorithm that signs, where the key serves several.
    #[serde(default)]
    pub algorithm: Option<String>,
    /// Changes to the header; null removes.
    #[serde(default)]
    pub header: Map<String, Value>,
    /// Changes to the claims; null removes, `now+60` is that time.
    #[serde(default)]
    pub claims: Map<String, Value>,
    /// The header's bytes instead.
    #[serde(default)]
    pub header_text: Option<Content>,
    /// The claims' bytes instead.
    #[serde(default)]
    pub claims_text: Option<Content>,
    /// The text of another key's public half as HMAC secret.
    #[serde(default)]
    pub public_as_secret: Option<String>,
    /// What is done to the token afterwards, in this order.
    #[serde(default)]
    pub mutate: Vec<Mutation>,
}

/// What is done to a token after it was signed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mutation {
    /// The signature goes, its dot stays.
    EmptySignature,
    /// The signature goes with its dot.
    NoSignature,
    /// One bit of the signature turns.
    FlipSignature,
    /// The signature is that many zeros.
    ZeroSignature(usize),
    /// The signature ends that many bytes early.
    CutSignature(usize),
    /// The signature has one more byte.
    LongerSignature,
    /// Bits of the last character that are part of no byte are set.
    StrayBits,
    /// A part (0, 1, 2) gets base64's padding.
    Pad(usize),
    /// The other alphabet of base64, with `+` and `/`.
    OtherAlphabet,
    /// A part goes, its dot stays.
    EmptyPart(usize),
    /// Put before.
    Prepend(String),
    /// Put behind.
    Append(String),
    /// Put that many of these behind.
    AppendMany(String, usize),
    /// Put before a part.
    Insert(usize, String),
    /// All of it, again, behind this.
    Again(String),
    /// Becomes the claims of a new token.
    Nest,
}

/// An expectation, or the name of one of the file's.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Expectation {
    /// One of the file's.
    Named(String),
    /// This one.
    Own(Box<Expected>),
}

/// What must come of a request. A refusal is a problem in JSON, and nothing of it reaches the upstream; what
/// passes reaches it as it was sent, but for what is said here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The status.
    pub status: u16,
    /// Of a refusal: the problem's type, alone or as URI.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Of a refusal: a part of the problem's detail.
    #[serde(default)]
    pub detail: Option<String>,
    /// Of a refusal: further members of the problem.
    #[serde(default)]
    pub problem: Map<String, Value>,
    /// Response headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Matcher>,
    /// What the upstream sees, where that is said.
    #[serde(default)]
    pub upstream: Upstream,
}

/// What the upstream sees of a request that passes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Its headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Matcher>,
    /// Claims of the one assertion that it carries; without: there is no assertion.
    #[serde(default)]
    pub assertion: Option<Map<String, Value>>,
    /// The path, where it is not what was sent.
    #[serde(default)]
    pub path: Option<String>,
    /// The body, where it is not what was sent.
    #[serde(default)]
    pub body: Option<String>,
    /// The same as JSON.
    #[serde(default)]
    pub json: Option<Value>,
}

/// What a header must be.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Matcher {
    /// This value, once.
    Exact(String),
    /// Not there.
    Absent {
        /// Always true.
        absent: bool,
    },
    /// There, once.
    Present {
        /// Always true.
        present: bool,
    },
    /// There, once, and begins with this.
    Starts {
        /// The beginning.
        starts: String,
    },
    /// There, once, a whole number in this range.
    Between {
        /// First and last.
        between: (u64, u64),
    },
}

/// How a gateway answers by itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Why, in words.
    pub reason: String,
    /// What must come of it there; without: the case does not exist there.
    #[serde(default)]
    pub expect: Option<Expectation>,
}

impl Case {
    /// Its requests.
    pub fn steps(&self) -> Vec<Step> {
        if !self.steps.is_empty() {
            return self.steps.clone();
        }
        vec![Step {
            token: self.token.clone(),
            tokens: self.tokens.clone(),
            without_token: self.without_token,
            request: self.request.clone(),
            expect: self.expect.clone(),
            times: 1,
            at_once: None,
            eventually: false,
            wait_ms: 0,
        }]
    }
}

/// Where the corpus is.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

/// Reads the whole corpus, in the order of names.
///
/// # Panics
/// Naming the file, with line and column, where one cannot be read.
pub fn read() -> Vec<File> {
    let mut files = Vec::new();
    for filter in sorted(&directory()) {
        if !filter.is_dir() || filter.ends_with("keys") {
            continue;
        }
        for path in sorted(&filter) {
            let text = std::fs::read_to_string(&path).expect("read a file of the corpus");
            files.push(parse(&stem(&filter), &stem(&path), &text));
        }
    }
    files
}

/// Reads the text of one file.
///
/// # Panics
/// With line and column, where it cannot be read.
pub fn parse(group: &str, name: &str, text: &str) -> File {
    let mut file: File = serde_saphyr::from_str(text)
        .unwrap_or_else(|error| panic!("tests/corpus/{group}/{name}.yaml: {error}"));
    file.name = format!("{group}-{name}").replace('_', "-");
    file.group = group.to_owned();
    check(&file);
    file
}

/// What would make a case show nothing.
fn check(file: &File) {
    let mut names = std::collections::BTreeSet::new();
    for case in &file.cases {
        let place = format!("{}: {}", file.name, case.name);
        assert!(names.insert(&case.name), "{place}: there are two of it");
        for step in case.steps() {
            let some = step.expect.is_some() || file.defaults.expect.is_some();
            assert!(some, "{place}: nothing is expected");
        }
        for gateway in case.differs.keys() {
            assert!(
                ["native", "local", "envoy", "kong"].contains(&gateway.as_str()),
                "{place}: no gateway is called {gateway}"
            );
        }
    }
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("read a directory of the corpus").path())
        .collect();
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}
