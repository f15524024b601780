//! The HTTP APIs of Consul and Vault: token, authorities, time limits, bounded answers, errors without secrets.
//!
//! Both differ in the name of the header that carries the token; what only Consul has, the blocking query, is in
//! [`consul`].

pub(crate) mod consul;
mod token;

use crate::config::Secret;
use reqwest::header::{CONTENT_TYPE, HeaderName};
use reqwest::{Certificate, Client, Method, StatusCode, Url, redirect};
use std::path::{Path, PathBuf};
use std::time::Duration;
use token::Token;
use zeroize::Zeroizing;

/// Longest answer that is read, in bytes: 4,096 instances of one service with 4 KiB each.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Room for an answer of unknown length. Certificates and their keys fit: growing would leave copies of a key behind.
const ROOM: usize = 16 * 1024;
/// How much of an API's own words goes into an error, in characters.
const MAX_WORDS: usize = 200;
/// For a connection, within the limit of each question: one that may wait for news for minutes is not to wait as long
/// for a host that swallows what it is sent.
const CONNECT: Duration = Duration::from_secs(5);
/// Connections that are kept for the next question.
const IDLE_CONNECTIONS: usize = 8;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// It cannot be reached: another try may help.
    #[error("{who} is away: {why}")]
    Unreachable {
        /// Who it is.
        who: &'static str,
        /// The innermost reason.
        why: String,
    },
    /// It answers with an error of its own, or cannot be asked yet: another try may help.
    #[error("{0}")]
    Away(String),
    /// What it answers is not of its API's form.
    #[error("{0}")]
    Illegible(String),
    /// It refuses; another try will not change that.
    #[error("{0}")]
    Refused(String),
}

/// Which API.
pub(crate) struct Settings<'a> {
    /// Who it is, for errors.
    pub(crate) who: &'static str,
    /// Its base URL.
    pub(crate) url: &'a str,
    /// PEM of the authorities that its certificate is checked against; the system's when absent.
    pub(crate) ca_file: Option<&'a Path>,
    /// Carries the token.
    pub(crate) header: &'static str,
    /// The token.
    pub(crate) token: Option<&'a Secret>,
    /// A file that holds it, which whoever renews the token replaces.
    pub(crate) token_file: Option<&'a PathBuf>,
}

/// An HTTP API, in the sense of an address and a right.
pub(crate) struct Api {
    client: Client,
    base: Url,
    who: &'static str,
    header: HeaderName,
    token: Token,
}

/// What it answered.
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// `X-Consul-Index`, at least 1.
    pub(crate) index: Option<u64>,
    /// Whether access control left something out (Consul 1.11 and later tell).
    pub(crate) filtered: bool,
    body: Zeroizing<Vec<u8>>,
    who: &'static str,
}

impl Api {
    /// The API that `settings` name; it need not be there yet.
    ///
    /// # Errors
    /// What is wrong, in words: the URL, the file of authorities, the token.
    pub(crate) fn new(settings: &Settings<'_>) -> Result<Self, String> {
        let who = settings.who;
        let base = Url::parse(settings.url).map_err(|error| format!("url of {who}: {error}"))?;
        if base.cannot_be_a_base() || !base.has_host() {
            return Err(format!("url of {who} has no host"));
        }
        let mut client = Client::builder()
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            // A token goes to whom it was meant for, and nowhere else: neither to a proxy that the environment
            // names, nor to where an answer points.
            .redirect(redirect::Policy::none())
            .no_proxy();
        if let Some(file) = settings.ca_file {
            let fault = |why: String| format!("ca_file of {who}: {}: {why}", file.display());
            let pem = std::fs::read(file).map_err(|error| fault(error.to_string()))?;
            let roots = Certificate::from_pem_bundle(&pem)
                .map_err(|_| fault("holds no PEM of certificates".to_owned()))?;
            if roots.is_empty() {
                return Err(fault("holds no certificate".to_owned()));
            }
            client = client.tls_certs_only(roots);
        } else if base.scheme() == "http" {
            // Spares the system's hundred and more roots; and a machine without any is no obstacle.
            client = client.tls_certs_only([]);
        }
        Ok(Self {
            client: client
                .build()
                .map_err(|error| format!("client of {who}: {}", said(&error)))?,
            base,
            who,
            header: HeaderName::from_static(settings.header),
            token: Token::new(who, settings.token, settings.token_file)?,
        })
    }

