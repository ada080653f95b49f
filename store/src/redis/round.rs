//! One round of questions: places for the replies, and who waits until all are filled.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::reply::Reply;
use super::trouble::Trouble;

/// The replies to questions that were asked together.
#[derive(Default)]
pub(super) struct Round {
    replies: RefCell<Vec<Result<Reply, Trouble>>>,
    missing: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

/// Where one reply goes. Dropped, it says that nothing was sent.
pub(super) struct Place {
    round: Rc<Round>,
    index: usize,
}

impl Round {
    /// A place for one more reply.
    pub(super) fn place(self: &Rc<Self>) -> Place {
        let mut replies = self.replies.borrow_mut();
        replies.push(Err(Trouble::Away));
        self.missing.set(self.missing.get() + 1);
        Place { round: Rc::clone(self), index: replies.len() - 1 }
    }

    /// Waits for all replies, which come in the order of their places.
    pub(super) async fn replies(self: Rc<Self>) -> Vec<Result<Reply, Trouble>> {
        poll_fn(|context| {
            if self.missing.get() == 0 {
                return Poll::Ready(mem::take(&mut *self.replies.borrow_mut()));
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Place {
    pub(super) fn fill(self, reply: Result<Reply, Trouble>) {
        self.round.replies.borrow_mut()[self.index] = reply;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let missing = self.round.missing.get() - 1;
        self.round.missing.set(missing);
        if missing == 0
            && let Some(waker) = self.round.waker.take()
        {
            waker.wake();
        }
    }
}
