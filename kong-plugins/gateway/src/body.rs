//! Bodies on their way: a client's, bounded in size and in waiting; a service's, past the filters.

use crate::filters::{Passage, Verdict};
use crate::metrics::Finished;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("body is longer than {0} bytes")]
    TooLarge(usize),
    #[error("body stopped arriving")]
    Timeout,
    #[error("a filter failed on the body")]
    Filter,
    #[error("body broke off")]
    Broken(#[source] hyper::Error),
}

/// A body that must go on arriving.
struct Timed {
    body: Incoming,
    longest: Duration,
    waiting: Pin<Box<Sleep>>,
    /// Trailers that came, where they are to be kept.
    trailers: Option<HeaderMap>,
    keep_trailers: bool,
}

impl Timed {
    fn new(body: Incoming, longest: Duration) -> Self {
        Self {
            body,
            longest,
            waiting: Box::pin(tokio::time::sleep(longest)),
            trailers: None,
            keep_trailers: false,
        }
    }

    /// The next part; trailers are left out, as Kong leaves them out, but of gRPC.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match http_body::Body::poll_frame(Pin::new(&mut self.body), cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.waiting.as_mut().reset(Instant::now() + self.longest);
                    match frame.into_data() {
                        Ok(data) => return Poll::Ready(Some(Ok(data))),
                        Err(frame) if self.keep_trailers => {
                            self.trailers = frame.into_trailers().ok();
                        }
                        Err(_) => {}
                    }
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Some(Err(BodyError::Broken(e)))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(self.waiting.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(BodyError::Timeout)));
                }
            }
        }
    }
}

/// A client's body, on its way to a service or into memory.
pub(crate) struct RequestBody(Request);

enum Request {
    Whole(Option<Bytes>),
    Stream {
        body: Timed,
        left: u64,
        limit: usize,
    },
    Lent(Arc<Loan>),
}

/// A body that is with the client of a service, and can be had back while nothing of it was read.
pub(crate) struct Lent(Arc<Loan>);

struct Loan {
    body: Mutex<Option<Box<Request>>>,
    /// Parts that were read.
    parts: AtomicU64,
}

impl Lent {
    /// Grows while the body goes on arriving.
    pub(crate) fn progress(&self) -> u64 {
        self.0.parts.load(Ordering::Relaxed)
    }

    /// The body, when nothing of it was read.
    pub(crate) fn untouched(self) -> Option<RequestBody> {
        if self.progress() > 0 {
            return None;
        }
        let body = self.0.take()?;
        Some(RequestBody(*body))
    }
}

impl Loan {
    fn take(&self) -> Option<Box<Request>> {
        self.body
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn with<R>(&self, gone: R, run: impl FnOnce(&mut Request) -> R) -> R {
        let mut body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        body.as_deref_mut().map_or(gone, run)
    }
}

impl RequestBody {
    /// A body that is in memory.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(Request::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    /// A body that is still arriving, at most `limit` bytes, each part within `longest`.
    pub(crate) fn stream(body: Incoming, limit: usize, longest: Duration) -> Self {
        Self(Request::Stream {
            body: Timed::new(body, longest),
            left: limit as u64,
            limit,
        })
    }

    /// Lends the body to a client of a service.
    pub(crate) fn lend(self) -> (Self, Lent) {
        let loan = Arc::new(Loan {
            body: Mutex::new(Some(Box::new(self.0))),
            parts: AtomicU64::new(0),
        });
        (Self(Request::Lent(Arc::clone(&loan))), Lent(loan))
    }

