//! The commands that need no mesh: what they print, and how they exit.

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const GOOD: &str = "version: 1\nmesh: m\ngateway: {auth: {development: true}}\n\
    orchestrator: {planner: {general_agent: a}}\nagents: [{id: a, run: {builtin: general-agent}}]\n";

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn mesh(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).output().unwrap()
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
fn validate_accepts_the_repositorys_own_mesh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = mesh(&root, &["validate"]);
    let said = text(&out.stdout);
    assert!(out.status.success(), "{said}");
    assert!(said.contains("4 agents, 0 warnings"), "{said}");
    assert!(!said.contains('\x1b'), "a pipe gets no colours: {said}");
}

#[test]
fn validate_names_every_error_and_exits_1() {
    let dir = with("version: 1\nmesh: m\ngatewy: {}\nagents: [{id: A B}]\n");
    let out = mesh(dir.path(), &["validate"]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1));
    for what in [
        "error[unknown_key]",
        "mesh.yaml:3:1",
        "did you mean `gateway`?",
        "error[invalid_name]",
        "error[missing]",
    ] {
        assert!(said.contains(what), "no {what} in {said}");
    }
}

#[test]
fn a_missing_file_is_an_error_with_a_mend() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["validate", "up", "token", "status"] {
        let out = mesh(dir.path(), &[command]);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{command}");
        assert!(said.contains("cannot read mesh.yaml"), "{command}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn token_prints_a_token_alone_and_keeps_its_key() {
    let dir = with(GOOD);
    let first = mesh(dir.path(), &["token", "--claim", "team=red", "--ttl", "5m"]);
    let said = text(&first.stdout);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert_eq!(said.trim().split('.').count(), 3, "{said}");
    assert_eq!(said.lines().count(), 1);
    let key = dir.path().join(".mesh/token.key");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let before = fs::read(&key).unwrap();
    assert!(mesh(dir.path(), &["token"]).status.success());
    assert_eq!(fs::read(&key).unwrap(), before);
}

#[test]
fn render_keeps_secrets_out_unless_asked() {
    let dir = with(GOOD);
    let render = |more: &[&str]| {
        let mut arguments = vec!["render", "kong", "--out", "out"];
        arguments.extend(more);
        let out = mesh(dir.path(), &arguments);
        assert!(out.status.success(), "{}", text(&out.stderr));
        text(&out.stdout)
    };
    render(&[]);
    let read = |name: &str| fs::read_to_string(dir.path().join("out").join(name)).unwrap();
    assert!(read("kong.yml").contains("{file: .mesh/assertion.key}"));
    assert!(read("kong.env").contains("KONG_NGINX_WASM_SHM_KV"));
    assert!(!dir.path().join("out/kong.secret.yml").exists());
    assert!(render(&["--secrets"]).contains("unchanged out/kong.yml"));
    let key = fs::read_to_string(dir.path().join(".mesh/assertion.key")).unwrap();
    assert!(read("kong.secret.yml").contains(key.trim()));
    assert!(!read("kong.yml").contains(key.trim()));
    let secret = dir.path().join("out/kong.secret.yml");
    assert_eq!(
        fs::metadata(secret).unwrap().permissions().mode() & 0o777,
        0o600
    );
    for part in ["orchestrator", "sidecar"] {
        assert!(
            mesh(dir.path(), &["render", part, "--out", "out"])
                .status
                .success()
        );
    }
    assert!(read("sidecar-a.json").contains("\"service\": \"a\""));
    assert!(read("orchestrator.json").contains("public half of"));
}

#[test]
fn render_all_gives_each_target_a_directory_and_says_what_it_wrote() {
    let dir = with(GOOD);
    let render = || {
        let arguments = ["render", "all", "--out", "out", "--secrets", "-o", "json"];
        // Kubernetes has a broker and a store of its own.
        let out = command(dir.path(), &arguments)
            .env("RABBITMQ_URL", "amqp://u:pw@rabbitmq:5672")
            .env("REDIS_URL", "redis://:pw@redis:6379/0")
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", text(&out.stderr));
        serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()
    };
    for changed in [true, false] {
        let report = render();
        let files = report["files"].as_array().unwrap();
        for name in [
            "kong/kong.yml",
            "kong/kong.env",
            "kong/kong.secret.yml",
            "sidecar/sidecar-a.json",
        ] {
            let path = format!("out/{name}");
            let file = files.iter().find(|file| file["path"] == *path).unwrap();
            assert_eq!(file["changed"], changed, "{name}");
            assert_eq!(file["secret"], name.contains(".secret."), "{name}");
            assert!(dir.path().join(path).is_file());
        }
    }
    let unknown = mesh(dir.path(), &["render", "envoy", "--out", "out"]);
    assert_eq!(unknown.status.code(), Some(64));
    assert!(text(&unknown.stderr).contains("orchestrator"));
}

#[test]
fn up_names_missing_filters_and_how_to_make_them() {
    let dir = with(GOOD);
    let out = mesh(dir.path(), &["up", "--filters", "nowhere"]);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1));
    assert!(said.contains("jwt_auth.wasm"), "{said}");
    assert!(said.contains("run make filters"), "{said}");
}

