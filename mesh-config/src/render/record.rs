//! What an earlier rendering wrote into a directory, so that what it no longer writes can be taken away.
//!
//! A sidecar's file of an agent that is gone would be started by whoever starts all of them, and an old rule or
//! dashboard would be loaded for ever. Taken away is only what a rendering of the same target of the same mesh wrote there:
//! nothing is found by its name, so nobody else's file is touched.

use super::files::{Rendered, Written, half_of, write_all};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// Name of the record.
const RECORD: &str = ".mesh-rendered.json";
/// Longest record that is read, in bytes: some tens of thousands of names.
const MOST: u64 = 4 * 1024 * 1024;

/// By mesh and target, the paths of its files.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record(BTreeMap<String, BTreeSet<String>>);

/// What became of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The files that belong there now.
    pub written: Vec<Written>,
    /// Those that were there from before, and are no longer.
    pub removed: Vec<PathBuf>,
}

/// Writes the files of `target` of `mesh` into `dir` as [`write_all`] does, then removes those that an earlier call
/// wrote and this one did not. Two at once take turns.
///
/// Without `secrets`, a secret file stays as long as its plain one belongs there: who renders without secrets
/// does not end what runs with them.
///
/// # Errors
/// What the system said about which file. Nothing is removed before everything is written.
pub fn replace_all(
    dir: &Path,
    mesh: &str,
    target: &str,
    files: &[Rendered],
    secrets: bool,
) -> io::Result<Replaced> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
    fs::create_dir_all(dir).map_err(named)?;
    // Held until it is closed; the directory is there whatever is in it.
    let turn = File::open(dir).map_err(named)?;
    turn.lock().map_err(named)?;
    let mut record = read(&dir.join(RECORD));
    let key = format!("{mesh}/{target}");
    let now: BTreeSet<String> = files.iter().map(|file| file.name.clone()).collect();
    let before = record.0.remove(&key).unwrap_or_default();
    // Known before they are there: what is written by a rendering that is killed is found by the next.
    let all: BTreeSet<String> = before.union(&now).cloned().collect();
    record.0.insert(key.clone(), all.clone());
    write_all(dir, &[record.rendered()])?;
    sweep(dir, &all);
    let written = write_all(dir, files)?;
    let kept = |name: &String| {
        let plain = name.replacen(".secret.", ".", 1);
        now.contains(name) || (!secrets && plain != *name && now.contains(&plain))
    };
    let (stay, gone): (BTreeSet<_>, BTreeSet<_>) = all.into_iter().partition(kept);
    let mut removed = Vec::new();
    for name in gone.iter().filter(|name| is_within(name)) {
        let path = dir.join(name);
        match fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let text = format!("{}: {error}", path.display());
                return Err(io::Error::new(error.kind(), text));
            }
        }
    }
    record.0.insert(key, stay);
    write_all(dir, &[record.rendered()])?;
    Ok(Replaced { written, removed })
}

impl Record {
    fn rendered(&self) -> Rendered {
        // Maps of texts: there is nothing that could fail.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        Rendered::open(RECORD, text + "\n")
    }
}

/// Removes what renderings that were killed left half-written beside their files. Whoever holds the directory is the
/// only one who writes there; what cannot be removed harms nobody.
fn sweep(dir: &Path, names: &BTreeSet<String>) {
    let names = names.iter().filter(|name| is_within(name));
    let names = names.map(String::as_str).chain([RECORD]);
    let files: BTreeSet<PathBuf> = names.map(|name| dir.join(name)).collect();
    let parents: BTreeSet<_> = files.iter().filter_map(|path| path.parent()).collect();
    for entry in parents
        .into_iter()
        .flat_map(fs::read_dir)
        .flatten()
        .flatten()
    {
        let path = entry.path();
        if half_of(&path).is_some_and(|file| files.contains(&file)) {
            let _ = fs::remove_file(path);
        }
    }
}

