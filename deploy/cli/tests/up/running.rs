//! `mesh up` as a process, until its test ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// The `mesh` command in `dir`, without what the environment would change about a mesh.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command.current_dir(dir);
    for name in [
        "RABBITMQ_URL",
        "REDIS_URL",
        "OLLAMA_URL",
        "PORT",
        "RUST_LOG",
        "MESH_GATEWAY",
        "MESH_TOKEN",
        "MESH_GATEWAY_METRICS",
        "MESH_TRACE_URL",
        "PROMETHEUS_URL",
    ] {
        command.env_remove(name);
    }
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until `is` holds.
pub fn until(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a process is there and has not ended.
pub fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.trim().chars().next());
    state.is_some_and(|state| state != 'Z')
}

pub fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args([name, &pid]).status().unwrap();
    assert!(sent.success());
}

/// A running mesh; ends with the test.
pub struct Up {
    pub child: Child,
    dir: PathBuf,
    said: Arc<Mutex<String>>,
    _own: Option<tempfile::TempDir>,
}

impl Up {
    /// A mesh in a directory of its own.
    pub fn start(yaml: &str) -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut up = Self::start_as(own.path(), "mesh.yaml", yaml);
        up._own = Some(own);
        up
    }

    /// A mesh whose file has another name, in a directory that others may use too.
    pub fn start_as(dir: &Path, file: &str, yaml: &str) -> Self {
        fs::write(dir.join(file), yaml).unwrap();
        Self::of(command(dir).args(["up", file]), dir)
    }

    /// What `command` starts, from the moment it is ready.
    pub fn of(command: &mut Command, dir: &Path) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let up = Self {
            child,
            dir: dir.to_owned(),
            said: Arc::default(),
            _own: None,
        };
        let said = Arc::clone(&up.said);
        // Read on to the end, or the mesh would stand still when the pipe is full.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                said.lock().unwrap().push_str(&(line + "\n"));
            }
            said.lock().unwrap().push_str("(end)");
        });
        // The last of what is printed when it is ready.
        until("the mesh is ready", || {
            let said = up.said();
            assert!(
                !said.ends_with("(end)"),
                "ended before it was ready: {said}"
            );
            said.contains("Ctrl-C drains and ends.")
        });
        up
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it has printed.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn mesh(&self, arguments: &[&str]) -> Output {
        command(&self.dir).args(arguments).output().unwrap()
    }

    /// A signal, and the exit code.
    pub fn end(mut self, name: &str) -> Option<i32> {
        signal(&self.child, name);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
