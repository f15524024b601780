//! What is rendered for Compose and Kubernetes, read by their own tools: docker-compose 1.29 of Debian, the schemas of
//! Kubernetes, hadolint. A tool that is not installed fails the test.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mesh_tests::binary::{binary, program_of};
use mesh_tests::consul::{self, Setup};
use mesh_tests::server::{directory, target_directories};
use mesh_tests::wait_for;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The oldest Kubernetes that has native sidecars for good, and the newest whose schemas are there.
const VERSIONS: [&str; 2] = ["1.33.1", "1.37.0"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// A mesh.yaml of the repository, and what is rendered of it.
const MESHES: [&str; 3] = [
    "mesh.yaml",
    "deploy/examples/python-agent/mesh.yaml",
    "deploy/examples/sutazai/mesh.yaml",
];

/// Variables that the meshes name, and no others.
const VARIABLES: [(&str, &str); 4] = [
    (
        "JWT_SECRET",
        "c2VjcmV0LW9mLXRoaXJ0eS10d28tYnl0ZXMtYW5kLW1vcmU",
    ),
    (
        "MESH_ASSERTION_KEY",
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
    ),
    ("RABBITMQ_URL", "amqp://admin:pw@rabbitmq:5672"),
    ("REDIS_URL", "redis://:pw@redis:6379/0"),
];

fn run(program: &str, arguments: &[&str], directory: &Path, more: &[(&str, String)]) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", directory)
        .envs(VARIABLES)
        .envs(more.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

fn said(out: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

/// Renders a target of a mesh.yaml, a copy of which lies in `out` so that its keys are made there.
fn render(target: &str, mesh: &str, out: &Path, more: &[&str]) {
    let copy = out.join("mesh.yaml");
    fs::copy(root().join(mesh), &copy).unwrap();
    let (copy, out_text) = (copy.display().to_string(), out.display().to_string());
    let mut arguments = vec![
        "render", target, &copy, "--out", &out_text, "--root", "../..",
    ];
    arguments.extend(more);
    let rendered = run(&binary("mesh"), &arguments, out, &[]);
    assert!(rendered.status.success(), "{mesh}: {}", said(&rendered));
}

/// docker-compose as `make setup` unpacks it.
fn compose(file: &Path) -> Output {
    let compose = target_directories()
        .into_iter()
        .map(|target| target.join("compose/usr"))
        .find(|usr| usr.join("bin/docker-compose").is_file())
        .expect("docker-compose is not there: install with `make setup`");
    let program = compose.join("bin/docker-compose").display().to_string();
    let libraries = compose
        .join("lib/python3/dist-packages")
        .display()
        .to_string();
    let file_text = file.display().to_string();
    let arguments = [program.as_str(), "-f", &file_text, "config", "-q"];
    let more = [("PYTHONPATH", libraries)];
    run("python3", &arguments, file.parent().unwrap(), &more)
}

#[test]
fn compose_takes_what_is_rendered_for_it() {
    for mesh in MESHES {
        let out = directory("compose");
        render("compose", mesh, out.path(), &["--secrets"]);
        let file = out.path().join("docker-compose.yml");
        let text = fs::read_to_string(&file).unwrap();
        // The agents' own sources, which it wants to see there, are their owner's.
        for line in text.lines() {
            if let Some(agent) = line.trim().strip_prefix("context: ./") {
                fs::create_dir_all(out.path().join(agent)).unwrap();
            }
        }
        let checked = compose(&file);
        assert!(checked.status.success(), "{mesh}: {}", said(&checked));
        for secret in ["pw@", ":pw", VARIABLES[0].1, VARIABLES[1].1] {
            assert!(!text.contains(secret), "{mesh}: {secret} in the open");
        }
        // Every file that it mounts as a secret is there, for its owner alone.
        let mut secrets = 0;
        for line in text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("file: ./"))
        {
            let file = out.path().join(line.trim_matches('"'));
            let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).unwrap());
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
            secrets += 1;
        }
        assert!(secrets >= 6, "{mesh}: {secrets}");
        // What it finds right it would find wrong.
        let broken = text.replace("read_only: true", "read_onyl: true");
        assert_ne!(broken, text);
        fs::write(&file, broken).unwrap();
        assert!(
            !compose(&file).status.success(),
            "{mesh}: a key that Compose has not"
        );
    }
}

fn validate(files: &[PathBuf], version: &str) -> Output {
    let program = program_of("kubernetes-validate", "kubernetes-validate");
    let mut arguments = vec!["--strict", "-k", version];
    let files: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    arguments.extend(files.iter().map(String::as_str));
    run(&program, &arguments, &root(), &[])
}

