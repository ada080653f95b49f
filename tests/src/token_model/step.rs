//! What happens in each step.

use super::state::{At, End, Flight, Line, Query, Record, Stage, State};
use super::{LIFE_HOURS, Rule, TokenModel};

/// One thing that happens. Steps of one connection name it by what it is at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A client connects and asks.
    Dial {
        /// Who.
        client: u8,
        /// Whom the load balancer chose.
        server: u8,
        /// The token that is presented.
        token: u8,
        /// It has the prefix and asks for the rest.
        resumes: bool,
    },
    /// The store carries out a query.
    Do(Line),
    /// Enough replicas have the write.
    Confirm(Line),
    /// The server hears the answer.
    Hear(Line),
    /// The server hears nothing in time. The query may still be carried out later.
    GiveUp(Line),
    /// The server's connection to the store broke, and its client of the store sends the claim
    /// again.
    Replay(Line),
    /// The socket takes all that may leave.
    Write(Line),
    /// The client reads all that is under way.
    Receive(Line),
    /// The connection breaks; what is under way is lost. The server does not know yet.
    Break(Line),
    /// The server notices that.
    Notice(Line),
    /// The server notices that the client closed cleanly.
    Finish(Line),
    /// A server stops, and is back with nothing in memory.
    Restart(u8),
    /// A server learns which store is the primary.
    Switch(u8),
    /// An hour passes.
    Hour,
    /// The device checks in: a second token replaces the first.
    Replace,
    /// A replica copies all that the store has which it follows.
    Copy(u8),
    /// A replica becomes the primary with what it has.
    Promote(u8),
    /// A store becomes a replica of the primary, and has what that has.
    Follow(u8),
}

impl State {
    /// Lets `step` happen.
    pub(super) fn take(&mut self, model: &TokenModel, step: Step) {
        match step {
            Step::Dial { client, server, token, resumes } => {
                let line = Line {
                    client,
                    server,
                    token,
                    resumes,
                    end: End::Open,
                    at: At::Gone,
                    query: None,
                    prefix_under_way: false,
                    tail_under_way: false,
                    granted: false,
                };
                self.lines.push(self.asking(line, Query::Begin));
            }
            Step::Do(line) => self.on(line, |state, line| state.carry_out(model, line)),
            Step::Confirm(line) => self.on(line, Self::confirm),
            Step::Hear(line) => self.on(line, |state, line| state.hear(model, line)),
            Step::GiveUp(line) => self.on(line, |_, line| give_up(model, line)),
            Step::Replay(line) => self.on(line, |state, line| {
                let flight = state.asking(line, Query::Claim).query;
                Line { query: flight.map(|flight| Flight { replayed: true, ..flight }), ..line }
            }),
            Step::Write(line) => self.on(line, |state, line| state.write(model, line)),
            Step::Receive(line) => self.on(line, Self::receive),
            Step::Break(line) => self.on(line, |_, line| broken(line)),
            Step::Notice(line) => self.on(line, |state, line| state.notice(model, line)),
            Step::Finish(line) => self.on(line, |state, line| state.asking(line, Query::Delete)),
            Step::Restart(server) => self.restart(model, server),
            Step::Switch(server) => self.views[usize::from(server)] = self.primary,
            Step::Hour => self.hour += 1,
            Step::Replace => self.replace(),
            Step::Copy(_) | Step::Promote(_) | Step::Follow(_) => self.take_store(step),
        }
    }

    /// Takes away what has no consequences any more, and brings the lines in order.
    pub(super) fn settle(&mut self, model: &TokenModel) {
        for line in &mut self.lines {
            let is_over = line.at == At::Gone && !line.prefix_under_way && !line.tail_under_way;
            if line.end == End::Open && is_over {
                line.end = End::Closed;
            }
            // Only one rule looks how the client ended.
            if line.end == End::Closed && model.rule != Rule::LeaseGivenBackOnReset {
                line.end = End::Broken;
            }
            if line.at == At::Gone {
                line.query = line.query.filter(|flight| flight.stage == Stage::Sent);
            }
        }
        let lives = |l: &Line| l.at != At::Gone || l.query.is_some() || l.end == End::Open;
        self.lines.retain(lives);
        self.lines.sort_unstable();
        if model.nameless {
            self.forget_names();
        }
    }

    /// Which of two clients is called 0 and which 1 does not matter, and the same with servers: of
    /// all states that differ in nothing else, the least stands for all.
    fn forget_names(&mut self) {
        let mut others = [self.clone(), self.clone(), self.clone()];
        others[0].swap_clients();
        others[1].swap_servers();
        others[2].swap_clients();
        others[2].swap_servers();
        for other in others {
            if other < *self {
                *self = other;
            }
        }
    }

    fn swap_clients(&mut self) {
        if self.prefixes.len() < 2 {
            return;
        }
        self.prefixes.swap(0, 1);
        self.lines.iter_mut().for_each(|line| line.client = swapped(line.client));
        self.lines.sort_unstable();
    }

