//! A development mesh's own keys, and the tokens they sign.
//!
//! Two Ed25519 keys in `.mesh/` beside mesh.yaml, made once and never overwritten: one signs clients'
//! tokens in place of a real issuer, one signs the gateway's assertions. Whoever can read them can be
//! anyone in this mesh, so they are their owner's alone, and such a gateway listens on loopback only.

use crate::LocalError;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use mesh_config::deploy::{Place, placed};
use mesh_config::mesh::{
    ASSERTION_KEY, Auth, DEVELOPMENT_ISSUER, DEVELOPMENT_KID, KEYS_DIR, Mesh, TOKEN_KEY,
};
use mesh_config::render::compose;
use mesh_config::secret::{Secrets, Source, signing_key, signing_key_text};
use mesh_protocol::Timestamp;
use serde_json::{Map, Value, json};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a token is to say.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRequest {
    /// Who it names.
    pub sub: String,
    /// Scopes, separated by spaces.
    pub scope: String,
    /// How long it is valid.
    pub ttl: Duration,
    /// Further claims; they cannot replace the others.
    pub claims: Map<String, Value>,
}

impl Default for TokenRequest {
    fn default() -> Self {
        Self {
            sub: "developer".to_owned(),
            scope: "tasks:read tasks:write".to_owned(),
            ttl: Duration::from_secs(3600),
            claims: Map::new(),
        }
    }
}

/// The development issuer of one mesh.
pub struct DevelopmentIssuer {
    audience: String,
    key: SigningKey,
}

impl DevelopmentIssuer {
    /// The issuer of `mesh`, whose keys are in `base`; they are made when they are not there.
    ///
    /// # Errors
    /// [`LocalError::NotDevelopment`] for a mesh with real issuers, [`LocalError::Key`].
    pub fn of(mesh: &Mesh, base: &Path) -> Result<Self, LocalError> {
        if mesh.gateway.auth != Auth::Development {
            return Err(LocalError::NotDevelopment);
        }
        Ok(Self {
            audience: mesh.name.clone(),
            key: key_file(base, TOKEN_KEY)?,
        })
    }

    /// The claims of a token as of `now`.
    pub fn claims(&self, request: &TokenRequest, now: Timestamp) -> Value {
        let mut claims = request.claims.clone();
        let own = json!({
            "iss": DEVELOPMENT_ISSUER,
            "sub": request.sub,
            "aud": self.audience,
            "scope": request.scope,
            "iat": now.seconds(),
            "exp": now.seconds().saturating_add(request.ttl.as_secs()),
        });
        if let Value::Object(own) = own {
            claims.extend(own);
        }
        Value::Object(claims)
    }

    /// A token that the gateway of this mesh accepts at `now`.
    ///
    /// # Errors
    /// [`LocalError::Token`] with what of the request the gateway's own filter would refuse.
    pub fn issue(&self, request: &TokenRequest, now: Timestamp) -> Result<String, LocalError> {
        let token = self.sign(&self.claims(request, now));
        let Some(reason) = self.refusal(&token, now)? else {
            return Ok(token);
        };
        // Each part alone in a token that is good otherwise: the filter says which one it is.
        let usual = TokenRequest::default;
        let parts = [
            (
                "sub",
                "1 to 255 bytes without control characters",
                TokenRequest {
                    sub: request.sub.clone(),
                    ..usual()
                },
            ),
            (
                "scope",
                "at most 1024 printable ASCII characters, none of them \" or \\",
                TokenRequest {
                    scope: request.scope.clone(),
                    ..usual()
                },
            ),
            (
                "ttl",
                "it must end before the year 10000",
                TokenRequest {
                    ttl: request.ttl,
                    ..usual()
                },
            ),
        ];
        for (part, mend, alone) in parts {
            if let Some(reason) = self.refusal(&self.sign(&self.claims(&alone, now)), now)? {
                return Err(LocalError::Token { part, reason, mend });
            }
        }
        Err(LocalError::Token {
            part: "claim",
            reason,
            mend: "a registered claim keeps its type, and all of them fit into 8 KiB",
        })
    }

