//! `include:`: which files belong to a mesh.
//!
//! What a file includes is laid down first, in the order in which it is named (files of one pattern by name), and
//! the file itself over that. Of two files that are included side by side neither is over the other: they may not say
//! different things of the same value.

use super::{Loaded, merge};
use crate::finding::{Finding, Place};
use crate::schema::tree::{self, MAX_BYTES, Node, Value};
use crate::snippet::at;
use glob::{MatchOptions, Pattern};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// Most files of one mesh: four for each of a thousand agents.
pub(crate) const MAX_FILES: usize = 4_096;
/// How deep files may include files.
pub(crate) const MAX_DEPTH: usize = 8;

/// The directory that files are included from.
pub(crate) struct Directory {
    /// As the user wrote it, for names in messages.
    shown: PathBuf,
    /// Without links, to tell what is in it.
    real: PathBuf,
    /// The file that was named, without links.
    file: PathBuf,
    outside: bool,
}

impl Directory {
    /// That of `file`.
    ///
    /// # Errors
    /// What the system said.
    pub fn of(file: &Path, outside: bool) -> io::Result<Self> {
        let shown = match file.parent() {
            Some(dir) => dir.to_owned(),
            None => PathBuf::new(),
        };
        let dir = if shown == Path::new("") {
            Path::new(".")
        } else {
            &shown
        };
        Ok(Self {
            real: dir.canonicalize()?,
            file: file.canonicalize()?,
            shown,
            outside,
        })
    }
}

/// One `include` of one file.
struct Named {
    pattern: String,
    place: Place,
    path: String,
}

/// Files that are being read.
struct Reading<'a> {
    loaded: &'a mut Loaded,
    directory: Option<&'a Directory>,
    /// Those that include one another, down to the one at hand.
    open: Vec<PathBuf>,
    /// All that were read: a file belongs to a mesh once.
    seen: BTreeSet<PathBuf>,
    bytes: usize,
}

/// The tree of the named file with all that it includes.
pub(super) fn read(
    loaded: &mut Loaded,
    name: &str,
    text: String,
    directory: Option<&Directory>,
) -> Option<Node> {
    let file = directory.map(|d| d.file.clone()).unwrap_or_default();
    let mut reading = Reading {
        loaded,
        directory,
        open: vec![file.clone()],
        seen: BTreeSet::from([file]),
        bytes: text.len(),
    };
    let shown = directory.map(|d| d.shown.clone()).unwrap_or_default();
    reading.file(name.to_owned(), text, &shown)
}

