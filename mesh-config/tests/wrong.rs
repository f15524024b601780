//! Wrong files, each beside the exact report it must give.
//!
//! `tests/wrong/NAME.yaml` beside `NAME.txt`; where several files belong together, `NAME/mesh.yaml` beside
//! `NAME/report.txt`. A first line `# env: NAME` chooses an environment. `UPDATE=1` writes what is reported now; read
//! the difference as a user would: does it name the place and the mend? What is too large for a repository is made here.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic)]

use mesh_config::{Options, Report, compile_file};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Codes whose messages say by themselves what would be right.
const SELF_EVIDENT: [&str; 1] = ["wrong_type"];
/// Codes of what is nowhere in the file.
const NOWHERE: [&str; 5] = [
    "missing",
    "no_agents",
    "no_general_agent",
    "too_large",
    "unknown_environment",
];

fn variables(name: &str) -> Option<String> {
    let value = match name {
        "PORT" => "10005",
        "WORD" => "word",
        "EMPTY" => "",
        _ => return None,
    };
    Some(value.to_owned())
}

fn report(file: &Path) -> Report {
    let text = fs::read(file).unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    let first = text.lines().next().unwrap_or_default();
    let options = Options {
        environment: first.strip_prefix("# env: "),
        variables: &variables,
        outside: false,
    };
    match compile_file(file, &options).unwrap() {
        Ok(compiled) => compiled.warnings,
        Err(report) => report,
    }
}

/// Every case: its mesh.yaml and its report, relative to the crate, as reports name them.
fn cases() -> Vec<(PathBuf, PathBuf)> {
    let entries = fs::read_dir("tests/wrong").unwrap();
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.push((path.join("mesh.yaml"), path.join("report.txt")));
        } else if path.extension().is_some_and(|e| e == "yaml") {
            all.push((path.clone(), path.with_extension("txt")));
        }
    }
    all.sort();
    all
}

#[test]
fn every_wrong_file_gives_the_report_beside_it() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for (file, beside) in cases() {
        let report = report(&file);
        let said = report.to_string();
        if report.findings.is_empty() {
            wrong.push(format!("{}: nothing is wrong with it", file.display()));
        }
        assert!(!said.contains("hunter2"), "{}: {said}", file.display());
        for finding in &report.findings {
            let code = finding.code;
            if finding.hint.is_none() && !SELF_EVIDENT.contains(&code) {
                wrong.push(format!("{}: {code} names no mend", file.display()));
            }
            if finding.place.line == 0 && !NOWHERE.contains(&code) {
                wrong.push(format!("{}: {code} has no place", file.display()));
            }
        }
        if update {
            fs::write(&beside, &said).unwrap();
        } else if fs::read_to_string(&beside).unwrap_or_default() != said {
            wrong.push(format!("{} should be:\n{said}", beside.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn there_are_enough_of_them() {
    let golden = fs::read_dir("tests/cases").unwrap();
    let golden = golden.filter(|case| case.as_ref().unwrap().path().join("errors.txt").exists());
    let all = cases().len() + golden.count();
    assert!(all >= 160, "{all} wrong files");
}

/// What is too large, too deep or too wide, with the code it must give and what it must not exceed in time.
#[test]
fn huge_files_are_refused_at_once() {
    const HEAD: &str = "version: 1\nmesh: m\ngateway: {auth: {development: true}}\n";
    let mut huge: Vec<(&str, String, &str)> = vec![
        (
            "10 MB",
            format!("{HEAD}# {}\n", "x".repeat(10 << 20)),
            "too_large",
        ),
        (
            "one scalar",
            format!("{HEAD}audit: {}\n", "x".repeat(5 << 20)),
            "too_large",
        ),
        (
            "flow",
            format!("{HEAD}agents: {}\n", "[".repeat(100_000)),
            "too_large",
        ),
        (
            "maps",
            format!("{HEAD}agents: {}\n", "{a: ".repeat(100_000)),
            "too_large",
        ),
        (
            "dashes",
            format!("{HEAD}agents:\n  {}x\n", "- ".repeat(10_000)),
            "too_large",
        ),
        (
            "items",
            format!("{HEAD}agents: [{}]\n", "a,".repeat(1_200_000)),
            "too_large",
        ),
        (
            "aliases",
            format!("{HEAD}x: &a b\nagents: [{}]\n", "*a,".repeat(2_000)),
            "too_large",
        ),
    ];
    let mut deep = HEAD.to_owned();
    for depth in 0..64 {
        deep.push_str(&format!("{}a:\n", " ".repeat(depth)));
    }
    huge.push(("indented", deep, "too_large"));
    let mut laughs = format!("{HEAD}a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..20 {
        let before = format!("*a{},", n - 1).repeat(10);
        laughs.push_str(&format!("a{n}: &a{n} [{before}]\n"));
    }
    huge.push(("laughs", laughs, "too_large"));
    let mut merges = format!("{HEAD}a0: &a0 {{k: v}}\n");
    for n in 1..2_000 {
        merges.push_str(&format!("a{n}: &a{n} {{<<: *a{}}}\n", n - 1));
    }
    huge.push(("merges", merges, "too_large"));
    let keys: String = (0..200_000).map(|n| format!("k{n}: 1\n")).collect();
    huge.push(("keys", format!("{HEAD}{keys}"), "unknown_key"));
    let same = "mesh: m\n".repeat(100_000);
    huge.push(("the same key", format!("{HEAD}{same}"), "duplicate_key"));
    let dir = tempfile::tempdir().unwrap();
    for (name, text, code) in huge {
        let file = dir.path().join("mesh.yaml");
        fs::write(&file, text).unwrap();
        let begun = Instant::now();
        let said = report(&file).to_string();
        let took = begun.elapsed();
        let first: String = said.chars().take(400).collect();
        assert!(said.contains(&format!("error[{code}]")), "{name}: {first}");
        assert!(took < Duration::from_secs(10), "{name} took {took:?}");
        assert!(
            said.len() < 4 << 20,
            "{name}: {} bytes are said",
            said.len()
        );
    }
}

/// An include that leads out of the directory, by a link that a repository can hold.
#[test]
fn links_do_not_lead_out() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside.yaml");
    fs::write(&outside, "agents: [{id: hunter2}]\n").unwrap();
    let inside = dir.path().join("mesh");
    fs::create_dir(&inside).unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("link.yaml")).unwrap();
    let file = inside.join("mesh.yaml");
    fs::write(&file, "version: 1\nmesh: m\ninclude: link.yaml\n").unwrap();
    let said = report(&file).to_string();
    assert!(said.contains("error[include_outside]"), "{said}");
    assert!(said.contains(":3:10"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    let allowed = Options {
        outside: true,
        ..Options::default()
    };
    let said = compile_file(&file, &allowed)
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(!said.contains("include_outside"), "{said}");
}