    fn refusal(&self, token: &str, now: Timestamp) -> Result<Option<&'static str>, LocalError> {
        let public = self.key.verifying_key().to_public_key_pem(LineEnding::LF);
        let public = public.map_err(|e| LocalError::Key {
            path: PathBuf::from(TOKEN_KEY),
            source: io::Error::other(e.to_string()),
        })?;
        Ok(mesh_config::token_refusal(
            &self.audience,
            &public,
            token,
            now,
        ))
    }

    /// A signed token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": DEVELOPMENT_KID});
        mesh_protocol::assertion::sign_compact(&header, claims, &self.key)
    }
}

/// Every secret of `mesh`; the keys of a development mesh are made when they are not there.
///
/// # Errors
/// Every secret without a value, or a key file that cannot be made.
pub fn secrets(
    mesh: &Mesh,
    base: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Secrets, LocalError> {
    let development = development_keys(mesh, base)?;
    let own = development
        .iter()
        .map(|(path, source)| (path.clone(), source));
    Secrets::resolve(mesh.sources().into_iter().chain(own), base, environment)
        .map_err(LocalError::Secrets)
}

/// Every secret of `mesh` in containers at `place`. Broker and store have passwords of their own where the
/// environment says nothing of `RABBITMQ_URL` and `REDIS_URL`.
///
/// # Errors
/// As [`secrets`].
pub fn secrets_in_containers(
    mesh: &Mesh,
    place: Place,
    base: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Secrets, LocalError> {
    let development = development_keys(mesh, base)?;
    let key = (
        "gateway.auth.assertion.key".to_owned(),
        &mesh.gateway.assertion_key,
    );
    let key = Secrets::resolve([key], base, environment).map_err(LocalError::Secrets)?;
    // Kubernetes has a broker and a store of its own, and its operator knows where.
    let usual = match place {
        Place::Compose => compose::defaults(mesh, &key)?,
        Place::Kubernetes => std::collections::BTreeMap::new(),
    };
    let lookup = |name: &str| environment(name).or_else(|| usual.get(name).cloned());
    let placed = placed(mesh, place);
    let own = development
        .iter()
        .map(|(path, source)| (path.clone(), source));
    let all = placed
        .sources()
        .into_iter()
        .chain(placed.container_sources());
    Secrets::resolve(all.chain(own), base, &lookup).map_err(LocalError::Secrets)
}

/// The key files of a development mesh, made when they are not there; none of another mesh.
fn development_keys(mesh: &Mesh, base: &Path) -> Result<Vec<(String, Source)>, LocalError> {
    let development = mesh.development_sources();
    if !development.is_empty() {
        key_file(base, TOKEN_KEY)?;
        if mesh.gateway.assertion_key == Source::File(PathBuf::from(ASSERTION_KEY)) {
            key_file(base, ASSERTION_KEY)?;
        }
    }
    Ok(development)
}

/// The key in `base/name`, made if there is none.
fn key_file(base: &Path, name: &str) -> Result<SigningKey, LocalError> {
    let path = base.join(name);
    let refused = |source: io::Error| LocalError::Key {
        path: path.clone(),
        source,
    };
    let unusable = |what: &str| refused(io::Error::new(io::ErrorKind::InvalidData, what));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            make(base, &path).map_err(refused)?;
            // Another process may have been first: what lies there counts.
            fs::read_to_string(&path).map_err(refused)?
        }
        Err(e) => return Err(refused(e)),
    };
    signing_key(&text).map_err(unusable)
}

