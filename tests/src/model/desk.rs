//! The desk before the model store: queries wait, overtake each other and get lost; servers are cut
//! off from it; and a replica takes the store's place.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use otter_protocol::{Answer, Query};

use super::ModelStore;
use super::replica::{Replica, Replication};
use crate::Random;

/// How unruly the store behaves. Percentages are per query.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Longest way to the store and longest way back, in milliseconds. Ways of different length
    /// reorder queries and answers.
    pub delay_ms_max: u64,
    /// Answered `Unavailable`, and nothing was done.
    pub refused_percent: u64,
    /// Done, and answered `Unavailable`: the acknowledgement was lost.
    pub unacknowledged_percent: u64,
    /// The way to the store or back takes 3 s more, which is longer than a connection waits.
    pub stalled_percent: u64,
}

/// A model store with a queue in front, in the shape of a real one: `submit`, then `collect`.
#[derive(Debug)]
pub struct Desk {
    /// The store behind it, for the operator.
    pub store: ModelStore,
    /// May be changed at any time.
    pub faults: Faults,
    random: Random,
    count: u64,
    /// By the time at which it moves on, then by order of arrival.
    waiting: BTreeMap<(Duration, u64), Waiting>,
    /// Servers without a way to the store, and what waits for that way.
    cut_off: BTreeSet<usize>,
    stuck: Vec<Waiting>,
    replica: Option<Replica>,
    failovers: u32,
    refused: u64,
    unacknowledged: u64,
    stalled: u64,
}

#[derive(Debug)]
enum Waiting {
    Query {
        from: usize,
        ticket: u64,
        query: Query,
        dice: Random,
    },
    Answer {
        from: usize,
        ticket: u64,
        answer: Answer<Bytes>,
        /// The write that the replica must have before this is true.
        stands_on: Option<u64>,
    },
    /// The replica gets the store as it was after a write.
    Copy {
        number: u64,
        state: Box<ModelStore>,
    },
}

impl Desk {
    /// A desk that behaves until [`Desk::faults`] say otherwise.
    #[must_use]
    pub fn new(store: ModelStore, random: Random) -> Self {
        Self {
            store,
            faults: Faults::default(),
            random,
            count: 0,
            waiting: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            stuck: Vec::new(),
            replica: None,
            failovers: 0,
            refused: 0,
            unacknowledged: 0,
            stalled: 0,
        }
    }

    /// Hands in a query of the server `from` at the time `at`; `ticket` comes back with the answer.
    pub fn submit(&mut self, at: Duration, from: usize, ticket: u64, query: Query) {
        let dice = self.random.fork();
        self.submit_by(dice, at, from, ticket, query);
    }

    /// The same with chance of its own, so that what befalls this query does not depend on others.
    pub fn submit_by(
        &mut self,
        mut dice: Random,
        at: Duration,
        from: usize,
        ticket: u64,
        query: Query,
    ) {
        let due = at + self.way(&mut dice);
        self.wait(due, Waiting::Query { from, ticket, query, dice });
    }

