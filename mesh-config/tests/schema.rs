//! The schema that editors read is what the reader takes: no more keys, no fewer, each with its meaning.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn cases() -> Vec<PathBuf> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let cases = fs::read_dir(cases).unwrap();
    cases.map(|case| case.unwrap().path()).collect()
}

fn yaml(path: &Path) -> Option<Value> {
    // As the reader has it: `on` and `yes` are words.
    let options = serde_saphyr::options! { strict_booleans: true };
    let text = fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&text);
    serde_saphyr::from_str_with_options(&text, options).ok()
}

#[test]
fn every_key_has_a_meaning_and_every_meaning_a_key() {
    let (bare, idle) = mesh_config::undescribed();
    assert!(
        bare.is_empty(),
        "say what these mean, in mesh-config/src/schema/keys.txt:\n{}",
        bare.join("\n")
    );
    assert!(
        idle.is_empty(),
        "nothing is called so any more: {}",
        idle.join(", ")
    );
}

/// `UPDATE=1` writes it.
#[test]
fn the_file_in_the_repository_is_the_readers_word() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("mesh.schema.json");
    let wanted = format!("{:#}\n", mesh_config::schema());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "mesh.schema.json is stale: UPDATE=1");
}

#[test]
fn what_the_reader_takes_is_valid() {
    let validator = jsonschema::validator_for(&mesh_config::schema()).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mesh.yaml");
    let good = |case: &PathBuf| !case.join("errors.txt").exists();
    let files = cases().into_iter().filter(good);
    let files: Vec<PathBuf> = files.map(|case| case.join("mesh.yaml")).collect();
    assert!(files.len() >= 9);
    for file in files.into_iter().chain([root]) {
        let mesh = yaml(&file).unwrap();
        let faults = validator.iter_errors(&mesh);
        let faults: Vec<String> = faults
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{}: {faults:#?}", file.display());
    }
}

/// Codes of what a schema can say of one value.
const SEEN: [&str; 4] = ["unknown_key", "wrong_type", "unknown_value", "missing_unit"];

#[test]
fn what_the_reader_refuses_by_its_form_is_not_valid() {
    let validator = jsonschema::validator_for(&mesh_config::schema()).unwrap();
    let wrong = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let single = fs::read_dir(wrong)
        .unwrap()
        .map(|file| file.unwrap().path());
    let single = single.filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    let single = single.map(|path| (path.clone(), path.with_extension("txt")));
    let cases = cases().into_iter();
    let cases = cases.map(|case| (case.join("mesh.yaml"), case.join("errors.txt")));
    let mut seen = 0;
    for (file, report) in cases.chain(single) {
        let report = fs::read_to_string(report).unwrap_or_default();
        if !SEEN
            .iter()
            .any(|code| report.contains(&format!("error[{code}]")))
        {
            continue;
        }
        // What stands in an environment is a part, and may be anything there; nor does a schema know variables.
        let text = fs::read(&file).unwrap();
        if text.starts_with(b"# env: ") || text.windows(2).any(|two| two == b"${") {
            continue;
        }
        // Keys that stand twice are for the parser.
        let Some(mesh) = yaml(&file) else { continue };
        assert!(!validator.is_valid(&mesh), "{} is valid", file.display());
        seen += 1;
    }
    assert!(seen >= 20, "{seen}");
}

/// `UPDATE=1` writes it.
#[test]
fn the_reference_in_docs_is_the_readers_word() {
    const MARK: &str = "<!-- keys -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mesh-yaml.md");
    let found = fs::read_to_string(&path).unwrap();
    let (head, _) = found.split_once(MARK).unwrap();
    let wanted = format!("{head}{MARK}{}", mesh_config::reference());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &wanted).unwrap();
    } else {
        assert!(found == wanted, "docs/mesh-yaml.md is stale: UPDATE=1");
    }
}
