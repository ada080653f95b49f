//! The desk before the model store: queries wait, overtake each other and get lost.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use otter_protocol::{Answer, Query};

use super::ModelStore;
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
}

#[derive(Debug)]
enum Waiting {
    Query { ticket: u64, query: Query },
    Answer { ticket: u64, answer: Answer<Bytes> },
}

impl Desk {
    /// A desk that behaves until [`Desk::faults`] say otherwise.
    #[must_use]
    pub fn new(store: ModelStore, random: Random) -> Self {
        Self { store, faults: Faults::default(), random, count: 0, waiting: BTreeMap::new() }
    }

    /// Hands in a query at the time `at`; `ticket` comes back with the answer.
    pub fn submit(&mut self, at: Duration, ticket: u64, query: Query) {
        let due = at + self.way();
        self.wait(due, Waiting::Query { ticket, query });
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
                Waiting::Query { ticket, query } => {
                    let answer = self.answer(&query);
                    let back = due + self.way();
                    self.wait(back, Waiting::Answer { ticket, answer });
                }
                Waiting::Answer { ticket, answer } => answers.push((ticket, answer)),
            }
        }
        answers
    }

    fn answer(&mut self, query: &Query) -> Answer<Bytes> {
        if self.random.chance(self.faults.refused_percent) {
            return Answer::Unavailable;
        }
        let answer = self.store.answer(query);
        if self.random.chance(self.faults.unacknowledged_percent) {
            return Answer::Unavailable;
        }
        answer
    }

    fn way(&mut self) -> Duration {
        let stalled = self.random.chance(self.faults.stalled_percent);
        let way = Duration::from_millis(self.random.between(0, self.faults.delay_ms_max));
        if stalled { way + STALL } else { way }
    }

    fn wait(&mut self, due: Duration, waiting: Waiting) {
        self.count += 1;
        self.waiting.insert((due, self.count), waiting);
    }
}

const STALL: Duration = Duration::from_secs(3);
