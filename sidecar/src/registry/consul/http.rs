//! Requests to Consul's agent: token, time limits, bounded answers, errors without secrets.

use crate::config;
use crate::registry::RegistryError;
use reqwest::header::HeaderValue;
use reqwest::{Client, Method, StatusCode, Url};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Longest answer that is read, in bytes: 4,096 instances of one service with 4 KiB each.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Longest token in a file, in bytes; Consul's have 36.
const MAX_TOKEN: u64 = 4096;
/// How much of Consul's own words goes into an error, in characters.
const MAX_WORDS: usize = 200;
/// Longest wait of a blocking query that Consul takes.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// Connections that are kept for the next question.
const IDLE_CONNECTIONS: usize = 8;

/// One connection to Consul's API, in the sense of an address and a right.
pub(crate) struct Http {
    client: Client,
    base: Url,
    token: Token,
    timeout: Duration,
    wait: Duration,
}

/// What Consul said.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// `X-Consul-Index`, at least 1.
    pub(crate) index: Option<u64>,
    /// Whether access control left something out (Consul 1.11 and later tell).
    pub(crate) filtered: bool,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Http {
    /// # Errors
    /// [`RegistryError::Refused`] when the configuration cannot work.
    pub(crate) fn new(config: &config::Consul) -> Result<Self, RegistryError> {
        let refused = |why: String| RegistryError::Refused(why);
        let base = Url::parse(&config.url).map_err(|_| refused("its URL is none".to_owned()))?;
        if base.cannot_be_a_base() {
            return Err(refused("its URL has no host".to_owned()));
        }
        let timeout = Duration::from_millis(config.timeout_ms);
        let mut client = Client::builder()
            .connect_timeout(timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            // A token goes to Consul and nowhere else: neither to a proxy that the environment names, nor to
            // where an answer points.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        if let Some(file) = &config.ca_file {
            let fault = |why: String| refused(format!("{}: {why}", file.display()));
            let pem = std::fs::read(file).map_err(|e| fault(e.to_string()))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|_| fault("holds no PEM of certificates".to_owned()))?;
            if roots.is_empty() {
                return Err(fault("holds no certificate".to_owned()));
            }
            client = client.tls_certs_only(roots);
        } else if base.scheme() == "http" {
            // Spares the system's hundred and more roots.
            client = client.tls_certs_only([]);
        }
        Ok(Self {
            client: client.build().map_err(|e| refused(said(&e)))?,
            base,
            token: Token::new(config)?,
            timeout,
            wait: Duration::from_millis(config.wait_ms).min(MAX_WAIT),
        })
    }

    /// Time limit of a request that does not block.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Longest wait of a blocking query.
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    /// Asks at once.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    pub(crate) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Answer, RegistryError> {
        let url = self.url(path, query)?;
        self.exchange(Method::GET, url, None, self.timeout).await
    }

    /// Asks for what is beyond `index`: answered as soon as there is something, or after [`Self::wait`].
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    pub(crate) async fn get_after(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        index: u64,
    ) -> Result<Answer, RegistryError> {
        let (index, wait) = (index.to_string(), format!("{}ms", self.wait.as_millis()));
        let mut all = query.to_vec();
        all.extend([("index", index.as_str()), ("wait", wait.as_str())]);
        let url = self.url(path, &all)?;
        // Consul adds up to a sixteenth, so that not all come back at the same time.
        let patience = self.wait + self.wait / 16 + self.timeout;
        self.exchange(Method::GET, url, None, patience).await
    }

    /// Writes.
    ///
    /// # Errors
    /// [`RegistryError::Away`].
    pub(crate) async fn put(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, RegistryError> {
        let url = self.url(path, query)?;
        self.exchange(Method::PUT, url, Some(body), self.timeout)
            .await
    }

    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, RegistryError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| RegistryError::Refused("its URL has no host".to_owned()))?
            .pop_if_empty()
            .extend(path);
        url.query_pairs_mut().extend_pairs(query);
        Ok(url)
    }

    async fn exchange(
        &self,
        method: Method,
        url: Url,
        body: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<Answer, RegistryError> {
        let token = self.token.get().await?;
        let mut request = self.client.request(method, url).timeout(patience);
        if let Some(token) = &token {
            request = request.header("X-Consul-Token", token);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let away = |error: &reqwest::Error| RegistryError::Away(said(error));
        let mut response = request.send().await.map_err(|e| away(&e))?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let index = header("x-consul-index").and_then(|index| index.parse::<u64>().ok());
        let filtered = header("x-consul-results-filtered-by-acls") == Some("true");
        let status = response.status();
        let mut read = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| away(&e))? {
            if read.len() + piece.len() > MAX_ANSWER {
                let why = format!("answer is longer than {MAX_ANSWER} bytes");
                return Err(RegistryError::Away(why));
            }
            read.extend_from_slice(&piece);
        }
        // An error may repeat what it was asked with.
        if let Some(token) = token.filter(|_| !status.is_success())
            && !token.is_empty()
            && read
                .windows(token.len())
                .any(|part| part == token.as_bytes())
        {
            read = b"(its words hold the token)".to_vec();
        }
        Ok(Answer {
            status,
            // A zero would not block.
            index: index.map(|index| index.max(1)),
            filtered,
            body: read,
        })
    }
}

