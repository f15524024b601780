//! An HTTP API that gives out certificates: Consul's and Vault's differ in paths and in the name of one header.

use super::SourceError;
use crate::config::Secret;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Method, StatusCode, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;
use zeroize::Zeroizing;

/// Longest answer that is read, in bytes: a bundle of many roots has a tenth of it.
const MAX_ANSWER: usize = 1 << 20;
/// Most that is shown of an answer that says why, in characters.
const MAX_WHY: usize = 200;
/// Longest token that a file may hold, in bytes; tokens of both have less than 200, signed ones some thousand.
const MAX_TOKEN: usize = 16 << 10;

/// Where the token is.
pub(super) enum Token {
    /// There is none.
    None,
    /// In the configuration.
    Given(Secret),
    /// In a file, which whoever renews the token replaces.
    File(PathBuf),
}

impl Token {
    pub(super) fn new(given: Option<&Secret>, file: Option<&PathBuf>) -> Self {
        match (given, file) {
            (Some(token), _) => Self::Given(token.clone()),
            (None, Some(file)) => Self::File(file.clone()),
            (None, None) => Self::None,
        }
    }
}

/// An HTTP API.
pub(super) struct Api {
    client: Client,
    base: Url,
    /// Who it is, for errors.
    who: &'static str,
    header: HeaderName,
    token: Token,
}

/// What it answered.
pub(super) struct Answer {
    /// The state of what was asked for, where the API counts it.
    pub(super) index: Option<u64>,
    body: Zeroizing<Vec<u8>>,
    who: &'static str,
}

impl Api {
    /// The API of `who` at `base`; `header` carries the token. TLS is checked against the authorities in `ca_file`, or
    /// the system's.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn new(
        who: &'static str,
        base: &str,
        ca_file: Option<&Path>,
        header: HeaderName,
        token: Token,
    ) -> Result<Self, String> {
        let mut base = Url::parse(base).map_err(|error| format!("url of {who}: {error}"))?;
        // Joined to a base without it, a path replaces the last segment.
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let mut client = Client::builder()
            // A token goes to whom it was meant for, and by no proxy of the environment's.
            .redirect(redirect::Policy::none())
            .no_proxy();
        if let Some(file) = ca_file {
            let fault = |error: String| format!("ca_file of {who}: {}: {error}", file.display());
            let pem = std::fs::read(file).map_err(|error| fault(error.to_string()))?;
            let roots =
                Certificate::from_pem_bundle(&pem).map_err(|error| fault(error.to_string()))?;
            if roots.is_empty() {
                return Err(fault("holds no certificate".to_owned()));
            }
            client = client.tls_certs_only(roots);
        } else if base.scheme() == "http" {
            // A machine without authorities of its own is no obstacle for plain HTTP.
            client = client.tls_certs_only([]);
        }
        let client = client
            .build()
            .map_err(|error| format!("client of {who}: {error}"))?;
        Ok(Self {
            client,
            base,
            who,
            header,
            token,
        })
    }

    /// `GET` of `path`, within `limit` altogether.
    pub(super) async fn get(&self, path: &str, limit: Duration) -> Result<Answer, SourceError> {
        self.ask(Method::GET, path, None, limit).await
    }

    /// `POST` of `body` to `path`, within `limit` altogether.
    pub(super) async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<Answer, SourceError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| SourceError::Unusable(format!("{}: {error}", self.who)))?;
        self.ask(Method::POST, path, Some(body), limit).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Answer, SourceError> {
        let who = self.who;
        let url = self
            .base
            .join(path)
            .map_err(|error| SourceError::Unusable(format!("{who}: {error}")))?;
        let mut request = self.client.request(method, url).timeout(limit);
        if let Some(token) = self.token().await? {
            request = request.header(self.header.clone(), token);
        }
        if let Some(body) = body {
            request = request
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(body);
        }
        let mut response = request.send().await.map_err(|error| self.away(error))?;
        let status = response.status();
        let header = response.headers().get("x-consul-index");
        let index = header
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok());
        // Filled without growing where the length is known: growing leaves copies of a key behind.
        let length = response
            .content_length()
            .and_then(|l| usize::try_from(l).ok());
        let mut body = Zeroizing::new(Vec::with_capacity(
            length.unwrap_or(16 << 10).min(MAX_ANSWER),
        ));
        while let Some(chunk) = response.chunk().await.map_err(|error| self.away(error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(SourceError::Unusable(format!(
                    "{who} answers with more than {MAX_ANSWER} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(Answer { index, body, who });
        }
        Err(self.refusal(status, &body))
    }

    async fn token(&self) -> Result<Option<HeaderValue>, SourceError> {
        let fault = |why: &str| SourceError::Away(format!("token of {}: {why}", self.who));
        let text = match &self.token {
            Token::None => return Ok(None),
            Token::Given(secret) => Zeroizing::new(secret.expose().to_owned()),
            Token::File(file) => {
                let read = tokio::fs::read_to_string(file).await;
                let text = read.map_err(|error| fault(&format!("{}: {error}", file.display())))?;
                Zeroizing::new(text)
            }
        };
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_TOKEN {
            return Err(fault("is empty or too long"));
        }
        let mut value = HeaderValue::from_str(text).map_err(|_| fault("is no token"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn away(&self, error: reqwest::Error) -> SourceError {
        // The cause is where the system's own word is; the URL says nothing that is not configured.
        let error = error.without_url();
        let mut why = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            why = next.to_string();
            cause = next.source();
        }
        SourceError::Away(format!("{} is away: {why}", self.who))
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> SourceError {
        let text = String::from_utf8_lossy(body);
        let why: String = text
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_WHY)
            .collect();
        let said = format!("{} answers {}: {why}", self.who, status.as_u16());
        match status.as_u16() {
            400 | 401 | 403 | 404 | 405 => SourceError::Refused(said),
            _ => SourceError::Away(said),
        }
    }
}

impl Answer {
    /// The answer, read as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, SourceError> {
        // serde_json says where, and what it expected, not what stands there.
        serde_json::from_slice(&self.body).map_err(|error| {
            let category = error.classify();
            SourceError::Unusable(format!(
                "{} answers in a form that is not its API's: {category:?} error at line {}",
                self.who,
                error.line()
            ))
        })
    }
}