/// Every file of a directory, with those below.
fn all(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(all(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn kubernetes_takes_what_is_rendered_for_it() {
    for mesh in MESHES {
        let out = directory("kubernetes");
        render("kubernetes", mesh, out.path(), &["--secrets"]);
        let base = out.path().join("base");
        let objects: Vec<PathBuf> = all(&base)
            .into_iter()
            .filter(|file| {
                file.parent() == Some(base.as_path()) && !file.ends_with("kustomization.yaml")
            })
            .collect();
        assert!(objects.len() >= 4, "{mesh}: {objects:?}");
        for version in VERSIONS {
            let checked = validate(&objects, version);
            assert!(
                checked.status.success(),
                "{mesh} {version}: {}",
                said(&checked)
            );
        }
        kustomization_is_whole(&base);
        let gateway = base.join("kong.yaml");
        let text = fs::read_to_string(&gateway).unwrap();
        assert!(text.contains("restartPolicy: Always"), "a native sidecar");
        let broken = text.replace("runAsNonRoot", "runAsNoRoot");
        assert_ne!(broken, text);
        fs::write(&gateway, broken).unwrap();
        assert!(
            !validate(&[gateway], VERSIONS[0]).status.success(),
            "a field that there is not"
        );
    }
}

/// Every file that it names is there, and every Secret that a pod mounts is made by it.
fn kustomization_is_whole(base: &Path) {
    let text = fs::read_to_string(base.join("kustomization.yaml")).unwrap();
    let mut resources = 0;
    for line in text
        .lines()
        .map(|line| line.trim().trim_start_matches("- "))
    {
        let file = line.split_once('=').map_or(line, |(_, file)| file);
        if file.ends_with(".yaml") || file.starts_with("secrets/") {
            assert!(base.join(file).is_file(), "{file} is not there");
            resources += 1;
        }
    }
    assert!(resources >= 6, "{text}");
    for file in all(base) {
        let objects = fs::read_to_string(&file).unwrap();
        for name in objects
            .lines()
            .filter_map(|line| line.trim().strip_prefix("secretName: "))
        {
            let made = format!("- name: {name}\n");
            assert!(
                text.contains(&made),
                "{}: nobody makes {name}",
                file.display()
            );
        }
    }
}

#[test]
fn what_lies_in_the_repository_is_what_is_rendered() {
    for (target, committed) in [
        ("compose", "deploy/compose"),
        ("kubernetes", "deploy/kubernetes"),
    ] {
        let out = directory(target);
        render(target, "deploy/examples/sutazai/mesh.yaml", out.path(), &[]);
        let committed = root().join(committed);
        let mut compared = 0;
        for file in all(&committed) {
            let inside = file.strip_prefix(&committed).unwrap();
            if !inside
                .extension()
                .is_some_and(|extension| extension == "yml" || extension == "yaml")
            {
                continue;
            }
            let wanted = fs::read_to_string(out.path().join(inside)).unwrap_or_default();
            let found = fs::read_to_string(&file).unwrap();
            assert!(
                found == wanted,
                "{} is not what is rendered: make containers",
                file.display()
            );
            compared += 1;
        }
        assert!(compared > 0, "{target}");
    }
}

#[test]
fn the_dockerfiles_have_no_finding() {
    let hadolint = program_of("hadolint", "hadolint");
    let files = [
        "deploy/compose/Dockerfile",
        "deploy/examples/python-agent/Dockerfile",
    ];
    let out = run(&hadolint, &["--no-color", files[0], files[1]], &root(), &[]);
    assert!(out.status.success(), "{}", said(&out));
    let bad = directory("hadolint");
    fs::write(
        bad.path().join("Dockerfile"),
        "FROM debian\nRUN apt-get install curl\n",
    )
    .unwrap();
    let out = run(&hadolint, &["-f", "json", "Dockerfile"], bad.path(), &[]);
    let findings: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    assert!(
        !out.status.success() && findings.iter().any(|f| f["code"] == "DL3006"),
        "{}",
        said(&out)
    );
}

/// The rendered access control in a real Consul: without the token there is no certificate, with it there is.
#[tokio::test]
async fn consul_gives_certificates_to_who_has_the_token() {
    let out = directory("consul-acl");
    render("compose", "mesh.yaml", out.path(), &["--secrets"]);
    let rendered = fs::read_to_string(out.path().join("consul.secret.hcl")).unwrap();
    let sidecar = fs::read(out.path().join("sidecar-data-processor.secret.json")).unwrap();
    let sidecar: Value = serde_json::from_slice(&sidecar).unwrap();
    let token = sidecar["registry"]["consul"]["token"].as_str().unwrap();
    assert!(rendered.contains(token));
    // Debian's is older than the word.
    let more = rendered.replace("initial_management", "master");
    let consul = consul::start_with(Setup {
        more: Some(more),
        ..Setup::default()
    });
    let consul = consul.await;
    let client = reqwest::Client::new();
    let leaf = format!("{}/v1/agent/connect/ca/leaf/data-processor", consul.url());
    let refused = client.get(&leaf).send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let with = |request: reqwest::RequestBuilder| request.header("x-consul-token", token);
    // Made when there is a leader.
    wait_for("the token", || async {
        let answer = with(client.get(&leaf)).send().await.unwrap();
        answer.status().is_success()
    })
    .await;
}
