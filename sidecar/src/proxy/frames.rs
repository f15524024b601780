//! Parts of bodies, each within its time.

use bytes::Bytes;
use http_body::{Body, Frame};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// Why a body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// The next part did not come in time.
    #[error("body stopped arriving")]
    Timeout,
    /// The connection ended, or what came was no body.
    #[error("body broke off")]
    Broken,
    /// Another try reads it now.
    #[error("body is sent on another connection")]
    Withdrawn,
}

/// A time limit that runs while something is waited for, and costs nothing when nothing is.
#[derive(Debug)]
pub(crate) struct Patience {
    longest: Option<Duration>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// At most `longest` each time; for ever without.
    pub(crate) fn new(longest: Option<Duration>) -> Self {
        Self {
            longest,
            waiting: None,
        }
    }

    /// What was waited for came.
    pub(crate) fn renew(&mut self) {
        self.waiting = None;
    }

    /// Ready when the time is over.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(longest) = self.longest else {
            return Poll::Pending;
        };
        self.waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(longest)))
            .as_mut()
            .poll(cx)
    }
}

/// A body whose next part must come in time.
#[derive(Debug)]
pub(crate) struct Timed<B> {
    body: B,
    patience: Patience,
}

impl<B: Body<Data = Bytes> + Unpin> Timed<B> {
    pub(crate) fn new(body: B, longest: Option<Duration>) -> Self {
        Self {
            body,
            patience: Patience::new(longest),
        }
    }

    pub(crate) fn get_ref(&self) -> &B {
        &self.body
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.patience.renew();
                Poll::Ready(frame.map(|f| f.map_err(|_| BodyError::Broken)))
            }
            Poll::Pending => {
                ready!(self.patience.poll_over(cx));
                Poll::Ready(Some(Err(BodyError::Timeout)))
            }
        }
    }
}
