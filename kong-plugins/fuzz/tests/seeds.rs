//! Every seed of every target: its promises hold, and it is accepted where its name begins with `good_` and
//! refused where it does not.

#![allow(clippy::unwrap_used)]

use mesh_fuzz::TARGETS;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn own(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)
}

/// Names of what a directory holds, without endings.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    entries.map(|entry| name(entry.unwrap().path())).collect()
}

#[test]
fn every_target_has_seeds_and_a_fuzzer() {
    let targets: BTreeSet<String> = TARGETS.map(|(name, _)| name.to_owned()).into();
    assert_eq!(names(&own("seeds")), targets);
    assert_eq!(names(&own("fuzz/fuzz_targets")), targets);
}

#[test]
fn every_seed_is_judged_as_its_name_says() {
    let mut wrong = Vec::new();
    for (target, run) in TARGETS {
        let mut kinds = BTreeSet::new();
        for entry in std::fs::read_dir(own("seeds").join(target)).unwrap() {
            let path = entry.unwrap().path();
            let seed = std::fs::read(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            let good = name.starts_with("good_");
            kinds.insert(good);
            // What broke is printed by the panic itself; all of them are to be told.
            match std::panic::catch_unwind(|| run(&seed)) {
                Ok(accepted) if accepted == good => {}
                Ok(true) => wrong.push(format!("{target}/{name} was accepted")),
                Ok(false) => wrong.push(format!("{target}/{name} was refused")),
                Err(_) => wrong.push(format!("{target}/{name} broke a promise")),
            }
        }
        assert_eq!(kinds.len(), 2, "{target} has good seeds and others");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
