//! Which values are secrets by the names they stand under, in files of others that do not say so.
//!
//! Kong's schemas mark such fields (`encrypted`), Compose marks nothing. A value under one of these names
//! is never rendered in the clear; a name that is missing here is one that somebody has to add.

use serde_json::Value;

/// Last words of names whose values are secrets.
const WORDS: &[&str] = &[
    "password",
    "passwd",
    "pass",
    "passphrase",
    "secret",
    "token",
    "credential",
    "credentials",
    "apikey",
    "authorization",
    "cookie",
    "requirepass",
    "masterauth",
];
/// Ends of names that are written in one word, such as `PGPASSWORD`.
const ENDS: &[&str] = &["password", "passwd", "apikey", "secretkey", "privatekey"];
/// Last two words.
const PAIRS: &[&str] = &[
    "api_key",
    "access_key",
    "secret_key",
    "private_key",
    "encryption_key",
    "signing_key",
    "app_key",
    "auth_key",
    "account_key",
    "hmac_key",
    "jwt_key",
    "master_key",
    "session_key",
    "shared_key",
    "key_base",
    "mysql_pwd",
    "db_pwd",
    "auth_header",
    "aws_key",
    "license_key",
    "token_id",
    "secret_id",
    "header_value",
    "param_value",
];

/// Whether a value under `name` is a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = in_words(name);
    let ends = |word: &&str| {
        name.strip_suffix(*word)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
    };
    let joined = ENDS.iter().any(|end| name.ends_with(end));
    joined || WORDS.iter().any(ends) || PAIRS.iter().any(ends)
}

/// A name in small letters with `_` between its words, however it is written: `clientSecret`, `X-Api-Key`.
fn in_words(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 4);
    let mut before = ' ';
    for c in name.chars() {
        if c.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit()) {
            words.push('_');
        }
        words.push(match c {
            '-' | '.' => '_',
            c => c.to_ascii_lowercase(),
        });
        before = c;
    }
    words
}

/// Whether a text holds a secret whatever its name: a private key, a URL with a password, a header with
/// credentials.
pub(crate) fn holds_secret(text: &str) -> bool {
    if text.contains("PRIVATE KEY-----") || text.contains("\"private_key\"") {
        return true;
    }
    if is_credential(text) {
        return true;
    }
    let header = text.split_once(':').map_or("", |(name, _)| name.trim());
    let header = header.to_ascii_lowercase();
    if matches!(
        &*header,
        "authorization" | "proxy-authorization" | "x-api-key" | "apikey" | "cookie"
    ) {
        return true;
    }
    text.split([' ', ',', '\n', '"', '\'']).any(has_password)
}

/// Whether a text is what a header `Authorization` holds.
fn is_credential(text: &str) -> bool {
    let Some((scheme, rest)) = text.trim().split_once(' ') else {
        return false;
    };
    let (rest, known) = (rest.trim(), ["basic", "bearer"]);
    let token = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
    known.contains(&&*scheme.to_ascii_lowercase()) && rest.len() >= 8 && rest.bytes().all(token)
}

/// Whether one of the words of a command is a secret: `--password=…`, `--requirepass …`, a URL with a
/// password. What a shell puts in (`$NAME`) is none, nor is the path of a file.
pub(crate) fn command_holds_secret<'a>(words: impl IntoIterator<Item = &'a str>) -> bool {
    let plain = |value: &str| {
        let value = value.trim_matches(['"', '\'']);
        !value.is_empty() && !value.starts_with(['$', '/', '-'])
    };
    let named = |word: &str| {
        let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        flag.is_some_and(|name| name.len() > 1 && is_secret_name(name))
    };
    let mut after_name = false;
    for word in words.into_iter().flat_map(str::split_whitespace) {
        if (after_name && plain(word)) || holds_secret(word) {
            return true;
        }
        after_name = named(word);
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        // Of a shell's command, variables are set so, too.
        let variable = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if plain(value) && (named(name) || (variable && is_secret_name(name))) {
            return true;
        }
    }
    false
}

/// Whether a URL names a password.
fn has_password(word: &str) -> bool {
    let Some((_, rest)) = word.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    user.and_then(|user| user.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty())
}

