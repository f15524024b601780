//! RabbitMQ, with an epmd of its own: the machine's release (3), or the next one (4).

use crate::server::{Server, directory, free_port, installed, target_directories};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

const COOKIE: &str = "mesh-tests";
/// How long a broker has for an orderly end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A RabbitMQ broker.
#[derive(Debug)]
pub struct Broker {
    server: Option<Server>,
    _epmd: Server,
    directory: TempDir,
    ports: Ports,
    release: Release,
    last_vhost: AtomicU32,
    /// `erl_call` does not always get through beside another one.
    calling: Mutex<()>,
}

/// Which RabbitMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// As it is installed.
    Three,
    /// RabbitMQ 4, as `make setup` unpacks it.
    Four,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    amqp: u16,
    distribution: u16,
    epmd: u16,
    /// Of the management API, where it is on.
    management: Option<u16>,
}

/// The broker that all tests of one binary share; each takes a [`Broker::vhost`] of its own.
pub async fn shared() -> &'static Broker {
    static SHARED: OnceCell<Broker> = OnceCell::const_new();
    SHARED.get_or_init(start).await
}

/// The same with RabbitMQ 4.
pub async fn shared_four() -> &'static Broker {
    static SHARED: OnceCell<Broker> = OnceCell::const_new();
    SHARED.get_or_init(|| start_release(Release::Four)).await
}

/// A broker for one test, which may stop it.
pub async fn start() -> Broker {
    start_release(Release::Three).await
}

/// A broker of that release for one test, which may stop it.
pub async fn start_release(release: Release) -> Broker {
    start_with(release, None).await
}

/// A broker of that release with its management API, for one test.
pub async fn start_with_management(release: Release) -> Broker {
    start_with(release, Some(free_port())).await
}

async fn start_with(release: Release, management: Option<u16>) -> Broker {
    let directory = directory("rabbitmq");
    let ports = Ports {
        amqp: free_port(),
        distribution: free_port(),
        epmd: free_port(),
        management,
    };
    let environment = [
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("ERL_EPMD_PORT", ports.epmd.to_string()),
    ];
    let none: [&str; 0] = [];
    let epmd = Server::start("epmd", &none, &environment, directory.path());
    epmd.listens_on(ports.epmd).await;
    let mut broker = Broker {
        server: None,
        _epmd: epmd,
        directory,
        ports,
        release,
        last_vhost: AtomicU32::new(0),
        calling: Mutex::new(()),
    };
    broker.start_again().await;
    broker
}

