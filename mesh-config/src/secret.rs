//! Secrets: where they come from, and the one object that knows their values.
//!
//! A checked mesh holds references; values exist only in [`Secrets`], which is made at the last moment
//! and handed to the renderers. Rendering with [`Secrets::none`] shows the references instead.

mod vault;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest secret file that is read, in bytes; an RSA key of 16384 bits takes 13 KB as PEM.
const MAX_FILE: u64 = 64 * 1024;

/// Where a value comes from that may be secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// It stands in mesh.yaml.
    Inline(String),
    /// A file, relative to mesh.yaml; white space around its text is dropped.
    File(PathBuf),
    /// A variable of the environment.
    Env(String),
    /// A field of a secret in Vault, by its KV engine, version 2.
    Vault {
        /// `MOUNT/data/PATH`.
        path: String,
        /// One of the secret's fields.
        field: String,
        /// Which Vault, as far as mesh.yaml says.
        server: Option<Arc<Vault>>,
    },
}

/// A Vault; what is absent is `VAULT_ADDR`'s, `VAULT_TOKEN`'s and `VAULT_CACERT`'s to say.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vault {
    /// Its base URL.
    pub url: Option<url::Url>,
    /// Its token.
    pub token: Option<Source>,
    /// PEM of the authorities that its certificate is checked against, relative to mesh.yaml.
    pub ca: Option<PathBuf>,
}

impl Source {
    /// The reference as written in mesh.yaml; never the value.
    pub fn reference(&self) -> String {
        match self {
            Self::Inline(_) => "{inline: ***}".to_owned(),
            Self::File(path) => format!("{{file: {}}}", path.display()),
            Self::Env(name) => format!("{{env: {name}}}"),
            Self::Vault { path, field, .. } => {
                format!("{{vault: {{path: {path}, field: {field}}}}}")
            }
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reference())
    }
}

/// Why a secret has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The environment lacks the variable.
    #[error("{path}: the environment has no {name}; set it, or name a file instead")]
    NoVariable {
        /// The field.
        path: String,
        /// The variable.
        name: String,
    },
    /// The file cannot be read.
    #[error("{path}: cannot read {}: {detail}", file.display())]
    NoFile {
        /// The field.
        path: String,
        /// The file.
        file: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// Vault does not give it.
    #[error("{path}: {detail}")]
    NoAnswer {
        /// The field.
        path: String,
        /// Why.
        detail: String,
    },
    /// The value is there and of no use.
    #[error("{path}: {detail}")]
    Unusable {
        /// The field.
        path: String,
        /// Why; without the value.
        detail: String,
    },
}

/// The values of a mesh's secrets, or none of them.
#[derive(Clone, Default)]
pub struct Secrets {
    values: Option<BTreeMap<Source, String>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.values.as_ref().map_or(0, BTreeMap::len);
        write!(f, "Secrets({known})")
    }
}

impl Secrets {
    /// No values: renderers show references.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads every secret of `wanted` (field and source).
    ///
    /// # Errors
    /// Every secret that has no value.
    pub fn resolve<'a>(
        wanted: impl IntoIterator<Item = (String, &'a Source)>,
        base: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<SecretError>> {
        let mut values = BTreeMap::new();
        let mut errors = Vec::new();
        let wanted: Vec<(String, &Source)> = wanted.into_iter().collect();
        let kept = vault::read(&wanted, base, environment);
        for (path, source) in wanted {
            let value = match kept.get(source) {
                Some(answer) => {
                    let told = answer.clone().map_err(|detail| SecretError::NoAnswer {
                        path: path.clone(),
                        detail,
                    });
                    told.and_then(|value| usable(&path, source, &value))
                }
                None => read(&path, source, base, environment),
            };
            match value {
                Ok(value) => {
                    values.insert(source.clone(), value);
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(Self {
                values: Some(values),
            })
        } else {
            Err(errors)
        }
    }

    /// Whether values are known here at all.
    pub fn are_known(&self) -> bool {
        self.values.is_some()
    }

    /// Whether a text holds one of the values.
    pub fn are_in(&self, text: &str) -> bool {
        let values = self.values.iter().flat_map(BTreeMap::values);
        // What is shorter is found in words that are none.
        let mut long = values.filter(|value| value.len() >= 4);
        long.any(|value| text.contains(value.as_str()))
    }

    /// The value, or the reference where values are not to be shown.
    pub fn show(&self, source: &Source) -> String {
        self.value(source)
            .map_or_else(|| source.reference(), str::to_owned)
    }

    /// The value, if values are known here.
    pub fn value(&self, source: &Source) -> Option<&str> {
        self.values.as_ref()?.get(source).map(String::as_str)
    }
}

fn read(
    path: &str,
    source: &Source,
    base: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, SecretError> {
    let value = match source {
        Source::Inline(value) => value.clone(),
        Source::Env(name) => environment(name).ok_or_else(|| SecretError::NoVariable {
            path: path.to_owned(),
            name: name.clone(),
        })?,
        Source::File(file) => {
            let file = base.join(file);
            let refused = |detail: String| SecretError::NoFile {
                path: path.to_owned(),
                file: file.clone(),
                detail,
            };
            // Not by its length: that of a device or a pipe is 0.
            let mut text = String::new();
            File::open(&file)
                .and_then(|open| open.take(MAX_FILE + 1).read_to_string(&mut text))
                .map_err(|e| refused(e.to_string()))?;
            if u64::try_from(text.len()).is_ok_and(|length| length > MAX_FILE) {
                return Err(refused(format!("it is longer than {MAX_FILE} bytes")));
            }
            text
        }
        Source::Vault { .. } => {
            return Err(SecretError::NoAnswer {
                path: path.to_owned(),
                detail: format!("{} was not asked for", source.reference()),
            });
        }
    };
    usable(path, source, &value)
}

/// The value without white space around it, where anything is left then.
fn usable(path: &str, source: &Source, value: &str) -> Result<String, SecretError> {
    let value = value.trim();
    if value.is_empty() {
        return Err(SecretError::Unusable {
            path: path.to_owned(),
            detail: format!("{} is empty", source.reference()),
        });
    }
    Ok(value.to_owned())
}

/// Reads an Ed25519 private key: PKCS #8 as PEM, or 32 bytes in unpadded base64url.
///
/// # Errors
/// In words, without the key.
pub fn signing_key(text: &str) -> Result<SigningKey, &'static str> {
    const WANTED: &str = "not an Ed25519 private key: neither PEM (`openssl genpkey -algorithm ed25519`) nor 32 bytes in base64url";
    let text = text.trim();
    if text.starts_with("-----BEGIN") {
        return SigningKey::from_pkcs8_pem(text).map_err(|_| WANTED);
    }
    let bytes: [u8; 32] = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|b| b.try_into().ok())
        .ok_or(WANTED)?;
    Ok(SigningKey::from_bytes(&bytes))
}

/// The form in which the filter's configuration and the key files hold a private key.
pub fn signing_key_text(key: &SigningKey) -> String {
    URL_SAFE_NO_PAD.encode(key.to_bytes())
}
