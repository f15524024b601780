//! The body of a request on its way: nothing, in memory, or still arriving; and had again for another try.
//!
//! A short body is taken in whole before it is sent: then it leaves in one write with its head, the connection needs
//! no task of its own, and another try costs nothing. A long one, or one whose length is unknown and whose end is not
//! there yet, streams; as much of it as may be kept is kept.

use super::frames::{BodyError, Timed};
use crate::policy::Policy;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The body of a request.
pub(crate) enum Payload {
    /// In memory; mostly there is none.
    Whole(Bytes, Option<Box<HeaderMap>>),
    /// Still arriving.
    Stream(Lender),
}

/// Lends a body that is still arriving, once for each try.
pub(crate) struct Lender {
    source: Arc<Mutex<Source>>,
    turn: u64,
}

struct Source {
    body: Timed<Incoming>,
    /// What came so far, as long as that may be kept.
    kept: Vec<Bytes>,
    kept_len: usize,
    keep: usize,
    /// Whether something came that was not kept.
    lost: bool,
    /// The end came, with these trailers.
    ended: Option<Option<HeaderMap>>,
    /// What cleans trailers.
    policy: Option<Arc<Policy>>,
    fault: Option<BodyError>,
    /// The try that may read.
    turn: u64,
    /// Bytes that came.
    came: u64,
}

/// How far a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes that came.
    pub(crate) came: u64,
    /// Whether the end did.
    pub(crate) ended: bool,
}

/// A body in the hands of a connection.
pub(crate) enum Outgoing {
    /// In memory.
    Whole(Option<Bytes>, Option<Box<HeaderMap>>),
    /// Still arriving.
    Lent(Lent),
}

/// A body that is lent for one try.
pub(crate) struct Lent {
    source: Arc<Mutex<Source>>,
    turn: u64,
    /// Kept parts that were read.
    at: usize,
    /// Whether the trailers were read.
    over: bool,
    /// What is known of the length.
    hint: SizeHint,
}

impl Payload {
    /// Takes a body, into memory if it is at most `keep` bytes long, and then within `whole`; the next part of any must
    /// come within `longest`. `policy` takes from trailers what it takes from headers.
    ///
    /// # Errors
    /// [`BodyError`] when it broke off before that was clear.
    pub(crate) async fn take(
        body: Incoming,
        keep: usize,
        longest: Option<Duration>,
        whole: Duration,
        policy: Option<&Arc<Policy>>,
    ) -> Result<Self, BodyError> {
        if body.is_end_stream() {
            return Ok(Self::Whole(Bytes::new(), None));
        }
        let mut source = Box::new(Source {
            body: Timed::new(body, longest),
            kept: Vec::new(),
            kept_len: 0,
            keep,
            lost: false,
            ended: None,
            policy: policy.cloned(),
            fault: None,
            turn: 0,
            came: 0,
        });
        let known = source.body.get_ref().size_hint().exact();
        let short = known.is_some_and(|len| len <= keep as u64);
        // A length that is too long need not be looked at.
        if short || known.is_none() {
            let short = std::future::poll_fn(|cx| source.poll_short(cx, short));
            tokio::time::timeout(whole, short)
                .await
                .unwrap_or(Err(BodyError::Timeout))?;
        }
        if let (Some(trailers), false) = (&mut source.ended, source.lost) {
            let trailers = trailers.take().map(Box::new);
            return Ok(Self::Whole(joined(source.kept), trailers));
        }
        Ok(Self::Stream(Lender {
            source: Arc::new(Mutex::new(*source)),
            turn: 0,
        }))
    }

    /// The body for one try. What an earlier try still reads ends in an error.
    pub(crate) fn lend(&mut self) -> Outgoing {
        match self {
            Self::Whole(bytes, trailers) => {
                let bytes = (!bytes.is_empty()).then(|| bytes.clone());
                Outgoing::Whole(bytes, trailers.clone())
            }
            Self::Stream(lender) => {
                lender.turn += 1;
                let mut source = lock(&lender.source);
                source.turn = lender.turn;
                let hint = source.size_hint();
                drop(source);
                Outgoing::Lent(Lent {
                    source: Arc::clone(&lender.source),
                    turn: lender.turn,
                    at: 0,
                    over: false,
                    hint,
                })
            }
        }
    }

    /// Whether it can be had again from its beginning.
    pub(crate) fn is_replayable(&self) -> bool {
        match self {
            Self::Whole(..) => true,
            Self::Stream(lender) => !lock(&lender.source).lost,
        }
    }

