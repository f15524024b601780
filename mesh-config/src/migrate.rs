//! Older files brought up to the version that this program reads.
//!
//! The text is edited at the places of what was renamed, so that comments, order and indentation stay as they are.
//! Version 0 is mesh.yaml before sidecars stood beside every service: it had no other number, or none at all.

use crate::finding::{Finding, Place, Report};
use crate::schema::VERSION;
use crate::schema::tree::{self, Key, Node, Value};
use crate::snippet::{Standing, Tokens};
use crate::sources::Sources;
use std::ops::Range;

/// A file as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Its version so far.
    pub from: u32,
    /// Its text.
    pub text: String,
    /// What was changed, in words; nothing where nothing had to be.
    pub changes: Vec<String>,
}

/// An edit: these bytes become this text.
struct Edit {
    bytes: Range<usize>,
    text: String,
}

struct Migration<'s> {
    source: &'s str,
    edits: Vec<Edit>,
    changes: Vec<String>,
    findings: Vec<Finding>,
}

/// What `text` is in the present version. `file` is its name in messages.
///
/// # Errors
/// A text that is no YAML, a newer version, and what cannot be moved because its new place is taken.
pub fn migrate(file: &str, text: &str) -> Result<Migrated, Report> {
    let sources = Sources::one(file, text);
    let root =
        tree::parse(text, 0).map_err(|finding| Report::new(&sources, None, vec![*finding]))?;
    let mut migration = Migration {
        source: text,
        edits: Vec::new(),
        changes: Vec::new(),
        findings: Vec::new(),
    };
    let from = migration.version(&root);
    if from == Some(0) {
        migration.sidecars(&root);
    }
    if !migration.findings.is_empty() {
        let mut standing = Standing::default();
        standing.take(&root);
        let tokens = Tokens::of(&standing, &Default::default());
        return Err(Report::new(&sources, Some(&tokens), migration.findings));
    }
    let changes = std::mem::take(&mut migration.changes);
    let text = migration.edited();
    // Whatever was edited is still the YAML that was meant.
    tree::parse(&text, 0).map_err(|finding| Report::new(&sources, None, vec![*finding]))?;
    Ok(Migrated {
        from: from.unwrap_or(VERSION),
        text,
        changes,
    })
}

fn entry<'n>(node: &'n Node, name: &str) -> Option<&'n (Key, Node)> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|(key, _)| key.text == name),
        _ => None,
    }
}