#[test]
fn submit_without_a_mesh_says_who_is_missing() {
    let dir = with(GOOD);
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let out = mesh(dir.path(), &["submit", "x", "--gateway", &url]);
    assert_eq!(out.status.code(), Some(3));
    assert!(
        text(&out.stderr).contains("mesh up"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn load_without_a_mesh_loses_no_tasks() {
    let dir = with(GOOD);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let began = std::time::Instant::now();
    let load = ["load", "--tasks", "3", "--gateway", &url, "-o", "json"];
    let out = mesh(dir.path(), &load);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("start the mesh with mesh up"));
    assert!(out.stdout.is_empty(), "{}", text(&out.stdout));
    assert!(began.elapsed().as_secs() < 20, "it waits for nobody");
}

#[test]
fn submit_tells_a_useless_command_from_a_failed_task() {
    let dir = with(GOOD);
    fs::write(dir.path().join("latin1.json"), b"{\"a\": \"\xe9\"}").unwrap();
    fs::create_dir(dir.path().join(".mesh")).unwrap();
    let spoilt = with(GOOD);
    fs::create_dir(spoilt.path().join(".mesh")).unwrap();
    fs::write(spoilt.path().join(".mesh/token.key"), "spoilt").unwrap();
    let at = ["--gateway", "http://127.0.0.1:1", "--token", "a.b.c"];
    for (dir, arguments, what) in [
        (&dir, vec!["--payload", "[1]"], "not a JSON object"),
        (&dir, vec!["--payload", "{"], "not JSON"),
        (
            &dir,
            vec!["--payload", "@nowhere"],
            "cannot read the payload",
        ),
        (&dir, vec!["--payload", "@/dev/zero"], "longer than"),
        (&dir, vec!["--payload", "@latin1.json"], "not UTF-8"),
        (&dir, vec!["--priority", "high"], "--priority"),
        (
            &dir,
            vec!["--file", "nowhere.yaml"],
            "cannot read nowhere.yaml",
        ),
        (&dir, vec!["--gateway", "ftp://127.0.0.1"], "no http://"),
        (&dir, vec!["--gateway", "http://127.0.0.1:1/?a"], "a query"),
        (
            &dir,
            vec!["--gateway", "http://u:hunter2@127.0.0.1:1"],
            "a password",
        ),
        (&dir, vec!["--token", "hunter2 hunter2"], "no token"),
        (&spoilt, vec!["--priority", "5"], ".mesh/token.key"),
    ] {
        let mut all = vec!["submit", "x"];
        for pair in at.chunks(2) {
            // The case's own comes first, and no option comes twice.
            if !arguments.contains(&pair[0])
                && what != ".mesh/token.key"
                && what != "cannot read nowhere.yaml"
            {
                all.extend(pair);
            }
        }
        all.extend(&arguments);
        let out = mesh(dir.path(), &all);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.contains(what), "{arguments:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert_eq!(mesh(dir.path(), &["sumbit"]).status.code(), Some(64));
    assert_eq!(mesh(dir.path(), &["--help"]).status.code(), Some(0));
}

/// A gateway that gives one answer to whatever it is asked; its URL.
fn double(status: &'static str, body: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                head.push(byte[0]);
            }
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            // Who asked may have gone.
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut head);
        }
    });
    url
}

#[test]
fn nothing_from_the_network_steers_the_terminal() {
    let dir = with(GOOD);
    let problem = r#"{"type":"about:blank","title":"\u001b[2Jt","status":422,"code":"c","detail":"\u009b31md\u202e","errors":[{"field":"\u001b[1mf","detail":"\u0007e"}]}"#;
    // A task that is its own plan, its own events and its own answer.
    let task = r#"{"task_id":"\u001b[2Jt","plan":{"source":"\u001b[31ms"}}"#;
    for (status, body, code) in [("422 X", problem, 2), ("202 X", task, 3)] {
        let url = double(status, body);
        let out = mesh(dir.path(), &["submit", "x", "--gateway", &url]);
        let said = text(&out.stderr) + &text(&out.stdout);
        assert_eq!(out.status.code(), Some(code), "{said:?}");
        let steering = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!said.contains(steering), "{said:?}");
    }
}

#[test]
fn a_file_without_an_end_or_without_text_is_refused_with_its_place() {
    let dir = with(GOOD);
    fs::write(dir.path().join("bytes.yaml"), b"version: 1\nmesh: \xff\n").unwrap();
    fs::write(dir.path().join("long.yaml"), vec![b'\n'; 64 << 20]).unwrap();
    for (file, what) in [
        ("/dev/zero", "no regular file"),
        ("long.yaml", "error[too_large]"),
        ("bytes.yaml", "bytes.yaml:2:7"),
    ] {
        let out = mesh(dir.path(), &["validate", file]);
        let said = text(&out.stdout) + &text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn a_token_that_no_gateway_takes_is_not_printed() {
    let dir = with(GOOD);
    for arguments in [
        ["--sub", ""],
        ["--sub", "a\nb"],
        ["--ttl", "99999999999h"],
        ["--scope", "a\"b"],
        ["--claim", "nbf=\"soon\""],
    ] {
        let out = mesh(dir.path(), &["token", arguments[0], arguments[1]]);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{arguments:?}");
        assert!(out.stdout.is_empty(), "{arguments:?}");
        let part = arguments[0].trim_start_matches('-');
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let dir = with(GOOD);
    let mut child = Command::new(env!("CARGO_BIN_EXE_mesh"))
        .arg("status")
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert!(!text(&out.stderr).contains("panicked"));
}
