//! The right to ask: a token in the configuration or in a file.

use crate::config::Secret;
use reqwest::header::HeaderValue;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;
use zeroize::Zeroizing;

/// Longest token in a file, in bytes: Consul's have 36, Vault's less than 200, signed ones some thousand.
const MAX_TOKEN: u64 = 16 * 1024;

/// The right to ask.
pub(super) enum Token {
    /// There is none.
    None,
    /// In the configuration.
    Given(HeaderValue),
    /// In a file, read again when that changed: whoever rotates the token writes it.
    File {
        who: &'static str,
        file: PathBuf,
        known: Mutex<Option<(Stamp, HeaderValue)>>,
    },
}

/// What changes with a file.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    inode: u64,
    length: u64,
}

impl Token {
    /// # Errors
    /// When the one given cannot be a header.
    pub(super) fn new(
        who: &'static str,
        given: Option<&Secret>,
        file: Option<&PathBuf>,
    ) -> Result<Self, String> {
        Ok(match (given, file) {
            (Some(token), _) => Self::Given(
                value(token.expose())
                    .ok_or_else(|| format!("token of {who} is not printable ASCII"))?,
            ),
            (None, Some(file)) => Self::File {
                who,
                file: file.clone(),
                known: Mutex::default(),
            },
            (None, None) => Self::None,
        })
    }

    /// The token. A file that is not there may come: until then nothing can be asked.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) async fn get(&self) -> Result<Option<HeaderValue>, String> {
        let (who, file, known) = match self {
            Self::None => return Ok(None),
            Self::Given(token) => return Ok(Some(token.clone())),
            Self::File { who, file, known } => (who, file, known),
        };
        let fault = |why: String| format!("token file of {who}: {}: {why}", file.display());
        let stamp = stamp(file).await.map_err(|e| fault(e.to_string()))?;
        let kept = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, token)) = kept.filter(|(kept, _)| *kept == stamp) {
            return Ok(Some(token));
        }
        if stamp.length > MAX_TOKEN {
            return Err(fault(format!("is longer than {MAX_TOKEN} bytes")));
        }
        let text = tokio::fs::read_to_string(file).await;
        let text = Zeroizing::new(text.map_err(|e| fault(e.to_string()))?);
        let token = value(text.trim())
            .filter(|token| !token.is_empty())
            .ok_or_else(|| fault("holds no token".to_owned()))?;
        *known.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, token.clone()));
        Ok(Some(token))
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
