//! One server process and its guardian.
//!
//! The guardian is a shell in a process group of its own that starts the server and then reads its
//! standard input. The test process holds the other end: when it ends, be it by a panic, by
//! `kill -9` or by leaving a static behind, the pipe closes, and the guardian kills the server's
//! process group and removes its directory.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long a server may take to answer on its port.
const START: Duration = Duration::from_secs(120);

/// `$1`: directory to remove, `$2`: log file, the rest: the server.
const GUARDIAN: &str = r#"
trap '' INT TERM HUP
directory=$1 log=$2
shift 2
setsid "$@" </dev/null >>"$log" 2>&1 &
server=$!
# Right after its start the server may not lead its group yet; then it has no children either.
end() { kill -s "$1" -- "-$server" || kill -s "$1" "$server"; wait "$server"; }
echo "$server"
read -r order
case $order in
    stop) end TERM ;;
    kill) end KILL ;;
    *) end KILL; rm -rf -- "$directory" ;;
esac 2>/dev/null
"#;

/// A running server.
#[derive(Debug)]
pub struct Server {
    guardian: Child,
    pid: u32,
    name: String,
    log: PathBuf,
}

impl Server {
    /// Starts `program` with `arguments` and `environment`; its output goes to a log in `directory`.
    ///
    /// # Panics
    /// When `program` is not installed.
    pub fn start<A: AsRef<OsStr>>(
        program: &str,
        arguments: &[A],
        environment: &[(&str, String)],
        directory: &Path,
    ) -> Self {
        let program = installed(program);
        let name = program
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let log = directory.join(format!("{name}.log"));
        let mut guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian"])
            .args([directory, &log, &program])
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            // Erlang leaves its dumps where it stands.
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("start sh");
        let mut pid = String::new();
        BufReader::new(guardian.stdout.take().expect("a pipe"))
            .read_line(&mut pid)
            .expect("read the server's process id");
        Self {
            guardian,
            pid: pid.trim().parse().expect("a process id"),
            name,
            log,
        }
    }

    /// Its process id, which is also its process group.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it in an orderly way and waits for that.
    pub async fn stop(self) {
        self.end("stop").await;
    }

    /// Kills it and waits for that.
    pub async fn kill(self) {
        self.end("kill").await;
    }

    async fn end(mut self, order: &'static str) {
        tokio::task::spawn_blocking(move || {
            let mut pipe = self.guardian.stdin.take().expect("a pipe");
            writeln!(pipe, "{order}").expect("order the server to end");
            self.guardian.wait().expect("wait for the guardian")
        })
        .await
        .expect("wait for the server");
    }

    /// Waits until something listens on `port`.
    ///
    /// # Panics
    /// With the end of the log, when the server ends or takes too long.
    pub async fn listens_on(&self, port: u16) {
        let deadline = Instant::now() + START;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let failed = if !self.runs() {
                "ended"
            } else if Instant::now() > deadline {
                "does not listen"
            } else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            panic!("{} {failed}; its log ends:\n{}", self.name, self.log_end());
        }
    }

    fn runs(&self) -> bool {
        // The state follows the name in brackets; Z is a process that ended and was not waited for.
        std::fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// Where `program` is: as `make setup` unpacked it into the target directory, else as it is installed.
///
/// # Panics
/// When it is neither.
pub fn installed(program: &str) -> PathBuf {
    let unpacked = target_directories().map(|target| target.join("debian11/usr/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/lib/rabbitmq/bin"].map(PathBuf::from);
    unpacked
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(more)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{program} is not installed: install with `make setup`"))
}

/// Where `make setup` puts what it unpacks: beside the default target directory, whichever one is built in.
pub fn target_directories() -> [PathBuf; 2] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    [target, root.join("target")]
}

/// A directory for a server, removed with it.
pub fn directory(name: &str) -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix(&format!("mesh-{name}-"))
        .tempdir()
        .expect("make a directory")
}

/// A loopback port on which nothing listens.
///
/// It lies below the range that the system takes outgoing ports from, so that a server can leave it
/// and come back to it.
pub fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(7919) % u32::from(COUNT);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (start + u32::from(step)) % u32::from(COUNT) + u32::from(FIRST);
        let port = u16::try_from(port).expect("below 30,000");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}
