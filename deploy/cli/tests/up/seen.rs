//! What an operator sees of a mesh that runs: top, trace, logs, and every other command for programs.

use crate::running::{Up, command, text, until};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

const SECRET: &str = "hunter2-of-the-agent-in-thirty-two-bytes-00";

/// An agent that prints what it is given and what it knows, and fails now and then.
const SCRIPT: &str = r#"
import http.server, json, os, sys
class Agent(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        step = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print("working on", step["payload"].get("n"), "with", os.environ["TOLD"], flush=True)
        bad = step["payload"].get("n") == 13
        body = json.dumps({"detail": "unlucky"} if bad else {"ok": True}).encode()
        self.send_response(422 if bad else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        print("\x1b[31mlooked at", file=sys.stderr, flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Agent).serve_forever()
"#;

fn json(out: &Output) -> Value {
    let said = text(&out.stdout);
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", text(&out.stderr)))
}

/// A mesh with one builtin agent and one program, whose broker's URL holds a secret that the program knows too.
fn mesh() -> Up {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let dir = tempfile::tempdir().unwrap().keep();
    fs::write(dir.join("agent.py"), SCRIPT).unwrap();
    fs::write(dir.join("key"), SECRET).unwrap();
    let yaml = format!(
        "version: 1\nmesh: test\n\
         gateway:\n  listen: \"127.0.0.1:0\"\n  auth:\n    issuers:\n      - issuer: https://i\n        audiences: [test]\n        \
           keys: [{{id: k, algorithm: HS256, secret: {{file: key}}}}]\n    assertion: {{key: {{file: .mesh/assertion.key}}}}\n\
         orchestrator: {{listen: \"127.0.0.1:0\", planner: {{general_agent: data-processor, rules: {{both: [echo, data-processor], echo: [echo]}}}}}}\n\
         agents:\n  - id: echo\n    endpoint: http://127.0.0.1:{port}\n    \
         run: {{command: [python3, agent.py, \"{port}\"]}}\n  \
         - {{id: data-processor, capabilities: [data_processing], run: {{builtin: data-processor}}}}\n"
    );
    // The keys of a mesh with real issuers are the owner's affair.
    fs::create_dir(dir.join(".mesh")).unwrap();
    fs::write(
        dir.join(".mesh/assertion.key"),
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
    )
    .unwrap();
    fs::write(dir.join("mesh.yaml"), yaml).unwrap();
    Up::of(
        command(&dir).args(["up"]).env("TOLD", SECRET.repeat(2)),
        &dir,
    )
}

/// Submits straight to the orchestrator; the task's id.
fn submit(up: &Up, body: &str) -> String {
    let status = json(&up.mesh(&["status", "-o", "json"]));
    let parts = status["parts"].as_array().unwrap();
    let orchestrator = parts.iter().find(|part| part["kind"] == "orchestrator");
    let url = orchestrator.unwrap()["url"].as_str().unwrap();
    let url = url.replace("/ready", "/orchestrate");
    let curl = ["-sS", &url, "-H", "Prefer: wait=20", "-d", body];
    let out = Command::new("curl").args(curl).output().unwrap();
    json(&out)["task_id"]
        .as_str()
        .unwrap_or_else(|| panic!("{out:?}"))
        .to_owned()
}

#[test]
fn a_task_is_traced_and_its_failure_too() {
    let up = mesh();
    let good = submit(
        &up,
        r#"{"task_type": "both", "payload": {"n": 7, "csv": "a\n1\n"}}"#,
    );
    let out = up.mesh(&["trace", &good]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{said}{}", text(&out.stderr));
    for what in [
        "task_",
        "planned by rules",
        "echo",
        "data-processor",
        "completed",
        "queue",
        "agent",
        "█",
    ] {
        assert!(said.contains(what), "no {what} in {said}");
    }
    let run = json(&up.mesh(&[
        "trace",
        &good,
        "-o",
        "json",
        "--trace-url",
        "http://t/{trace_id}",
    ]));
    assert_eq!(run["steps"].as_array().unwrap().len(), 2);
    assert!(run["steps"][0]["agent_ms"].is_u64(), "{run}");
    let trace = run["trace_id"].as_str().unwrap();
    assert_eq!(run["trace_url"], format!("http://t/{trace}"));

    let bad = submit(&up, r#"{"task_type": "echo", "payload": {"n": 13}}"#);
    let out = up.mesh(&["trace", &bad]);
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stdout);
    assert!(
        said.contains("agent_status") && said.contains("422"),
        "{said}"
    );

    let unknown = up.mesh(&["trace", "task_00000000000000000000000000000000"]);
    assert_eq!(unknown.status.code(), Some(2));
    let said = text(&unknown.stderr);
    assert!(
        said.contains("store.retention") && unknown.stdout.is_empty(),
        "{said}"
    );
    assert_eq!(up.mesh(&["trace", "a/b"]).status.code(), Some(64));
    let away = up.mesh(&[
        "trace",
        &good,
        "--gateway",
        "http://127.0.0.1:1",
        "--token",
        "a.b.c",
    ]);
    assert_eq!(away.status.code(), Some(3));
}

#[test]
fn logs_are_kept_by_part_and_hide_what_is_secret() {
    let up = mesh();
    submit(&up, r#"{"task_type": "echo", "payload": {"n": 7}}"#);
    let path = up.dir().join(".mesh/logs/test.jsonl");
    until("the program's line is kept", || {
        fs::read_to_string(&path).is_ok_and(|kept| kept.contains("working on 7"))
    });
    let kept = fs::read_to_string(&path).unwrap();
    assert!(!kept.contains(SECRET), "{kept}");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let directory = path.parent().unwrap().metadata().unwrap();
    assert_eq!(directory.permissions().mode() & 0o777, 0o700);

    let all = text(&up.mesh(&["logs"]).stdout);
    let line = all
        .lines()
        .find(|line| line.contains("working on 7"))
        .unwrap();
    assert!(
        line.contains("agent/echo") && line.ends_with("working on 7 with ******"),
        "{line}"
    );
    assert!(
        all.contains("orchestrator") && all.contains("sidecar/echo"),
        "{all}"
    );
    assert!(!all.contains('\x1b'), "a program does not paint: {all}");
    let echo = text(&up.mesh(&["logs", "agent/echo"]).stdout);
    assert!(
        echo.lines().count() >= 2 && echo.lines().all(|line| line.contains("agent/echo")),
        "{echo}"
    );
    let out = up.mesh(&[
        "logs",
        "orchestrator",
        "--since",
        "10m",
        "--level",
        "info",
        "-o",
        "json",
    ]);
    let mut lines = 0;
    for line in text(&out.stdout).lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["part"], "orchestrator", "{line}");
        lines += 1;
    }
    assert!(lines > 0);
    assert!(up.mesh(&["logs", "--level", "error"]).stdout.is_empty());
    // A name that is misspelt is named, with those that there are.
    let misspelt = up.mesh(&["logs", "orchestrater", "agent"]);
    let said = text(&misspelt.stderr);
    assert!(
        said.contains("orchestrater") && said.contains("agent/echo"),
        "{said}"
    );
    assert!(text(&misspelt.stdout).contains("agent/echo"));
    assert!(up.mesh(&["logs", "agent"]).stderr.is_empty());
    assert_eq!(
        up.mesh(&["logs", "--level", "loud"]).status.code(),
        Some(64)
    );

    // What is written from now on, until Ctrl-C.
    let mut following = command(up.dir());
    let file = up.dir().join("followed");
    following
        .args(["logs", "-f", "agent"])
        .stdout(fs::File::create(&file).unwrap());
    let mut following = following.spawn().unwrap();
    submit(&up, r#"{"task_type": "echo", "payload": {"n": 8}}"#);
    until("the new line is followed", || {
        fs::read_to_string(&file).is_ok_and(|said| said.contains("working on 8"))
    });
    crate::running::signal(&following, "-INT");
    assert_eq!(following.wait().unwrap().code(), Some(0));

    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("mesh.yaml"), crate::FREE_PORTS).unwrap();
    let none = command(elsewhere.path()).arg("logs").output().unwrap();
    assert_eq!(none.status.code(), Some(1));
    let said = text(&none.stderr);
    assert!(
        said.contains("docker-compose logs") && said.contains("kubectl logs"),
        "{said}"
    );
}

#[test]
fn top_shows_what_happens_and_who_does_not_answer() {
    let up = Up::start(crate::FREE_PORTS);
    let load = up.mesh(&["load", "--tasks", "20", "--rate", "100", "-o", "json"]);
    assert!(load.status.success(), "{}", text(&load.stderr));
    let refused = up.mesh(&["submit", "x", "--token", "a.b.c"]);
    assert_eq!(refused.status.code(), Some(2));
    let now = json(&up.mesh(&["top", "--once", "-o", "json"]));
    assert_eq!(now["gateway"]["state"], "up", "{now}");
    assert!(now["gateway"]["requests"].as_f64() >= Some(21.0), "{now}");
    assert!(now["gateway"]["refusals"].as_f64() >= Some(1.0), "{now}");
    assert_eq!(now["orchestrator"]["completed"], 20.0, "{now}");
    assert_eq!(now["orchestrator"]["plans"]["rules"], 20.0, "{now}");
    let agents = now["agents"].as_array().unwrap();
    let worked = |agent: &&Value| agent["completed"].as_f64() >= Some(20.0);
    let worked = agents
        .iter()
        .find(worked)
        .unwrap_or_else(|| panic!("{now}"));
    assert_eq!(
        (&worked["state"], &worked["errors"]),
        (&"up".into(), &0.0.into())
    );
    assert_eq!(
        (&worked["in_flight"], &worked["queued"]),
        (&0.0.into(), &0.0.into())
    );
    assert_eq!(worked["breaker"], "closed");
    assert!(worked["p50_ms"].as_f64() <= worked["p99_ms"].as_f64() && worked["p99_ms"].is_f64());
    assert!(worked["steps_per_s"].is_f64());
    let plain = text(&up.mesh(&["top", "--once"]).stdout);
    for what in [
        "mesh test",
        "gateway",
        "orchestrator",
        "general-agent",
        "p99",
        "breaker",
    ] {
        assert!(plain.contains(what), "no {what} in {plain}");
    }
    assert!(!plain.contains('\x1b'), "{plain}");

    // On a terminal: drawn in place, narrow, and given back at the end.
    let drawn = up.dir().join("drawn");
    let mesh = env!("CARGO_BIN_EXE_mesh");
    let inside = format!("stty rows 6 cols 44; exec {mesh} top");
    let terminal = Command::new("script")
        .args(["-qfec", &inside, &drawn.display().to_string()])
        .current_dir(up.dir())
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let mut terminal = terminal.unwrap();
    let shown = || fs::read_to_string(&drawn).unwrap_or_default();
    until("two pictures", || {
        shown().matches("\x1b[?2026l").count() >= 2
    });
    let id = terminal.id();
    let inner = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let sent = Command::new("kill").args(["-INT", inner.trim()]).status();
    assert!(sent.unwrap().success());
    assert!(terminal.wait().unwrap().success());
    let shown = shown();
    let (before, after) = shown.split_once("\x1b[?1049h").unwrap();
    assert!(!before.contains("general-agent"));
    assert!(after.contains("\x1b[?25h\x1b[?1049l"), "{shown:?}");
    let picture = after.split("\x1b[H").nth(1).unwrap();
    let picture = picture.split("\x1b[J").next().unwrap();
    assert_eq!(picture.matches("\r\n").count(), 5, "{picture:?}");
    for line in picture.split("\r\n") {
        // A terminal puts one more before each end of line.
        let line = line.trim_end_matches('\r');
        let mut seen = String::new();
        let mut rest = line;
        while let Some((text, escaped)) = rest.split_once('\x1b') {
            seen.push_str(text);
            rest = escaped
                .split_once(|c: char| c.is_ascii_alphabetic())
                .unwrap()
                .1;
        }
        seen.push_str(rest);
        assert!(seen.chars().count() <= 44, "{seen:?}");
    }

    // A mesh that is gone: its parts are said to be down, at once.
    let dir = up.dir().to_owned();
    let addresses = fs::read(dir.join(".mesh/up-test.json")).unwrap();
    let addresses: Value = serde_json::from_slice(&addresses).unwrap();
    let yaml = crate::FREE_PORTS.replacen("127.0.0.1:0", addresses["gateway"].as_str().unwrap(), 1);
    let yaml = yaml.replacen(
        "127.0.0.1:0",
        addresses["orchestrator"].as_str().unwrap(),
        1,
    );
    assert_eq!(up.end("-INT"), Some(0));
    let gone = tempfile::tempdir().unwrap();
    fs::write(gone.path().join("mesh.yaml"), yaml).unwrap();
    let out = command(gone.path())
        .args(["top", "--once", "-o", "json"])
        .output()
        .unwrap();
    let now = json(&out);
    assert_eq!(now["orchestrator"]["state"], "down", "{now}");
    assert_eq!(now["gateway"]["state"], "unknown", "{now}");
}

#[test]
fn each_command_that_asks_a_mesh_answers_programs() {
    let up = Up::start(crate::FREE_PORTS);
    for (arguments, field) in [
        (vec!["status"], "parts"),
        (vec!["check"], "groups"),
        (vec!["token"], "token"),
        (vec!["submit", "x"], "steps"),
        (vec!["load", "--tasks", "2"], "attempted"),
        (vec!["top", "--once"], "agents"),
    ] {
        let mut all = arguments.clone();
        all.extend(["-o", "json"]);
        let out = up.mesh(&all);
        let value = json(&out);
        assert!(!value[field].is_null(), "{arguments:?}: {value}");
        assert_eq!(out.status.code(), Some(0), "{arguments:?}: {value}");
    }
    let codes = json(&up.mesh(&["check", "-o", "json"]));
    assert_eq!(codes["failures"], 0, "{codes}");
    assert_eq!(up.end("-INT"), Some(0));
}

#[test]
fn the_second_start_compiles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join(".mesh/cache");
    let start = || {
        let up = Up::start_as(dir.path(), "mesh.yaml", crate::FREE_PORTS);
        let lines = text(&up.mesh(&["logs", "gateway", "-o", "json"]).stdout);
        let there: Vec<u64> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["fields"]["message"] == "filter is there")
            .map(|line| line["fields"]["duration_ms"].as_u64().unwrap())
            .collect();
        assert_eq!(up.end("-INT"), Some(0));
        there
    };
    let first = start();
    let kept = fs::read_dir(&cache).unwrap().count();
    assert!(kept > 0 && first.len() == kept, "{first:?}");
    assert_eq!(
        fs::metadata(&cache).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let both = start();
    let second = both.get(kept..).unwrap();
    assert_eq!(fs::read_dir(&cache).unwrap().count(), kept);
    // Reading is a tenth of compiling and less; half of it leaves room for a busy machine.
    let sum = |times: &[u64]| times.iter().sum::<u64>();
    assert!(sum(second) * 2 < sum(&first), "{first:?} {second:?}");
    // A cache that others may write is not used, and the mesh runs all the same.
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    let third = start();
    let third = third.get(2 * kept..).unwrap();
    assert!(sum(third) > sum(second) * 2, "{second:?} {third:?}");
}
