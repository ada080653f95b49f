//! Where answers wait for the thread that asked, and how it learns of them.
//!
//! `tests/shared` tries each interleaving of what is done here.

use std::sync::PoisonError;

use otter_protocol::Answer;

use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};
use crate::{Ticket, Wake};

/// Where another thread leaves answers for one thread.
pub(crate) struct Inbox {
    answers: Mutex<Vec<(Ticket, Answer<()>)>>,
    /// Are there any? Changed with the lock held, and read without it in every turn.
    waiting: AtomicBool,
    /// How many are still to be left.
    expected: AtomicUsize,
    wake: Wake,
}

impl Inbox {
    pub(crate) fn new(wake: Wake) -> Self {
        let (waiting, expected) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { answers: Mutex::default(), waiting, expected, wake }
    }

    /// Makes sure of room for one more write; false: too many wait, and this one would be answered
    /// long after anybody waits for it. For the thread that the inbox belongs to.
    pub(crate) fn expect(&self) -> bool {
        let has_room = self.expected.load(Ordering::Relaxed) < WRITES_WAITING_MAX;
        self.expected.fetch_add(usize::from(has_room), Ordering::Relaxed);
        has_room
    }

    /// Leaves the answer to a write that was expected. [`Inbox::ring`] must follow.
    pub(crate) fn leave(&self, ticket: Ticket, answer: Answer<()>) {
        self.expected.fetch_sub(1, Ordering::Relaxed);
        self.hand_back(ticket, answer);
    }

    /// Leaves an answer that was taken from the thread to wait for its image. [`Inbox::ring`] must
    /// follow.
    pub(crate) fn hand_back(&self, ticket: Ticket, answer: Answer<()>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push((ticket, answer));
        self.waiting.store(true, Ordering::Release);
    }

    /// Wakes the thread that the inbox belongs to.
    pub(crate) fn ring(&self) {
        (self.wake)();
    }

    /// Takes what was left.
    pub(crate) fn append_to(&self, answers: &mut Vec<(Ticket, Answer<()>)>) {
        // Whoever was rung sees what was left before the ring.
        if self.waiting.load(Ordering::Acquire) {
            let mut left = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            self.waiting.store(false, Ordering::Relaxed);
            answers.append(&mut left);
        }
    }
}

/// Writes of one thread that may wait for the disk. About as many as are committed in the time that
/// a connection waits; a disk that stands still must not fill the memory.
const WRITES_WAITING_MAX: usize = 32 * 1024;
