//! One `mesh apply` at a time.
//!
//! With Consul the lock is a key there, held by a session that is renewed while its holder lives: it holds whichever
//! machine the other apply runs on, and a holder that was killed loses it when the session's time is over, within twenty
//! seconds (Consul gives twice its least time). Without Consul it is a lock on a file beside mesh.yaml, which the system
//! takes away from a process that ends, however it ends.

use super::http::Api;
use anyhow::{Context, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::fs::{File, TryLockError};
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Name of the file.
pub const FILE: &str = ".mesh-apply.lock";
/// Time of a session; the least that Consul takes.
const TTL: &str = "10s";
/// A third of it: two renewals may fail.
const RENEWAL: Duration = Duration::from_secs(3);
/// Pause before another try.
const AGAIN: Duration = Duration::from_millis(500);

/// The lock, while it is held.
pub enum Lock {
    File {
        _held: File,
    },
    Consul {
        api: Arc<Api>,
        key: [String; 3],
        session: String,
        lost: Arc<AtomicBool>,
        renewal: JoinHandle<()>,
    },
}

/// Who holds it, for whoever waits.
fn holder() -> Value {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    json!({
        "host": host.trim(),
        "pid": std::process::id(),
        "since": since.map_or(0, |since| since.as_secs()),
    })
}

/// Who holds it, in words.
fn said(holder: Option<&Value>) -> String {
    let Some(holder) = holder else {
        return "another mesh apply holds the lock".to_owned();
    };
    let field = |name: &str| holder.get(name).cloned().unwrap_or_default();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = field("since").as_u64().unwrap_or(0);
    let ago = now.map_or(0, |now| now.as_secs().saturating_sub(since));
    let host = field("host");
    let host = host.as_str().unwrap_or_default();
    format!(
        "mesh apply with process id {} on {host} holds the lock for {ago} s now",
        field("pid")
    )
}

impl Lock {
    /// Waits for the lock, for so long at most.
    pub async fn take(
        consul: Option<Arc<Api>>,
        mesh: &str,
        base: &Path,
        patience: Duration,
        mut waits: impl FnMut(&str),
    ) -> anyhow::Result<Self> {
        let until = Instant::now() + patience;
        let mut told = false;
        let mut session = None;
        loop {
            let tried = match &consul {
                None => Self::try_file(base)?,
                Some(api) => Self::try_consul(api, mesh, &mut session).await?,
            };
            let held_by = match tried {
                Ok(lock) => return Ok(lock),
                Err(holder) => said(holder.as_ref()),
            };
            if Instant::now() >= until {
                if let (Some(api), Some(session)) = (&consul, &session) {
                    destroy(api, session).await;
                }
                bail!(
                    "{held_by}; waited {} s (--lock-timeout)",
                    patience.as_secs()
                );
            }
            if !told {
                waits(&held_by);
                told = true;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// The lock, or who holds it as far as that is known.
    fn try_file(base: &Path) -> anyhow::Result<Result<Self, Option<Value>>> {
        let path = base.join(FILE);
        let odd = || format!("cannot lock {}", path.display());
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(odd)?;
        match file.try_lock() {
            Ok(()) => {
                let written = file.set_len(0).and_then(|()| file.rewind());
                written
                    .and_then(|()| file.write_all(holder().to_string().as_bytes()))
                    .with_context(odd)?;
                Ok(Ok(Self::File { _held: file }))
            }
            Err(TryLockError::WouldBlock) => {
                let text = crate::load::read_text(&path, 4096).unwrap_or_default();
                Ok(Err(serde_json::from_str(&text).ok()))
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(odd),
        }
    }

    async fn try_consul(
        api: &Arc<Api>,
        mesh: &str,
        session: &mut Option<String>,
    ) -> anyhow::Result<Result<Self, Option<Value>>> {
        // It lives for ten seconds without being renewed; whoever waits longer makes another.
        if let Some(id) = session
            && !renew(api, id).await
        {
            *session = None;
        }
        let id = match session {
            Some(id) => id.clone(),
            None => {
                let body = json!({"Name": format!("mesh apply {mesh}"), "TTL": TTL, "LockDelay": "0s", "Behavior": "release"});
                let path = ["v1", "session", "create"];
                let answer = api.change(Method::PUT, &path, &[], Some(&body)).await?;
                let answer: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let id = answer.get("ID").and_then(Value::as_str);
                let id = id.context("Consul makes no session")?.to_owned();
                session.insert(id).clone()
            }
        };
        let key = ["mesh".to_owned(), mesh.to_owned(), "apply".to_owned()];
        let path = kv(&key);
        let acquire = [("acquire", id.as_str())];
        let answer = api
            .change(Method::PUT, &path, &acquire, Some(&holder()))
            .await?;
        if answer.body.trim_ascii() != b"true" {
            let raw = api.get(&path, &[("raw", "")]).await.ok().flatten();
            return Ok(Err(raw));
        }
        let lost = Arc::new(AtomicBool::new(false));
        let renewal = tokio::spawn(keep(Arc::clone(api), id.clone(), Arc::clone(&lost)));
        Ok(Ok(Self::Consul {
            api: Arc::clone(api),
            key,
            session: id,
            lost,
            renewal,
        }))
    }

    /// Whether it is still held; asked before each change.
    pub fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Consul { lost, .. } if lost.load(Ordering::Relaxed) => {
                bail!("the lock in Consul was lost, so another mesh apply may be at work")
            }
            _ => Ok(()),
        }
    }

    /// Gives it back.
    pub async fn release(self) {
        if let Self::Consul {
            api,
            key,
            session,
            renewal,
            ..
        } = self
        {
            renewal.abort();
            let release = [("release", session.as_str())];
            // What is not released here goes with the session's time.
            let _ = api.send(Method::PUT, &kv(&key), &release, None).await;
            destroy(&api, &session).await;
        }
    }
}

fn kv(key: &[String; 3]) -> [&str; 5] {
    let [a, b, c] = key;
    ["v1", "kv", a, b, c]
}

async fn destroy(api: &Api, session: &str) {
    let path = ["v1", "session", "destroy", session];
    let _ = api.send(Method::PUT, &path, &[], None).await;
}

/// Whether the session is there; a Consul that does not answer is asked again.
async fn renew(api: &Api, session: &str) -> bool {
    let path = ["v1", "session", "renew", session];
    match api.send(Method::PUT, &path, &[], None).await {
        Ok(answer) => answer.status != 404,
        Err(_) => true,
    }
}

/// Renews the session until it is gone, or was not renewed for as long as it lives.
async fn keep(api: Arc<Api>, session: String, lost: Arc<AtomicBool>) {
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(RENEWAL).await;
        let path = ["v1", "session", "renew", session.as_str()];
        let asked = Instant::now();
        let answer = tokio::time::timeout(RENEWAL, api.send(Method::PUT, &path, &[], None)).await;
        match answer {
            Ok(Ok(answer)) if answer.is_success() => renewed = asked,
            Ok(Ok(answer)) if answer.status == 404 => break,
            _ => {}
        }
        if renewed.elapsed() > RENEWAL * 3 {
            break;
        }
    }
    lost.store(true, Ordering::Relaxed);
}