    /// When the next query or answer moves on.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// Lets everything happen that is due at the time `at`, and brings the answers.
    pub fn collect(&mut self, at: Duration) -> Vec<(u64, Answer<Bytes>)> {
        let mut answers = Vec::new();
        while let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= at) {
            let due = entry.key().0;
            match entry.remove() {
                Waiting::Copy { number, state } => {
                    if let Some(replica) = &mut self.replica {
                        replica.copy(number, *state);
                    }
                }
                Waiting::Query { from, .. } | Waiting::Answer { from, .. }
                    if self.cut_off.contains(&from) && self.random.chance(50) => {}
                stuck @ (Waiting::Query { from, .. } | Waiting::Answer { from, .. })
                    if self.cut_off.contains(&from) =>
                {
                    self.stuck.push(stuck);
                }
                Waiting::Query { from, ticket, query, dice } => {
                    self.serve(due, from, ticket, &query, dice);
                }
                Waiting::Answer { ticket, answer, .. } => answers.push((ticket, answer)),
            }
        }
        answers
    }

    /// Cuts a server off from the store: half of what is under way is lost, the other half comes
    /// when the way is open again, which is mostly too late.
    pub fn cut_off(&mut self, server: usize) {
        self.cut_off.insert(server);
    }

    /// Opens the way again.
    pub fn reconnect(&mut self, at: Duration, server: usize) {
        self.cut_off.remove(&server);
        for waiting in std::mem::take(&mut self.stuck) {
            let from = match waiting {
                Waiting::Query { from, .. } | Waiting::Answer { from, .. } => from,
                Waiting::Copy { .. } => continue,
            };
            if from == server {
                let mut dice = self.random.fork();
                let due = at + self.way(&mut dice);
                self.wait(due, waiting);
            } else {
                self.stuck.push(waiting);
            }
        }
    }

    /// From now on a replica follows the store.
    pub fn follow(&mut self, replication: Replication) {
        self.replica = Some(Replica::of(&self.store, replication));
    }

    /// Lets the replica copy everything at once, as after a command of the operator's.
    pub fn copy_all(&mut self) {
        if let Some(replica) = &mut self.replica {
            replica.copy_all(&self.store);
        }
    }

    /// The replica takes the store's place with what it has. Writes that it lacks are gone, and
    /// whose claim was one of them is not told yes. Queries under way may be lost as well.
    pub fn fail_over(&mut self) {
        let Some(replica) = &mut self.replica else { return };
        self.store = replica.promoted(self.random.draw());
        self.failovers += 1;
        for waiting in std::mem::take(&mut self.waiting) {
            let kept = match waiting.1 {
                Waiting::Copy { .. } => continue,
                Waiting::Query { .. } if self.random.chance(50) => continue,
                Waiting::Answer { from, ticket, stands_on: Some(number), .. }
                    if !replica.has(number) =>
                {
                    let answer = Answer::Unavailable;
                    Waiting::Answer { from, ticket, answer, stands_on: None }
                }
                kept @ (Waiting::Query { .. } | Waiting::Answer { .. }) => kept,
            };
            self.waiting.insert(waiting.0, kept);
        }
        replica.copy_all(&self.store);
    }

    /// How often that happened.
    #[must_use]
    pub fn failovers(&self) -> u32 {
        self.failovers
    }

    /// How many queries were refused, lost on the way back, and stalled.
    #[must_use]
    pub fn befallen(&self) -> [(&'static str, u64); 3] {
        [
            ("refused query", self.refused),
            ("lost answer", self.unacknowledged),
            ("stalled query", self.stalled),
        ]
    }

    /// The store carries out a query; its answer goes out when it may.
    fn serve(&mut self, due: Duration, from: usize, ticket: u64, query: &Query, mut dice: Random) {
        let (answer, stands_on, ready) = self.answer(due, query, &mut dice);
        let back = ready + self.way(&mut dice);
        self.wait(back, Waiting::Answer { from, ticket, answer, stands_on });
    }

    fn answer(
        &mut self,
        due: Duration,
        query: &Query,
        dice: &mut Random,
    ) -> (Answer<Bytes>, Option<u64>, Duration) {
        if dice.chance(self.faults.refused_percent) {
            self.refused += 1;
            return (Answer::Unavailable, None, due);
        }
        let answer = self.store.answer(query);
        let (stands_on, ready) = self.copied_by(due, query, &answer, dice);
        if dice.chance(self.faults.unacknowledged_percent) {
            self.unacknowledged += 1;
            return (Answer::Unavailable, None, due);
        }
        (answer, stands_on, ready)
    }

    /// Lets the replica follow a write; what its answer must wait for, and until when.
    fn copied_by(
        &mut self,
        due: Duration,
        query: &Query,
        answer: &Answer<Bytes>,
        dice: &mut Random,
    ) -> (Option<u64>, Duration) {
        let is_write = match query {
            Query::Start { .. } | Query::Record(_) | Query::Push { .. } | Query::Claim { .. } => {
                true
            }
            Query::Identify(_) | Query::Fetch { .. } | Query::Redeem { .. } => false,
        };
        let Some(replica) = self.replica.as_mut().filter(|_| is_write) else { return (None, due) };
        let (number, copied_at) = replica.write(due, dice);
        let waits = replica.replication.claims_wait && matches!(answer, Answer::Claimed(true));
        let state = Box::new(self.store.clone());
        self.wait(copied_at, Waiting::Copy { number, state });
        if waits { (Some(number), copied_at) } else { (None, due) }
    }

    fn way(&mut self, dice: &mut Random) -> Duration {
        let stalled = dice.chance(self.faults.stalled_percent);
        self.stalled += u64::from(stalled);
        let way = Duration::from_millis(dice.between(0, self.faults.delay_ms_max));
        if stalled { way + STALL } else { way }
    }

    fn wait(&mut self, due: Duration, waiting: Waiting) {
        self.count += 1;
        self.waiting.insert((due, self.count), waiting);
    }
}

const STALL: Duration = Duration::from_secs(3);
