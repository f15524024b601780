//! Who is asked, once a second each, and what was heard last.
//!
//! ```text
//!  one task a part ─▶ /metrics, /ready ─▶ its latest pages ─▶ every second a picture of all
//! ```
//!
//! A part that does not answer keeps its own task waiting, and nobody else.

use super::metrics::Page;
use mesh_local::Addresses;
use mesh_protocol::load::{self, Loads};
use reqwest::Client;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

/// How often each part is asked.
pub const EVERY: Duration = Duration::from_secs(1);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Pages that are kept: rates and times are those of so many seconds.
const KEPT: usize = 10;
/// Largest page that is read, in bytes.
const MAX_PAGE: usize = 16 * 1024 * 1024;

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gateway,
    Orchestrator,
    Agent,
}

/// A part that is asked.
#[derive(Debug, Clone)]
pub struct Source {
    pub kind: Kind,
    pub name: String,
    /// `http://HOST:PORT`, or none where it is not known.
    pub url: Option<String>,
}

/// What was heard of a part.
#[derive(Debug, Default)]
pub struct Heard {
    /// With their times, the latest last.
    pub pages: VecDeque<(Instant, Page)>,
    /// What it says of itself, or why nothing was heard; `None` before the first answer.
    pub state: Option<Result<(), String>>,
    /// How busy agents are; the orchestrator's alone to say.
    pub loads: Option<Loads>,
}

/// A mesh that is watched.
pub struct Watch {
    pub sources: Vec<(Source, Arc<Mutex<Heard>>)>,
    /// Ends with the watch.
    _asking: JoinSet<()>,
}

/// What was heard; whole whatever happened to who held it.
pub fn heard(of: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who there is to ask, front to back. `gateway` is where the gateway's metrics are, where no running mesh says so.
pub fn sources(addresses: &Addresses, gateway: Option<String>) -> Vec<Source> {
    let status = addresses.gateway_status.map(|at| format!("http://{at}"));
    let mut sources = vec![
        Source {
            kind: Kind::Gateway,
            name: "gateway".to_owned(),
            url: gateway.or(status),
        },
        Source {
            kind: Kind::Orchestrator,
            name: "orchestrator".to_owned(),
            url: Some(format!("http://{}", addresses.orchestrator)),
        },
    ];
    sources.extend(addresses.agents.iter().map(|agent| Source {
        kind: Kind::Agent,
        name: agent.id.to_string(),
        url: Some(format!("http://{}", agent.admin)),
    }));
    sources
}

impl Watch {
    /// Begins to ask; `token` is the mesh's internal one, without which nobody says how busy agents are.
    pub fn begin(sources: Vec<Source>, client: &Client, token: Option<&str>) -> Self {
        let mut asking = JoinSet::new();
        let sources = sources.into_iter().map(|source| {
            let heard = Arc::new(Mutex::new(Heard::default()));
            if let Some(url) = source.url.clone() {
                let (client, kind, heard) = (client.clone(), source.kind, Arc::clone(&heard));
                let token = token
                    .filter(|_| kind == Kind::Orchestrator)
                    .map(str::to_owned);
                asking.spawn(ask(client, kind, url, token, heard));
            }
            (source, heard)
        });
        Self {
            sources: sources.collect(),
            _asking: asking,
        }
    }

    /// Waits until every part has answered `times`, or for so long.
    pub async fn settled(&self, times: usize, limit: Duration) {
        let end = Instant::now() + limit;
        let answered = |(source, of): &(Source, Arc<Mutex<Heard>>)| {
            let heard = heard(of);
            source.url.is_none()
                || heard.pages.len() >= times
                || matches!(heard.state, Some(Err(_)))
        };
        while Instant::now() < end && !self.sources.iter().all(answered) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn ask(
    client: Client,
    kind: Kind,
    url: String,
    token: Option<String>,
    to: Arc<Mutex<Heard>>,
) {
    let mut every = tokio::time::interval(EVERY);
    // One that was late is asked at the next second, not twice.
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let metrics = format!("{url}/metrics");
    // The gateway's own page says that it lives; the others say whether they are ready.
    let ready = match kind {
        Kind::Gateway => format!("{url}/status"),
        _ => format!("{url}/ready"),
    };
    let load = format!("{url}{}", load::PATH);
    loop {
        every.tick().await;
        let loads = async {
            let token = token.as_ref()?;
            let text = page(client.get(&load).bearer_auth(token)).await.ok()?;
            serde_json::from_str::<Loads>(&text).ok()
        };
        let (metrics, ready, loads) =
            tokio::join!(page(client.get(&metrics)), page(client.get(&ready)), loads);
        let mut heard = heard(&to);
        let state = match (metrics, ready) {
            (Ok(text), ready) => {
                heard.pages.push_back((Instant::now(), Page::read(&text)));
                while heard.pages.len() > KEPT {
                    heard.pages.pop_front();
                }
                ready.map(|_| ())
            }
            (Err(why), _) => {
                heard.pages.clear();
                Err(why)
            }
        };
        heard.state = Some(state);
        heard.loads = loads;
    }
}

/// A page's text; otherwise why there is none.
async fn page(request: reqwest::RequestBuilder) -> Result<String, String> {
    let sent = request.timeout(PATIENCE).send().await;
    let mut response = sent.map_err(|error| {
        let why = if error.is_timeout() {
            "no answer"
        } else if error.is_connect() {
            "down"
        } else {
            "broken off"
        };
        why.to_owned()
    })?;
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_PAGE {
            return Err("too long".to_owned());
        }
    }
    match response.status().as_u16() {
        200..300 => Ok(String::from_utf8_lossy(&body).into_owned()),
        503 => Err("not ready".to_owned()),
        other => Err(format!("answers {other}")),
    }
}