/// Writes a new key, unless there is one by then.
fn make(base: &Path, path: &Path) -> io::Result<()> {
    let dir = base.join(KEYS_DIR);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| io::Error::other(e.to_string()))?;
    let text = signing_key_text(&SigningKey::from_bytes(&seed));
    // Whole before it has its name, and the name is taken only if it is free.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    let linked = writeln!(file, "{text}")
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&temporary, path));
    fs::remove_file(&temporary)?;
    match linked {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mesh() -> Mesh {
        let text = "{version: 1, mesh: m, gateway: {auth: {development: true}}, \
                    agents: [{id: a, run: {builtin: general-agent}}]}";
        mesh_config::compile("mesh.yaml", text).unwrap().mesh
    }

    #[test]
    fn keys_are_made_once_and_are_their_owners() {
        let dir = tempfile::tempdir().unwrap();
        let first = secrets(&mesh(), dir.path(), &|_| None).unwrap();
        for name in [TOKEN_KEY, ASSERTION_KEY] {
            let path = dir.path().join(name);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let again = secrets(&mesh(), dir.path(), &|_| None).unwrap();
        let key = Source::File(PathBuf::from(ASSERTION_KEY));
        assert_eq!(first.value(&key), again.value(&key));
        let kept = fs::read_dir(dir.path().join(KEYS_DIR)).unwrap().count();
        assert_eq!(kept, 2, "nothing left over");
    }

    #[test]
    fn a_spoilt_key_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(KEYS_DIR)).unwrap();
        fs::write(dir.path().join(TOKEN_KEY), "spoilt").unwrap();
        assert!(secrets(&mesh(), dir.path(), &|_| None).is_err());
        let kept = fs::read_to_string(dir.path().join(TOKEN_KEY)).unwrap();
        assert_eq!(kept, "spoilt");
    }

    #[test]
    fn the_gateways_own_filter_accepts_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let mesh = mesh();
        let secrets = secrets(&mesh, dir.path(), &|_| None).unwrap();
        // The filter's own check of the whole configuration runs in here.
        mesh_config::render::kong(&mesh, &secrets).unwrap();
        let issuer = DevelopmentIssuer::of(&mesh, dir.path()).unwrap();
        let mut request = TokenRequest::default();
        request.claims.insert("iss".to_owned(), json!("somebody"));
        request.claims.insert("team".to_owned(), json!("red"));
        let claims = issuer.claims(&request, Timestamp::from_millis(5_000));
        assert_eq!(claims["iss"], DEVELOPMENT_ISSUER);
        assert_eq!(claims["team"], "red");
        assert_eq!(claims["exp"], 3605);
        assert_eq!(issuer.sign(&claims).split('.').count(), 3);
    }
    #[test]
    fn a_token_that_the_gateway_refuses_is_not_issued() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = DevelopmentIssuer::of(&mesh(), dir.path()).unwrap();
        let now = Timestamp::now();
        let usual = TokenRequest::default;
        issuer.issue(&usual(), now).unwrap();
        let claims = |name: &str, value: Value| Map::from_iter([(name.to_owned(), value)]);
        let (hours, later) = (
            Duration::from_secs(99_999_999_999 * 3600),
            json!(9_999_999_999_u64),
        );
        for (part, request) in [
            (
                "sub",
                TokenRequest {
                    sub: String::new(),
                    ..usual()
                },
            ),
            (
                "sub",
                TokenRequest {
                    sub: "a\nb".to_owned(),
                    ..usual()
                },
            ),
            (
                "sub",
                TokenRequest {
                    sub: "a".repeat(256),
                    ..usual()
                },
            ),
            (
                "scope",
                TokenRequest {
                    scope: "a\"b".to_owned(),
                    ..usual()
                },
            ),
            (
                "ttl",
                TokenRequest {
                    ttl: hours,
                    ..usual()
                },
            ),
            (
                "claim",
                TokenRequest {
                    claims: claims("nbf", later),
                    ..usual()
                },
            ),
            (
                "claim",
                TokenRequest {
                    claims: claims("x", json!("x".repeat(9000))),
                    ..usual()
                },
            ),
        ] {
            let error = issuer.issue(&request, now).unwrap_err().to_string();
            assert!(error.contains(&format!("this {part} ")), "{error}");
        }
    }
}
