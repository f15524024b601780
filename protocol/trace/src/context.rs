//! The W3C trace context (<https://www.w3.org/TR/trace-context/>) in headers and message properties.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use std::fmt;

/// `traceparent`, in lower case as HTTP/2 and AMQP carry it.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest `tracestate` that is passed on, in bytes; the recommendation asks for at least this.
const MAX_TRACESTATE: usize = 512;

/// A place in a trace: whatever begins next is its child.
#[derive(Debug, Clone)]
pub struct Context {
    /// 16 bytes, not all zero.
    pub trace_id: [u8; 16],
    /// 8 bytes, not all zero.
    pub span_id: [u8; 8],
    /// Bit 0: whether the trace is recorded.
    pub flags: u8,
    /// What other tracers keep with the trace.
    pub state: Option<String>,
    /// Whether it came from another process, which receivers show.
    remote: bool,
}

/// Equal are two that name the same place, wherever they come from.
impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        (self.trace_id, self.span_id, self.flags) == (other.trace_id, other.span_id, other.flags)
            && self.state == other.state
    }
}

impl Eq for Context {}

impl Context {
    /// The beginning of a trace that others may record, for a part that records nothing itself.
    pub fn fresh() -> Self {
        let ids = RandomIdGenerator::default();
        Self {
            trace_id: ids.new_trace_id().to_bytes(),
            span_id: ids.new_span_id().to_bytes(),
            flags: 1,
            state: None,
            remote: false,
        }
    }

    /// Reads the two texts; `None` when the first is no context.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let version: [u8; 1] = hex(parts.next()?)?;
        let trace_id: [u8; 16] = hex(parts.next()?)?;
        let span_id: [u8; 8] = hex(parts.next()?)?;
        let [flags] = hex(parts.next()?)?;
        // A later version may add parts; version 00 has none.
        let more = parts.next().is_some();
        let legal = version != [0xff]
            && (version != [0] || !more)
            && trace_id != [0; 16]
            && span_id != [0; 8]
            && traceparent.len() <= MAX_TRACESTATE;
        legal.then(|| Self {
            trace_id,
            span_id,
            flags,
            state: tracestate
                .filter(|s| !s.is_empty() && s.len() <= MAX_TRACESTATE)
                .map(str::to_owned),
            remote: true,
        })
    }

    /// Reads the headers of a request; two `traceparent`s are none, as the recommendation says.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (Some(parent), None) = (values.next(), values.next()) else {
            return None;
        };
        let parent = parent.to_str().ok()?;
        let mut states = headers.get_all(TRACESTATE).iter();
        match (states.next(), states.next()) {
            (state, None) => Self::parse(parent, state.and_then(|v| v.to_str().ok())),
            // It may come in parts.
            _ => {
                let parts = headers.get_all(TRACESTATE).iter();
                let parts: Vec<&str> = parts.filter_map(|v| v.to_str().ok()).collect();
                Self::parse(parent, Some(&parts.join(",")))
            }
        }
    }

    /// `traceparent` of this place.
    pub fn traceparent(&self) -> String {
        let (trace, span) = (self.trace_id_hex(), self.span_id_hex());
        format!("00-{trace}-{span}-{:02x}", self.flags & 1)
    }

    /// The trace's id, in 32 digits.
    pub fn trace_id_hex(&self) -> impl fmt::Display + use<> {
        Hex::<32>(u128::from_be_bytes(self.trace_id))
    }

    /// The span's id, in 16 digits.
    pub fn span_id_hex(&self) -> impl fmt::Display + use<> {
        Hex::<16>(u64::from_be_bytes(self.span_id).into())
    }

    /// Writes this place into the headers of a request, over what is there.
    pub fn to_headers(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(self.traceparent()) {
            headers.insert(TRACEPARENT, value);
        }
        match self
            .state
            .as_deref()
            .and_then(|s| HeaderValue::from_str(s).ok())
        {
            Some(state) => {
                headers.insert(TRACESTATE, state);
            }
            None => {
                headers.remove(TRACESTATE);
            }
        }
    }

    /// The place of a span of this process, which keeps the `state` of its parent.
    pub(crate) fn of_span(span: &SpanContext, state: Option<String>) -> Option<Self> {
        span.is_valid().then(|| Self {
            trace_id: span.trace_id().to_bytes(),
            span_id: span.span_id().to_bytes(),
            flags: u8::from(span.is_sampled()),
            state,
            remote: false,
        })
    }

    /// This place in OpenTelemetry's words.
    pub(crate) fn to_span(&self) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(self.sampled());
        // What is no list is passed on as it came, and not shown to the receiver.
        let state = self.state.as_deref().and_then(|s| s.parse().ok());
        SpanContext::new(
            TraceId::from_bytes(self.trace_id),
            SpanId::from_bytes(self.span_id),
            flags,
            self.remote,
            state.unwrap_or_default(),
        )
    }

    /// Whether the trace is recorded.
    pub fn sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

/// A number in `DIGITS` hexadecimal digits.
struct Hex<const DIGITS: usize>(u128);

impl<const DIGITS: usize> fmt::Display for Hex<DIGITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

/// Reads exactly `N` bytes of lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_written_is_read() {
        let context = Context::parse(GOOD, Some("a=b")).unwrap();
        assert_eq!(context.traceparent(), GOOD);
        assert!(context.sampled());
        let mut headers = HeaderMap::new();
        context.to_headers(&mut headers);
        assert_eq!(Context::from_headers(&headers), Some(context));
        headers.append(TRACESTATE, HeaderValue::from_static("c=d"));
        let both = Context::from_headers(&headers).unwrap();
        assert_eq!(both.state.as_deref(), Some("a=b,c=d"));
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(Context::from_headers(&headers), None);
    }

    #[test]
    fn a_fresh_one_is_one() {
        let (one, other) = (Context::fresh(), Context::fresh());
        assert_eq!(Context::parse(&one.traceparent(), None), Some(one.clone()));
        assert!(one.sampled() && one.trace_id != other.trace_id);
    }

    #[test]
    fn what_is_no_context_is_none() {
        for (from, to) in [
            ("00-4", "ff-4"),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736",
                "00-00000000000000000000000000000000",
            ),
            ("00f067aa0ba902b7", "0000000000000000"),
            ("4bf9", "4BF9"),
            ("-01", "-01-more"),
            ("-01", ""),
            ("-01", "-1"),
        ] {
            assert_eq!(
                Context::parse(&GOOD.replacen(from, to, 1), None),
                None,
                "{to}"
            );
        }
        let later = GOOD.replacen("00-", "01-", 1) + "-more";
        assert!(Context::parse(&later, None).is_some());
    }
}
