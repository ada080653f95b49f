//! The way to the store: the queries of all connections that were ready in one turn of the
//! runtime leave as one batch, and answers find their connection by ticket.
//!
//! The first query of a turn wakes the batcher's task, which goes to the end of the run queue: by
//! the time it runs, all that were ready before it have asked, too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use otter_protocol::{Answer, Query};
use otter_store::{Store, Ticket};
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::desk::Desk;

/// Queries that wait for the store, and answers that wait for their connection.
pub(crate) struct Batcher<I> {
    queue: Mutex<Queue<I>>,
    bell: Arc<Notify>,
}

struct Queue<I> {
    queries: Vec<(Ticket, Query)>,
    asked: Slab<Asked<I>>,
    /// Of the last query: a slot is used again at once, a number after four billion queries, so
    /// an answer that comes too late finds its number nowhere.
    serial: u32,
    /// Nobody asks, or nobody answers any more.
    closed: bool,
}

struct Asked<I> {
    serial: u32,
    at: Instant,
    waker: Waker,
    answer: Option<Answer<I>>,
}

impl<I> Batcher<I> {
    /// `bell` is what the store rings.
    pub(crate) fn new(bell: Arc<Notify>) -> Self {
        let queue = Queue { queries: Vec::new(), asked: Slab::new(), serial: 0, closed: false };
        Self { queue: Mutex::new(queue), bell }
    }

    /// Takes a query; `waker` is woken for [`Batcher::answer`].
    pub(crate) fn ask(&self, query: Query, waker: &Waker) -> Ticket {
        let mut queue = self.queue();
        queue.serial = queue.serial.wrapping_add(1);
        let serial = queue.serial;
        let asked = Asked { serial, at: Instant::now(), waker: waker.clone(), answer: None };
        let ticket = Ticket((queue.asked.insert(asked) as u64) << 32 | u64::from(serial));
        queue.queries.push((ticket, query));
        if queue.closed {
            queue.give_up();
        } else if queue.queries.len() == 1 {
            self.bell.notify_one();
        }
        ticket
    }

    /// The answer, once; `None`: `waker` is woken when it is there.
    pub(crate) fn answer(&self, ticket: Ticket, waker: &Waker) -> Option<Answer<I>> {
        let mut queue = self.queue();
        let asked = queue.find(ticket)?;
        asked.waker.clone_from(waker);
        let answer = asked.answer.take()?;
        queue.asked.remove(slot_of(ticket));
        Some(answer)
    }

    /// Nobody waits for this answer any more.
    pub(crate) fn forget(&self, ticket: Ticket) {
        let mut queue = self.queue();
        if queue.find(ticket).is_some() {
            queue.asked.remove(slot_of(ticket));
        }
    }

    /// Carries queries to the store and answers back until [`Batcher::close`].
    pub(crate) async fn run<S: Store<Image = I>>(self: Arc<Self>, mut store: S, desk: Arc<Desk>) {
        // If the store panics, nobody waits for it in vain.
        let _closing = Closing(Arc::clone(&self));
        let (mut queries, mut answers) = (Vec::new(), Vec::new());
        loop {
            self.bell.notified().await;
            let mut queue = self.queue();
            if queue.closed {
                return;
            }
            std::mem::swap(&mut queries, &mut queue.queries);
            drop(queue);
            if !queries.is_empty() {
                store.submit(&mut queries);
            }
            store.collect(&mut answers);
            self.deliver(&mut answers, &desk);
        }
    }

    /// No more questions: the end of [`Batcher::run`].
    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        queue.give_up();
        self.bell.notify_one();
    }

    fn deliver(&self, answers: &mut Vec<(Ticket, Answer<I>)>, desk: &Desk) {
        if answers.is_empty() {
            return;
        }
        let (mut queue, now) = (self.queue(), Instant::now());
        desk.count(|tally| {
            for (ticket, answer) in answers.drain(..) {
                if let Some(asked) = queue.find(ticket) {
                    tally.answered(now.saturating_duration_since(asked.at));
                    asked.fill(answer);
                }
            }
        });
    }

    fn queue(&self) -> MutexGuard<'_, Queue<I>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I> Queue<I> {
    fn find(&mut self, ticket: Ticket) -> Option<&mut Asked<I>> {
        let asked = self.asked.get_mut(slot_of(ticket));
        asked.filter(|asked| asked.serial == ticket.0 as u32)
    }

    fn give_up(&mut self) {
        self.queries.clear();
        let open = self.asked.iter_mut().filter(|(_, asked)| asked.answer.is_none());
        open.for_each(|(_, asked)| asked.fill(Answer::Unavailable));
    }
}

impl<I> Asked<I> {
    fn fill(&mut self, answer: Answer<I>) {
        self.answer = Some(answer);
        self.waker.wake_by_ref();
    }
}

struct Closing<I>(Arc<Batcher<I>>);

impl<I> Drop for Closing<I> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn slot_of(ticket: Ticket) -> usize {
    (ticket.0 >> 32) as usize
}
