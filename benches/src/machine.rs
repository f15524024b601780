//! On what a table was measured: without it, its figures say nothing.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The present, in UTC, to the second.
pub fn now() -> String {
    OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// How busy the machine is with other things, too: a row measured beside them says so.
pub fn busy() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minutes: Vec<&str> = load.split(' ').take(3).collect();
    format!(
        "load of the machine at the end (1, 5, 15 min): {}",
        minutes.join(", ")
    )
}

/// Memory that processes can still have, in MiB.
///
/// # Errors
/// When the kernel does not say.
pub fn available_mib() -> Result<f64> {
    let line = line_of("/proc/meminfo", "MemAvailable").context("no MemAvailable in /proc")?;
    let kib: f64 = line.trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Facts of this machine and of what was measured, as `(name, value)`.
pub fn facts() -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    vec![
        (
            "processor",
            format!(
                "{}, {cores} cores",
                line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned())
            ),
        ),
        (
            "memory",
            line_of("/proc/meminfo", "MemTotal").unwrap_or_default(),
        ),
        (
            "kernel",
            fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
        ),
        (
            "this project",
            said_by("git", &["describe", "--always", "--dirty"]),
        ),
        ("rustc", said_by("rustc", &["--version"])),
        ("RabbitMQ", rabbitmq()),
        ("Redis", said_by("redis-server", &["--version"])),
        ("Envoy", said_by("target/envoy/bin/envoy", &["--version"])),
        ("nginx", nginx()),
        ("HAProxy", first_line("/usr/sbin/haproxy", &["-v"])),
        ("Consul", consul()),
        ("Python peer", peers()),
    ]
}

fn line_of(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let said = Command::new(program).args(arguments).output();
    said.ok()
        .map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let said = said_by(program, arguments);
    said.lines().next().unwrap_or_default().to_owned()
}

/// As `make setup` unpacks it, or as it is installed.
fn consul() -> String {
    let unpacked = "target/debian11/usr/bin/consul";
    let installed = Path::new(unpacked).is_file();
    let program = if installed { unpacked } else { "consul" };
    first_line(program, &["version"])
}

/// The version stands in the name of its directory; asking the server would start Erlang.
fn rabbitmq() -> String {
    fs::read_dir("/usr/lib/rabbitmq/lib")
        .ok()
        .and_then(|entries| {
            entries
                .filter_map(Result::ok)
                .filter_map(|entry| entry.file_name().into_string().ok())
                .find_map(|name| Some(name.strip_prefix("rabbitmq_server-")?.to_owned()))
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

/// It says its version on the standard error.
fn nginx() -> String {
    let said = Command::new("/usr/sbin/nginx").arg("-v").output();
    said.ok()
        .map(|out| String::from_utf8_lossy(&out.stderr).trim().to_owned())
        .unwrap_or_else(|| "unknown".to_owned())
}

fn peers() -> String {
    fs::read_to_string(Path::new("benches/peers/requirements.txt"))
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}
