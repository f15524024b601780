//! `mesh explain`, `mesh schema`, `mesh migrate`, and what every command that reads a mesh.yaml has: environments,
//! includes, variables.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const GOOD: &str = "version: 1\nmesh: m\ngateway: {auth: {development: true}}\n\
    orchestrator: {planner: {general_agent: a}}\nagents: [{id: a, run: {builtin: general-agent}}]\n";

fn mesh(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .envs(variables.iter().copied())
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

#[test]
fn a_code_is_explained_as_it_stands_in_a_report() {
    let dir = tempfile::tempdir().unwrap();
    for code in ["unknown_key", "error[unknown_key]"] {
        let out = mesh(dir.path(), &["explain", code], &[]);
        let said = text(&out.stdout);
        assert!(out.status.success() && said.contains("lisen"), "{said}");
    }
    let out = mesh(dir.path(), &["explain", "unknown_kee"], &[]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("unknown_key"));
    let out = mesh(dir.path(), &["explain", "-o", "json"], &[]);
    let all: Value = serde_json::from_slice(&out.stdout).unwrap();
    let codes: Vec<&str> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["code"].as_str().unwrap())
        .collect();
    assert!(codes.contains(&"port_conflict") && codes.contains(&"store_evicts"));
}

#[test]
fn the_schema_is_the_committed_one() {
    let dir = tempfile::tempdir().unwrap();
    let out = mesh(dir.path(), &["schema"], &[]);
    let printed: Value = serde_json::from_slice(&out.stdout).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../mesh-config/mesh.schema.json");
    let kept: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(printed, kept);
    let out = mesh(dir.path(), &["schema", "-o", "text"], &[]);
    assert!(text(&out.stdout).contains("| `gateway.listen` |"));
}

#[test]
fn an_old_file_is_shown_then_written() {
    let old = "# ours\nmesh: m\ngateway: {auth: {development: true}}\norchestrator: {planner: {general_agent: a}}\n\
        agents: [{id: a, run: {builtin: general-agent}, admin_listen: \"127.0.0.1:9101\"}]\n";
    let dir = with(old);
    let file = dir.path().join("mesh.yaml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let out = mesh(dir.path(), &["migrate"], &[]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(
        said.contains("+version: 1") && said.contains("--write"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), old, "only shown");
    let out = mesh(dir.path(), &["migrate", "--write", "-o", "json"], &[]);
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(said["written"], true);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(fs::read_to_string(&file).unwrap().starts_with("# ours\n"));
    let out = mesh(dir.path(), &["validate"], &[]);
    assert!(out.status.success(), "{}", text(&out.stdout));
    let out = mesh(dir.path(), &["migrate"], &[]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));
}

#[test]
fn every_command_takes_the_environment() {
    let yaml =
        format!("{GOOD}include: more.yaml\nenvironments: {{staging: {{mesh: m-${{STAGE}}}}}}\n");
    let yaml = yaml.replace("m-${STAGE}", "\"m-${STAGE}\"");
    let dir = with(&yaml);
    fs::write(dir.path().join("more.yaml"), "audit: log\n").unwrap();
    let base = mesh(dir.path(), &["validate"], &[]);
    assert!(
        text(&base.stdout).contains("mesh m,"),
        "{}",
        text(&base.stdout)
    );
    for (arguments, variables) in [
        (vec!["--env", "staging", "validate"], vec![("STAGE", "s")]),
        (vec!["validate", "--env", "staging"], vec![("STAGE", "s")]),
        (
            vec!["validate"],
            vec![("STAGE", "s"), ("MESH_ENV", "staging")],
        ),
    ] {
        let out = mesh(dir.path(), &arguments, &variables);
        let said = text(&out.stdout);
        assert!(said.contains("mesh m-s,"), "{arguments:?}: {said}");
    }
    let out = mesh(dir.path(), &["validate", "--env", "staging"], &[]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1));
    assert!(said.contains("error[variable_unset]"), "{said}");
    let out = mesh(
        dir.path(),
        &["render", "kong", "--env", "stagin", "--out", "out"],
        &[],
    );
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("did you mean staging?"));
}

