//! `mesh up` as people use it: started, asked, ended. Needs the filters (`make filters`).

// A test that cannot go on says so loudly, in its own functions as well.
#![allow(clippy::unwrap_used, clippy::panic)]

mod ends;
mod example;
mod filters;
mod metrics;
mod model;
mod running;
mod seen;

use running::{Up, command, text};
use std::fs;
use std::net::TcpListener;
use std::path::Path;

const FREE_PORTS: &str = "version: 1\nmesh: test\n\
    gateway: {listen: \"127.0.0.1:0\", auth: {development: true}}\n\
    orchestrator: {listen: \"127.0.0.1:0\", planner: {general_agent: general-agent}}\n\
    agents:\n  - {id: general-agent, run: {builtin: general-agent}}\n  \
    - {id: data-processor, capabilities: [data_processing], run: {builtin: data-processor}}\n";

#[test]
fn a_task_goes_from_token_to_result_and_the_mesh_drains() {
    let up = Up::start(FREE_PORTS);
    let status = up.mesh(&["status"]);
    assert!(status.status.success(), "{}", text(&status.stdout));

    let payload = r#"{"csv": "city,visits\nOslo,3\nRome,5\n"}"#;
    let done = up.mesh(&[
        "submit",
        "data_processing",
        "--payload",
        payload,
        "-o",
        "json",
    ]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let task: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(task["status"], "completed");
    let steps = task["steps"].as_object().unwrap();
    assert!(
        steps.values().any(|step| step["result"]["rows"] == 2),
        "{task}"
    );

    let shown = up.mesh(&["submit", "complex_analysis"]);
    let progress = text(&shown.stderr);
    assert!(progress.contains("general-agent"), "{progress}");
    assert!(progress.contains("completed in"), "{progress}");

    let load = ["load", "--tasks", "40", "--rate", "200", "-o", "json"];
    let load = up.mesh(&load);
    assert!(load.status.success(), "{}", text(&load.stderr));
    let counts: serde_json::Value = serde_json::from_slice(&load.stdout).unwrap();
    for (key, wanted) in [
        ("attempted", 40),
        ("completed", 40),
        ("lost", 0),
        ("duplicated", 0),
    ] {
        assert_eq!(counts[key], wanted, "{key}: {counts}");
    }
    assert!(counts["p50"].as_f64() <= counts["p99"].as_f64());

    let refused = up.mesh(&["submit", "x", "--token", "a.b.c"]);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("401"));

    assert!(up.dir().join(".mesh/up-test.json").exists());
    let dir = up.dir().to_owned();
    assert_eq!(up.end("-INT"), Some(0));
    assert!(!dir.join(".mesh/up-test.json").exists());
}

#[test]
fn two_meshes_in_one_directory_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let first = FREE_PORTS.replace("mesh: test", "mesh: first");
    let second = FREE_PORTS.replace("mesh: test", "mesh: second");
    let first = Up::start_as(dir.path(), "first.yaml", &first);
    let second = Up::start_as(dir.path(), "second.yaml", &second);
    for (up, name) in [(&first, "first"), (&second, "second")] {
        let file = format!("{name}.yaml");
        let status = up.mesh(&["status", &file, "-o", "json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(
            (&status["mesh"], &status["up"]),
            (&name.into(), &true.into())
        );
        // A token is good for its own mesh alone, so this one went to the right gateway.
        let done = up.mesh(&[
            "submit",
            "data_processing",
            "--file",
            &file,
            "--payload",
            r#"{"csv": "a\n1\n"}"#,
        ]);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        assert!(
            up.said()
                .contains(&format!("submit system_optimization --file {file}"))
        );
        let again = up.mesh(&["up", &file]);
        assert_eq!(again.status.code(), Some(1));
        let said = text(&again.stderr);
        assert!(
            said.contains(&format!("mesh {name} runs here already")),
            "{said}"
        );
    }
    assert_eq!(first.end("-INT"), Some(0));
    assert!(second.mesh(&["status", "second.yaml"]).status.success());
    assert_eq!(second.end("-INT"), Some(0));
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let yaml = FREE_PORTS.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
    fs::write(dir.path().join("mesh.yaml"), yaml).unwrap();
    let out = command(dir.path()).arg("up").output().unwrap();
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1));
    assert!(said.contains(&format!("port {port} is in use")), "{said}");
    assert!(said.contains("gateway"), "{said}");
}

#[test]
fn a_program_is_an_agent_and_ends_with_the_mesh() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let script = r#"
import http.server, json, os, sys
open("pid", "w").write(str(os.getpid()))
class Agent(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        step = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"echo": step["payload"]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Agent).serve_forever()
"#;
    let scripts = tempfile::tempdir().unwrap();
    fs::write(scripts.path().join("agent.py"), script).unwrap();
    let yaml = format!(
        "version: 1\nmesh: test\n\
         gateway: {{listen: \"127.0.0.1:0\", auth: {{development: true}}}}\n\
         orchestrator: {{listen: \"127.0.0.1:0\", planner: {{general_agent: echo}}}}\n\
         agents:\n  - id: echo\n    endpoint: http://127.0.0.1:{port}\n    \
         run: {{command: [python3, agent.py, \"{port}\"], dir: {}}}\n",
        scripts.path().display()
    );
    let up = Up::start(&yaml);
    let done = up.mesh(&["submit", "anything", "--payload", r#"{"n": 7}"#]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(
        text(&done.stdout).contains("n: 7"),
        "{}",
        text(&done.stdout)
    );
    let pid = fs::read_to_string(scripts.path().join("pid")).unwrap();
    assert_eq!(up.end("-INT"), Some(0));
    assert!(!Path::new("/proc").join(pid).exists(), "the agent is gone");
}

#[test]
fn the_demo_completes() {
    let dir = tempfile::tempdir().unwrap();
    let out = command(dir.path()).arg("demo").output().unwrap();
    let said = text(&out.stdout);
    assert!(out.status.success(), "{said}\n{}", text(&out.stderr));
    for what in [
        "iss",
        "hardware-optimizer",
        "data-processor",
        "pm25_ugm3",
        "both tasks completed",
    ] {
        assert!(said.contains(what), "no {what} in {said}");
    }
}