impl Reading<'_> {
    /// `dir` is the directory of the file, as it is shown.
    fn file(&mut self, name: String, text: String, dir: &Path) -> Option<Node> {
        let number = self.loaded.sources.add(name, text);
        let parsed = tree::parse(self.loaded.sources.text(number), number);
        let root = match parsed {
            Ok(root) => root,
            Err(finding) => {
                self.refuse(*finding);
                return None;
            }
        };
        let mut root = root;
        self.loaded.standing.take(&root);
        let named = self.named(&root, number != 0);
        if number != 0
            && let Value::Map(entries) = &mut root.value
        {
            entries.retain(|(key, _)| key.text != "include");
        }
        if number != 0 && !matches!(root.value, Value::Map(_) | Value::Null) {
            let message = format!("the file holds {}, not a part of a mesh", root.value.kind());
            let finding = Finding::error("not_a_mesh", root.place, "", message);
            self.refuse(finding.hint("begin with a section, such as `agents:`"));
            return None;
        }
        let mut below: Option<Node> = None;
        for included in named {
            for (name, text, dir) in self.found(&included, dir) {
                if let Some(part) = self.include(&included, name, text, &dir) {
                    match &mut below {
                        Some(below) => {
                            let Loaded {
                                findings, sources, ..
                            } = &mut *self.loaded;
                            merge::beside(below, part, sources, findings);
                        }
                        None => below = Some(part),
                    }
                }
            }
        }
        match below {
            None => Some(root),
            Some(mut below) => {
                merge::over(&mut below, root, &mut self.loaded.findings);
                Some(below)
            }
        }
    }

    fn include(&mut self, named: &Named, name: String, file: PathBuf, dir: &Path) -> Option<Node> {
        let text = self.text(named, &name, &file)?;
        self.open.push(file);
        let part = self.file(name, text, dir);
        self.open.pop();
        part
    }

    fn refuse(&mut self, finding: Finding) {
        self.loaded.whole = false;
        self.loaded.findings.push(finding);
    }

    fn fault(&mut self, code: &'static str, at: &Named, message: String, hint: &str) {
        self.refuse(Finding::error(code, at.place, &*at.path, message).hint(hint));
    }

    /// What the file says that it includes. In a `part`, a value of another kind is reported here; in the file that
    /// was named, where the mesh is read.
    fn named(&mut self, root: &Node, part: bool) -> Vec<Named> {
        let Value::Map(entries) = &root.value else {
            return Vec::new();
        };
        let includes = entries.iter().filter(|(key, _)| key.text == "include");
        let mut named = Vec::new();
        for (key, node) in includes {
            self.loaded.open.insert(at(key.place));
            let items = match &node.value {
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(node),
            };
            for (n, item) in items.iter().enumerate() {
                let pattern = match &item.value {
                    Value::Text(pattern) => Some(pattern.clone()),
                    Value::Int(number) => Some(number.to_string()),
                    _ => None,
                };
                if let Some(pattern) = pattern {
                    self.loaded.open.insert(at(item.place));
                    named.push(Named {
                        pattern,
                        place: item.place,
                        path: format!("include[{n}]"),
                    });
                } else if part {
                    let message = format!("include[{n}] must be text, not {}", item.value.kind());
                    let finding = Finding::error("wrong_type", item.place, "include", message);
                    self.refuse(finding.hint("such as agents/*.yaml"));
                }
            }
        }
        named
    }

    /// Name to show, path without links, directory to show: of each file that is meant.
    fn found(&mut self, at: &Named, dir: &Path) -> Vec<(String, PathBuf, PathBuf)> {
        let Some(directory) = self.directory else {
            let message = format!("{}: a text alone includes no files", at.path);
            self.fault("include_missing", at, message, "check it as a file");
            return Vec::new();
        };
        if self.open.len() > MAX_DEPTH {
            let message = format!(
                "{}: files include files more than {MAX_DEPTH} deep",
                at.path
            );
            self.fault(
                "include_depth",
                at,
                message,
                "include them from mesh.yaml itself",
            );
            return Vec::new();
        }
        let written = Path::new(&at.pattern);
        let upward = |c: Component<'_>| !matches!(c, Component::Normal(_) | Component::CurDir);
        if !directory.outside && written.components().any(upward) {
            let message = format!(
                "{}: `{}` leads out of the directory of mesh.yaml",
                at.path, at.pattern
            );
            self.fault("include_outside", at, message, OUTSIDE);
            return Vec::new();
        }
        let mut out = Vec::new();
        for shown in self.matching(at, dir) {
            let real = match shown.canonicalize() {
                Ok(real) => real,
                Err(error) => {
                    let message = format!("{}: cannot read {}: {error}", at.path, shown.display());
                    self.fault(
                        "include_missing",
                        at,
                        message,
                        "write a file beside mesh.yaml",
                    );
                    continue;
                }
            };
            if !directory.outside && !real.starts_with(&directory.real) {
                let message = format!(
                    "{}: {} is a link out of the directory of mesh.yaml",
                    at.path,
                    shown.display()
                );
                self.fault("include_outside", at, message, OUTSIDE);
                continue;
            }
            if self.open.contains(&real) {
                let message = format!("{}: {} includes itself", at.path, shown.display());
                let hint = "leave it out there; what it includes may not include it again";
                self.fault("include_cycle", at, message, hint);
                continue;
            }
            if !self.seen.insert(real.clone()) {
                continue;
            }
            if self.seen.len() > MAX_FILES {
                let message = format!("{}: more than {MAX_FILES} files", at.path);
                self.fault("too_large", at, message, "put several agents into one file");
                return out;
            }
            let dir = shown.parent().map(Path::to_owned).unwrap_or_default();
            out.push((shown.display().to_string(), real, dir));
        }
        out
    }

    /// The files that a pattern means: by their own names, since a listing has no order.
    fn matching(&mut self, at: &Named, dir: &Path) -> Vec<PathBuf> {
        let whole = dir.join(&at.pattern);
        let pattern = whole.file_name().and_then(|name| name.to_str());
        let pattern = pattern.unwrap_or_default();
        if !pattern.contains(['*', '?', '[']) {
            return vec![whole];
        }
        let parent = whole.parent().unwrap_or(Path::new(""));
        let Ok(glob) = Pattern::new(pattern) else {
            let message = format!("{}: `{pattern}` is no pattern", at.path);
            self.fault("include_missing", at, message, "such as agents/*.yaml");
            return Vec::new();
        };
        let listed = if parent == Path::new("") {
            Path::new(".")
        } else {
            parent
        };
        let options = MatchOptions {
            require_literal_leading_dot: true,
            ..MatchOptions::new()
        };
        let entries = fs::read_dir(listed).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut files: Vec<PathBuf> = names
            .filter(|name| glob.matches_with(name, options))
            .map(|name| parent.join(name))
            .collect();
        files.sort();
        if files.is_empty() {
            let message = format!("{}: no file is called {}", at.path, at.pattern);
            let hint = "write the name of a file, or a pattern of names such as agents/*.yaml";
            self.fault("include_missing", at, message, hint);
        }
        files
    }

    /// The text of a file, as far as all may be read.
    fn text(&mut self, named: &Named, name: &str, file: &Path) -> Option<String> {
        let left = MAX_BYTES.saturating_sub(self.bytes);
        let most = u64::try_from(left).unwrap_or(u64::MAX).saturating_add(1);
        let mut bytes = Vec::new();
        let read = fs::metadata(file).and_then(|kind| {
            // A pipe would be waited for.
            if !kind.is_file() {
                return Err(io::Error::other("it is no file"));
            }
            File::open(file)?.take(most).read_to_end(&mut bytes)
        });
        let place = Place {
            file: self.loaded.sources.add(name.to_owned(), String::new()),
            ..Place::default()
        };
        let refused = match read {
            Err(error) => {
                self.loaded.sources.forget_last();
                let message = format!("{}: cannot read {name}: {error}", named.path);
                self.fault(
                    "include_missing",
                    named,
                    message,
                    "name a file that can be read",
                );
                return None;
            }
            Ok(_) if bytes.len() > left => tree::too_large(),
            Ok(_) => match String::from_utf8(bytes) {
                Ok(text) => {
                    self.bytes += text.len();
                    self.loaded.sources.forget_last();
                    return Some(text);
                }
                Err(error) => crate::compile::not_utf8(error.as_bytes(), error.utf8_error()),
            },
        };
        let at = Place {
            file: place.file,
            ..refused.place
        };
        self.refuse(Finding {
            place: at,
            ..refused
        });
        None
    }
}

const OUTSIDE: &str = "move the file there, or allow it: --include-outside";