#[test]
fn a_finding_in_an_included_file_names_that_file_to_programs_too() {
    let dir = with(&format!("{GOOD}include: part.yaml\nnonsense: 1\n"));
    fs::write(dir.path().join("part.yaml"), "\nstore: {nonsense: 1}\n").unwrap();
    let out = mesh(dir.path(), &["validate", "-o", "json"], &[]);
    let said: Value = serde_json::from_slice(&out.stdout).unwrap();
    let findings = said["findings"].as_array().unwrap().iter();
    let unknown = findings.filter(|f| f["code"] == "unknown_key");
    let places: Vec<(&str, u64)> = unknown
        .map(|f| (f["file"].as_str().unwrap(), f["line"].as_u64().unwrap()))
        .collect();
    assert!(places.contains(&("part.yaml", 2)), "{places:?}");
    assert!(places.contains(&("mesh.yaml", 7)), "{places:?}");
}

/// The finding of this code that `mesh check` makes.
fn found(out: &Output, code: &str) -> Value {
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    let groups = report["groups"].as_array().unwrap().iter();
    let mut all = groups.flat_map(|group| group["findings"].as_array().unwrap());
    let found = all.find(|finding| finding["code"] == code);
    assert!(found.is_some(), "{report}");
    found.unwrap().clone()
}

#[test]
fn check_finds_files_beside_mesh_yaml_and_has_a_mend_for_everything() {
    let consul = |ca: &str| {
        format!("{GOOD}registry: {{backend: consul, url: \"https://127.0.0.1:9\", ca: {ca}}}\n")
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/ca.pem"), AUTHORITY).unwrap();
    let check = |yaml: String, variables: &[(&str, &str)]| {
        fs::write(dir.join("sub/mesh.yaml"), yaml).unwrap();
        let asked = ["check", "sub/mesh.yaml", "--pre", "-o", "json"];
        mesh(dir, &asked, variables)
    };
    // From here `ca.pem` is no file; from mesh.yaml it is.
    let out = check(consul("ca.pem"), &[]);
    found(&out, "registry_unreachable");
    let broker = format!("{GOOD}messaging: {{backend: rabbitmq, url: {{env: B}}}}\n");
    let store = format!("{GOOD}store: {{backend: redis, url: {{env: B}}}}\n");
    for (out, code) in [
        (check(consul("nothing.pem"), &[]), "registry_ca"),
        (check(broker, &[("B", "bla")]), "broker_url"),
        (check(store, &[("B", "bla")]), "store_url"),
    ] {
        let finding = found(&out, code);
        assert!(finding["mend"].as_str().is_some(), "{finding}");
    }
}

/// An authority that once was one.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIB0TCCAXigAwIBAgIUR2ZZAXhWzW6N0dpR/2n+TQ3FDo4wCgYIKoZIzj0EAwIw\n\
NzEjMCEGA1UECgwabWVzaCBkZXZlbG9wbWVudCBhdXRob3JpdHkxEDAOBgNVBAMM\n\
B3VtLm1lc2gwHhcNMjYxMTI5MDgzODI3WhcNMzYxMTI2MDgzOTI3WjA3MSMwIQYD\n\
VQQKDBptZXNoIGRldmVsb3BtZW50IGF1dGhvcml0eTEQMA4GA1UEAwwHdW0ubWVz\n\
aDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCJZBXhu39lwlUHkTAd+mVnFELmH\n\
R/ggnwgSGamcA/mHkLp5+FWmOBFv/rv5QK2cG6QnnKYBZBIW5DybWanX3pSjYjBg\n\
MBsGA1UdEQQUMBKGEHNwaWZmZTovL3VtLm1lc2gwDgYDVR0PAQH/BAQDAgEGMB0G\n\
A1UdDgQWBBQxcnE1V8eGdPu0z9XNkvto0hEHEjASBgNVHRMBAf8ECDAGAQH/AgEA\n\
MAoGCCqGSM49BAMCA0cAMEQCIB57t/oYx3IRh+FiXMZKeBr8mk9Y/MK6phGn3vJ0\n\
InZZAiAVi0L7GSGHL2Ie8S1BDnpIqEc0wlQ8ZctDyRpGZfOKUA==\n\
-----END CERTIFICATE-----\n";