impl Answer {
    /// The answer, where it is one.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] for 4xx, which another try will not change; [`RegistryError::Away`] for the rest.
    pub(crate) fn success(self) -> Result<Self, RegistryError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let why = format!("{}: {}", self.status.as_u16(), self.words());
        // Too many connections, or too many requests, for now.
        let later = matches!(
            self.status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        );
        if self.status.is_client_error() && !later {
            return Err(RegistryError::Refused(why));
        }
        Err(RegistryError::Away(why))
    }

    /// The answer as what it is expected to be.
    ///
    /// # Errors
    /// [`RegistryError::Away`] when it is something else.
    pub(crate) fn read<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, RegistryError> {
        serde_json::from_slice(&self.body)
            // The position tells; the text may be long and a stranger's.
            .map_err(|e| {
                let (line, column) = (e.line(), e.column());
                RegistryError::Away(format!(
                    "answer cannot be read, line {line}, column {column}"
                ))
            })
    }

    /// Consul's words, fit for a log.
    pub(crate) fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line = text.trim().chars().take(MAX_WORDS);
        line.map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

/// Why there was no answer: the innermost reason. The URL is left out: it is configured, and the same for all.
fn said(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "does not answer in time".to_owned();
    }
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    text.chars().take(MAX_WORDS).collect()
}

/// The right to ask.
enum Token {
    None,
    Text(HeaderValue),
    /// Read again when the file changed: whoever rotates it writes it.
    File(PathBuf, Mutex<Option<(Stamp, HeaderValue)>>),
}

/// What changes with a file.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    inode: u64,
    length: u64,
}

impl Token {
    fn new(config: &config::Consul) -> Result<Self, RegistryError> {
        Ok(match (&config.token, &config.token_file) {
            (Some(token), _) => Self::Text(value(token.expose()).ok_or_else(|| {
                RegistryError::Refused("its token is not printable ASCII".to_owned())
            })?),
            (None, Some(file)) => Self::File(file.clone(), Mutex::default()),
            (None, None) => Self::None,
        })
    }

    /// A file that is not there may come: until then nothing can be asked.
    async fn get(&self) -> Result<Option<HeaderValue>, RegistryError> {
        match self {
            Self::None => Ok(None),
            Self::Text(token) => Ok(Some(token.clone())),
            Self::File(file, known) => {
                let fault = |why: String| {
                    RegistryError::Away(format!("token file {}: {why}", file.display()))
                };
                let stamp = stamp(file).await.map_err(|e| fault(e.to_string()))?;
                let kept = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some((_, token)) = kept.filter(|(kept, _)| *kept == stamp) {
                    return Ok(Some(token));
                }
                if stamp.length > MAX_TOKEN {
                    return Err(fault(format!("is longer than {MAX_TOKEN} bytes")));
                }
                let text = tokio::fs::read_to_string(file).await;
                let text = text.map_err(|e| fault(e.to_string()))?;
                let token = value(text.trim())
                    .filter(|token| !token.is_empty())
                    .ok_or_else(|| fault("holds no token".to_owned()))?;
                *known.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((stamp, token.clone()));
                Ok(Some(token))
            }
        }
    }
}

async fn stamp(file: &Path) -> std::io::Result<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = tokio::fs::metadata(file).await?;
    Ok(Stamp {
        modified: metadata.modified().ok(),
        inode: metadata.ino(),
        length: metadata.len(),
    })
}

fn value(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(token).ok()?;
    value.set_sensitive(true);
    Some(value)
}
