//! The waker of a connection that is driven by the request which uses it.
//!
//! A connection in a task of its own costs two changes of task for each request, and its head and body leave in two
//! writes. So the task that has a request drives the connection itself. What hyper then says to itself through its
//! channels would wake that task, which is running: such a wake is noted here and answered on the spot. And a
//! connection that rests in a pool wakes nobody.

use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Nobody is within a poll.
const OUTSIDE: u8 = 0;
/// Somebody is.
const WITHIN: u8 = 1;
/// Somebody is, and was woken meanwhile.
const AGAIN: u8 = 2;
/// Most polls in a row. What hyper says to itself needs two or three; a task that has used up its share of time
/// (tokio's budget) is woken on every poll, and must let others run.
const MOST: usize = 8;

#[derive(Debug, Default)]
struct Wakes {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let noted =
            self.state
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| match state {
                    OUTSIDE => None,
                    _ => Some(AGAIN),
                });
        if noted.is_err() {
            self.task.wake();
        }
    }
}

/// A waker that answers its own wakes.
#[derive(Debug)]
pub(crate) struct OwnWaker {
    wakes: Arc<Wakes>,
    waker: Waker,
}

impl OwnWaker {
    pub(crate) fn new() -> Self {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        Self { wakes, waker }
    }

    /// Polls for the task of `cx`, again for as long as `poll` wakes itself.
    pub(crate) fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.wakes.task.register(cx.waker());
        let mut inner = Context::from_waker(&self.waker);
        for _ in 0..MOST {
            self.wakes.state.store(WITHIN, Ordering::Release);
            let result = poll(&mut inner);
            let was = self.wakes.state.swap(OUTSIDE, Ordering::AcqRel);
            if result.is_ready() || was != AGAIN {
                return result;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// From now on nobody is woken.
    pub(crate) fn rest(&self) {
        self.wakes.task.take();
    }
}