    /// Takes the whole body into memory, at most `longest` bytes of it.
    pub(crate) async fn collect(mut self, longest: Option<usize>) -> Result<Bytes, BodyError> {
        if let (Request::Stream { left, limit, .. }, Some(longest)) = (&mut self.0, longest) {
            *limit = longest.min(*limit);
            *left = (*left).min(longest as u64);
        }
        let mut all: Vec<u8> = Vec::new();
        while let Some(part) = std::future::poll_fn(|cx| Pin::new(&mut self).poll_data(cx)).await {
            all.extend_from_slice(&part?);
        }
        Ok(Bytes::from(all))
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.0.poll_data(cx)
    }
}

impl Request {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self {
            Request::Lent(loan) => {
                let part = ready!(loan.with(Poll::Ready(None), |body| body.poll_data(cx)));
                loan.parts.fetch_add(1, Ordering::Relaxed);
                Poll::Ready(part)
            }
            Request::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Request::Stream { body, left, limit } => match ready!(body.poll_data(cx)) {
                Some(Ok(data)) => match left.checked_sub(data.len() as u64) {
                    Some(rest) => {
                        *left = rest;
                        Poll::Ready(Some(Ok(data)))
                    }
                    None => Poll::Ready(Some(Err(BodyError::TooLarge(*limit)))),
                },
                other => Poll::Ready(other),
            },
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_data(cx)
            .map(|part| part.map(|p| p.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Request {
    fn is_end(&self) -> bool {
        match self {
            Request::Whole(bytes) => bytes.is_none(),
            Request::Stream { body, .. } => http_body::Body::is_end_stream(&body.body),
            Request::Lent(loan) => loan.with(true, |body| body.is_end()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Request::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Request::Stream { body, .. } => http_body::Body::size_hint(&body.body),
            Request::Lent(loan) => loan.with(SizeHint::with_exact(0), |body| body.size_hint()),
        }
    }
}

/// The body of an answer. Holds the request's passage through the filters and its entry in the metrics
/// until the last byte has gone, or the client has.
pub(crate) struct Body {
    source: Source,
    /// What is sent after the last part.
    trailers: Option<HeaderMap>,
    passage: Option<Box<Passage>>,
    finished: Option<Finished>,
}

enum Source {
    Whole(Option<Bytes>),
    /// A service's; boxed, since most answers that are not are small.
    Stream(Box<Timed>),
    /// The filters heard of the end.
    Ended,
}

impl Body {
    /// A body that is in memory.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            source: Source::Whole((!bytes.is_empty()).then_some(bytes)),
            trailers: None,
            passage: None,
            finished: None,
        }
    }

    /// A service's body, each part within `longest`; with its trailers, where they are to be kept.
    pub(crate) fn stream(body: Incoming, longest: Duration, keep_trailers: bool) -> Self {
        let mut timed = Box::new(Timed::new(body, longest));
        timed.keep_trailers = keep_trailers;
        Self {
            source: Source::Stream(timed),
            trailers: None,
            passage: None,
            finished: None,
        }
    }

    /// The same, going through the filters.
    pub(crate) fn through(mut self, passage: Box<Passage>) -> Self {
        self.passage = Some(passage);
        self
    }

    /// The same, reporting its end.
    pub(crate) fn reporting(mut self, finished: Finished) -> Self {
        self.finished = Some(finished);
        self
    }

    /// Counts bytes that went another way.
    pub(crate) fn count(&mut self, bytes: u64) {
        if let Some(finished) = &mut self.finished {
            finished.bytes += bytes;
        }
    }

    /// Length of a body that is in memory; a service's says its own.
    pub(crate) fn own_length(&self) -> Option<usize> {
        match &self.source {
            Source::Whole(bytes) => Some(bytes.as_ref().map_or(0, Bytes::len)),
            Source::Stream(_) | Source::Ended => None,
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match &mut self.source {
            Source::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Source::Stream(body) => body.poll_data(cx),
            Source::Ended => Poll::Ready(None),
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if matches!(self.source, Source::Ended) {
                return Poll::Ready(None);
            }
            let part = ready!(self.poll_source(cx));
            if let (None, Source::Stream(body)) = (&part, &mut self.source) {
                self.trailers = body.trailers.take();
            }
            let Some(passage) = &mut self.passage else {
                return Poll::Ready(part);
            };
            let (data, end) = match part {
                Some(Ok(data)) => (data, false),
                None => (Bytes::new(), true),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            };
            passage.exchange.response_body = data;
            let verdict = passage.response_body(end);
            let data = std::mem::take(&mut passage.exchange.response_body);
            if end {
                self.source = Source::Ended;
            }
            match verdict {
                Verdict::Pass if data.is_empty() => {}
                Verdict::Pass => return Poll::Ready(Some(Ok(data))),
                // The head is out: another answer has no place any more.
                Verdict::Answer(_) | Verdict::Failed => {
                    self.source = Source::Ended;
                    return Poll::Ready(Some(Err(BodyError::Filter)));
                }
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let part = ready!(self.poll_data(cx));
        if let (Some(finished), Some(Ok(data))) = (&mut self.finished, &part) {
            finished.bytes += data.len() as u64;
        }
        if part.is_none()
            && let Some(trailers) = self.trailers.take()
        {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(part.map(|p| p.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        // With filters the end is known when they have heard of it.
        match (&self.source, &self.passage) {
            (Source::Ended, _) => self.trailers.is_none(),
            (_, Some(_)) => false,
            (Source::Whole(bytes), None) => bytes.is_none(),
            (Source::Stream(body), None) => {
                let waiting = body.trailers.is_some() || self.trailers.is_some();
                !waiting && http_body::Body::is_end_stream(&body.body)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.source, &self.passage) {
            (Source::Ended, _) => SizeHint::with_exact(0),
            // Filters may change the length.
            (_, Some(_)) => SizeHint::default(),
            (Source::Whole(bytes), None) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            (Source::Stream(body), None) => http_body::Body::size_hint(&body.body),
        }
    }
}
