//! Secrets: `secrets:` as it is written, and what stands in place of a secret anywhere.

use super::reader::{Reader, Spot};
use super::tree::Value;
use super::values;
use crate::finding::Finding;
use crate::load;
use crate::secret::{Source, Vault};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// `secrets:`; read before all that may refer to it.
pub(super) fn secrets(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Option<Arc<Vault>>> {
    let mut f = reader.fields(spot)?;
    let vault = f.optional(reader, "vault", vault);
    f.finish(reader);
    Some(vault.map(|vault| Arc::new(vault.value)))
}

/// Where Vault is; what is left out is `VAULT_ADDR`'s and `VAULT_TOKEN`'s to say.
fn vault(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Vault> {
    const EXAMPLE: &str = "https://127.0.0.1:8200";
    let mut f = reader.fields(spot)?;
    let url = values::open_url(&["http", "https"], EXAMPLE);
    let vault = Vault {
        url: f.optional(reader, "url", url).map(|url| url.value),
        token: f.optional(reader, "token", token).map(|token| token.value),
        ca: f
            .optional(reader, "ca", values::text)
            .map(|ca| PathBuf::from(ca.value)),
    };
    f.finish(reader);
    Some(vault)
}

/// The token of Vault: not in Vault, and not in the clear.
fn token(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Source> {
    let source = values::source(reader, spot)?;
    if matches!(source, Source::File(_) | Source::Env(_)) {
        return Some(source);
    }
    let message = format!("{} opens Vault, and cannot stand here", spot.path);
    let finding = Finding::error("inline_secret", spot.node.place, spot.path, message);
    reader.push(finding.hint("write {file: PATH} or {env: NAME}, or leave it out for VAULT_TOKEN"));
    None
}

/// What stands under `vault` in place of a secret.
fn vault_field(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Source> {
    let mut f = reader.fields(spot)?;
    let path = f.required(reader, "path", "secret/data/mesh", vault_path);
    let field = f.required(reader, "field", "password", values::text);
    f.finish(reader);
    Some(Source::Vault {
        path: path?.value,
        field: field?.value,
        server: reader.vault.clone(),
    })
}

/// `MOUNT/data/PATH`, as the API of KV version 2 has it.
fn vault_path(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<String> {
    let text = values::text(reader, spot);
    reader.say(|| json!({"type": "string", "pattern": "^[^/].*/data/.+"}));
    let text = text?;
    if mesh_sidecar::vault::path(&text).is_some() {
        return Some(text);
    }
    let message = format!("{} is no path of a secret of KV version 2", spot.path);
    let finding = Finding::error("invalid_path", spot.node.place, spot.path, message);
    reader.push(finding.hint(match text.split_once('/') {
        Some((mount, rest)) if !rest.is_empty() && !text.contains("/data/") => {
            format!("write {mount}/data/{rest}: MOUNT/data/PATH, as Vault's API has it")
        }
        _ => "write MOUNT/data/PATH, such as secret/data/mesh".to_owned(),
    }));
    None
}

/// A value that may be secret: text, `{env: NAME}`, `{file: PATH}` or `{vault: {path: PATH, field: NAME}}`.
pub(crate) fn source(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Source> {
    if reader.describes() {
        reader.either(
            spot,
            &[
                &|reader, _| reader.say(|| json!({"type": "string"})),
                &|reader, spot| {
                    reference(reader, spot);
                    reader.say(|| json!({"minProperties": 1, "maxProperties": 1}));
                },
            ],
        );
        return None;
    }
    reader.veiled(|reader| veiled_source(reader, spot))
}

const REFERENCES: &str = "write {file: PATH}, {env: NAME} or {vault: {path: PATH, field: NAME}}";

fn veiled_source(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Source> {
    if let Some(variables) = &spot.node.variables {
        // The name is wanted here, and never the value.
        reader.secret.insert(spot.node.place);
        if let Some(name) = load::alone(&variables.written) {
            return Some(Source::Env(name.to_owned()));
        }
        let message = format!("{} would be put together in the clear", spot.path);
        let finding = Finding::error("variable_in_secret", spot.node.place, spot.path, message);
        reader.push(finding.hint("put the whole value into one variable: ${NAME}, or {env: NAME}"));
        return None;
    }
    match &spot.node.value {
        Value::Text(text) if !text.trim().is_empty() => {
            Some(Source::Inline(text.trim().to_owned()))
        }
        Value::Map(_) => reference(reader, spot),
        _ => {
            reader.wrong_type(spot, "text, {env: NAME}, {file: PATH} or {vault: {...}}");
            None
        }
    }
}

/// A reference to a secret that stands elsewhere.
fn reference(reader: &mut Reader<'_>, spot: Spot<'_>) -> Option<Source> {
    let mut fields = reader.fields(spot)?;
    let file = fields.optional(reader, "file", values::text);
    let env = fields.optional(reader, "env", values::text);
    let vault = fields.optional(reader, "vault", vault_field);
    // A reference that is of no use was reported.
    let given = fields.given();
    fields.finish(reader);
    match (file, env, vault) {
        (Some(file), None, None) => Some(Source::File(PathBuf::from(file.value))),
        (None, None, Some(vault)) => Some(vault.value),
        (None, Some(env), None) => {
            if load::is_name(&env.value) {
                return Some(Source::Env(env.value));
            }
            let message = format!("{} is no name of a variable", env.path);
            let finding = Finding::error("invalid_name", env.place, env.path, message);
            reader.push(finding.hint("letters, digits and _ only, without $"));
            None
        }
        (None, None, None) if given > 0 => None,
        _ => {
            let message = format!("{} must hold one of file, env and vault", spot.path);
            let finding = Finding::error("wrong_type", spot.node.place, spot.path, message);
            reader.push(finding.hint(REFERENCES));
            None
        }
    }
}