impl Migration<'_> {
    /// The version of the file; it becomes the present one.
    fn version(&mut self, root: &Node) -> Option<u32> {
        let Some((_, node)) = entry(root, "version") else {
            let Value::Map(entries) = &root.value else {
                let message = format!("the file holds {}, not a mesh", root.value.kind());
                let finding = Finding::error("not_a_mesh", root.place, "", message);
                self.findings
                    .push(finding.hint("begin with `version: 1` and `mesh: NAME`"));
                return None;
            };
            let first = entries.first().map(|(key, _)| self.offset(key.place));
            let at = first.unwrap_or_default();
            let flow = self.source.trim_start().starts_with('{');
            let end = if flow { ", " } else { "\n" };
            self.edit(at..at, format!("version: {VERSION}{end}"));
            self.changes.push(format!("version: {VERSION} is said"));
            return Some(0);
        };
        match node.value {
            Value::Int(0) => {
                self.replace(node, VERSION.to_string());
                self.changes.push(format!("version: 0 is {VERSION}"));
                Some(0)
            }
            Value::Int(found) if found == i128::from(VERSION) => Some(VERSION),
            _ => {
                let message = "this is no version that can be migrated from";
                let finding = Finding::error("unknown_version", node.place, "version", message);
                self.findings.push(finding.hint(format!(
                    "0 and {VERSION} can; a newer file is read by the program that wrote it"
                )));
                None
            }
        }
    }

    /// From 0: listeners of sidecars stood under other names.
    fn sidecars(&mut self, root: &Node) {
        if let Some((_, gateway)) = entry(root, "gateway")
            && let Some((_, node)) = entry(gateway, "sidecar")
            && matches!(node.value, Value::Text(_))
        {
            self.wrap(node, "{outbound: ", "}");
            let what = "gateway.sidecar is gateway.sidecar.outbound";
            self.changes.push(what.to_owned());
        }
        let Some((_, agents)) = entry(root, "agents") else {
            return;
        };
        let Value::List(agents) = &agents.value else {
            return;
        };
        for (n, agent) in agents.iter().enumerate() {
            let Some((key, node)) = entry(agent, "admin_listen") else {
                continue;
            };
            let path = format!("agents[{n}].admin_listen");
            if entry(agent, "sidecar").is_some() {
                let message =
                    format!("{path} cannot be moved: agents[{n}].sidecar is there already");
                let finding = Finding::error("conflict", key.place, &*path, message);
                self.findings
                    .push(finding.hint("put it into `sidecar` by hand, as admin_listen"));
                continue;
            }
            let at = self.offset(key.place);
            self.edit(at..at, "sidecar: {".to_owned());
            self.wrap(node, "", "}");
            self.changes
                .push(format!("{path} is agents[{n}].sidecar.admin_listen"));
        }
    }

    /// The byte at which a place begins: lines end as the parser has them.
    fn offset(&self, place: Place) -> usize {
        let mut line = 1;
        let mut begins = 0;
        let bytes = self.source.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            if line == place.line {
                break;
            }
            let lone = *byte == b'\r' && bytes.get(at + 1) != Some(&b'\n');
            if *byte == b'\n' || lone {
                line += 1;
                begins = at + 1;
            }
        }
        let rest = self.source.get(begins..).unwrap_or_default();
        let chars = rest.char_indices().nth(place.column.saturating_sub(1));
        begins + chars.map_or(rest.len(), |(at, _)| at)
    }

    fn edit(&mut self, bytes: Range<usize>, text: String) {
        self.edits.push(Edit { bytes, text });
    }

    fn replace(&mut self, node: &Node, text: String) {
        if let Some(bytes) = self.span(node) {
            self.edit(bytes, text);
        }
    }

    fn wrap(&mut self, node: &Node, before: &str, after: &str) {
        if let Some(bytes) = self.span(node) {
            self.edit(bytes.start..bytes.start, before.to_owned());
            self.edit(bytes.end..bytes.end, after.to_owned());
        }
    }

    /// The bytes of a scalar, without white space behind it.
    fn span(&self, node: &Node) -> Option<Range<usize>> {
        let bytes = node.bytes.clone()?;
        let text = self.source.get(bytes.clone())?;
        Some(bytes.start..bytes.start + text.trim_end().len())
    }

    fn edited(mut self) -> String {
        self.edits.sort_by_key(|edit| edit.bytes.start);
        let mut out = String::with_capacity(self.source.len() + 64);
        let mut at = 0;
        for edit in &self.edits {
            out.push_str(self.source.get(at..edit.bytes.start).unwrap_or_default());
            out.push_str(&edit.text);
            at = edit.bytes.end;
        }
        out.push_str(self.source.get(at..).unwrap_or_default());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "# our mesh
mesh: old   # its name
gateway:
  auth: {development: true}
  sidecar: 127.0.0.1:15001   # of ours

orchestrator: {planner: {general_agent: a}}
agents:
  - id: a
    # who looks after it
    admin_listen: 127.0.0.1:9101 # metrics
    run: {builtin: general-agent}
  - {id: b, admin_listen: \"[::1]:9102\", capabilities: [x], endpoint: \"http://127.0.0.1:9000\"}
";

    #[test]
    fn an_old_file_keeps_its_comments_and_compiles() {
        assert!(crate::compile("mesh.yaml", OLD).is_err());
        let new = migrate("mesh.yaml", OLD).unwrap();
        assert_eq!(new.from, 0);
        assert_eq!(new.changes.len(), 4, "{:?}", new.changes);
        let wanted = OLD
            .replace("mesh: old", "version: 1\nmesh: old")
            .replace(
                "sidecar: 127.0.0.1:15001 ",
                "sidecar: {outbound: 127.0.0.1:15001} ",
            )
            .replace(
                "admin_listen: 127.0.0.1:9101 #",
                "sidecar: {admin_listen: 127.0.0.1:9101} #",
            )
            .replace(
                "admin_listen: \"[::1]:9102\"",
                "sidecar: {admin_listen: \"[::1]:9102\"}",
            );
        assert_eq!(new.text, wanted);
        let mesh = crate::compile("mesh.yaml", &new.text).unwrap().mesh;
        let listens = mesh.agents[0].sidecar.admin_listen.unwrap();
        assert_eq!(listens.to_string(), "127.0.0.1:9101");
        let again = migrate("mesh.yaml", &new.text).unwrap();
        assert_eq!((again.from, again.changes.len()), (1, 0));
        assert_eq!(again.text, new.text);
    }

    #[test]
    fn version_0_is_named_and_a_newer_one_refused() {
        let zero = migrate("mesh.yaml", "version: 0 # first\nmesh: m\n").unwrap();
        assert_eq!(zero.text, "version: 1 # first\nmesh: m\n");
        let flow = migrate("mesh.yaml", "{mesh: m}").unwrap();
        assert_eq!(flow.text, "{version: 1, mesh: m}");
        for newer in ["version: 2\n", "version: one\n"] {
            let said = migrate("mesh.yaml", newer).unwrap_err().to_string();
            assert!(said.contains("error[unknown_version]"), "{said}");
        }
    }

    #[test]
    fn what_is_there_already_is_not_written_over() {
        let both = "agents:\n  - {id: a, admin_listen: x, sidecar: {listen: y}}\n";
        let said = migrate("mesh.yaml", both).unwrap_err().to_string();
        assert!(said.contains("error[conflict]"), "{said}");
        assert!(said.contains("mesh.yaml:2:13"), "{said}");
    }
}
