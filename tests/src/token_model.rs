//! The rule of docs/token.md as a model that is small enough to be searched to its end, and the
//! rules that were rejected, each with what is wrong with it.
//!
//! Clients dial servers, servers ask a store, and anything may fail between any two steps:
//! connections break, servers stop and come back empty, queries and answers are lost or come too
//! late, hours pass, tokens are replaced, and a replica that lacks the last writes becomes the
//! primary while some servers still talk to the old one. [`State`] is all there is at one moment,
//! [`Step`] all that can happen next, [`Promise`] what must be true. stateright tries all orders of
//! all steps, and finds the shortest way to a broken promise; `tests/tests/token_model.rs` has each
//! of those ways as a story to read.
//!
//! What was made simpler than it is, and why that hides nothing:
//!
//! - An image is two pieces, *prefix* and *tail*. Whatever is asked for is one of all, or the tail
//!   by somebody who has the prefix.
//! - `Redeem` and `Start` are one query: the core decides anew on the answer to `Start`, so what
//!   `Redeem` said before is without effect.
//! - A server that stops is back at once with nothing in memory. While it is down nothing happens
//!   on it, and nothing has to happen in this model at any time.
//! - Bytes that the socket took are on their way even if their server stops then; they arrive, or
//!   are lost with the connection.
//! - One hour is the life of a token from its first attempt, and as well the time for which a
//!   transfer may be late; [`LIFE_HOURS`] stand for the 24.

mod promise;
mod rule;
mod state;
mod step;
mod store;
mod story;

use stateright::{Model, Property};

pub use self::promise::Promise;
pub use self::rule::Rule;
pub use self::state::{At, End, Flight, Line, Node, Past, Query, Record, Stage, State};
pub use self::step::Step;
pub use self::story::story;

/// How long a token lives that nobody tried.
pub const LIFE_HOURS: u8 = 2;
/// How long it lives from the first attempt.
pub const USED_HOURS: u8 = 1;
/// How much later than that a transfer under way may claim.
pub const LATE_HOURS: u8 = 1;

/// One world to search: its rule, its sizes, its faults, and what is asked of it.
#[derive(Clone, Debug)]
pub struct TokenModel {
    /// When a token ends.
    pub rule: Rule,
    /// Who would like to have the image; each holds one connection at a time.
    pub clients: u8,
    /// Servers over one store.
    pub servers: u8,
    /// Connections at once, with those that one end has left and the other has not noticed.
    pub lines: usize,
    /// 1; or 2: a check-in may replace the first by a second.
    pub tokens: u8,
    /// Hours that may pass; 0 leaves deadlines out.
    pub hours: u8,
    /// Stores that follow the primary. One that is never promoted by itself is a disk: what a
    /// store's restart brings back is a replica that lacks the last writes.
    pub replicas: u8,
    /// How often a replica may become the primary.
    pub failovers: u8,
    /// What is answered only when replicas have it.
    pub waits: Waits,
    /// Count states once that differ only in the names of two clients and two servers. Paths are
    /// hard to read then, because names change on the way.
    pub nameless: bool,
    /// What must be true, and what must be possible.
    pub promises: Vec<Promise>,
}

/// Which writes are answered only when so many replicas have confirmed them (`WAIT` of Redis).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// None.
    Never,
    /// Claims.
    Claims(u8),
    /// Claims and first attempts.
    ClaimsAndStarts(u8),
}

impl TokenModel {
    /// Two clients, two servers, one store that never fails over, one token, no clock.
    #[must_use]
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            clients: 2,
            servers: 2,
            lines: 2,
            tokens: 1,
            hours: 0,
            replicas: 0,
            failovers: 0,
            waits: Waits::Never,
            nameless: false,
            promises: Promise::ALL.to_vec(),
        }
    }

    /// The same, with one failover among so many replicas.
    #[must_use]
    pub fn with_failover(self, replicas: u8, waits: Waits) -> Self {
        Self { replicas, failovers: 1, waits, ..self }
    }

    /// The same, asked for one thing only. A counterexample is the shortest only then: stateright
    /// goes on, and keeps the last one that it finds, as long as another property is open.
    #[must_use]
    pub fn asked(self, promise: Promise) -> Self {
        Self { promises: vec![promise], ..self }
    }
}

impl Model for TokenModel {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        state.steps(self, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        next.take(self, step);
        next.settle(self);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.promises.iter().map(|promise| promise.property()).collect()
    }
}
