//! The ends of a mesh: whoever asks for it and however, nothing is left behind.

use crate::running::{Up, command, lives, signal, text, until};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

/// An agent that does not end when it is asked, and a child of its own that does neither.
const STUBBORN: &str = r#"
import http.server, os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"])
class Agent(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    log_message = lambda *_: None
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Agent)
open("pids.new", "w").write(f"{os.getpid()} {child.pid}")
os.rename("pids.new", "pids")
server.serve_forever()
"#;

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

fn stubborn(dir: &Path, port: u16) -> String {
    fs::write(dir.join("agent.py"), STUBBORN).unwrap();
    format!(
        "version: 1\nmesh: test\n\
         gateway: {{listen: \"127.0.0.1:0\", auth: {{development: true}}}}\n\
         orchestrator: {{listen: \"127.0.0.1:0\", planner: {{general_agent: stubborn}}}}\n\
         agents:\n  - id: stubborn\n    endpoint: http://127.0.0.1:{port}\n    \
         run: {{command: [python3, agent.py, \"{port}\"]}}\n"
    )
}

/// A mesh with that agent, and the numbers of its processes.
fn mesh_of_programs(dir: &Path) -> (Up, Vec<String>) {
    let up = Up::start_as(dir, "mesh.yaml", &stubborn(dir, free_port()));
    let pids = fs::read_to_string(dir.join("pids")).unwrap();
    let pids: Vec<String> = pids.split(' ').map(str::to_owned).collect();
    assert!(pids.iter().all(|pid| lives(pid)));
    (up, pids)
}

#[test]
fn a_second_signal_ends_at_once_and_takes_everything_along() {
    let dir = tempfile::tempdir().unwrap();
    let (mut up, pids) = mesh_of_programs(dir.path());
    signal(&up.child, "-INT");
    // The first one is being followed when nobody is let in any more.
    until("it drains", || !up.mesh(&["status"]).status.success());
    signal(&up.child, "-INT");
    assert_eq!(up.child.wait().unwrap().code(), Some(130));
    until("its agents are gone", || !pids.iter().any(|pid| lives(pid)));
    assert!(!dir.path().join(".mesh/up-test.json").exists());
}

#[test]
fn a_closed_terminal_and_quit_drain_as_ctrl_c_does() {
    for name in ["-HUP", "-QUIT"] {
        let dir = tempfile::tempdir().unwrap();
        let (up, pids) = mesh_of_programs(dir.path());
        assert_eq!(up.end(name), Some(0), "{name}");
        // A killed process of a program ends when the system comes to it, also after the program.
        until(name, || !pids.iter().any(|pid| lives(pid)));
        assert!(!dir.path().join(".mesh/up-test.json").exists(), "{name}");
    }
}

#[test]
fn agents_do_not_outlive_a_mesh_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (up, pids) = mesh_of_programs(dir.path());
    assert_eq!(up.end("-KILL"), None);
    until("its agents are gone", || !pids.iter().any(|pid| lives(pid)));
    // What it left behind names a process that is no more.
    let (up, _) = mesh_of_programs(dir.path());
    assert_eq!(up.end("-TERM"), Some(0));
}

#[test]
fn a_stranger_at_an_agents_address_is_not_taken_for_the_agent() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mesh.yaml"), stubborn(dir.path(), port)).unwrap();
    let out = command(dir.path()).arg("up").output().unwrap();
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("agent stubborn"), "{said}");
    assert!(said.contains(&format!("port {port} is in use")), "{said}");
    assert!(!dir.path().join("pids").exists(), "nothing was started");
}

#[test]
fn a_mesh_goes_on_when_nobody_reads_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mesh.yaml"), crate::FREE_PORTS).unwrap();
    // As `mesh up 2>&1 | head -1` leaves it.
    let mut child = command(dir.path())
        .arg("up")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let mut first = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    drop(out);
    assert!(first.contains("mesh test"), "{first}");
    until("the mesh works", || {
        let status = command(dir.path()).arg("status").output().unwrap();
        status.status.success()
    });
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!dir.path().join(".mesh/up-test.json").exists());
}

#[test]
fn a_demo_that_is_ended_early_leaves_no_keys() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command(dir.path())
        .arg("demo")
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let empty = || fs::read_dir(dir.path()).unwrap().next().is_none();
    until("there are keys", || !empty());
    signal(&child, "-TERM");
    let mut said = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    assert!(empty(), "{said}");
}