impl Broker {
    /// The URL of the virtual host `/`.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.ports.amqp)
    }

    /// The port for AMQP.
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// The URL of the management API; user and password are `guest`.
    ///
    /// # Panics
    /// Without [`start_with_management`].
    pub fn management_url(&self) -> String {
        let port = self.ports.management.expect("management is on");
        format!("http://127.0.0.1:{port}")
    }

    /// The process id of the server.
    ///
    /// # Panics
    /// While it is stopped.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("the broker runs").pid()
    }

    /// The URL of a new, empty virtual host.
    pub async fn vhost(&self) -> String {
        let name = format!("v{}", self.last_vhost.fetch_add(1, Ordering::Relaxed));
        self.eval(format!(
            r#"rabbit_vhost:add(<<"{name}">>, <<"tests">>),
            rabbit_auth_backend_internal:set_permissions(
                <<"guest">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)."#
        ))
        .await;
        format!("amqp://guest:guest@127.0.0.1:{}/{name}", self.ports.amqp)
    }

    /// Starts it after [`Self::stop`] or [`Self::kill`], with what it kept.
    pub async fn start_again(&mut self) {
        let home = self.directory.path();
        let path = |name: &str| home.join(name).display().to_string();
        let mut settings =
            "disk_free_limit.absolute = 50MB\nraft.wal_max_size_bytes = 33554432\n".to_owned();
        let mut plugins = "[].";
        if let Some(port) = self.ports.management {
            plugins = "[rabbitmq_management].";
            settings += &format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n");
        }
        std::fs::write(home.join("enabled_plugins"), plugins).expect("write");
        std::fs::write(home.join("rabbitmq.conf"), settings).expect("write");
        let environment = [
            ("HOME", path("")),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("ERL_EPMD_PORT", self.ports.epmd.to_string()),
            ("RABBITMQ_NODENAME", self.node()),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODE_PORT", self.ports.amqp.to_string()),
            ("RABBITMQ_DIST_PORT", self.ports.distribution.to_string()),
            ("RABBITMQ_MNESIA_BASE", path("data")),
            ("RABBITMQ_LOG_BASE", path("log")),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
            ("RABBITMQ_CONF_ENV_FILE", path("none")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins")),
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                format!("-setcookie {COOKIE} -kernel inet_dist_use_interface {{127,0,0,1}}"),
            ),
        ];
        // The wrapper of the same name in /usr/sbin insists on a user of its own.
        let program = "/usr/lib/rabbitmq/bin/rabbitmq-server";
        let server = match self.release {
            Release::Three => {
                let none: [&str; 0] = [];
                Server::start(program, &none, &environment, home)
            }
            Release::Four => {
                let usr = unpacked();
                let inside = format!("mount --rbind '{}' /usr && exec {program}", usr.display());
                let mut arguments = vec!["--mount", "sh", "-c", &inside];
                if !rustix::process::geteuid().is_root() {
                    arguments.insert(0, "--map-root-user");
                }
                Server::start("unshare", &arguments, &environment, home)
            }
        };
        server.listens_on(self.ports.amqp).await;
        self.server = Some(server);
        self.eval("rabbit:await_startup().".to_owned()).await;
        if let (Some(port), Some(server)) = (self.ports.management, &self.server) {
            server.listens_on(port).await;
        }
    }

    /// Ends it in an orderly way; by a kill when that takes too long, which it does now and then while its queues
    /// are long.
    pub async fn stop(&mut self) {
        let Some(server) = self.server.take() else {
            return;
        };
        let pid = server.pid();
        let impatient = tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            let group = format!("-{pid}");
            let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
            assert!(killed.is_ok(), "kill a broker that does not stop");
        });
        server.stop().await;
        impatient.abort();
    }

    /// Kills it.
    pub async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill().await;
        }
    }

    /// Removes everything it kept; only while it is stopped.
    pub fn forget(&self) {
        assert!(self.server.is_none(), "the broker is stopped");
        std::fs::remove_dir_all(self.directory.path().join("data")).expect("remove its data");
    }

    /// Closes, as an operator would, every connection to the virtual host at the end of `url`.
    pub async fn close_connections(&self, url: &str) {
        let vhost = vhost_of(url);
        self.eval(format!(
            r#"[rabbit_networking:close_connection(P, "test") || P <- rabbit_networking:connections(),
            rabbit_networking:connection_info(P, [vhost]) == [{{vhost, <<"{vhost}">>}}]]."#
        ))
        .await;
    }

    /// Raises or clears the alarm of a disk that is full: publishers are blocked meanwhile.
    pub async fn disk_alarm(&self, raised: bool) {
        let alarm = "{resource_limit, disk, node()}";
        self.eval(if raised {
            format!("rabbit_alarm:set_alarm({{{alarm}, []}}).")
        } else {
            format!("rabbit_alarm:clear_alarm({alarm}).")
        })
        .await;
    }

    /// Deletes a queue of the virtual host at the end of `url`, whatever is in it.
    pub async fn delete_queue(&self, url: &str, queue: &str) {
        let vhost = vhost_of(url);
        self.eval(format!(
            r#"{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)),
            rabbit_amqqueue:delete(Q, false, false, <<"tests">>)."#
        ))
        .await;
    }

    /// Deletes an exchange of the virtual host at the end of `url`, and with it all that is bound to it.
    pub async fn delete_exchange(&self, url: &str, exchange: &str) {
        let vhost = vhost_of(url);
        self.eval(format!(
            r#"rabbit_exchange:delete(rabbit_misc:r(<<"{vhost}">>, exchange, <<"{exchange}">>), false, <<"tests">>)."#
        ))
        .await;
    }

    /// Runs Erlang on the broker and returns `{ok, <value>}`.
    ///
    /// # Panics
    /// When the broker cannot be reached or the code fails.
    pub async fn eval(&self, code: String) -> String {
        let _alone = self.calling.lock().await;
        let call = erl_call();
        let arguments = ["-sname", &self.node(), "-c", COOKIE, "-e"].map(str::to_owned);
        let epmd = self.ports.epmd.to_string();
        let deadline = Instant::now() + crate::GENEROUS;
        loop {
            let mut command = Command::new(&call);
            command.args(&arguments).env("ERL_EPMD_PORT", &epmd);
            let input = code.clone();
            let (said, complaint) = tokio::task::spawn_blocking(move || run(command, &input))
                .await
                .expect("run erl_call");
            if said.starts_with("{ok,") {
                return said;
            }
            // Calls in quick succession are refused now and then.
            let again = complaint.contains("failed to connect") && Instant::now() < deadline;
            assert!(again, "{code}\n{said}{complaint}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn node(&self) -> String {
        format!("mesh{}@localhost", self.ports.amqp)
    }
}

/// What `command` writes to standard output and standard error when it reads `input`.
fn run(mut command: Command, input: &str) -> (String, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start erl_call");
    let mut pipe = child.stdin.take().expect("a pipe");
    // It may end without reading; what it says then is the reason.
    let _ = writeln!(pipe, "{input}");
    drop(pipe);
    let output = child.wait_with_output().expect("wait for erl_call");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn vhost_of(url: &str) -> String {
    let (_, vhost) = url.rsplit_once('/').expect("a virtual host");
    vhost.replace("%2f", "/")
}

/// The /usr of the release of Debian that has RabbitMQ 4.
fn unpacked() -> PathBuf {
    target_directories()
        .map(|target| target.join("debian13/usr"))
        .into_iter()
        .find(|usr| usr.join("lib/rabbitmq/bin/rabbitmq-server").is_file())
        .and_then(|usr| usr.canonicalize().ok())
        .expect("RabbitMQ 4 is not installed: install with `make setup`")
}

/// It belongs to Erlang's run time, next to the emulator.
fn erl_call() -> PathBuf {
    installed("erl");
    let found = std::fs::read_dir("/usr/lib/erlang")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/erl_call"))
        .find(|file| file.is_file());
    found.expect("erl_call is not installed: install with `make setup`")
}
