//! request-transformer: headers and query of a request, changed on its way to the service.
//!
//! In Kong's order: remove, rename, replace, add, append. Templates (`$(…)` in a value, which Kong runs as
//! Lua), changes of the body, of the path and of `Host` are refused by name.

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Uri};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    http_method: Option<String>,
    #[serde(default)]
    remove: Section,
    #[serde(default)]
    rename: Section,
    #[serde(default)]
    replace: Section,
    #[serde(default)]
    add: Section,
    #[serde(default)]
    append: Section,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    body: Vec<String>,
    headers: Vec<String>,
    querystring: Vec<String>,
    uri: Option<String>,
}

/// The plugin, checked.
#[derive(Debug)]
pub(super) struct Transformer {
    method: Option<Method>,
    headers: Changes<HeaderName, HeaderValue>,
    query: Changes<String, String>,
}

#[derive(Debug)]
struct Changes<N, V> {
    remove: Vec<N>,
    rename: Vec<(N, N)>,
    replace: Vec<(N, V)>,
    add: Vec<(N, V)>,
    append: Vec<(N, V)>,
}

impl<N, V> Changes<N, V> {
    fn is_empty(&self) -> bool {
        let valued = [&self.replace, &self.add, &self.append];
        self.remove.is_empty() && self.rename.is_empty() && valued.iter().all(|v| v.is_empty())
    }
}

impl Transformer {
    pub(super) fn new(config: Config) -> Result<Self, String> {
        let method = config.http_method.as_deref().map(|text| {
            Method::from_bytes(text.as_bytes())
                .ok()
                .filter(|m| m.as_str().bytes().all(|b| b.is_ascii_uppercase()))
                .ok_or_else(|| "config.http_method is no method".to_owned())
        });
        let sections = [
            ("remove", &config.remove),
            ("rename", &config.rename),
            ("replace", &config.replace),
            ("add", &config.add),
            ("append", &config.append),
        ];
        for (name, section) in sections {
            if !section.body.is_empty() {
                return Err(format!("config.{name}.body is not supported"));
            }
            if section.uri.is_some() {
                return Err(format!("config.{name}.uri is not supported"));
            }
            let texts = section.headers.iter().chain(&section.querystring);
            for text in texts {
                if text.contains("$(") {
                    return Err(format!("config.{name}: templates are not supported"));
                }
            }
        }
        let c = &config;
        let name = |text: &str| HeaderName::from_bytes(text.as_bytes()).ok();
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let own = |text: &str| Some(text.to_owned());
        let headers = Changes {
            remove: names("remove.headers", &c.remove.headers, name)?,
            rename: pairs("rename.headers", &c.rename.headers, name, name)?,
            replace: pairs("replace.headers", &c.replace.headers, name, value)?,
            add: pairs("add.headers", &c.add.headers, name, value)?,
            append: pairs("append.headers", &c.append.headers, name, value)?,
        };
        // Kong leaves Host alone, but for replace and append.
        let host = |pairs: &[(HeaderName, HeaderValue)]| pairs.iter().any(|(n, _)| n == HOST);
        if host(&headers.replace) || host(&headers.append) {
            return Err(
                "config.replace.headers and append.headers: host is not supported; \
                        the service and preserve_host say it"
                    .to_owned(),
            );
        }
        Ok(Self {
            method: method.transpose()?,
            headers,
            query: Changes {
                remove: names("remove.querystring", &c.remove.querystring, own)?,
                rename: pairs("rename.querystring", &c.rename.querystring, own, own)?,
                replace: pairs("replace.querystring", &c.replace.querystring, own, own)?,
                add: pairs("add.querystring", &c.add.querystring, own, own)?,
                append: pairs("append.querystring", &c.append.querystring, own, own)?,
            },
        })
    }

    /// Changes a request; None when what comes out is none.
    pub(super) fn apply(&self, parts: &mut http::request::Parts) -> Option<()> {
        if let Some(method) = &self.method {
            parts.method = method.clone();
        }
        self.change_headers(&mut parts.headers)?;
        if !self.query.is_empty() {
            parts.uri = self.change_query(&parts.uri)?;
        }
        Some(())
    }

    fn change_headers(&self, headers: &mut HeaderMap) -> Option<()> {
        let changes = &self.headers;
        for name in changes.remove.iter().filter(|n| **n != HOST) {
            headers.remove(name);
        }
        for (old, new) in changes.rename.iter().filter(|(o, n)| o != n && *o != HOST) {
            let values: Vec<HeaderValue> = headers.get_all(old).iter().cloned().collect();
            if values.is_empty() || *new == HOST {
                continue;
            }
            headers.remove(old);
            headers.remove(new);
            for value in values {
                headers.try_append(new, value).ok()?;
            }
        }
        for (name, value) in &changes.replace {
            if headers.contains_key(name) {
                headers.insert(name, value.clone());
            }
        }
        for (name, value) in changes.add.iter().filter(|(n, _)| *n != HOST) {
            if !headers.contains_key(name) {
                headers.try_insert(name, value.clone()).ok()?;
            }
        }
        for (name, value) in &changes.append {
            headers.try_append(name, value.clone()).ok()?;
        }
        Some(())
    }

    fn change_query(&self, uri: &Uri) -> Option<Uri> {
        let changes = &self.query;
        let given = uri.query().unwrap_or_default().as_bytes();
        let mut query: Vec<(String, String)> =
            url::form_urlencoded::parse(given).into_owned().collect();
        let has = |query: &[(String, String)], name: &str| query.iter().any(|(n, _)| n == name);
        query.retain(|(name, _)| !changes.remove.contains(name));
        for (old, new) in &changes.rename {
            if old != new && has(&query, old) {
                query.retain(|(name, _)| name != new);
                for (name, _) in &mut query {
                    if name == old {
                        name.clone_from(new);
                    }
                }
            }
        }
        for (name, value) in &changes.replace {
            if let Some(first) = query.iter().position(|(n, _)| n == name) {
                query.retain(|(n, _)| n != name);
                let at = first.min(query.len());
                query.insert(at, (name.clone(), value.clone()));
            }
        }
        for (name, value) in &changes.add {
            if !has(&query, name) {
                query.push((name.clone(), value.clone()));
            }
        }
        query.extend(changes.append.iter().cloned());
        let mut text = uri.path().to_owned();
        if !query.is_empty() {
            text.push('?');
            let encoded = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(&query)
                .finish();
            // As Kong writes them: a space is %20.
            text.push_str(&encoded.replace('+', "%20"));
        }
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(text.parse::<PathAndQuery>().ok()?);
        Uri::from_parts(parts).ok()
    }
}

fn names<N>(
    field: &str,
    texts: &[String],
    read: impl Fn(&str) -> Option<N>,
) -> Result<Vec<N>, String> {
    let one = |text: &String| read(text).ok_or_else(|| format!("config.{field}: a malformed name"));
    texts.iter().map(one).collect()
}

/// Reads `name:value` each; a message names the field and not the value, which may be a secret.
fn pairs<N, V>(
    field: &str,
    texts: &[String],
    name: impl Fn(&str) -> Option<N>,
    value: impl Fn(&str) -> Option<V>,
) -> Result<Vec<(N, V)>, String> {
    let one = |text: &String| {
        let (left, right) = text
            .split_once(':')
            .ok_or_else(|| format!("config.{field}: an entry is not name:value"))?;
        match (name(left), value(right)) {
            (Some(name), Some(value)) => Ok((name, value)),
            _ => Err(format!("config.{field}: a malformed name or value")),
        }
    };
    texts.iter().map(one).collect()
}