/// Paths of the secrets that stand in the clear in a configuration; references are none.
pub(crate) fn in_the_clear(value: &Value, path: &str, secret: bool, out: &mut Vec<String>) {
    let mut copy = value.clone();
    each_in_the_clear(&mut copy, path, secret, &mut |path, _| {
        out.push(path.to_owned())
    });
}

/// Calls `found` with each of them and its path; `secret`: whether `value` stands under a secret's name.
pub(crate) fn each_in_the_clear(
    value: &mut Value,
    path: &str,
    secret: bool,
    found: &mut dyn FnMut(&str, &mut Value),
) {
    if crate::fronted::reference(value).is_some() {
        return;
    }
    match value {
        Value::String(text) => {
            // Kong's own references.
            let reference = text.starts_with("{vault://") && text.ends_with('}');
            if !reference && !text.is_empty() && (secret || holds_secret(text)) {
                found(path, value);
            }
        }
        Value::Number(_) if secret => found(path, value),
        Value::Array(items) => {
            for (number, item) in items.iter_mut().enumerate() {
                each_in_the_clear(item, &format!("{path}[{number}]"), secret, found);
            }
        }
        Value::Object(entries) => {
            for (key, value) in entries.iter_mut() {
                let path = crate::schema::reader::join(path, key);
                // Below a secret's name stands what says more about it, by names of its own.
                each_in_the_clear(value, &path, is_secret_name(key), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_texts_of_secrets() {
        for name in [
            "password",
            "redis_password",
            "REDIS_PASSWORD",
            "client_secret",
            "VAULT_DEV_ROOT_TOKEN_ID",
            "AWS_SECRET_ACCESS_KEY",
            "dd-api-key",
            "RABBITMQ_DEFAULT_PASS",
            "PGPASSWORD",
            "MYSQL_PWD",
            "clientSecret",
            "accessToken",
            "X-Api-Key",
            "Authorization",
            "Set-Cookie",
            "SECRET_KEY_BASE",
            "JWT_KEY",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "key_names",
            "secret_is_base64",
            "POSTGRES_PASSWORD_FILE",
            "bypass",
            "compass",
            "header_names",
            "hide_credentials_too",
            "path",
            "key",
            "PWD",
            "cookie_name",
            "authorization_endpoint",
            "max_tokens",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
        for text in [
            "postgres://u:p@db/x",
            "Authorization: Basic abc",
            "-----BEGIN PRIVATE KEY-----",
            "-a redis://:p@redis:6379",
            "Bearer abcdefgh",
            "Basic dXNlcjpwYXNz",
            "{\"private_key\": \"x\"}",
        ] {
            assert!(holds_secret(text), "{text}");
        }
        for text in [
            "http://backend:8000",
            "X-Kong-Proxy:true",
            "postgres://u@db",
            "a@b:c",
            "Bearer",
            "basic authentication of users",
        ] {
            assert!(!holds_secret(text), "{text}");
        }
    }

    #[test]
    fn commands_that_hold_secrets() {
        for command in [
            &["redis-server", "--requirepass", "hunter2"][..],
            &["x", "--password=hunter2"],
            &["sh", "-c", "PGPASSWORD=hunter2 psql"],
            &["x", "--dsn", "postgres://u:hunter2@db/x"],
        ] {
            assert!(command_holds_secret(command.iter().copied()), "{command:?}");
        }
        for command in [
            &["redis-server", "--requirepass", "$REDIS_PASSWORD"][..],
            &["x", "--password-file=/run/secrets/x"],
            &["x", "--password", "--verbose"],
            &["x", "--token=/run/secrets/token", "--max-tokens=5"],
            &["sh", "-c", "redis-cli -a \"$REDIS_PASSWORD\" ping"],
        ] {
            assert!(
                !command_holds_secret(command.iter().copied()),
                "{command:?}"
            );
        }
    }

    #[test]
    fn secrets_in_a_configuration_are_found_and_references_are_none() {
        let mut found = Vec::new();
        let config = json!({
            "redis": {"password": "x", "host": "redis"},
            "session": {"secret": {"env": "SESSION"}},
            "client_secret": ["a", {"file": "b"}, "{vault://env/c}"],
            "hide_credentials": true,
            "add": {"headers": ["Authorization:Basic a", "X-A:b"]},
        });
        in_the_clear(&config, "", false, &mut found);
        assert_eq!(
            found,
            ["add.headers[0]", "client_secret[0]", "redis.password"]
        );
    }
}
