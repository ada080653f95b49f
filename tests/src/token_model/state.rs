//! All there is at one moment, and all that can happen next.

use super::{LIFE_HOURS, Step, TokenModel};

/// One moment of the model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// Hours since the first token was issued.
    pub hour: u8,
    /// The stores; which of them is the primary changes.
    pub nodes: Vec<Node>,
    /// The primary, as those see it who know of the last failover.
    pub primary: u8,
    /// Failovers to come.
    pub failovers_left: u8,
    /// By server: the store that it talks to.
    pub views: Vec<u8>,
    /// All connections, in order of what they are: which was first does not matter.
    pub lines: Vec<Line>,
    /// By client: has it the prefix?
    pub prefixes: Vec<bool>,
    /// By token: what happened to it, which nobody in the model knows.
    pub past: Vec<Past>,
}

/// One store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// By token.
    pub records: Vec<Option<Record>>,
    /// Whose writes it copies; `None` takes writes itself.
    pub follows: Option<u8>,
}

/// What a store knows of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// The first hour in which it is not redeemable.
    pub deadline: u8,
    /// Has a first attempt been made?
    pub started: bool,
    /// A newer token took its place: it may be claimed, not redeemed.
    pub replaced: bool,
    /// A transfer has it ([`super::Rule::LeaseGivenBackOnReset`] only).
    pub leased: bool,
}

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// Who dialled.
    pub client: u8,
    /// Whom the load balancer chose.
    pub server: u8,
    /// What is redeemed.
    pub token: u8,
    /// Only the tail is asked for.
    pub resumes: bool,
    /// The client's end.
    pub end: End,
    /// The server's end.
    pub at: At,
    /// The query under way, perhaps of a server that does not wait for it any more.
    pub query: Option<Flight>,
    /// The socket took the prefix, and the client has not read it.
    pub prefix_under_way: bool,
    /// The same of the tail.
    pub tail_under_way: bool,
    /// The store granted this connection's claim, whether or not that was heard.
    pub granted: bool,
}

/// The client's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// It waits for bytes.
    Open,
    /// It has all it wants and closed.
    Closed,
    /// The connection broke.
    Broken,
}

/// The server's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// It waits for [`Line::query`].
    Asks,
    /// It may send what is not held back.
    Sends,
    /// It may send the tail.
    SendsTail,
    /// It has sent all, and looks how the peer ends ([`super::Rule::LeaseGivenBackOnReset`] only).
    Watches,
    /// It has closed, or its server stopped.
    Gone,
}

/// A query that was sent and not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flight {
    /// What is asked.
    pub query: Query,
    /// How far it is.
    pub stage: Stage,
    /// The store that it was sent to.
    pub node: u8,
    /// It was sent a second time.
    pub replayed: bool,
}

/// What a server asks the store for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Query {
    /// May a transfer begin? `Redeem` and `Start` in one.
    Begin,
    /// Remove it; was it there?
    Claim,
    /// Remove it.
    Delete,
    /// End the lease.
    GiveBack,
}

/// How far a query is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// On its way to the store.
    Sent,
    /// Done, and not confirmed by enough replicas.
    Unconfirmed,
    /// The answer is on its way back.
    Answered(bool),
}

/// What happened to a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Past {
    /// It exists.
    pub issued: bool,
    /// Another one was issued in its place.
    pub replaced: bool,
    /// The earliest deadline that anybody was promised.
    pub deadline: u8,
    /// The tail was allowed to leave: from here on an attempt may cost the token.
    pub released: bool,
    /// Whole images that clients have by it; counted to 2.
    pub wholes: u8,
}

