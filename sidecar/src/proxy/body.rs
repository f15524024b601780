//! The body of an answer on its way back: in memory, or what was there of it and the rest as it comes.

use super::frames::BodyError;
use super::{h1, h2};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Bytes of a body that are gathered before its head is sent, so that both leave in one write.
const GATHERED: usize = 8 * 1024;

/// What was there of a body.
#[derive(Debug, Default)]
pub(crate) struct Prefix {
    data: Bytes,
    /// Boxed: few have any, and every answer is moved.
    trailers: Option<Box<HeaderMap>>,
    fault: Option<BodyError>,
}

impl Prefix {
    /// Takes a part; whether there is room for more.
    pub(crate) fn push(&mut self, frame: Frame<Bytes>) -> bool {
        match frame.into_data() {
            Ok(data) if self.data.is_empty() => self.data = data,
            Ok(data) => {
                let mut both = BytesMut::with_capacity(self.data.len() + data.len());
                both.extend_from_slice(&self.data);
                both.extend_from_slice(&data);
                self.data = both.freeze();
            }
            Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
        }
        self.data.len() < GATHERED
    }

    /// The body broke off after what was there.
    pub(crate) fn fail(&mut self, fault: BodyError) {
        self.fault = Some(fault);
    }

    /// Whether the trailers came.
    pub(crate) fn is_ended(&self) -> bool {
        self.trailers.is_some()
    }

    fn next(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        if !self.data.is_empty() {
            return Some(Ok(Frame::data(std::mem::take(&mut self.data))));
        }
        if let Some(fault) = self.fault.take() {
            return Some(Err(fault));
        }
        self.trailers.take().map(|t| Ok(Frame::trailers(*t)))
    }

    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.fault.is_none() && self.trailers.is_none()
    }
}

/// The body of an answer. What counts the request as under way is held until the last byte has gone, or the client
/// has.
pub(crate) struct Body {
    prefix: Prefix,
    rest: Rest,
    held: Option<Box<dyn Held>>,
}

/// What lives as long as an answer.
pub(crate) trait Held: Send {
    /// The answer has begun, with this status.
    fn answered(&mut self, status: u16);

    /// The body broke off.
    fn broke_off(&mut self, why: BodyError);
}

enum Rest {
    None,
    H1(Box<h1::Streaming>),
    H2(Box<h2::Streaming>),
}

impl Body {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self::whole(Prefix::default())
    }

    /// A body that is in memory.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::whole(Prefix {
            data: bytes.into(),
            ..Prefix::default()
        })
    }

    /// A body of which all was there.
    pub(crate) fn whole(prefix: Prefix) -> Self {
        Self {
            prefix,
            rest: Rest::None,
            held: None,
        }
    }

    /// What was there, and the rest from a connection of HTTP/1.1.
    pub(crate) fn streaming_h1(prefix: Prefix, rest: Box<h1::Streaming>) -> Self {
        Self {
            prefix,
            rest: Rest::H1(rest),
            held: None,
        }
    }

    /// What was there, and the rest from a stream of HTTP/2.
    pub(crate) fn streaming_h2(prefix: Prefix, rest: Box<h2::Streaming>) -> Self {
        Self {
            prefix,
            rest: Rest::H2(rest),
            held: None,
        }
    }

    /// Whether more is to come than what is there.
    pub(crate) fn is_streaming(&self) -> bool {
        !matches!(self.rest, Rest::None)
    }

    /// The same, and `held` lives as long.
    pub(crate) fn holding(mut self, held: Box<dyn Held>) -> Self {
        self.held = Some(held);
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let next = match this.prefix.next() {
            Some(next) => Some(next),
            None => match &mut this.rest {
                Rest::None => None,
                Rest::H1(rest) => ready!(rest.poll_frame(cx)),
                Rest::H2(rest) => ready!(rest.poll_frame(cx)),
            },
        };
        if let (Some(Err(error)), Some(held)) = (&next, &mut this.held) {
            held.broke_off(*error);
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.prefix.is_empty()
            && match &self.rest {
                Rest::None => true,
                Rest::H1(rest) => rest.is_ended(),
                Rest::H2(rest) => rest.is_ended(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let here = self.prefix.data.len() as u64;
        let exact = match &self.rest {
            _ if self.prefix.fault.is_some() => None,
            Rest::None if self.prefix.trailers.is_none() => Some(here),
            Rest::None => None,
            Rest::H1(rest) => rest.size_hint().exact().map(|left| here + left),
            Rest::H2(_) => None,
        };
        exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
