//! `mesh render` when something comes in between: a full disk, a kill, a place that cannot be written.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

const MESH: &str = env!("CARGO_BIN_EXE_mesh");

fn yaml(agents: usize) -> String {
    let mut text =
        "version: 1\nmesh: m\ngateway: {auth: {development: true}}\nagents:\n".to_owned();
    for n in 0..agents {
        text += &format!("  - {{id: a{n}, capabilities: [x], endpoint: \"http://127.0.0.1:9\"}}\n");
    }
    text
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(MESH);
    command.current_dir(dir).arg("render").args(arguments);
    // Kubernetes has a broker and a store of its own.
    command.env("RABBITMQ_URL", "amqp://u:pw@rabbitmq:5672");
    command.env("REDIS_URL", "redis://:pw@redis:6379/0");
    // Whoever asked sudo is none of this.
    command.env_remove("SUDO_UID").env_remove("SUDO_GID");
    command
}

fn render(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).output().unwrap()
}

/// The same through a shell that sets limits before.
fn limited(dir: &Path, limits: &str, arguments: &str) -> Output {
    let script = format!("{limits}; exec {MESH} render {arguments}");
    let mut command = Command::new("bash");
    command.current_dir(dir).args(["-c", &script]);
    command.output().unwrap()
}

/// Every file below a directory with its text, but for the record of what was written.
fn files(dir: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if !path.ends_with(".mesh-rendered.json") {
            all.push((
                path.display().to_string(),
                fs::read_to_string(&path).unwrap(),
            ));
        }
    }
    all.sort();
    all
}

/// No file may grow beyond 16 KiB: what is longer ends as on a full disk (with EFBIG for ENOSPC).
const FULL: &str = "trap '' XFSZ; ulimit -f 16";
/// The same, and the signal that comes with it kills: in the midst of writing.
const KILLED: &str = "ulimit -c 0; ulimit -f 16";
const SIGXFSZ: i32 = 25;

#[test]
fn whatever_interrupts_it_the_old_file_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("mesh.yaml"), yaml(1)).unwrap();
    assert!(
        render(dir, &["orchestrator", "--out", "out"])
            .status
            .success()
    );
    let before = files(&dir.join("out"));
    // Long enough for either limit.
    fs::write(dir.join("mesh.yaml"), yaml(500)).unwrap();

    let full = limited(dir, FULL, "orchestrator --out out");
    let said = String::from_utf8_lossy(&full.stderr);
    assert_eq!(full.status.code(), Some(1), "{said}");
    assert!(said.contains("out/orchestrator.json"), "{said}");
    assert_eq!(files(&dir.join("out")), before, "and nothing is left over");

    let killed = limited(dir, KILLED, "orchestrator --out out");
    assert_eq!(killed.status.signal(), Some(SIGXFSZ), "{killed:?}");
    let after = files(&dir.join("out"));
    assert!(before.iter().all(|file| after.contains(file)), "{after:?}");

    // What the killed one left is gone after the next.
    assert!(
        render(dir, &["orchestrator", "--out", "out"])
            .status
            .success()
    );
    let now = files(&dir.join("out"));
    assert_eq!(now.len(), 1, "{now:?}");
    assert!(now[0].1.contains("a499"));
}

#[test]
fn what_cannot_be_written_is_named_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("mesh.yaml"), yaml(1)).unwrap();
    fs::write(dir.join("file"), "").unwrap();
    fs::create_dir_all(dir.join("taken/kong.yml/x")).unwrap();
    for (out, named) in [
        // Nobody may write there, root included.
        ("/proc/self/mesh", "/proc/self/mesh"),
        ("file", "file"),
        ("taken", "taken/kong.yml"),
    ] {
        let done = render(dir, &["kong", "--out", out]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{out}: {said}");
        assert!(said.contains(named), "{out}: {said}");
    }
    assert_eq!(files(&dir.join("taken")), []);
}

#[test]
fn files_of_agents_that_are_gone_go_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("mesh.yaml"), yaml(3)).unwrap();
    assert!(
        render(dir, &["all", "--out", "out", "--secrets"])
            .status
            .success()
    );
    let theirs = dir.join("out/sidecar/sidecar-theirs.json");
    fs::write(&theirs, "{}").unwrap();
    fs::write(dir.join("mesh.yaml"), yaml(2)).unwrap();
    let done = render(dir, &["all", "--out", "out"]);
    let said = String::from_utf8_lossy(&done.stdout);
    for name in ["sidecar-a2.json", "sidecar-a2.secret.json"] {
        assert!(
            said.contains(&format!("removed   out/sidecar/{name}")),
            "{said}"
        );
        assert!(!dir.join("out/sidecar").join(name).exists());
    }
    for name in [
        "sidecar-a1.json",
        "sidecar-a1.secret.json",
        "sidecar-theirs.json",
    ] {
        assert!(dir.join("out/sidecar").join(name).exists(), "{name}");
    }
    let kong = dir.join("out/kong/kong.secret.yml");
    assert!(
        kong.exists(),
        "rendering without secrets ends nothing that runs with them"
    );
}

#[test]
fn no_container_runs_as_root_because_root_rendered() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mesh.yaml"), yaml(1)).unwrap();
    let out = render(dir.path(), &["compose", "--out", "out", "--secrets"]);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let env = fs::read_to_string(dir.path().join("out/.env")).unwrap();
    let id = |name: &str| -> u32 {
        let line = env.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse().unwrap()
    };
    let (user, group) = (id("MESH_UID="), id("MESH_GID="));
    assert!(user != 0 && group != 0, "{env}");
    // Who runs the containers reads the files.
    let mut secrets = 0;
    for (file, _) in files(&dir.path().join("out")) {
        if file.contains(".secret.") {
            let meta = fs::metadata(&file).unwrap();
            assert_eq!(
                (meta.uid(), meta.gid(), meta.mode() & 0o777),
                (user, group, 0o600),
                "{file}"
            );
            secrets += 1;
        }
    }
    assert!(secrets > 3, "{secrets}");
}

#[test]
fn many_at_once_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("mesh.yaml"), yaml(40)).unwrap();
    let running: Vec<_> = (0..8)
        .map(|_| {
            let mut command = command(dir, &["all", "--out", "out"]);
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut one in running {
        assert!(one.wait().unwrap().success());
    }
    let now = files(&dir.join("out"));
    assert!(now.iter().all(|(name, _)| !name.ends_with(".new")));
    assert!(render(dir, &["all", "--out", "out"]).status.success());
    assert_eq!(files(&dir.join("out")), now);
}

#[test]
fn one_target_that_cannot_be_rendered_leaves_the_others_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // Compose mounts a secret file, and makes no variable of it.
    let text = "version: 1\nmesh: m\nservices:\n  - name: s\n    url: http://s:80\n    routes: [{name: r, paths: [/s]}]\n    \
                container: {image: \"s:1\", environment: {KEY: {file: key}}}\n";
    fs::write(dir.join("mesh.yaml"), text).unwrap();
    let out = render(dir, &["all", "--out", "out"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("compose"), "{said}");
    assert!(!dir.join("out").exists());
}
