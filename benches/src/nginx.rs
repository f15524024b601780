//! An nginx of its own: the upstream that costs least, and a proxy in C.

use crate::process::{Process, free_address};
use anyhow::{Context, Result};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(30);

/// What an nginx is started with.
#[derive(Debug, Clone)]
pub struct Nginx {
    /// Its processes that serve.
    pub workers: usize,
    /// Directives within `http`, before the server.
    pub before: String,
    /// Directives of its one location, `/`.
    pub location: String,
}

impl Nginx {
    /// One worker that answers everything at once with `body`, which holds no `"`, `\` and `$`.
    pub fn answering(body: &str) -> Self {
        Self {
            workers: 1,
            before: String::new(),
            location: format!("return 200 \"{body}\";"),
        }
    }

    /// Starts it, with its files in a directory of its own; the system's is not touched.
    ///
    /// # Errors
    /// When it is not installed, or does not listen.
    pub async fn start(&self, scratch: &Path, name: &str) -> Result<(SocketAddr, Process)> {
        let home = scratch.join(name);
        fs::create_dir_all(&home)?;
        let address = free_address()?;
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};", home.display()))
            .join(" ");
        // Kept alive for ever, like what is measured: by default nginx closes after 1000 requests.
        let config = format!(
            "daemon off; worker_processes {workers}; pid {home}/pid; error_log stderr error;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; {temporary}\n\
             {before}\n\
             server {{ listen {address} reuseport; location / {{ {location} }} }} }}\n",
            workers = self.workers,
            home = home.display(),
            before = self.before,
            location = self.location,
        );
        let file = home.join("nginx.conf");
        fs::write(&file, config)?;
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(&home).arg("-c").arg(&file);
        let mut process = Process::start(name, scratch, command)
            .context("is nginx installed? benches/setup.sh installs it")?;
        process.listening(address, START_LIMIT).await?;
        Ok((address, process))
    }
}
