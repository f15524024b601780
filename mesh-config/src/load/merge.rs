//! Trees over and beside one another.
//!
//! Mappings are merged key by key. Lists of named things (every item has an `id`, or a `name`) are merged by that
//! name, other lists are replaced. `null` over something takes it away; over a list of named things a mapping by
//! name says the same of its items: `agents: {old-one: null, other: {timeout: 5s}}`.

use crate::finding::{Finding, nearest};
use crate::schema::reader::join;
use crate::schema::tree::{Key, Node, Value};
use crate::sources::Sources;
use std::collections::{HashMap, HashSet};

/// By what items of a list are told apart, in this order.
const NAMES: [&str; 2] = ["id", "name"];

/// Lays `above` over `below`.
pub(super) fn over(below: &mut Node, above: Node, findings: &mut Vec<Finding>) {
    let mut merge = Merge {
        beside: None,
        findings,
    };
    merge.whole(below, above);
}

/// Puts `other` beside `below`; what both say must be the same.
pub(super) fn beside(
    below: &mut Node,
    other: Node,
    sources: &Sources,
    findings: &mut Vec<Finding>,
) {
    let mut merge = Merge {
        beside: Some(sources),
        findings,
    };
    merge.whole(below, other);
}

struct Merge<'a> {
    /// Names of the files, where neither tree is over the other.
    beside: Option<&'a Sources>,
    findings: &'a mut Vec<Finding>,
}

impl Merge<'_> {
    /// An empty file says nothing.
    fn whole(&mut self, below: &mut Node, above: Node) {
        match (&below.value, &above.value) {
            (_, Value::Null) => {}
            (Value::Null, _) => *below = above,
            _ => self.nodes(below, above, ""),
        }
    }

    fn nodes(&mut self, below: &mut Node, above: Node, path: &str) {
        let above = match (&mut below.value, above) {
            (
                Value::Map(entries),
                Node {
                    value: Value::Map(more),
                    place,
                    defined,
                    ..
                },
            ) => {
                self.maps(entries, more, path);
                if self.beside.is_none() {
                    (below.place, below.defined) = (place, defined);
                }
                return;
            }
            (Value::List(items), above) => match (name_of_all(items), above) {
                (
                    Some(name),
                    Node {
                        value: Value::List(more),
                        place,
                        defined,
                        ..
                    },
                ) if name_of_all(&more) == Some(name) => {
                    self.lists(items, more, name, path);
                    if self.beside.is_none() {
                        (below.place, below.defined) = (place, defined);
                    }
                    return;
                }
                (
                    Some(name),
                    Node {
                        value: Value::Map(by_name),
                        ..
                    },
                ) if self.beside.is_none() => {
                    self.by_name(items, by_name, name, path);
                    return;
                }
                (_, above) => above,
            },
            (_, above) => above,
        };
        match self.beside {
            None => *below = above,
            Some(_) if same(below, &above) => {}
            Some(sources) => {
                let first = sources.name(below.place.file);
                let message = format!(
                    "{path} is something else in {first}, line {}",
                    below.place.line
                );
                let finding = Finding::error("include_conflict", above.place, path, message);
                self.findings.push(finding.hint(
                    "say it in one of them, or in the file that includes both: that one is over them",
                ));
            }
        }
    }

    fn maps(&mut self, below: &mut Vec<(Key, Node)>, above: Vec<(Key, Node)>, path: &str) {
        let mut known: HashMap<String, usize> = HashMap::with_capacity(below.len());
        for (n, (key, _)) in below.iter().enumerate() {
            known.entry(key.text.clone()).or_insert(n);
        }
        let mut seen: HashSet<String> = HashSet::with_capacity(above.len());
        let mut removed = Vec::new();
        for (key, node) in above {
            // A key that stands twice in one file is reported where the mesh is read.
            let again = !seen.insert(key.text.clone());
            let Some(n) = known.get(&key.text).copied().filter(|_| !again) else {
                below.push((key, node));
                continue;
            };
            if self.beside.is_none() && matches!(node.value, Value::Null) && !node.is_unset() {
                removed.push(n);
                continue;
            }
            let path = join(path, &key.text);
            if let Some((old, value)) = below.get_mut(n) {
                if self.beside.is_none() {
                    *old = key;
                }
                self.nodes(value, node, &path);
            }
        }
        take_out(below, &removed);
    }

    fn lists(&mut self, below: &mut Vec<Node>, above: Vec<Node>, name: &str, path: &str) {
        let mut known: HashMap<String, usize> = HashMap::with_capacity(below.len());
        for (n, item) in below.iter().enumerate() {
            if let Some(item) = named(item, name) {
                known.entry(item).or_insert(n);
            }
        }
        let mut seen = HashSet::with_capacity(above.len());
        for item in above {
            let Some(own) = named(&item, name) else {
                continue;
            };
            let found = known.get(&own).copied();
            let again = !seen.insert(own);
            match found.filter(|_| !again).map(|n| (n, below.get_mut(n))) {
                Some((n, Some(old))) => self.nodes(old, item, &format!("{path}[{n}]")),
                _ => below.push(item),
            }
        }
    }

    fn by_name(&mut self, items: &mut Vec<Node>, above: Vec<(Key, Node)>, name: &str, path: &str) {
        let mut removed = Vec::new();
        for (key, node) in above {
            let names: Vec<String> = items.iter().filter_map(|i| named(i, name)).collect();
            let found = names.iter().position(|n| *n == key.text);
            let nothing = matches!(node.value, Value::Null) && !node.is_unset();
            match found {
                Some(n) if nothing => removed.push(n),
                Some(n) => {
                    if let Some(item) = items.get_mut(n) {
                        self.nodes(item, node, &format!("{path}[{n}]"));
                    }
                }
                None if nothing => {
                    let path = join(path, &key.text);
                    let message = format!("{path}: there is nothing of that name to take away");
                    let finding = Finding::error("nothing_to_remove", key.place, path, message);
                    let near = nearest(&key.text, names.iter().map(String::as_str));
                    self.findings.push(match near {
                        Some(near) => finding.hint(format!("did you mean {near}?")),
                        None => finding.hint("leave it out"),
                    });
                }
                None => {
                    let mut node = node;
                    if let Value::Map(entries) = &mut node.value {
                        let made = Node::made(Value::Text(key.text), key.place);
                        let key = Key {
                            text: name.to_owned(),
                            place: key.place,
                        };
                        entries.insert(0, (key, made));
                    }
                    items.push(node);
                }
            }
        }
        take_out(items, &removed);
    }
}

fn take_out<T>(from: &mut Vec<T>, removed: &[usize]) {
    if removed.is_empty() {
        return;
    }
    let removed: HashSet<usize> = removed.iter().copied().collect();
    let mut n = 0;
    from.retain(|_| {
        n += 1;
        !removed.contains(&(n - 1))
    });
}

/// By what all items of a list are named, if they are.
fn name_of_all(items: &[Node]) -> Option<&'static str> {
    let all = |name: &&str| items.iter().all(|item| named(item, name).is_some());
    NAMES
        .into_iter()
        .find(|name| !items.is_empty() && all(name))
}

fn named(item: &Node, name: &str) -> Option<String> {
    let Value::Map(entries) = &item.value else {
        return None;
    };
    let (_, node) = entries.iter().find(|(key, _)| key.text == name)?;
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Whether two values say the same, wherever they stand.
fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            let alike =
                |((k, a), (l, b)): (&(Key, Node), &(Key, Node))| k.text == l.text && same(a, b);
            a.len() == b.len() && a.iter().zip(b).all(alike)
        }
        _ => false,
    }
}
