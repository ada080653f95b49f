//! The way to the store: the queries of all connections that were ready in one turn of the
//! runtime leave as one batch, and answers find their connection by ticket.
//!
//! The first query of a turn wakes the batcher's task, which goes to the end of the run queue: by
//! the time it runs, all that were ready before it have asked, too. Where tasks run on many
//! threads, a task that is woken runs next, so there it steps back once: 200 downloads at once over
//! loopback on 4 threads asked their 600 queries in 8 to 14 batches, and in 363 to 600 without.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;

use otter_protocol::{Answer, Query};
use otter_store::{Store, Ticket};
use slab::Slab;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::desk::Desk;
use crate::service::Shared;

/// Queries that wait for the store, and answers that wait for their connection.
pub(crate) struct Batcher<I> {
    queue: Mutex<Queue<I>>,
    /// What the store rings, too.
    bell: Arc<Notify>,
}

struct Queue<I> {
    queries: Vec<(Ticket, Query)>,
    /// By ticket. A slot is free again once its query is answered, which each one is, so no late
    /// answer finds another query in its place.
    asked: Slab<Asked<I>>,
}

struct Asked<I> {
    at: Instant,
    /// `None`: nobody waits for it any more.
    waker: Option<Waker>,
    answer: Option<Answer<I>>,
}

impl<I> Batcher<I> {
    pub(crate) fn new(bell: Arc<Notify>) -> Self {
        Self { queue: Mutex::new(Queue { queries: Vec::new(), asked: Slab::new() }), bell }
    }

    /// Takes a query; `waker` is woken for [`Batcher::answer`].
    pub(crate) fn ask(&self, query: Query, waker: &Waker) -> Ticket {
        let mut queue = self.queue();
        let asked = Asked { at: Instant::now(), waker: Some(waker.clone()), answer: None };
        let ticket = Ticket(queue.asked.insert(asked) as u64);
        queue.queries.push((ticket, query));
        if queue.queries.len() == 1 {
            self.bell.notify_one();
        }
        ticket
    }

    /// The answer, once; `None`: `waker` is woken when it is there.
    pub(crate) fn answer(&self, ticket: Ticket, waker: &Waker) -> Option<Answer<I>> {
        let mut queue = self.queue();
        let asked = queue.asked.get_mut(ticket.0 as usize)?;
        asked.waker.get_or_insert_with(|| waker.clone()).clone_from(waker);
        let answer = asked.answer.take()?;
        queue.asked.remove(ticket.0 as usize);
        Some(answer)
    }

    /// Nobody waits for this answer any more.
    pub(crate) fn forget(&self, ticket: Ticket) {
        let mut queue = self.queue();
        if let Some(asked) = queue.asked.get_mut(ticket.0 as usize) {
            asked.waker = None;
            if asked.answer.is_some() {
                queue.asked.remove(ticket.0 as usize);
            }
        }
    }

    fn deliver(&self, answers: &mut Vec<(Ticket, Answer<I>)>, desk: &Desk) {
        let (mut queue, now) = (self.queue(), Instant::now());
        for (ticket, answer) in answers.drain(..) {
            let Some(asked) = queue.asked.get_mut(ticket.0 as usize) else { continue };
            if let Some(waker) = &asked.waker {
                desk.count(|tally| tally.answered(now.saturating_duration_since(asked.at)));
                asked.answer = Some(answer);
                waker.wake_by_ref();
            } else {
                queue.asked.remove(ticket.0 as usize);
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<I>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries queries to the store and answers back until nobody is left to ask.
pub(crate) async fn run<S: Store>(
    service: Weak<Shared<S::Image>>,
    bell: Arc<Notify>,
    mut store: S,
) {
    let (mut queries, mut answers) = (Vec::new(), Vec::new());
    let steps_back = Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread;
    loop {
        bell.notified().await;
        if steps_back {
            yield_now().await;
        }
        let Some(service) = service.upgrade() else { return };
        std::mem::swap(&mut queries, &mut service.batcher.queue().queries);
        if !queries.is_empty() {
            store.submit(&mut queries);
        }
        store.collect(&mut answers);
        service.batcher.deliver(&mut answers, &service.desk);
    }
}

impl<I> Drop for Batcher<I> {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}
