//! The rules, checked: which requests they are about, and what they name.

use crate::callers::{Calling, Condition};
use crate::config::{self, By, HeaderMatch, Path, Sticky, Target};
use crate::{ConfigError, RequestHead, Unreadable, task_body};
use mesh_protocol::AgentId;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

/// Most entries of a list in a configuration.
pub(super) const MOST: usize = 256;
/// Longest name that a request may name, in bytes; a longer one names nobody.
const MAX_NAME: usize = 128;

/// Agents, by number.
#[derive(Debug)]
pub(super) struct Agents {
    pub(super) ids: Vec<AgentId>,
    /// Also by their aliases.
    by_name: BTreeMap<String, usize>,
    /// Each once, with the weight 1.
    by_capability: BTreeMap<String, Vec<(usize, u32)>>,
}

#[derive(Debug)]
pub(super) struct Rule {
    path: Option<Path>,
    headers: Vec<HeaderMatch>,
    pub(super) task_types: BTreeSet<String>,
    callers: Condition,
    pub(super) to: To,
}

#[derive(Debug)]
pub(super) enum To {
    Weighted(Vec<(usize, u32)>, Option<Sticky>),
    Named(By),
    Capability(By),
}

/// The path of one request, asked of the gateway when somebody wants to know, and once.
pub(super) struct Pathed<'a> {
    head: &'a dyn RequestHead,
    path: OnceCell<Result<Vec<u8>, Unreadable>>,
}

impl<'a> Pathed<'a> {
    pub(super) fn of(head: &'a dyn RequestHead) -> Self {
        Self {
            head,
            path: OnceCell::new(),
        }
    }

    /// Without the query, in the one form that no other spelling of it escapes.
    fn path(&self) -> Result<&[u8], Unreadable> {
        let read = || Ok(crate::path::plain(&self.head.path()?));
        match self.path.get_or_init(read) {
            Ok(path) => Ok(path),
            Err(unreadable) => Err(*unreadable),
        }
    }

    /// What the request names; none where it says nothing there.
    fn named(&self, by: &By) -> Result<Option<String>, Unreadable> {
        let name = match by {
            By::Prefix(prefix) => match self.path()?.strip_prefix(prefix.as_bytes()) {
                Some(rest) => rest
                    .split(|b| *b == b'/')
                    .next()
                    .unwrap_or_default()
                    .to_vec(),
                None => return Ok(None),
            },
            By::Header(name) => match self.head.header(name)?.as_slice() {
                [] => return Ok(None),
                [value] => value.clone(),
                // Of several no gateway but Kong tells; joined they name nobody.
                several => several.join(&b','),
            },
        };
        let text = String::from_utf8(name).ok().filter(|n| n.len() <= MAX_NAME);
        Ok(Some(text.unwrap_or_default()))
    }
}

impl Agents {
    pub(super) fn compile(agents: &[config::DeclaredAgent], faults: &mut Vec<ConfigError>) -> Self {
        let mut compiled = Self {
            ids: Vec::new(),
            by_name: BTreeMap::new(),
            by_capability: BTreeMap::new(),
        };
        if agents.is_empty() || agents.len() > MOST {
            faults.push(ConfigError::new(
                "agents",
                format!("1 to {MOST} are needed"),
            ));
        }
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let is_name = |name: &str| (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(legal);
        let what = format!("must be 1 to {MAX_NAME} letters, digits, '.', '_' or '-'");
        for (number, agent) in agents.iter().enumerate() {
            let path = format!("agents[{number}]");
            let id: AgentId = match agent.id.parse() {
                Ok(id) => id,
                Err(fault) => {
                    faults.push(ConfigError::new(format!("{path}.id"), fault.to_string()));
                    continue;
                }
            };
            let own = compiled.ids.len();
            let mut names = vec![(format!("{path}.id"), id.as_str())];
            for (number, alias) in agent.aliases.iter().enumerate() {
                names.push((format!("{path}.aliases[{number}]"), alias));
            }
            for (path, name) in names {
                if !is_name(name) {
                    faults.push(ConfigError::new(path, what.clone()));
                } else if compiled.by_name.insert(name.to_owned(), own).is_some() {
                    faults.push(ConfigError::new(path, "is an agent's name already"));
                }
            }
            for (number, capability) in agent.capabilities.iter().enumerate() {
                if !is_name(capability) {
                    let path = format!("{path}.capabilities[{number}]");
                    faults.push(ConfigError::new(path, what.clone()));
                }
                let able = compiled
                    .by_capability
                    .entry(capability.clone())
                    .or_default();
                if able.last().is_none_or(|(last, _)| *last != own) {
                    able.push((own, 1));
                }
            }
            compiled.ids.push(id);
        }
        compiled
    }

    /// The agent that `name` is about, in any spelling.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let known = self.by_name.get(name).copied();
        known.or_else(|| {
            let id: AgentId = name.parse().ok()?;
            self.by_name.get(id.as_str()).copied()
        })
    }

    pub(super) fn able(&self, capability: &str) -> Option<&[(usize, u32)]> {
        self.by_capability.get(capability).map(Vec::as_slice)
    }
}

