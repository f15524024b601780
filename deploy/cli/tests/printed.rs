//! Every command for programs and for shells: `-o json`, exit codes, completions, manual pages.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A mesh at ports where nobody listens.
const GOOD: &str = "version: 1\nmesh: m\ngateway: {listen: \"127.0.0.1:1\", auth: {development: true}}\n\
    orchestrator: {listen: \"127.0.0.1:2\", planner: {general_agent: a}}\nagents: [{id: a, run: {builtin: general-agent}}]\n";

fn mesh(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn with(yaml: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mesh.yaml"), yaml).unwrap();
    dir
}

/// Every command, and those of commands that have some, as `--help` lists them.
fn commands(dir: &Path) -> Vec<Vec<String>> {
    let list = |of: &[String]| -> Vec<String> {
        let mut arguments: Vec<&str> = of.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = text(&mesh(dir, &arguments).stdout);
        let Some((_, rest)) = help.split_once("Commands:\n") else {
            return Vec::new();
        };
        let (listed, _) = rest.split_once("\n\n").unwrap();
        let names = listed.lines().filter_map(|line| {
            let name = line.strip_prefix("  ")?;
            // A description that is wrapped stands further to the right.
            (!name.starts_with(' ')).then(|| name.split_whitespace().next().unwrap().to_owned())
        });
        names.filter(|name| name != "help").collect()
    };
    let mut found = Vec::new();
    for name in list(&[]) {
        let own = list(std::slice::from_ref(&name));
        if own.is_empty() {
            found.push(vec![name]);
        } else {
            found.extend(own.into_iter().map(|inner| vec![name.clone(), inner]));
        }
    }
    found
}

#[test]
fn every_command_has_output_for_programs() {
    let dir = with(GOOD);
    let all = commands(dir.path());
    assert!(all.len() > 15, "{all:?}");
    for command in &all {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = text(&mesh(dir.path(), &arguments).stdout);
        assert!(help.contains("--output <OUTPUT>"), "{command:?}: {help}");
        let first: Vec<&str> = command
            .iter()
            .take(1)
            .map(String::as_str)
            .chain(["--help"])
            .collect();
        let help = text(&mesh(dir.path(), &first).stdout);
        assert!(help.contains("Exit codes:"), "{command:?}: {help}");
        // An option that there is not is the same mistake everywhere.
        arguments.pop();
        arguments.push("--no-such-option");
        let out = mesh(dir.path(), &arguments);
        assert_eq!(out.status.code(), Some(64), "{command:?}");
        assert!(
            out.stdout.is_empty() && !out.stderr.is_empty(),
            "{command:?}"
        );
    }
}

#[test]
fn what_needs_no_mesh_prints_json_as_it_says() {
    let dir = with(GOOD);
    for (arguments, field, code) in [
        (vec!["validate"], "/findings", 0),
        (vec!["render", "kong", "--out", "out"], "/files/0/path", 0),
        (vec!["token"], "/claims/sub", 0),
        (vec!["completions", "bash"], "/script", 0),
        (vec!["man"], "/pages/0/text", 0),
        (vec!["man", "--out", "pages"], "/pages/0/path", 0),
        (vec!["status"], "/parts", 1),
        (vec!["check"], "/groups", 1),
        (vec!["check", "--pre"], "/groups", 0),
        (vec!["top", "--once"], "/agents", 0),
    ] {
        let mut all = arguments.clone();
        all.extend(["-o", "json"]);
        let out = mesh(dir.path(), &all);
        let said = text(&out.stdout);
        let value: Value = serde_json::from_str(&said)
            .unwrap_or_else(|_| panic!("{arguments:?}: {said}{}", text(&out.stderr)));
        assert!(value.pointer(field).is_some(), "{arguments:?}: {value}");
        assert_eq!(out.status.code(), Some(code), "{arguments:?}: {value}");
    }
}

#[test]
fn validate_tells_programs_where_and_what() {
    let dir = with("version: 1\nmesh: m\ngatewy: {}\n");
    let out = mesh(dir.path(), &["validate", "-o", "json"]);
    assert_eq!(out.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["ok"], false);
    let findings = report["findings"].as_array().unwrap();
    let unknown = findings
        .iter()
        .find(|f| f["code"] == "unknown_key")
        .unwrap();
    for (field, wanted) in [
        ("severity", Value::from("error")),
        ("file", "mesh.yaml".into()),
        ("line", 3.into()),
        ("column", 1.into()),
    ] {
        assert_eq!(unknown[field], wanted, "{unknown}");
    }
    assert!(
        unknown["hint"].as_str().unwrap().contains("gateway"),
        "{unknown}"
    );
    assert!(unknown["message"].is_string());
}

#[test]
fn shells_take_the_completions_and_find_every_command() {
    let dir = with(GOOD);
    let names: BTreeSet<String> = commands(dir.path()).into_iter().flatten().collect();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let out = mesh(dir.path(), &["completions", shell]);
        let script = text(&out.stdout);
        assert!(out.status.success(), "{shell}");
        for name in &names {
            assert!(script.contains(name.as_str()), "{shell}: no {name}");
        }
        if shell == "bash" {
            let mut bash = Command::new("bash")
                .arg("-n")
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            bash.stdin
                .take()
                .unwrap()
                .write_all(script.as_bytes())
                .unwrap();
            assert!(bash.wait().unwrap().success());
            // It completes: what a half-written command could be.
            let asked = format!(
                "{script}\nCOMP_WORDS=(mesh val); COMP_CWORD=1; _mesh mesh val mesh; echo \"${{COMPREPLY[@]}}\""
            );
            let said = Command::new("bash").args(["-c", &asked]).output().unwrap();
            assert_eq!(
                text(&said.stdout).trim(),
                "validate",
                "{}",
                text(&said.stderr)
            );
        }
    }
    let none = mesh(dir.path(), &["completions", "tcsh"]);
    assert_eq!(none.status.code(), Some(64));
}

#[test]
fn every_command_has_a_page() {
    let dir = with(GOOD);
    let out = mesh(dir.path(), &["man", "--out", "man1"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let first = fs::read_to_string(dir.path().join("man1/mesh.1")).unwrap();
    assert_eq!(text(&mesh(dir.path(), &["man"]).stdout), first);
    for command in commands(dir.path()) {
        let name = format!("mesh-{}", command.join("-"));
        let page = fs::read_to_string(dir.path().join(format!("man1/{name}.1")));
        let page = page.unwrap_or_else(|_| panic!("no page of {name}"));
        let title = format!(".TH {name} ");
        assert!(page.contains(&title), "{name}: {page}");
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"] {
            assert!(page.contains(section), "{name}: no {section}");
        }
        assert!(first.contains(command[0].as_str()), "{name}");
    }
}

#[test]
fn a_pipe_by_a_name_is_refused_and_the_standard_input_is_read() {
    let dir = with(GOOD);
    let made = Command::new("mkfifo")
        .arg("pipe")
        .current_dir(dir.path())
        .status();
    assert!(made.unwrap().success());
    for arguments in [
        vec!["check", "pipe", "--pre", "-o", "json"],
        vec!["validate", "pipe"],
        vec!["validate", "."],
    ] {
        let out = mesh(dir.path(), &arguments);
        assert_eq!(out.status.code(), Some(1), "{arguments:?}");
        let said = text(&out.stderr);
        assert!(said.contains("no regular file"), "{arguments:?}: {said}");
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(["validate", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(GOOD.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stdout));
}
