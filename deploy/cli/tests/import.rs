//! `mesh import`: what it prints, what it writes, how it exits.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const WHOLE: &str = "_format_version: \"3.0\"\nservices:\n- name: web\n  url: http://127.0.0.1:9\n  routes: [{name: r, paths: [/r]}]\n  plugins: [{name: cors}]\n";
const LOSSY: &str = "_format_version: \"3.0\"\nservices: [{name: web, url: \"http://web\"}]\nconsumers: [{username: a}]\n";

fn mesh(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn with(name: &str, content: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), content).unwrap();
    dir
}

#[test]
fn a_whole_file_goes_to_standard_output_and_back_to_kong() {
    let dir = with("kong.yml", WHOLE);
    let out = mesh(dir.path(), &["import", "kong.yml"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    fs::write(dir.path().join("mesh.yaml"), &out.stdout).unwrap();
    let checked = mesh(dir.path(), &["validate"]);
    assert!(checked.status.success(), "{}", text(&checked.stdout));
    let rendered = mesh(dir.path(), &["render", "kong", "--out", "out"]);
    assert!(rendered.status.success(), "{}", text(&rendered.stderr));
    let kong = fs::read_to_string(dir.path().join("out/kong.yml")).unwrap();
    assert!(
        kong.contains("name: cors") && kong.contains("- /r"),
        "{kong}"
    );
    assert!(!kong.contains("orchestrator"), "{kong}");
}

#[test]
fn what_is_not_carried_over_is_said_with_its_place_and_by_the_exit_code() {
    let dir = with("kong.yml", LOSSY);
    let out = mesh(dir.path(), &["import", "kong.yml", "--out", "mesh.yaml"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(out.stdout.is_empty());
    let said = text(&out.stderr);
    assert!(said.contains("not carried over: consumers"), "{said}");
    assert!(said.contains("kong.yml:3:12"), "{said}");
    assert!(!said.contains('\x1b'), "{said}");
    let written = fs::read_to_string(dir.path().join("mesh.yaml")).unwrap();
    assert!(
        written.contains("# ") && written.contains("line 3: consumers"),
        "{written}"
    );
    let json = mesh(dir.path(), &["import", "kong.yml", "-o", "json"]);
    assert_eq!(json.status.code(), Some(2));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["from"], "kong");
    assert_eq!(json["not_carried_over"][0]["line"], 3);
    assert_eq!(json["mesh_yaml"], written);
}

#[test]
fn a_file_that_is_there_stays_unless_it_may_go() {
    let dir = with("kong.yml", WHOLE);
    let there = dir.path().join("mesh.yaml");
    fs::write(&there, "mine").unwrap();
    let out = mesh(dir.path(), &["import", "kong.yml", "--out", "mesh.yaml"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text(&out.stderr).contains("--force"),
        "{}",
        text(&out.stderr)
    );
    assert_eq!(fs::read_to_string(&there).unwrap(), "mine");
    let out = mesh(
        dir.path(),
        &["import", "kong.yml", "--out", "mesh.yaml", "--force"],
    );
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(
        fs::read_to_string(&there)
            .unwrap()
            .contains("mesh: imported")
    );
    // Neither over a link that leads nowhere.
    std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
    let out = mesh(dir.path(), &["import", "kong.yml", "--out", "link"]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        3,
        "nothing is left over"
    );
}

#[test]
fn what_cannot_be_read_is_an_error_and_writes_nothing() {
    for (content, arguments, said) in [
        ("a: [", &[][..], "cannot import"),
        ("a: 1\n", &[], "--from"),
        (WHOLE, &["--from", "rabbitmq"], "no mesh can be made"),
    ] {
        let dir = with("file", content);
        let arguments = [&["import", "file", "--out", "mesh.yaml"], arguments].concat();
        let out = mesh(dir.path(), &arguments);
        assert_eq!(out.status.code(), Some(1));
        assert!(text(&out.stderr).contains(said), "{}", text(&out.stderr));
        assert!(!dir.path().join("mesh.yaml").exists());
    }
    let dir = with("file", "\u{feff}");
    fs::write(dir.path().join("bytes"), [0xff, 0xfe, 0]).unwrap();
    let out = mesh(dir.path(), &["import", "bytes"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("UTF-8"), "{}", text(&out.stderr));
    fs::write(dir.path().join("large"), "#".repeat(10 << 20)).unwrap();
    let out = mesh(dir.path(), &["import", "large"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text(&out.stderr).contains("longer"),
        "{}",
        text(&out.stderr)
    );
    let out = mesh(dir.path(), &["import", "file", "--mesh", "A B"]);
    assert_eq!(out.status.code(), Some(64));
}
