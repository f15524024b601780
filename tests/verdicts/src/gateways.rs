//! Who is asked: the policies themselves, or a gateway over HTTP.

use crate::chains;
use crate::echo::{MARK, OWN, Seen};
use crate::native::Native;
use crate::request::Request;
use crate::wire::{self, Response};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What came of a request.
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// What the upstream saw of it.
    pub(crate) seen: Vec<Seen>,
}

/// Who is asked.
pub(crate) enum Gateway {
    Native(BTreeMap<String, Native>),
    /// A gateway that tells all chains apart by the host, or one address per chain.
    Http {
        /// `local`, `envoy` or `kong`.
        name: &'static str,
        addresses: BTreeMap<String, SocketAddr>,
        echo: SocketAddr,
    },
}

impl Gateway {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Native(_) => "native",
            Self::Http { name, .. } => name,
        }
    }

    /// Asks for one request.
    pub(crate) async fn ask(&self, chain: &str, request: &Request) -> Result<Answer, String> {
        match self {
            Self::Native(chains) => Ok(native(chains, chain)?.ask(request).end()),
            Self::Http {
                addresses, echo, ..
            } => {
                let address = addresses.get(chain).ok_or("no such chain")?;
                let bytes = request.bytes(&chains::host(chain));
                let response = wire::send(*address, &bytes).await?;
                let seen = seen(*echo, request).await?;
                if response.headers.contains_key(MARK) && seen.is_empty() {
                    return Err("the answer is the echo's, which saw no such request".to_owned());
                }
                Ok(Answer { response, seen })
            }
        }
    }

    /// Asks for all `requests` at the same time. The upstream holds what passes, which is released when
    /// there are `refused` answers.
    pub(crate) async fn ask_at_once(
        &self,
        chain: &str,
        requests: &[Request],
        refused: usize,
    ) -> Result<Vec<Answer>, String> {
        match self {
            Self::Native(chains) => {
                let native = native(chains, chain)?;
                let inside: Vec<_> = requests.iter().map(|r| native.ask(r)).collect();
                Ok(inside.into_iter().map(|inside| inside.end()).collect())
            }
            Self::Http { echo, .. } => {
                let mut open: FuturesUnordered<_> =
                    requests.iter().map(|r| self.ask(chain, r)).collect();
                let mut answers = Vec::new();
                while answers.len() < refused
                    && let Some(answer) = open.next().await
                {
                    answers.push(answer?);
                }
                let release = |r: &Request| about(*echo, format!("release/{}", r.id));
                for released in join_all(requests.iter().map(release)).await {
                    released?;
                }
                while let Some(answer) = open.next().await {
                    answers.push(answer?);
                }
                Ok(answers)
            }
        }
    }
}

fn native<'a>(chains: &'a BTreeMap<String, Native>, chain: &str) -> Result<&'a Native, String> {
    chains.get(chain).ok_or_else(|| "no such chain".to_owned())
}

async fn seen(echo: SocketAddr, request: &Request) -> Result<Vec<Seen>, String> {
    let body = about(echo, format!("seen/{}", request.id)).await?;
    serde_json::from_slice(&body).map_err(|error| format!("the echo's answer: {error}"))
}

/// Asks the echo itself.
async fn about(echo: SocketAddr, what: String) -> Result<Vec<u8>, String> {
    let head = format!("GET {OWN}{what} HTTP/1.1\r\nhost: echo\r\nconnection: close\r\n\r\n");
    let response = wire::send(echo, head.as_bytes()).await?;
    Ok(response.body)
}
