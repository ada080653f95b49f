//! What must be true in every state, and what must be possible.

use stateright::{Model, Property};

use super::state::{At, End, Query, Stage, State};
use super::{Step, TokenModel};

/// A promise of docs/token.md, or something that must not be impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Promise 1: at most one whole image per token, ever.
    OneImage,
    /// Promise 2: until the tail was released an attempt costs nothing. Before its deadline the
    /// token can be redeemed, and whoever does gets the whole image if nothing fails.
    AttemptsAreFree,
    /// Promise 3: the primary has no deadline later than one that a server was told.
    DeadlineStays,
    /// Whose claim the store granted is not told that it was somebody else's.
    NoIsTrue,
    /// Possible: a client gets the whole image.
    CanComplete,
    /// Possible: a client that lost its connection gets the rest on another one.
    CanResume,
    /// Possible, and the price of promise 1: a token is spent and nobody has the image.
    CanBeSpentInVain,
}

impl Promise {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::OneImage,
        Self::AttemptsAreFree,
        Self::DeadlineStays,
        Self::NoIsTrue,
        Self::CanComplete,
        Self::CanResume,
        Self::CanBeSpentInVain,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OneImage => "at most one whole image per token",
            Self::AttemptsAreFree => "an attempt that did not reach the tail costs nothing",
            Self::DeadlineStays => "the deadline never moves back",
            Self::NoIsTrue => "whose claim was granted is not told no",
            Self::CanComplete => "a client can complete",
            Self::CanResume => "a client can resume",
            Self::CanBeSpentInVain => "a token can be spent in vain",
        }
    }

    pub(super) fn property(self) -> Property<TokenModel> {
        let name = self.name();
        match self {
            Self::OneImage => Property::always(name, one_image),
            Self::AttemptsAreFree => Property::always(name, attempts_are_free),
            Self::DeadlineStays => Property::always(name, deadline_stays),
            Self::NoIsTrue => Property::always(name, no_is_true),
            Self::CanComplete => Property::sometimes(name, is_complete),
            Self::CanResume => Property::sometimes(name, is_resumed),
            Self::CanBeSpentInVain => Property::sometimes(name, is_spent_in_vain),
        }
    }
}

fn one_image(_: &TokenModel, state: &State) -> bool {
    state.past.iter().all(|past| past.wholes <= 1)
}

fn attempts_are_free(model: &TokenModel, state: &State) -> bool {
    (0..model.tokens).all(|token| {
        let past = state.past[usize::from(token)];
        let is_due = past.issued && !past.replaced && !past.released && state.hour < past.deadline;
        // A first attempt shortens the deadline even if its answer is lost.
        let record = state.record(state.primary, token);
        let is_over = record.is_some_and(|record| record.deadline <= state.hour);
        !is_due || is_over || completes(model, state, token)
    })
}

/// Everything that was under way is lost, and then nothing fails: does a client get the image?
fn completes(model: &TokenModel, state: &State, token: u8) -> bool {
    let mut calm = state.clone();
    calm.lines.clear();
    calm.prefixes.fill(false);
    let primary = calm.primary;
    calm.views.fill(primary);
    for (index, node) in calm.nodes.iter_mut().enumerate() {
        node.follows = (index != usize::from(primary)).then_some(primary);
        if let Some(record) = &mut node.records[usize::from(token)] {
            record.leased = false;
        }
    }
    let dial = Step::Dial { client: 0, server: 0, token, resumes: false };
    let Some(mut calm) = model.next_state(&calm, dial) else { return false };
    for _ in 0..CALM_STEPS_MAX {
        let Some(line) = calm.lines.first().copied() else { break };
        let step = match line.query.map(|flight| flight.stage) {
            Some(Stage::Sent) => Step::Do(line),
            Some(Stage::Unconfirmed) => {
                let copies = (0..calm.nodes.len() as u8).filter(|node| *node != primary);
                copies.for_each(|node| calm.take(model, Step::Copy(node)));
                Step::Confirm(line)
            }
            Some(Stage::Answered(_)) => Step::Hear(line),
            None if line.at == At::Gone || line.at == At::Watches => Step::Receive(line),
            None => Step::Write(line),
        };
        calm.take(model, step);
        calm.settle(model);
        if calm.past[usize::from(token)].wholes > 0 {
            return true;
        }
    }
    false
}

fn deadline_stays(model: &TokenModel, state: &State) -> bool {
    (0..model.tokens).all(|token| {
        let past = state.past[usize::from(token)];
        let record = state.record(state.primary, token);
        record.is_none_or(|record| past.released || record.deadline <= past.deadline)
    })
}

fn no_is_true(_: &TokenModel, state: &State) -> bool {
    state.lines.iter().all(|line| {
        let is_no = line.query.is_some_and(|flight| {
            flight.query == Query::Claim && flight.stage == Stage::Answered(false)
        });
        !(line.granted && is_no)
    })
}

fn is_complete(_: &TokenModel, state: &State) -> bool {
    state.past.iter().any(|past| past.wholes > 0)
}

fn is_resumed(_: &TokenModel, state: &State) -> bool {
    state.lines.iter().any(|line| line.resumes && line.tail_under_way && line.end == End::Open)
}

fn is_spent_in_vain(_: &TokenModel, state: &State) -> bool {
    state.lines.is_empty() && state.past.iter().any(|past| past.released && past.wholes == 0)
}

const CALM_STEPS_MAX: u8 = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token_model::{Rule, Waits};

    #[test]
    fn an_undisturbed_client_completes_whatever_is_waited_for() {
        for waits in [Waits::Never, Waits::Claims(2), Waits::ClaimsAndStarts(2)] {
            let model = TokenModel::new(Rule::HoldTheTail).with_failover(2, waits);
            let first = State::first(&model);
            assert!(completes(&model, &first, 0));
        }
    }
}