    /// `GET`, within `limit` altogether.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`], [`ApiError::Away`].
    pub(crate) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Answer, ApiError> {
        self.ask(Method::GET, (path, query), None, limit).await
    }

    /// `PUT` of JSON, within `limit` altogether.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`], [`ApiError::Away`].
    pub(crate) async fn put(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Answer, ApiError> {
        self.ask(Method::PUT, (path, query), Some(body), limit)
            .await
    }

    /// `POST` of JSON, within `limit` altogether.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`], [`ApiError::Away`].
    pub(crate) async fn post(
        &self,
        path: &[&str],
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Answer, ApiError> {
        self.ask(Method::POST, (path, &[]), Some(body), limit).await
    }

    async fn ask(
        &self,
        method: Method,
        (path, query): (&[&str], &[(&str, &str)]),
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Answer, ApiError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| ApiError::Refused("its URL has no host".to_owned()))?
            .pop_if_empty()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.request(method, url).timeout(limit);
        let token = self.token.get().await.map_err(ApiError::Away)?;
        if let Some(token) = &token {
            request = request.header(&self.header, token);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let who = self.who;
        let away = |error: reqwest::Error| ApiError::Unreachable {
            who,
            why: said(&error),
        };
        let mut response = request.send().await.map_err(away)?;
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let index = header("x-consul-index").and_then(|index| index.parse::<u64>().ok());
        let filtered = header("x-consul-results-filtered-by-acls") == Some("true");
        let status = response.status();
        let length = response.content_length();
        let length = length.and_then(|length| usize::try_from(length).ok());
        let mut read = Zeroizing::new(Vec::with_capacity(length.unwrap_or(ROOM).min(MAX_ANSWER)));
        while let Some(piece) = response.chunk().await.map_err(away)? {
            if read.len() + piece.len() > MAX_ANSWER {
                let why = format!("answer is longer than {MAX_ANSWER} bytes");
                return Err(ApiError::Away(why));
            }
            read.extend_from_slice(&piece);
        }
        // An error may repeat what it was asked with.
        let repeated = token.is_some_and(|token| {
            let mut parts = read.windows(token.len().max(1));
            !status.is_success() && parts.any(|part| part == token.as_bytes())
        });
        if repeated {
            *read = b"(its words hold the token)".to_vec();
        }
        Ok(Answer {
            status,
            // A zero would not block.
            index: index.map(|index| index.max(1)),
            filtered,
            body: read,
            who: self.who,
        })
    }
}

impl Answer {
    /// The answer, where it is one.
    ///
    /// # Errors
    /// [`ApiError::Refused`] for 4xx, which another try will not change; [`ApiError::Away`] for the rest.
    pub(crate) fn success(self) -> Result<Self, ApiError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let why = format!(
            "{} answers {}: {}",
            self.who,
            self.status.as_u16(),
            self.words()
        );
        // Too many connections, or too many requests, for now.
        let later = matches!(
            self.status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        );
        if self.status.is_client_error() && !later {
            return Err(ApiError::Refused(why));
        }
        Err(ApiError::Away(why))
    }

    /// The answer as what it is expected to be.
    ///
    /// # Errors
    /// [`ApiError::Illegible`] when it is something else.
    pub(crate) fn read<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, ApiError> {
        // The position tells; the text may be long, a stranger's, or a key.
        serde_json::from_slice(&self.body).map_err(|error| {
            ApiError::Illegible(format!(
                "{} answers in a form that is not its API's, line {}, column {}",
                self.who,
                error.line(),
                error.column()
            ))
        })
    }

    /// The API's words, fit for a log.
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
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string().chars().take(MAX_WORDS).collect()
}
