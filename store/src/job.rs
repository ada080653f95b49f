//! Writes on their way to being durable: one of a device, or one of an operator.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};

use otter_protocol::Answer;

use crate::Ticket;
use crate::error::OperatorError;
use crate::inbox::Inbox;
use crate::tables::{Plan, Tables, Write};

/// A device's write on its way to being durable.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) write: Write,
    pub(crate) promise: Promise,
}

/// The promise of one answer. It is kept exactly once, whatever happens: one that is dropped on
/// the way is answered as unavailable.
pub(crate) struct Promise {
    ticket: Ticket,
    inbox: Arc<Inbox>,
    answered: bool,
}

impl Promise {
    pub(crate) fn new(ticket: Ticket, inbox: Arc<Inbox>) -> Self {
        Self { ticket, inbox, answered: false }
    }

    /// Leaves the answer and returns the inbox to ring.
    pub(crate) fn answer(mut self, answer: Answer<()>) -> Arc<Inbox> {
        self.answered = true;
        self.inbox.leave(self.ticket, answer);
        Arc::clone(&self.inbox)
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if !self.answered {
            self.inbox.leave(self.ticket, Answer::Unavailable);
            self.inbox.ring();
        }
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

/// An operator's write.
pub(crate) trait Operation: Send {
    /// Plans the changes. Called again in the next group if it has to wait.
    fn decide(&mut self, tables: &Tables, now_ms: u64, plan: &mut Plan);

    /// Tells the operator: what was planned is durable, or why not.
    fn settle(self: Box<Self>, kept: Result<(), OperatorError>);
}

/// An [`Operation`] out of its rule, and what to wait on for its outcome. Dropped on the way, the
/// wait ends without one.
pub(crate) fn operation<R, F>(rule: F) -> (Box<dyn Operation>, mpsc::Receiver<Outcome<R>>)
where
    R: Send + 'static,
    F: FnMut(&Tables, u64, &mut Plan) -> Outcome<R> + Send + 'static,
{
    let (reply, outcome) = mpsc::sync_channel(1);
    (Box::new(Ruled { rule, decided: None, reply }), outcome)
}

/// What an operation led to.
pub(crate) type Outcome<R> = Result<R, OperatorError>;

struct Ruled<R, F> {
    rule: F,
    decided: Option<Outcome<R>>,
    reply: SyncSender<Outcome<R>>,
}

impl<R, F> Operation for Ruled<R, F>
where
    R: Send,
    F: FnMut(&Tables, u64, &mut Plan) -> Outcome<R> + Send,
{
    fn decide(&mut self, tables: &Tables, now_ms: u64, plan: &mut Plan) {
        self.decided = Some((self.rule)(tables, now_ms, plan));
    }

    fn settle(self: Box<Self>, kept: Result<(), OperatorError>) {
        let outcome = match (kept, self.decided) {
            (Ok(()), Some(decided)) => decided,
            (Ok(()), None) => return,
            (Err(error), _) => Err(error),
        };
        // The operator may have gone away meanwhile; what was kept stays kept.
        let _ = self.reply.send(outcome);
    }
}
