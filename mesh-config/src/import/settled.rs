//! What was made of a file, until mesh.yaml takes it: what it refuses is taken out and named.

use super::written::File;
use super::{Found, ImportError};
use crate::finding::{Finding, Severity};
use crate::schema::tree::{Node, Value, parse_foreign};

/// Most rounds; each takes at least one thing out.
const MOST: usize = 64;

/// Writes the file, and takes out what would not pass `mesh validate`.
pub(super) fn settle(mut file: File, found: &mut Found<'_>) -> Result<String, ImportError> {
    for _ in 0..MOST {
        let text = write(&file)?;
        if text.len() > crate::MAX_BYTES {
            let size = text.len();
            let problem = format!("it would be a mesh.yaml of {size} bytes, which is too long");
            return Err(ImportError::Unusable(problem));
        }
        let report = match crate::compile("mesh.yaml", &text) {
            Ok(_) => return Ok(text),
            Err(report) => report,
        };
        let mut errors: Vec<&Finding> = report
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .collect();
        // From the end, so that what is taken out does not move what comes before it.
        errors.sort_by_key(|error| std::cmp::Reverse(error.place));
        let mut taken: Vec<String> = Vec::new();
        for error in &errors {
            // A part that is gone already had more than one fault.
            let gone = |at: &String| error.path.starts_with(at.as_str());
            if taken.iter().any(gone) {
                continue;
            }
            if let Some((at, name)) = take_out(&mut file, &error.path) {
                let reason = format!("{name}: mesh.yaml does not take it: {}", error.message);
                found.lose_at(&at, crate::Place::default(), reason);
                taken.push(at);
            }
        }
        if taken.is_empty() {
            let first = errors.first().map_or("", |error| error.message.as_str());
            let first = if file == bare(&file) {
                "there is nothing in it that could be carried over"
            } else {
                first
            };
            return Err(ImportError::Unusable(first.to_owned()));
        }
    }
    Err(ImportError::Unusable(
        "too much of it is refused".to_owned(),
    ))
}

/// What is left of a file when everything is taken out.
fn bare(file: &File) -> File {
    File {
        version: file.version,
        mesh: file.mesh.clone(),
        ..File::default()
    }
}

fn write(file: &File) -> Result<String, ImportError> {
    let options = serde_saphyr::ser_options! {
        min_fold_chars: usize::MAX,
        folded_wrap_chars: usize::MAX,
    };
    let text = serde_saphyr::to_string_with_options(file, options)
        .map_err(|error| ImportError::Unusable(error.to_string()))?;
    if !text.contains('$') {
        return Ok(text);
    }
    let root = parse_foreign(&text, false)
        .map_err(|finding| ImportError::Unusable(finding.message.clone()))?;
    let mut places = Vec::new();
    dollars(&root, &text, &mut places);
    let mut text = text;
    for place in places.into_iter().rev() {
        text.insert(place, '$');
    }
    Ok(text)
}

/// Where values have a `$`: it is one there, and names no variable. Keys are taken as they stand.
fn dollars(node: &Node, text: &str, places: &mut Vec<usize>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| dollars(item, text, places)),
        Value::Map(entries) => {
            for (_, value) in entries {
                dollars(value, text, places);
            }
        }
        Value::Text(_) => {
            let Some(range) = node.bytes.clone() else {
                return;
            };
            let written = text.get(range.clone()).unwrap_or_default();
            places.extend(written.match_indices('$').map(|(at, _)| range.start + at));
        }
        _ => {}
    }
}