    /// How far it has come.
    pub(crate) fn progress(&self) -> Progress {
        match self {
            Self::Whole(..) => Progress {
                came: 0,
                ended: true,
            },
            Self::Stream(lender) => {
                let source = lock(&lender.source);
                Progress {
                    came: source.came,
                    ended: source.ended.is_some(),
                }
            }
        }
    }

    /// It comes too slowly to be waited for: the client's fault.
    pub(crate) fn give_up(&self) {
        if let Self::Stream(lender) = self {
            lock(&lender.source).fault.get_or_insert(BodyError::Timeout);
        }
    }

    /// Why the client's side broke off, where it did.
    pub(crate) fn fault(&self) -> Option<BodyError> {
        match self {
            Self::Whole(..) => None,
            Self::Stream(lender) => lock(&lender.source).fault,
        }
    }
}

fn joined(kept: Vec<Bytes>) -> Bytes {
    match <[Bytes; 1]>::try_from(kept) {
        Ok([one]) => one,
        Err(kept) => {
            let mut all = BytesMut::with_capacity(kept.iter().map(Bytes::len).sum());
            for part in kept {
                all.extend_from_slice(&part);
            }
            all.freeze()
        }
    }
}

// A source is plain values, whole whatever happened to the last holder.
fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source {
    /// Takes parts until the end, or what may be kept is full, or, unless `wait`, nothing is there.
    fn poll_short(&mut self, cx: &mut Context<'_>, wait: bool) -> Poll<Result<(), BodyError>> {
        loop {
            match self.poll_next(cx) {
                Poll::Ready(Some(Ok(_))) if self.lost => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Pending if wait => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Ok(())),
            }
        }
    }

    /// The next part that was not read before.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Some(error) = self.fault {
            return Poll::Ready(Some(Err(error)));
        }
        while self.ended.is_none() {
            match ready!(self.body.poll_frame(cx)) {
                None => self.ended = Some(None),
                Some(Err(error)) => {
                    self.fault = Some(error);
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.came += data.len() as u64;
                        self.keep(&data);
                        return Poll::Ready(Some(Ok(data)));
                    }
                    Err(frame) => {
                        let mut trailers = frame.into_trailers().ok();
                        if let (Some(policy), Some(trailers)) = (&self.policy, &mut trailers) {
                            policy.trailers(trailers);
                        }
                        self.ended = Some(trailers);
                    }
                },
            }
        }
        Poll::Ready(None)
    }

    fn keep(&mut self, data: &Bytes) {
        if self.lost || self.kept_len + data.len() > self.keep {
            // The first part too long may be in hand already, with those before it: they are sent and then forgotten.
            self.lost = true;
        }
        self.kept_len += data.len();
        self.kept.push(data.clone());
    }

    fn size_hint(&self) -> SizeHint {
        match self.body.get_ref().size_hint().exact() {
            // What was taken out already is still to be sent.
            Some(left) => SizeHint::with_exact(left + self.kept_len as u64),
            None => SizeHint::default(),
        }
    }
}

impl Lent {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut source = lock(&self.source);
        if source.turn != self.turn {
            return Poll::Ready(Some(Err(BodyError::Withdrawn)));
        }
        loop {
            if let Some(data) = source.kept.get(self.at) {
                let data = data.clone();
                self.at += 1;
                if source.lost && self.at == source.kept.len() {
                    // Nobody can have it again, so nobody keeps it.
                    source.kept.clear();
                    self.at = 0;
                }
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            match ready!(source.poll_next(cx)) {
                // It was kept, and is had from there.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.over => return Poll::Ready(None),
                None => {
                    self.over = true;
                    let trailers = source.ended.clone().flatten();
                    return Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))));
                }
            }
        }
    }
}

impl Outgoing {
    /// Whether a connection can send it without waiting for its client.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(..))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Whole(bytes, trailers) => Poll::Ready(match bytes.take() {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => trailers.take().map(|t| Ok(Frame::trailers(*t))),
            }),
            Self::Lent(lent) => lent.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes, trailers) => bytes.is_none() && trailers.is_none(),
            // Whoever looks reads: nothing is known without.
            Self::Lent(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(_, Some(_)) => SizeHint::default(),
            Self::Whole(bytes, None) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Self::Lent(lent) => lent.hint,
        }
    }
}
