//! Secrets in Vault: read when values are wanted, all at the same time, by the sidecar's own client.

use super::{Source, Vault, read as value_of};
use mesh_sidecar::vault::{Access, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What Vault says of each source that is in one; a secret that several fields refer to is asked for once.
pub(super) fn read<'a>(
    wanted: &[(String, &'a Source)],
    base: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<&'a Source, Result<String, String>> {
    let kept = |source: &&'a Source| matches!(source, Source::Vault { .. });
    let sources: BTreeSet<&Source> = wanted.iter().map(|(_, s)| *s).filter(kept).collect();
    let mut by_server: BTreeMap<Vault, Vec<&Source>> = BTreeMap::new();
    for source in sources {
        if let Source::Vault { server, .. } = source {
            let server = server.as_deref().cloned().unwrap_or_default();
            by_server.entry(server).or_default().push(source);
        }
    }
    let mut answers = BTreeMap::new();
    for (server, sources) in by_server {
        let all = access(&server, base, environment).and_then(|access| ask(&access, &sources));
        match all {
            Ok(told) => answers.extend(sources.into_iter().zip(told)),
            Err(why) => answers.extend(sources.into_iter().map(|s| (s, Err(why.clone())))),
        }
    }
    answers
}

/// Where and with which right.
fn access(
    server: &Vault,
    base: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Access, String> {
    let url = match &server.url {
        Some(url) => url.as_str().to_owned(),
        None => environment("VAULT_ADDR").ok_or(
            "nobody says where Vault is; set VAULT_ADDR, or add `secrets: {vault: {url: ...}}`",
        )?,
    };
    let token = match &server.token {
        Some(token) => value_of("secrets.vault.token", token, base, environment)
            .map_err(|error| error.to_string())?,
        None => environment("VAULT_TOKEN").ok_or(
            "there is no token for Vault; set VAULT_TOKEN, or add `secrets: {vault: {token: {file: PATH}}}`",
        )?,
    };
    let ca_file = match &server.ca {
        Some(ca) => Some(base.join(ca)),
        None => environment("VAULT_CACERT").map(Into::into),
    };
    Ok(Access {
        url,
        token: token.trim().to_owned().into(),
        ca_file,
    })
}

/// Callers are synchronous, some of them within a runtime, where nobody may block on another: the questions have
/// a thread and a runtime of their own for as long as they take.
fn ask(access: &Access, sources: &[&Source]) -> Result<Vec<Result<String, String>>, String> {
    let wanted: Vec<Wanted> = sources
        .iter()
        .filter_map(|source| match source {
            Source::Vault { path, field, .. } => Some(Wanted {
                path: path.clone(),
                field: field.clone(),
            }),
            _ => None,
        })
        .collect();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            runtime.block_on(mesh_sidecar::vault::read(access, &wanted))
        });
        let ended = asking.join();
        ended.unwrap_or_else(|_| Err("Vault could not be asked".to_owned()))
    })
}
