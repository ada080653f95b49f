//! The thread that makes writes durable: it takes all that wait, decides each in order, commits
//! once, makes the changes visible, answers and rings.
//!
//! Nothing that is not durable is visible to a reader or to a later decision. So a write that
//! stands on facts which another of its group changes waits for the next group. Under load the
//! time of the commit itself gathers the next group; there is no timer.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use otter_protocol::Answer;
use rusqlite::Connection;

use crate::error::OperatorError;
use crate::inbox::Inbox;
use crate::job::{Job, Operation};
use crate::ledger;
use crate::shared::Shared;
use crate::tables::{Change, Plan, Touched};
use crate::token::Minted;

/// What is sent to the committer.
pub(crate) enum Message {
    /// The writes of one turn of one thread.
    Jobs(Vec<Job>),
    /// An operator's write.
    Operation(Box<dyn Operation>),
    /// Finish what came before, and end.
    Close,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jobs(_) => "Jobs",
            Self::Operation(_) => "Operation",
            Self::Close => "Close",
        })
    }
}

/// The state of the committing thread.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    database: Connection,
    messages: Receiver<Message>,
    group_writes_max: usize,
    /// What waits, in the order in which it came.
    queue: VecDeque<Write>,
    touched: Touched,
    plan: Plan,
    changes: Vec<Change>,
}

impl Committer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        database: Connection,
        messages: Receiver<Message>,
        group_writes_max: usize,
    ) -> Self {
        Self {
            shared,
            database,
            messages,
            group_writes_max: group_writes_max.max(1),
            queue: VecDeque::new(),
            touched: Touched::default(),
            plan: Plan::default(),
            changes: Vec::new(),
        }
    }

    /// Runs until [`Message::Close`], or until nobody can send anything any more.
    pub(crate) fn run(mut self) {
        let mut open = true;
        while open || !self.queue.is_empty() {
            if self.queue.is_empty() {
                match self.messages.recv() {
                    Ok(message) => open = self.take(message),
                    Err(_) => break,
                }
            }
            while open && let Ok(message) = self.messages.try_recv() {
                open = self.take(message);
            }
            self.run_group();
        }
        // So that a clock that is set back before the next start revives nothing either. Should it
        // fail, the time of the last commit stands.
        let _ = ledger::commit(&mut self.database, &[], self.shared.clock.now_ms());
    }

    /// Queues what a message brings; false if it was the last.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Jobs(jobs) => self.queue.extend(jobs.into_iter().map(Write::Job)),
            Message::Operation(operation) => self.queue.push_back(Write::Operation(operation)),
            Message::Close => return false,
        }
        true
    }

    fn run_group(&mut self) {
        let now_ms = self.shared.clock.now_ms();
        let group = self.decide(now_ms);
        if self.changes.is_empty() {
            settle(group, |_| None);
            return;
        }
        let begun = Instant::now();
        let committed = ledger::commit(&mut self.database, &self.changes, now_ms);
        let writes = group.iter().filter(|decided| decided.changes).count();
        match committed {
            Ok(()) => {
                self.shared.counters.committed(writes, begun.elapsed());
                self.publish(writes);
                settle(group, |_| None);
            }
            Err(error) => {
                self.shared.counters.commit_failed();
                let error = OperatorError::database(error);
                // What changes nothing does not depend on the commit, and is answered as decided.
                settle(group, |decided| decided.changes.then(|| error.clone()));
            }
        }
    }

    /// Decides what waits, up to a whole group; what has to wait longer stays in the queue.
    fn decide(&mut self, now_ms: u64) -> Vec<Decided> {
        self.touched.clear();
        self.changes.clear();
        let mut group = Vec::new();
        let mut deferred = VecDeque::new();
        while group.len() < self.group_writes_max
            && let Some(mut write) = self.queue.pop_front()
        {
            self.plan.clear();
            write.stand(&self.shared, &mut self.plan);
            let free = !self.touched.meets(&self.plan);
            let answer = free.then(|| write.decide(&self.shared, now_ms, &mut self.plan));
            let Some(answer) = answer.filter(|_| !self.touched.meets(&self.plan)) else {
                self.touched.bar(&self.plan);
                deferred.push_back(write);
                continue;
            };
            self.touched.add(&self.plan);
            let changes = !self.plan.changes.is_empty();
            self.changes.append(&mut self.plan.changes);
            group.push(Decided { write, answer, changes });
        }
        self.shared.counters.deferred(deferred.len());
        deferred.append(&mut self.queue);
        self.queue = deferred;
        if !self.changes.is_empty() {
            let tables = self.shared.tables();
            let ended = tables.tokens.ended(now_ms).take(EXPIRED_PER_GROUP_MAX);
            self.changes.extend(ended.map(Change::expired));
        }
        group
    }

    /// Makes what is durable visible.
    fn publish(&self, writes: usize) {
        let mut tables = self.shared.tables_mut();
        let freed = tables.images_freed(&self.changes);
        for change in &self.changes {
            tables.apply(change);
        }
        drop(tables);
        self.shared.counters.kept(writes, &self.changes);
        self.shared.sweep(&freed);
    }
}

/// A write that waits for its group.
enum Write {
    Job(Job),
    Operation(Box<dyn Operation>),
}

/// A write of the present group.
struct Decided {
    write: Write,
    /// Of a job.
    answer: Answer<()>,
    /// Does it change anything?
    changes: bool,
}

impl Write {
    /// Operations say what they stand on when they decide.
    fn stand(&self, shared: &Shared, plan: &mut Plan) {
        if let Self::Job(job) = self {
            shared.tables().stand(&job.write, plan);
        }
    }

    fn decide(&mut self, shared: &Shared, now_ms: u64, plan: &mut Plan) -> Answer<()> {
        match self {
            Self::Job(job) => decide_job(job, shared, now_ms, plan),
            Self::Operation(operation) => {
                operation.decide(&shared.tables(), now_ms, plan);
                Answer::Unavailable
            }
        }
    }
}

fn decide_job(job: &Job, shared: &Shared, now_ms: u64, plan: &mut Plan) -> Answer<()> {
    let minted = if job.write.mints() { shared.mint.minted() } else { Ok(Minted::NONE) };
    let Ok(minted) = minted else { return Answer::Unavailable };
    // Files are looked at before the tables are locked. This thread alone changes the tables, so
    // the token still speaks of the same image afterwards.
    let image = job.write.token().and_then(|token| shared.tables().image_of(token));
    let intact = image.is_none_or(|(name, size)| shared.depot.images.intact(&name, size));
    shared.tables().decide(&job.write, now_ms, &minted, intact, plan)
}

/// Answers a group; `failure` says why a write was not kept.
fn settle(group: Vec<Decided>, failure: impl Fn(&Decided) -> Option<OperatorError>) {
    let mut inboxes: Vec<Arc<Inbox>> = Vec::new();
    for decided in group {
        let failed = failure(&decided);
        match decided.write {
            Write::Job(job) => {
                let answer = if failed.is_some() { Answer::Unavailable } else { decided.answer };
                let inbox = job.promise.answer(answer);
                if !inboxes.iter().any(|other| Arc::ptr_eq(other, &inbox)) {
                    inboxes.push(inbox);
                }
            }
            Write::Operation(operation) => operation.settle(failed.map_or(Ok(()), Err)),
        }
    }
    for inbox in inboxes {
        inbox.ring();
    }
}

/// Tokens beyond this are removed with the next groups.
const EXPIRED_PER_GROUP_MAX: usize = 1024;
