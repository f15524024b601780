//! Published ports and mounts of a Compose file, in their short forms.

use super::compose_values::{plain, text};
use super::cursor::Cursor;
use super::found::{Entity, Found};
use crate::container::{Port, Volume};
use crate::schema::tree::Value;

/// Most ports that a range may stand for.
const MAX_RANGE: u16 = 100;

/// Published ports, in either form, ranges written out.
pub(super) fn ports(list: Vec<Cursor<'_>>, found: &mut Found<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for at in list {
        let text = match &at.node.value {
            Value::Map(_) => long_port(&at, found),
            _ => plain(&at, found),
        };
        let Some(text) = text else { continue };
        match expanded(&text) {
            Some(ports) => all.extend(ports),
            None => found.lose(&at, "it is no port that can be published"),
        }
    }
    all
}

fn long_port(at: &Cursor<'_>, found: &mut Found<'_>) -> Option<String> {
    let mut entity = Entity::of(at, found)?;
    let target = text(&mut entity, "target", found)?;
    let published = text(&mut entity, "published", found);
    let address = text(&mut entity, "host_ip", found);
    let protocol = text(&mut entity, "protocol", found);
    // Words for people, and for a cluster of Docker's own.
    for key in ["name", "app_protocol", "mode"] {
        entity.take(key);
    }
    entity.finish(found, &|_| None);
    let mut text = match (address, published) {
        (Some(address), published) => {
            let published = published.unwrap_or_default();
            format!("{address}:{published}:{target}")
        }
        (None, Some(published)) => format!("{published}:{target}"),
        (None, None) => target,
    };
    if protocol.as_deref() == Some("udp") {
        text.push_str("/udp");
    }
    Some(text)
}

/// `3000-3002:80-82` as three.
fn expanded(text: &str) -> Option<Vec<String>> {
    if let Some(port) = Port::read(text) {
        return Some(vec![port.to_string()]);
    }
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, format!("/{protocol}")),
        None => (text, String::new()),
    };
    let range = |text: &str| -> Option<(u16, u16)> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
        let length = to.checked_sub(from)?;
        (length < MAX_RANGE).then_some((from, length))
    };
    let (before, inner) = match ports.rsplit_once(':') {
        Some((before, inner)) => (Some(before), inner),
        None => (None, ports),
    };
    let (inner, length) = range(inner)?;
    let outer = match before {
        None => None,
        Some(before) => {
            let (address, host) = match before.rsplit_once(':') {
                Some((address, host)) => (format!("{address}:"), host),
                None => (String::new(), before),
            };
            let (host, hosts) = range(host)?;
            if hosts != length {
                return None;
            }
            Some((address, host))
        }
    };
    let each = (0..=length).map(|n| {
        let inner = inner.checked_add(n)?;
        let text = match &outer {
            Some((address, host)) => format!("{address}{}:{inner}{protocol}", host.checked_add(n)?),
            None => format!("{inner}{protocol}"),
        };
        Port::read(&text).map(|port| port.to_string())
    });
    each.collect()
}

/// Mounts, in either form.
pub(super) fn volumes(list: Vec<Cursor<'_>>, found: &mut Found<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for at in list {
        let text = match &at.node.value {
            Value::Map(_) => long_volume(&at, found),
            _ => plain(&at, found),
        };
        let Some(text) = text else { continue };
        match Volume::read(&text) {
            Some(volume) => all.push(volume.to_string()),
            None => found.lose(&at, "it is no volume that mesh.yaml can say"),
        }
    }
    all
}

fn long_volume(at: &Cursor<'_>, found: &mut Found<'_>) -> Option<String> {
    let mut entity = Entity::of(at, found)?;
    let kind = text(&mut entity, "type", found).unwrap_or_default();
    if !matches!(kind.as_str(), "bind" | "volume") {
        found.lose(at, "only volumes and paths of the host are carried over");
        return None;
    }
    let source = text(&mut entity, "source", found);
    let target = text(&mut entity, "target", found)?;
    let read_only = entity.take("read_only").and_then(|at| found.scalar(&at));
    entity.finish(found, &|_| None);
    let source = source.map(|source| source + ":").unwrap_or_default();
    let mode = if read_only.as_deref() == Some("true") {
        ":ro"
    } else {
        ""
    };
    Some(format!("{source}{target}{mode}"))
}

/// The named volumes among mounts.
pub(super) fn volumes_of(mounts: &[String]) -> impl Iterator<Item = String> + '_ {
    let read = mounts.iter().filter_map(|text| Volume::read(text));
    read.filter(|volume| !volume.is_path())
        .filter_map(|volume| volume.source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_out() {
        let ports = |text: &str| expanded(text).unwrap_or_default().join(" ");
        assert_eq!(ports("80"), "80");
        assert_eq!(ports("3000-3002:80-82"), "3000:80 3001:81 3002:82");
        assert_eq!(
            ports("127.0.0.1:5-6:7-8/udp"),
            "127.0.0.1:5:7/udp 127.0.0.1:6:8/udp"
        );
        for bad in [
            "",
            "1-2:3",
            "2-1:2-1",
            "1-65535:1-65535",
            "a:b",
            "65535-65536",
            "x-y",
        ] {
            assert_eq!(expanded(bad), None, "{bad}");
        }
    }
}
