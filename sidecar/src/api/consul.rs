//! Consul's agent: questions that are answered at once, and blocking queries
//! (<https://developer.hashicorp.com/consul/api-docs/features/blocking>).

use super::{Answer, Api, ApiError, Settings};
use crate::config;
use std::time::Duration;

/// Longest wait of a blocking query that Consul takes.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// The agent of Consul.
pub(crate) struct Agent {
    api: Api,
    timeout: Duration,
    wait: Duration,
}

impl Agent {
    /// The agent that `config` names; it need not be there yet.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn new(config: &config::Consul) -> Result<Self, String> {
        Ok(Self {
            api: Api::new(&Settings {
                who: "consul",
                url: &config.url,
                ca_file: config.ca_file.as_deref(),
                header: "x-consul-token",
                token: config.token.as_ref(),
                token_file: config.token_file.as_ref(),
            })?,
            timeout: Duration::from_millis(config.timeout_ms),
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
    /// [`ApiError::Unreachable`], [`ApiError::Away`].
    pub(crate) async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Answer, ApiError> {
        self.api.get(path, query, self.timeout).await
    }

    /// Asks for what is beyond `index`: answered as soon as there is something, or after [`Self::wait`].
    ///
    /// # Errors
    /// [`ApiError::Unreachable`], [`ApiError::Away`].
    pub(crate) async fn get_after(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        index: u64,
    ) -> Result<Answer, ApiError> {
        let (index, wait) = (index.to_string(), format!("{}ms", self.wait.as_millis()));
        let mut all = query.to_vec();
        all.extend([("index", index.as_str()), ("wait", wait.as_str())]);
        // Consul adds up to a sixteenth, so that not all come back at the same time.
        let patience = self.wait + self.wait / 16 + self.timeout;
        self.api.get(path, &all, patience).await
    }

    /// Writes.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`], [`ApiError::Away`].
    pub(crate) async fn put(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, ApiError> {
        self.api.put(path, query, body, self.timeout).await
    }
}