/// Takes out the smallest part that a finding's path lies in; its path and its name.
fn take_out(file: &mut File, path: &str) -> Option<(String, String)> {
    let steps = steps(path);
    let names: Vec<(&str, Option<usize>)> = steps.iter().map(|(n, i)| (n.as_str(), *i)).collect();
    let shown = |depth: usize| {
        let parts = steps.iter().take(depth).map(|(name, number)| match number {
            Some(number) => format!("{name}[{number}]"),
            None => name.clone(),
        });
        parts.collect::<Vec<_>>().join(".")
    };
    match *names.as_slice() {
        [
            ("services", Some(s)),
            ("routes", Some(r)),
            ("plugins", Some(p)),
            ..,
        ] => {
            let routes = file.services.get_mut(s)?.routes.as_mut()?;
            let plugin = remove(&mut routes.get_mut(r)?.plugins, p)?;
            Some((shown(3), format!("plugin {}", plugin.name)))
        }
        [("services", Some(s)), ("routes", Some(r)), ..] => {
            let route = remove(file.services.get_mut(s)?.routes.as_mut()?, r)?;
            Some((shown(2), format!("route {}", route.name)))
        }
        [("services", Some(s)), ("plugins", Some(p)), ..] => {
            let plugin = remove(&mut file.services.get_mut(s)?.plugins, p)?;
            Some((shown(2), format!("plugin {}", plugin.name)))
        }
        [("services", Some(s)), ("kong", None), (key, _), ..] => {
            file.services.get_mut(s)?.kong.remove(key)?;
            Some((shown(3), format!("field {key}")))
        }
        [
            ("services", Some(s)),
            ("container", None),
            (key, number),
            ..,
        ] => {
            let container = file.services.get_mut(s)?.container.as_mut()?;
            match (key, number) {
                ("ports", Some(n)) => remove(&mut container.ports, n).map(drop)?,
                ("volumes", Some(n)) => remove(&mut container.volumes, n).map(drop)?,
                ("networks", Some(n)) => remove(&mut container.networks, n).map(drop)?,
                ("environment", None) => {
                    let (variable, _) = names.get(3)?;
                    container.environment.remove(*variable)?;
                }
                ("depends_on", None) => {
                    let (name, _) = names.get(3)?;
                    container.depends_on.remove(*name)?;
                }
                ("compose", None) => {
                    let (name, _) = names.get(3)?;
                    container.compose.remove(*name)?;
                }
                ("healthcheck", None) => container.healthcheck.take().map(drop)?,
                ("user", None) => container.user.take().map(drop)?,
                ("restart", None) => container.restart.take().map(drop)?,
                _ => return whole_service(file, s),
            }
            let depth = if names.len() > 3 && number.is_none() {
                4
            } else {
                3
            };
            Some((shown(depth), format!("field {key}")))
        }
        [("services", Some(s)), ..] => whole_service(file, s),
        [("gateway", None), ("plugins", Some(p)), ..] => {
            let plugin = remove(&mut file.gateway.plugins, p)?;
            Some((shown(2), format!("plugin {}", plugin.name)))
        }
        [("gateway", None), ("upstreams", Some(u)), ..] => {
            let upstream = remove(&mut file.gateway.upstreams, u)?;
            Some((shown(2), format!("upstream {}", upstream.name)))
        }
        [
            ("gateway", None),
            ("tls", None),
            ("certificates", Some(c)),
            ..,
        ] => {
            remove(&mut file.gateway.tls.as_mut()?.certificates, c)?;
            if file.gateway.tls.as_ref()?.certificates.is_empty() {
                file.gateway.tls = None;
            }
            Some((shown(3), "the certificate".to_owned()))
        }
        [
            ("messaging", None),
            ("queues", Some(q)),
            ("bindings", Some(b)),
            ..,
        ] => {
            let queue = file.messaging.as_mut()?.queues.get_mut(q)?;
            let name = queue.name.clone();
            remove(&mut queue.bindings, b)?;
            Some((shown(3), format!("a binding of queue {name}")))
        }
        [("messaging", None), ("queues", Some(q)), ..] => {
            let queue = remove(&mut file.messaging.as_mut()?.queues, q)?;
            Some((shown(2), format!("queue {}", queue.name)))
        }
        [("messaging", None), ("exchanges", Some(e)), ..] => {
            let exchange = remove(&mut file.messaging.as_mut()?.exchanges, e)?;
            Some((shown(2), format!("exchange {}", exchange.name)))
        }
        [("messaging", None), ("policies", Some(p)), ..] => {
            let policy = remove(&mut file.messaging.as_mut()?.policies, p)?;
            Some((shown(2), format!("policy {}", policy.name)))
        }
        [("agents", Some(a)), ..] => {
            let agent = remove(&mut file.agents, a)?;
            Some((shown(1), format!("agent {}", agent.id)))
        }
        _ => None,
    }
}

fn whole_service(file: &mut File, number: usize) -> Option<(String, String)> {
    let service = remove(&mut file.services, number)?;
    Some((
        format!("services[{number}]"),
        format!("service {}", service.name),
    ))
}

fn remove<T>(list: &mut Vec<T>, number: usize) -> Option<T> {
    (number < list.len()).then(|| list.remove(number))
}

/// `services[0].container.ports[1]` as names and numbers.
fn steps(path: &str) -> Vec<(String, Option<usize>)> {
    let each = path.split('.').map(|part| match part.split_once('[') {
        Some((name, number)) => (name.to_owned(), number.trim_end_matches(']').parse().ok()),
        None => (part.to_owned(), None),
    });
    each.collect()
}
