//! A process of the measurement: started, watched, and ended with everything it started.

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Clock ticks per second in /proc; fixed by the kernel's interface on every architecture of ours.
const TICKS_PER_S: f64 = 100.0;

/// A child in a process group of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to `<directory>/<name>.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, directory: &Path, mut command: Command) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Starts this same binary in another part (see [`crate::parts`]).
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn part<I: IntoIterator<Item: AsRef<OsStr>>>(
        name: &str,
        directory: &Path,
        arguments: I,
    ) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        Self::start(name, directory, command)
    }

    /// Waits until something listens at `address`.
    ///
    /// # Errors
    /// When the process ended, or nothing listened within `limit`; with the end of its log.
    pub async fn listening(&mut self, address: SocketAddr, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        while tokio::net::TcpStream::connect(address).await.is_err() {
            self.alive()?;
            if Instant::now() > until {
                bail!(
                    "{} does not listen at {address}\n{}",
                    self.name,
                    self.log_end()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Fails if the process has ended.
    ///
    /// # Errors
    /// With its status and the end of its log.
    pub fn alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status})\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    /// Whether it has ended, and said that all went well.
    ///
    /// # Errors
    /// When it said otherwise; with the end of its log.
    pub fn ended_well(&mut self) -> Result<bool> {
        match self.child.try_wait()? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => bail!("{} ended ({status})\n{}", self.name, self.log_end()),
        }
    }

    /// Asks the process to leave (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it is still there after `limit`.
    pub async fn leave(mut self, limit: Duration) -> Result<()> {
        self.signal("-TERM", false)?;
        let until = Instant::now() + limit;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > until {
                bail!("{} does not leave\n{}", self.name, self.log_end());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Resident memory in MiB.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .context("no VmRSS in /proc")?
            .parse()?;
        Ok(kib / 1024.0)
    }

    /// Processor time so far, in seconds.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_s(&self) -> Result<f64> {
        Ok(stat_of(self.child.id())?.1)
    }

    /// Its process id, which is also its process group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time so far of the process and of all it started, in seconds.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn group_cpu_s(&self) -> Result<f64> {
        cpu_s_of(self.child.id())
    }

    /// The end of what it printed.
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(20)..)
            .unwrap_or_default()
            .join("\n")
    }

    fn signal(&self, signal: &str, group: bool) -> Result<()> {
        let sign = if group { "-" } else { "" };
        Command::new("kill")
            .args([signal, "--", &format!("{sign}{}", self.child.id())])
            .stderr(Stdio::null())
            .status()
            .context("cannot run kill")?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group may outlive its first process, so it is signalled even if that has ended.
        let _ = self.signal("-KILL", true);
        let _ = self.child.wait();
    }
}

/// Processor time so far of a process group, in seconds.
///
/// # Errors
/// When /proc cannot be read.
pub fn cpu_s_of(group: u32) -> Result<f64> {
    let mut sum = 0.0;
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that ended meanwhile counts no more.
        if let Ok((its, cpu_s)) = stat_of(pid)
            && its == group
        {
            sum += cpu_s;
        }
    }
    Ok(sum)
}

/// Process group and processor time in seconds.
fn stat_of(pid: u32) -> Result<(u32, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces; after it, the group is the third field, and user and
    // system time are the twelfth and thirteenth.
    let (_, rest) = stat.rsplit_once(')').context("odd /proc/PID/stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |place: usize| fields.get(place).context("short /proc/PID/stat");
    let ticks: f64 = field(11)?.parse::<f64>()? + field(12)?.parse::<f64>()?;
    Ok((field(2)?.parse()?, ticks / TICKS_PER_S))
}

/// A loopback port that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A loopback address that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?)))
}

/// Lets this process and those it starts have as many files open as they may; sockets are files.
///
/// # Errors
/// When that is less than `wanted`.
pub fn allow_open_files(wanted: u64) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")?;
    // None is no limit.
    if let Some(most) = limit.maximum {
        ensure!(
            most >= wanted,
            "a process may open {most} files here, and {wanted} are needed (ulimit -n)"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_its_handle() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo here; sleep 600 & wait"]);
        let mut process = Process::start("sleeper", directory.path(), command).unwrap();
        process.alive().unwrap();
        assert!(process.resident_mib().unwrap() > 0.0);
        let pid = process.child.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn an_ended_process_says_what_it_printed() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing; exit 3"]);
        let mut process = Process::start("failing", directory.path(), command).unwrap();
        process.child.wait().unwrap();
        let error = process.alive().unwrap_err().to_string();
        assert!(error.contains("no such thing"), "{error}");
    }
}
