//! The Python example, run by the very lines of its README.

use crate::running::{Up, command, text};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

const YAML: &str = "deploy/examples/python-agent/mesh.yaml";

#[test]
fn the_first_recipe_of_the_examples_readme_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let example = root.join("deploy/examples/python-agent");
    let readme = fs::read_to_string(example.join("README.md")).unwrap();
    let (_, recipe) = readme.split_once("## Run it with the whole mesh").unwrap();
    let (recipe, _) = recipe.split_once("\n## ").unwrap();
    let lines: Vec<&str> = recipe
        .lines()
        .filter_map(|l| l.strip_prefix("    "))
        .collect();
    let [up, submit] = lines.as_slice() else {
        panic!("not two commands: {lines:?}");
    };

    // The same files on free ports, so that the test runs beside anything.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join(YAML);
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::copy(example.join("agent.py"), copy.with_file_name("agent.py")).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let yaml = fs::read_to_string(example.join("mesh.yaml")).unwrap();
    let yaml = yaml
        .replace("gateway:\n", "gateway:\n  listen: 127.0.0.1:0\n")
        .replace("orchestrator:\n", "orchestrator:\n  listen: 127.0.0.1:0\n")
        .replace("9101", &port);
    fs::write(&copy, yaml).unwrap();

    let shell = |line: &str| {
        let line = line.replace("target/release/mesh", env!("CARGO_BIN_EXE_mesh"));
        let mut shell = Command::new("sh");
        // In the place of the shell, so that a signal finds the mesh.
        shell
            .args(["-c", &format!("exec {line}")])
            .current_dir(dir.path());
        for (name, value) in command(dir.path()).get_envs() {
            assert!(value.is_none());
            shell.env_remove(name);
        }
        shell
    };
    let mesh = Up::of(&mut shell(up), dir.path());
    let done = shell(submit).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let said = text(&done.stdout);
    assert!(said.contains("words: 6"), "{said}");
    // What it prints itself leads to the same mesh.
    let hint = format!("submit system_optimization --file {YAML}");
    assert!(mesh.said().contains(&hint), "{}", mesh.said());
    assert_eq!(mesh.end("-INT"), Some(0));
}