/// A record that cannot be read is none: nothing is removed by it.
fn read(path: &Path) -> Record {
    let mut text = String::new();
    // A pipe would be waited for.
    if !fs::symlink_metadata(path).is_ok_and(|kind| kind.is_file()) {
        return Record::default();
    }
    let open = File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text));
    open.ok()
        .and_then(|_| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// Whether a path leads to something in the directory, whatever was done to the record.
fn is_within(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    !name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Rendered {
        Rendered {
            name: name.to_owned(),
            text: name.to_owned(),
            secret: name.contains(".secret."),
        }
    }

    fn render(dir: &Path, target: &str, names: &[&str], secrets: bool) -> Vec<String> {
        let files: Vec<Rendered> = names.iter().map(|name| file(name)).collect();
        let done = replace_all(dir, "m", target, &files, secrets).unwrap();
        assert_eq!(done.written.len(), names.len());
        let removed = done.removed.iter().map(|path| {
            assert!(!path.exists());
            path.strip_prefix(dir).unwrap().display().to_string()
        });
        removed.collect()
    }

    #[test]
    fn what_is_no_longer_rendered_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::write(dir.join("sidecar-mine.json"), "mine").unwrap();
        let both = ["sidecar-a.json", "deep/sidecar-b.json"];
        assert_eq!(render(dir, "sidecar", &both, false), [""; 0]);
        assert_eq!(render(dir, "kong", &["kong.yml"], false), [""; 0]);
        assert_eq!(
            render(dir, "sidecar", &both[..1], false),
            ["deep/sidecar-b.json"]
        );
        assert_eq!(render(dir, "sidecar", &both[..1], false), [""; 0]);
        for there in ["sidecar-mine.json", "sidecar-a.json", "kong.yml"] {
            assert!(dir.join(there).is_file(), "{there}");
        }
        // Another mesh's, though the names are the same.
        replace_all(dir, "other", "sidecar", &[], true).unwrap();
        assert!(dir.join("sidecar-a.json").is_file());
    }

    #[test]
    fn secrets_stay_with_their_plain_files() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let all = ["a.json", "a.secret.json", "b.json", "b.secret.json"];
        render(dir, "sidecar", &all, true);
        let gone = render(dir, "sidecar", &["a.json"], false);
        assert_eq!(gone, ["b.json", "b.secret.json"]);
        assert_eq!(render(dir, "sidecar", &["a.json"], true), ["a.secret.json"]);
    }

    #[test]
    fn what_was_left_half_written_goes_and_a_pipe_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let half = [".mesh-rendered.json.7.new", "a.json.7.new"];
        for name in half {
            fs::write(dir.join(name), "").unwrap();
        }
        fs::write(dir.join("mine.json.7.new"), "").unwrap();
        let record = dir.join(RECORD);
        let made = std::process::Command::new("mkfifo").arg(&record).status();
        assert!(made.unwrap().success());
        render(dir, "sidecar", &["a.json"], false);
        assert!(fs::symlink_metadata(&record).unwrap().is_file());
        assert!(half.iter().all(|name| !dir.join(name).exists()));
        assert!(dir.join("mine.json.7.new").exists());
    }

    #[test]
    fn a_record_that_somebody_changed_leads_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, inside) = (dir.path().join("outside"), dir.path().join("in"));
        fs::write(&outside, "").unwrap();
        fs::create_dir(&inside).unwrap();
        for name in [
            "../outside".to_owned(),
            outside.display().to_string(),
            String::new(),
        ] {
            let record = Record(BTreeMap::from([("m/t".to_owned(), BTreeSet::from([name]))]));
            write_all(&inside, &[record.rendered()]).unwrap();
            assert_eq!(render(&inside, "t", &["x"], true), [""; 0]);
            assert!(outside.is_file());
        }
        fs::write(inside.join(RECORD), "no record").unwrap();
        assert_eq!(render(&inside, "t", &["y"], true), [""; 0]);
        assert!(inside.join("x").is_file());
    }
}
