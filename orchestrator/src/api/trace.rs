//! The W3C trace context of a request: passed through, or made new.

use crate::store::Trace;
use http::HeaderMap;
use mesh_protocol::message::HEADER_TRACEPARENT;
use uuid::Uuid;

/// Longest `tracestate` that is passed on, in bytes; the recommendation asks for at least this.
const MAX_TRACESTATE: usize = 512;

/// The trace of a request; a header that is none is treated as absent, as the recommendation says.
pub fn of(headers: &HeaderMap) -> Trace {
    let mut values = headers.get_all(HEADER_TRACEPARENT).iter();
    let parent = match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().filter(|v| is_traceparent(v)),
        _ => None,
    };
    match parent {
        Some(parent) => Trace {
            traceparent: parent.to_owned(),
            tracestate: headers
                .get("tracestate")
                .and_then(|v| v.to_str().ok())
                .filter(|v| !v.is_empty() && v.len() <= MAX_TRACESTATE)
                .map(str::to_owned),
        },
        None => Trace {
            traceparent: fresh(),
            tracestate: None,
        },
    }
}

/// A new trace, sampled. The ids are a UUID and the random end of another.
fn fresh() -> String {
    let span = Uuid::now_v7().as_u128() & u128::from(u64::MAX);
    format!("00-{}-{span:016x}-01", Uuid::now_v7().simple())
}

fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next(), parts.next(), parts.next(), parts.next());
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    // A later version may add parts; version 00 has none.
    version.is_some_and(|v| hex(v, 2) && v != "ff" && (v != "00" || parts.next().is_none()))
        && trace.is_some_and(|t| hex(t, 32) && !zero(t))
        && span.is_some_and(|s| hex(s, 16) && !zero(s))
        && flags.is_some_and(|f| hex(f, 2))
        && text.len() <= MAX_TRACESTATE
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_good_one_passes_through() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", GOOD.parse().unwrap());
        headers.insert("tracestate", "a=b".parse().unwrap());
        let trace = of(&headers);
        assert_eq!(trace.traceparent, GOOD);
        assert_eq!(trace.tracestate.as_deref(), Some("a=b"));
    }

    #[test]
    fn others_are_replaced() {
        assert!(is_traceparent(&fresh()));
        for bad in [
            "",
            "00",
            "00-0-0-0",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        let mut headers = HeaderMap::new();
        headers.append("traceparent", GOOD.parse().unwrap());
        headers.append("traceparent", GOOD.parse().unwrap());
        assert_ne!(of(&headers).traceparent, GOOD);
    }
}