impl State {
    /// One token is issued, and known to all stores.
    pub(super) fn first(model: &TokenModel) -> Self {
        let mut records = vec![None; usize::from(model.tokens)];
        records[0] = Some(Record::fresh(0));
        let mut past = vec![Past::default(); usize::from(model.tokens)];
        past[0] = Past { issued: true, deadline: LIFE_HOURS, ..Past::default() };
        let node = |follows| Node { records: records.clone(), follows };
        let mut nodes = vec![node(None)];
        nodes.resize(1 + usize::from(model.replicas), node(Some(0)));
        Self {
            hour: 0,
            nodes,
            primary: 0,
            failovers_left: model.failovers,
            views: vec![0; usize::from(model.servers)],
            lines: Vec::new(),
            prefixes: vec![false; usize::from(model.clients)],
            past,
        }
    }

    /// Everything that can happen next.
    pub(super) fn steps(&self, model: &TokenModel, steps: &mut Vec<Step>) {
        for client in 0..model.clients {
            let has_line = self.lines.iter().any(|l| l.client == client && l.end == End::Open);
            if !has_line && self.lines.len() < model.lines {
                self.dials(model, client, steps);
            }
        }
        for line in &self.lines {
            self.line_steps(model, *line, steps);
        }
        for server in 0..model.servers {
            if self.lines.iter().any(|l| l.server == server && l.at != At::Gone) {
                steps.push(Step::Restart(server));
            }
            if self.views[usize::from(server)] != self.primary {
                steps.push(Step::Switch(server));
            }
        }
        if self.hour < model.hours {
            steps.push(Step::Hour);
        }
        if model.tokens > 1 && !self.past[1].issued {
            steps.push(Step::Replace);
        }
        self.store_steps(steps);
    }

    /// Clients know the tokens that were issued, and resume when they have the prefix.
    fn dials(&self, model: &TokenModel, client: u8, steps: &mut Vec<Step>) {
        let resumes = self.prefixes[usize::from(client)];
        for server in 0..model.servers {
            for token in 0..model.tokens {
                if self.past[usize::from(token)].issued {
                    steps.push(Step::Dial { client, server, token, resumes });
                }
            }
        }
    }

    fn line_steps(&self, model: &TokenModel, line: Line, steps: &mut Vec<Step>) {
        if let Some(flight) = line.query {
            match flight.stage {
                Stage::Sent if self.nodes[usize::from(flight.node)].follows.is_none() => {
                    steps.push(Step::Do(line));
                }
                Stage::Unconfirmed if self.is_confirmed(model, line, flight) => {
                    steps.push(Step::Confirm(line));
                }
                Stage::Answered(_) => steps.push(Step::Hear(line)),
                Stage::Sent | Stage::Unconfirmed => {}
            }
            if line.at == At::Asks {
                steps.push(Step::GiveUp(line));
            }
            let again = model.rule.replays() && flight.query == Query::Claim && !flight.replayed;
            if again && line.at == At::Asks {
                steps.push(Step::Replay(line));
            }
        }
        if matches!(line.at, At::Sends | At::SendsTail) {
            steps.push(Step::Write(line));
        }
        if line.end == End::Open {
            if line.prefix_under_way || line.tail_under_way {
                steps.push(Step::Receive(line));
            }
            steps.push(Step::Break(line));
        }
        if line.end == End::Closed {
            steps.push(Step::Break(line));
            if line.at == At::Watches {
                steps.push(Step::Finish(line));
            }
        }
        if line.end == End::Broken && line.at != At::Gone {
            steps.push(Step::Notice(line));
        }
    }

    /// The record of `token` at a store.
    #[must_use]
    pub fn record(&self, node: u8, token: u8) -> Option<Record> {
        self.nodes[usize::from(node)].records[usize::from(token)]
    }

    /// The same, to change.
    pub(super) fn record_mut(&mut self, node: u8, token: u8) -> &mut Option<Record> {
        &mut self.nodes[usize::from(node)].records[usize::from(token)]
    }

    /// What happened to `token`.
    pub(super) fn past_mut(&mut self, token: u8) -> &mut Past {
        &mut self.past[usize::from(token)]
    }
}

impl Record {
    /// A token that is issued in this hour.
    #[must_use]
    pub fn fresh(hour: u8) -> Self {
        let deadline = hour + LIFE_HOURS;
        Self { deadline, started: false, replaced: false, leased: false }
    }
}
