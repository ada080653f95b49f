//! The stores: what they do with a query, how writes are copied, and who is the primary.

use super::state::{Flight, Line, Node, Query, Record, Stage, State};
use super::{LATE_HOURS, Rule, Step, TokenModel, USED_HOURS, Waits};

impl State {
    /// What can happen to stores.
    pub(super) fn store_steps(&self, steps: &mut Vec<Step>) {
        for node in 0..self.nodes.len() as u8 {
            let Some(followed) = self.nodes[usize::from(node)].follows else {
                if node != self.primary {
                    steps.push(Step::Follow(node));
                }
                continue;
            };
            let records = |node: u8| &self.nodes[usize::from(node)].records;
            if records(node) != records(followed) {
                steps.push(Step::Copy(node));
            }
            if followed != self.primary {
                steps.push(Step::Follow(node));
            } else if self.failovers_left > 0 {
                steps.push(Step::Promote(node));
            }
        }
    }

    /// Lets one of those happen.
    pub(super) fn take_store(&mut self, step: Step) {
        match step {
            Step::Copy(node) => {
                let followed = self.nodes[usize::from(node)].follows.unwrap_or(node);
                let records = self.nodes[usize::from(followed)].records.clone();
                self.nodes[usize::from(node)].records = records;
            }
            Step::Promote(node) => {
                self.nodes[usize::from(node)].follows = None;
                self.primary = node;
                self.failovers_left -= 1;
            }
            Step::Follow(node) => {
                let records = self.nodes[usize::from(self.primary)].records.clone();
                self.nodes[usize::from(node)] = Node { records, follows: Some(self.primary) };
            }
            Step::Dial { .. }
            | Step::Do(_)
            | Step::Confirm(_)
            | Step::Hear(_)
            | Step::GiveUp(_)
            | Step::Replay(_)
            | Step::Write(_)
            | Step::Receive(_)
            | Step::Break(_)
            | Step::Notice(_)
            | Step::Finish(_)
            | Step::Restart(_)
            | Step::Switch(_)
            | Step::Hour
            | Step::Replace => {}
        }
    }

    /// The store carries out the query of a line: one atomic step.
    pub(super) fn carry_out(&mut self, model: &TokenModel, line: Line) -> Line {
        let Some(flight) = line.query else { return line };
        let (node, token) = (flight.node, line.token);
        let yes = match flight.query {
            Query::Begin => self.begin(model, node, token),
            Query::Claim => self.claim(node, token),
            Query::Delete => self.record_mut(node, token).take().is_some(),
            Query::GiveBack => {
                self.record_mut(node, token).as_mut().map(|record| record.leased = false).is_some()
            }
        };
        let waits = yes && waits_for(model, flight.query) > 0;
        let stage = if waits { Stage::Unconfirmed } else { Stage::Answered(yes) };
        let granted = line.granted || (yes && flight.query == Query::Claim);
        let line = Line { query: Some(Flight { stage, ..flight }), granted, ..line };
        if flight.query == Query::Begin && yes && !waits {
            self.promise_deadline(node, token);
        }
        line
    }

    /// The answer goes out now that enough replicas have the write.
    pub(super) fn confirm(&mut self, line: Line) -> Line {
        let Some(flight) = line.query else { return line };
        if flight.query == Query::Begin {
            self.promise_deadline(flight.node, line.token);
        }
        Line { query: Some(Flight { stage: Stage::Answered(true), ..flight }), ..line }
    }

    /// Have enough of those that follow this store the write?
    pub(super) fn is_confirmed(&self, model: &TokenModel, line: Line, flight: Flight) -> bool {
        let has_it = |node: u8| {
            let follows = self.nodes[usize::from(node)].follows == Some(flight.node);
            let record = self.record(node, line.token);
            let has = match flight.query {
                Query::Begin => record.is_none_or(|record| record.started),
                Query::Claim | Query::Delete | Query::GiveBack => record.is_none(),
            };
            follows && has
        };
        let confirmed = (0..self.nodes.len() as u8).filter(|node| has_it(*node)).count();
        confirmed >= usize::from(waits_for(model, flight.query))
    }

    /// The first attempt shortens the deadline; later ones change nothing.
    fn begin(&mut self, model: &TokenModel, node: u8, token: u8) -> bool {
        let hour = self.hour;
        let kept = self.record_mut(node, token);
        let lives = kept.filter(|r| hour < r.deadline && !r.replaced && !r.leased);
        let Some(mut record) = lives else { return false };
        if !record.started {
            record.started = true;
            record.deadline = record.deadline.min(hour + USED_HOURS);
        }
        record.leased = model.rule == Rule::LeaseGivenBackOnReset;
        *kept = Some(record).filter(|_| model.rule != Rule::DeleteAtStart);
        true
    }

    /// A transfer under way may claim after the deadline; without a first attempt there is none.
    fn claim(&mut self, node: u8, token: u8) -> bool {
        let hour = self.hour;
        let removed = self.record_mut(node, token).take();
        let late = |record: Record| if record.started { LATE_HOURS } else { 0 };
        let yes = removed.is_some_and(|record| hour < record.deadline + late(record));
        self.past_mut(token).released |= yes;
        yes
    }

    /// From now on somebody knows that a first attempt was made.
    fn promise_deadline(&mut self, node: u8, token: u8) {
        if let Some(record) = self.record(node, token) {
            let past = self.past_mut(token);
            past.deadline = past.deadline.min(record.deadline);
        }
    }
}

fn waits_for(model: &TokenModel, query: Query) -> u8 {
    match (model.waits, query) {
        (Waits::Claims(replicas) | Waits::ClaimsAndStarts(replicas), Query::Claim) => replicas,
        (Waits::ClaimsAndStarts(replicas), Query::Begin) => replicas,
        (Waits::Never | Waits::Claims(_) | Waits::ClaimsAndStarts(_), _) => 0,
    }
}