impl Rule {
    pub(super) fn compile(
        rule: &config::Rule,
        path: &str,
        agents: &Agents,
        faults: &mut Vec<ConfigError>,
    ) -> Option<Self> {
        let before = faults.len();
        let at = format!("{path}.match");
        let matchers = &rule.matchers;
        let mut wrong = |path: String, what: &str| faults.push(ConfigError::new(path, what));
        if let Some(Path::Exact(text) | Path::Prefix(text)) = &matchers.path
            && !is_path(text)
        {
            wrong(format!("{at}.path"), PATH);
        }
        for (number, header) in matchers.headers.iter().enumerate() {
            if !is_header_name(&header.name) {
                wrong(format!("{at}.headers[{number}].name"), HEADER);
            }
        }
        for (number, name) in matchers.task_types.iter().enumerate() {
            if !task_body::is_task_type(name) {
                wrong(
                    format!("{at}.task_types[{number}]"),
                    "must be 1 to 128 letters, digits, '.', '_' or '-'",
                );
            }
        }
        for list in [matchers.headers.len(), matchers.task_types.len()] {
            if list > MOST {
                wrong(at.clone(), "a list is too long");
            }
        }
        let to = To::compile(&rule.to, &format!("{path}.to"), agents, &mut wrong);
        let callers = Condition::compile(&matchers.scopes, &matchers.claims, &at, faults);
        (faults.len() == before).then(|| Self {
            path: matchers.path.clone(),
            headers: matchers.headers.clone(),
            task_types: matchers.task_types.iter().cloned().collect(),
            callers,
            to,
        })
    }

    /// Whether the rule is about the request as far as its head goes, and what that names.
    pub(super) fn holds(
        &self,
        pathed: &Pathed<'_>,
        calling: &Calling<'_>,
    ) -> Result<Option<Named>, Unreadable> {
        let on_path = match &self.path {
            None => true,
            Some(Path::Exact(exact)) => pathed.path()? == exact.as_bytes(),
            Some(Path::Prefix(prefix)) => match pathed.path()?.strip_prefix(prefix.as_bytes()) {
                Some(rest) => prefix.ends_with('/') || matches!(rest.first(), None | Some(b'/')),
                None => false,
            },
        };
        if !on_path {
            return Ok(None);
        }
        for header in &self.headers {
            let values = pathed.head.header(&header.name)?;
            let held = match &header.value {
                None => !values.is_empty(),
                Some(wanted) => values.join(&b',') == wanted.as_bytes(),
            };
            if !held {
                return Ok(None);
            }
        }
        if !self.callers.holds(calling) {
            return Ok(None);
        }
        match &self.to {
            To::Weighted(..) => Ok(Some(Named::default())),
            To::Named(by) | To::Capability(by) => Ok(pathed.named(by)?.map(Named)),
        }
    }
}

/// The agent or capability that a request names, where its rule asks for one.
#[derive(Debug, Default)]
pub(super) struct Named(pub(super) String);

impl To {
    fn compile(
        target: &Target,
        path: &str,
        agents: &Agents,
        wrong: &mut impl FnMut(String, &str),
    ) -> Self {
        const UNKNOWN: &str = "no agent of this name is declared";
        match target {
            Target::Agent(name) => {
                let agent = agents.find(name);
                if agent.is_none() {
                    wrong(format!("{path}.agent"), UNKNOWN);
                }
                Self::Weighted(agent.map(|agent| (agent, 1)).into_iter().collect(), None)
            }
            Target::Weighted(weighted) => {
                let path = format!("{path}.weighted");
                let mut weights: Vec<(usize, u32)> = Vec::new();
                for (name, weight) in &weighted.agents {
                    let path = format!("{path}.agents.{name}");
                    match agents.find(name) {
                        None => wrong(path, UNKNOWN),
                        Some(agent) if weights.iter().any(|(known, _)| *known == agent) => {
                            wrong(path, "is there twice");
                        }
                        Some(agent) => weights.push((agent, *weight)),
                    }
                }
                if !weighted.agents.values().any(|weight| *weight > 0) {
                    wrong(format!("{path}.agents"), "one needs a weight of 1 or more");
                }
                if let Some(Sticky::Header(name)) = &weighted.sticky
                    && !is_header_name(name)
                {
                    wrong(format!("{path}.sticky.header"), HEADER);
                }
                Self::Weighted(weights, weighted.sticky.clone())
            }
            Target::Named(by) => {
                check_by(by, &format!("{path}.named"), wrong);
                Self::Named(by.clone())
            }
            Target::Capability(by) => {
                check_by(by, &format!("{path}.capability"), wrong);
                Self::Capability(by.clone())
            }
        }
    }
}

fn check_by(by: &By, path: &str, wrong: &mut impl FnMut(String, &str)) {
    match by {
        By::Prefix(prefix) if !is_path(prefix) || !prefix.ends_with('/') => wrong(
            format!("{path}.prefix"),
            "must be a path that begins and ends with '/', such as /agents/",
        ),
        By::Header(name) if !is_header_name(name) => wrong(format!("{path}.header"), HEADER),
        _ => {}
    }
}

const PATH: &str = "must begin with '/' and hold printable ASCII without '?', '#' and spaces, nothing \
                    escaped that need not be, and no empty or dot segments";
const HEADER: &str = "must be a header's name in lower case, and none that the gateway sets itself";

fn is_path(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_graphic() && b != b'?' && b != b'#';
    let plain = || crate::path::plain(text.as_bytes()) == text.as_bytes();
    text.starts_with('/') && text.len() <= 1024 && text.bytes().all(legal) && plain()
}

fn is_header_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=64).contains(&name.len())
        && name.bytes().all(legal)
        && !mesh_protocol::assertion::RESERVED_HEADERS.contains(&name)
}