    fn swap_servers(&mut self) {
        if self.views.len() < 2 {
            return;
        }
        self.views.swap(0, 1);
        self.lines.iter_mut().for_each(|line| line.server = swapped(line.server));
        self.lines.sort_unstable();
    }

    fn on(&mut self, line: Line, change: impl FnOnce(&mut Self, Line) -> Line) {
        if let Some(index) = self.lines.iter().position(|candidate| *candidate == line) {
            self.lines[index] = change(self, line);
        }
    }

    fn asking(&self, line: Line, query: Query) -> Line {
        let node = self.views[usize::from(line.server)];
        let flight = Flight { query, stage: Stage::Sent, node, replayed: false };
        Line { at: At::Asks, query: Some(flight), ..line }
    }

    /// The server hears the answer, and does what follows at once.
    fn hear(&mut self, model: &TokenModel, line: Line) -> Line {
        let Some(Flight { query, stage: Stage::Answered(yes), replayed, .. }) = line.query else {
            return line;
        };
        let line = Line { query: None, ..line };
        let gone = Line { at: At::Gone, ..line };
        match query {
            Query::Begin if !yes => gone,
            // There is nothing to send before the tail.
            Query::Begin if line.resumes && model.rule.claims() => self.asking(line, Query::Claim),
            Query::Begin => Line { at: At::Sends, ..line },
            Query::Claim if yes => Line { at: At::SendsTail, ..line },
            Query::Claim if replayed && model.rule == Rule::TrustedReplay => {
                Line { at: At::SendsTail, ..line }
            }
            Query::Claim | Query::Delete | Query::GiveBack => gone,
        }
    }

    /// The socket takes what may leave. After the connection broke it takes bytes all the same.
    fn write(&mut self, model: &TokenModel, line: Line) -> Line {
        let is_open = line.end == End::Open;
        let mut next = line;
        if line.at == At::Sends {
            next.prefix_under_way |= is_open && !line.resumes;
            if model.rule.claims() {
                return self.asking(next, Query::Claim);
            }
        }
        next.tail_under_way |= is_open;
        self.past_mut(line.token).released = true;
        match model.rule {
            Rule::DeleteAfterLastWrite => self.asking(next, Query::Delete),
            Rule::LeaseGivenBackOnReset => Line { at: At::Watches, ..next },
            Rule::HoldTheTail
            | Rule::NeverDelete
            | Rule::DeleteAtStart
            | Rule::ReplayedClaim
            | Rule::TrustedReplay
            | Rule::UnknownIsSuccess => Line { at: At::Gone, ..next },
        }
    }

    /// A client that has both pieces has an image; it closes, and may begin anew.
    fn receive(&mut self, line: Line) -> Line {
        let has_prefix = &mut self.prefixes[usize::from(line.client)];
        *has_prefix |= line.prefix_under_way;
        let is_whole = line.tail_under_way && *has_prefix;
        if is_whole {
            *has_prefix = false;
            let past = self.past_mut(line.token);
            past.wholes = 2.min(past.wholes + 1);
        }
        let end = if is_whole { End::Closed } else { line.end };
        Line { end, prefix_under_way: false, tail_under_way: false, ..line }
    }

    fn notice(&mut self, model: &TokenModel, line: Line) -> Line {
        let leases = matches!(line.at, At::Sends | At::Watches);
        if leases && model.rule == Rule::LeaseGivenBackOnReset {
            return self.asking(line, Query::GiveBack);
        }
        Line { at: At::Gone, ..line }
    }

    /// Queries that were sent may still be carried out, and bytes that the socket took arrive.
    fn restart(&mut self, model: &TokenModel, server: u8) {
        for index in 0..self.lines.len() {
            let line = self.lines[index];
            if line.server != server || line.at == At::Gone {
                continue;
            }
            if model.rule == Rule::LeaseGivenBackOnReset
                && let Some(record) = self.record_mut(self.primary, line.token)
            {
                record.leased = false;
            }
            self.lines[index].at = At::Gone;
        }
    }

    /// One that is under way can still be claimed, one that nobody tried is removed.
    fn replace(&mut self) {
        let fresh = Record::fresh(self.hour);
        let (primary, hour) = (self.primary, self.hour);
        let first = self.record_mut(primary, 0);
        *first = first.filter(|record| record.started);
        if let Some(record) = first {
            record.replaced = true;
        }
        *self.record_mut(primary, 1) = Some(fresh);
        self.past_mut(0).replaced = true;
        let past = self.past_mut(1);
        (past.issued, past.deadline) = (true, hour + LIFE_HOURS);
    }
}

/// Without an answer nobody knows whether the query was carried out, or will be.
fn give_up(model: &TokenModel, line: Line) -> Line {
    let is_claim = line.query.is_some_and(|flight| flight.query == Query::Claim);
    if is_claim && model.rule == Rule::UnknownIsSuccess {
        return Line { at: At::SendsTail, query: None, ..line };
    }
    Line { at: At::Gone, ..line }
}

fn swapped(name: u8) -> u8 {
    if name < 2 { name ^ 1 } else { name }
}

fn broken(line: Line) -> Line {
    Line { end: End::Broken, prefix_under_way: false, tail_under_way: false, ..line }
}
