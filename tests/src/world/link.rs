//! One connection of the world: a wire each way, the core at one end, an actor at the other, and
//! between them what a driver does.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use otter_protocol::{Answer, Handshake, Now, Outcome, Query, QueryId, Report, Token, Transmit};

use super::Moment;
use super::budget::Cost;
use crate::tls::{Client, End};
use crate::{Clock, Desk, Line, Pipe, Random, Read, SharedLine, Watched};

#[derive(Debug)]
pub(super) struct Link {
    pub(super) actor: usize,
    pub(super) server: usize,
    /// Has the actor not closed it yet?
    pub(super) is_held: bool,
    /// The actor is gone without a word: nobody says that it ended, and nobody reads.
    is_left: bool,
    /// The actor says nothing more, once all that it said is on its way.
    is_said: bool,
    watched: Watched,
    /// Has the driver not dropped it yet?
    is_served: bool,
    up: Pipe,
    down: Pipe,
    /// What the actor said and its window has no room for yet.
    unsaid: VecDeque<Vec<u8>>,
    /// The actor's end of TLS, if it speaks that: the pipes then carry ciphertext.
    client: Option<Box<Client>>,
    breaks_at: Option<Duration>,
    /// The core was told that the actor sends nothing more.
    is_up_over: bool,
    sent: Vec<u8>,
    /// Tokens that were presented on it.
    presented: Vec<Token>,
    /// What just happened on it.
    moments: Vec<Moment>,
    /// Of the request under way.
    cost: Cost,
    reports_seen: usize,
}

/// The ticket of a query: whose it is, and which.
pub(super) fn ticket(link: u64, query: QueryId) -> u64 {
    link << 32 | u64::from(query.0)
}

/// The inverse of [`ticket`].
pub(super) fn from_ticket(ticket: u64) -> (u64, QueryId) {
    (ticket >> 32, QueryId(ticket as u32))
}

impl Link {
    pub(super) fn new(
        actor: usize,
        server: usize,
        watched: Watched,
        line: Line,
        random: &mut Random,
    ) -> Self {
        let (up, down) = (Pipe::new(line, random.fork()), Pipe::new(line, random.fork()));
        Self {
            actor,
            server,
            is_held: true,
            is_left: false,
            is_said: false,
            watched,
            is_served: true,
            up,
            down,
            unsaid: VecDeque::new(),
            client: None,
            breaks_at: None,
            is_up_over: false,
            sent: Vec::new(),
            presented: Vec::new(),
            moments: Vec::new(),
            cost: Cost::default(),
            reports_seen: 0,
        }
    }

    /// The actor speaks TLS, and begins with it.
    pub(super) fn veil(&mut self, at: Duration, client: Client) {
        self.client = Some(Box::new(client));
        self.say(at, &[]);
    }

    /// Do the pipes carry ciphertext?
    pub(super) fn is_veiled(&self) -> bool {
        self.client.is_some()
    }

    /// What became of its handshake.
    pub(super) fn handshake(&self) -> Option<Handshake> {
        self.watched.handshake()
    }

    /// Both ends are gone.
    pub(super) fn is_over(&self) -> bool {
        !self.is_held && !self.is_served
    }

    /// When something happens next on this connection.
    pub(super) fn next(&self, clock: &Clock, reads_at: Duration) -> Option<Duration> {
        let deadline = self.watched.deadline().filter(|_| self.is_served);
        let deadline = deadline.map(|deadline| clock.offset(deadline));
        let up = self.up.next();
        let down = self.down.next();
        let is_ready = self.down.is_ready() || self.opened_bytes() > 0;
        let read = (self.is_held && is_ready).then_some(reads_at);
        [deadline, up, down, read, self.breaks_at].into_iter().flatten().min()
    }

    pub(super) fn break_at(&mut self, at: Duration) {
        self.breaks_at = Some(at);
    }

    pub(super) fn say(&mut self, at: Duration, bytes: &[u8]) {
        match &mut self.client {
            Some(client) => {
                client.say(bytes);
                self.unsaid.push_back(client.take_wire());
            }
            None => self.unsaid.push_back(bytes.to_vec()),
        }
        self.write_up(at);
    }

    /// The actor closes, and says so if it speaks TLS and there is room for it. With bytes unread
    /// that breaks the connection, as a socket does.
    pub(super) fn hang_up(&mut self, at: Duration) {
        if let Some(client) = self.client.as_mut().filter(|_| self.is_held) {
            client.say_end();
            self.unsaid.push_back(client.take_wire());
            self.write_up(at);
        }
        self.is_held = false;
        self.unsaid.clear();
        if self.down.readable() > 0 { self.up.reset(at) } else { self.up.end(at) }
    }

    /// The actor ends its sending side.
    pub(super) fn end(&mut self, at: Duration) {
        if let Some(client) = &mut self.client {
            client.say_end();
            self.unsaid.push_back(client.take_wire());
        }
        self.is_said = true;
        self.write_up(at);
    }

    /// The actor lost its power, or does not care.
    pub(super) fn leave(&mut self) {
        (self.is_held, self.is_left) = (false, true);
        self.unsaid.clear();
    }

    /// How many segments were lost on it.
    pub(super) fn lost(&self) -> u64 {
        self.up.lost() + self.down.lost()
    }

    /// The server is gone, and all it knew with it. Was an answer due?
    pub(super) fn crash(&mut self, at: Duration) -> bool {
        let was_busy = self.is_served && self.watched.is_busy();
        self.is_served = false;
        self.down.reset(at);
        was_busy
    }

    /// The server is told to finish. Was an answer due?
    pub(super) fn drain(&mut self, now: Now) -> bool {
        let was_busy = self.is_served && self.watched.is_busy();
        if self.is_served {
            self.watched.shutdown(now);
        }
        was_busy
    }

    pub(super) fn answer(&mut self, now: Now, id: QueryId, answer: Answer<Bytes>) {
        if self.is_served {
            self.moments.push(Moment::Answer);
            self.watched.answer(now, id, answer);
        }
    }

    pub(super) fn read(&mut self, at: Duration, bytes_max: usize) -> Read {
        if self.client.is_none() {
            return self.down.read(bytes_max);
        }
        while self.opened_bytes() == 0 {
            let Read::Bytes(wire) = self.down.read(usize::MAX) else {
                return self.down.read(usize::MAX);
            };
            self.open(at, &wire);
        }
        let opened = self.client.as_mut().map(|client| client.take_heard_at_most(bytes_max));
        Read::Bytes(opened.unwrap_or_default())
    }

    /// The actor opens what came, and says what TLS has to say to it.
    fn open(&mut self, at: Duration, wire: &[u8]) {
        let Some(client) = &mut self.client else { return };
        client.hear(wire);
        let has_failed = matches!(client.end(), Some(End::Failed(_)));
        assert!(!has_failed, "TLS that somebody broke: {:?}", client.end());
        let wire = client.take_wire();
        if !wire.is_empty() {
            self.unsaid.push_back(wire);
            self.write_up(at);
        }
    }

    /// What was opened and not read.
    fn opened_bytes(&self) -> usize {
        self.client.as_ref().map_or(0, |client| client.heard_bytes())
    }

    pub(super) fn take_tails(&mut self) -> Vec<Token> {
        self.watched.take_tails()
    }

    pub(super) fn take_presented(&mut self) -> Vec<Token> {
        mem::take(&mut self.presented)
    }

    /// What happened since this was asked last.
    pub(super) fn take_moments(&mut self) -> Vec<Moment> {
        mem::take(&mut self.moments)
    }

    /// The requests that ended since this was asked last, each with what it cost.
    pub(super) fn take_bills(&mut self) -> Vec<(Report, Cost)> {
        let ended = &self.watched.reports()[self.reports_seen..];
        self.reports_seen += ended.len();
        ended.iter().map(|report| (*report, mem::take(&mut self.cost))).collect()
    }

    /// What became of its requests.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        self.watched.reports().iter().map(|report| report.outcome)
    }

    pub(super) fn take_sent(&mut self) -> Vec<u8> {
        mem::take(&mut self.sent)
    }

    /// One turn of the driver; did anything move?
    pub(super) fn serve(
        &mut self,
        clock: &Clock,
        id: u64,
        desk: &mut Desk,
        random: &mut Random,
        mut line: Option<&mut SharedLine>,
    ) -> bool {
        let at = clock.at();
        if self.breaks_at.is_some_and(|breaks_at| breaks_at <= at) {
            self.break_now(clock.now(), at);
        }
        self.up.arrive(at);
        self.down.arrive(at);
        self.write_up(at);
        if let Some(line) = line.as_mut().filter(|_| !self.is_held && !self.is_left) {
            self.down.give_up(at, line);
        }
        if !self.is_held && !self.is_left && self.down.readable() > 0 {
            // Bytes that arrive at a closed socket are answered with a reset.
            self.down.read(usize::MAX);
            self.up.reset(at);
        }
        if !self.is_served {
            return self.serve_nobody(at);
        }
        let asked = self.ask(at, id, desk, random);
        let wrote = self.write(clock.now(), at, line);
        let read = self.read_up(clock.now(), random);
        let timed_out = self.time_out(clock);
        self.close(clock.now(), at);
        asked || wrote || read || timed_out
    }

    fn break_now(&mut self, now: Now, at: Duration) {
        self.breaks_at = None;
        self.up.reset(at);
        self.down.reset(at);
        if self.is_served {
            self.watched.reset(now);
            self.is_served = false;
        }
    }

    fn write_up(&mut self, at: Duration) {
        while let Some(said) = self.unsaid.front_mut() {
            let taken = self.up.write(at, said);
            if taken < said.len() {
                said.drain(..taken);
                break;
            }
            self.unsaid.pop_front();
        }
        if self.is_said && self.unsaid.is_empty() {
            self.up.end(at);
        }
    }

    fn serve_nobody(&mut self, at: Duration) -> bool {
        match self.up.read(usize::MAX) {
            Read::Bytes(_) => {
                self.down.reset(at);
                true
            }
            Read::Empty | Read::End | Read::Reset => false,
        }
    }

    fn ask(&mut self, at: Duration, id: u64, desk: &mut Desk, random: &mut Random) -> bool {
        let Some((query_id, query)) = self.watched.query() else { return false };
        if let Query::Redeem { token } = query {
            self.presented.push(token);
        }
        self.cost.add(&query);
        self.moments.extend(match query {
            Query::Start { .. } => Some(Moment::Start),
            Query::Record(_) => Some(Moment::Record),
            Query::Claim { .. } => Some(Moment::Claim),
            Query::Identify(_) | Query::Fetch { .. } | Query::Redeem { .. } => None,
            Query::Push { .. } => None,
        });
        desk.submit_by(random.fork(), at, self.server, ticket(id, query_id), query);
        true
    }

    fn write(&mut self, now: Now, at: Duration, line: Option<&mut SharedLine>) -> bool {
        let room = self.down.room();
        if room == 0 {
            return false;
        }
        let transmit = self.watched.connection().transmit();
        let line = line.filter(|_| matches!(transmit, Some(Transmit::Image { .. })));
        let bytes = self.watched.take(now, room);
        self.down.write_by(at, &bytes, line);
        self.sent.extend_from_slice(&bytes);
        !bytes.is_empty()
    }

    fn read_up(&mut self, now: Now, random: &mut Random) -> bool {
        let wants_read = self.watched.connection().wants_read();
        if !wants_read || self.is_up_over || self.watched.closed().is_some() {
            return false;
        }
        match self.up.read(random.between(1, 4096) as usize) {
            Read::Empty => false,
            Read::Bytes(bytes) => {
                self.watched.input(now, &bytes);
                true
            }
            Read::End => {
                self.watched.eof(now);
                self.is_up_over = true;
                true
            }
            Read::Reset => {
                self.watched.reset(now);
                self.is_up_over = true;
                true
            }
        }
    }

    fn time_out(&mut self, clock: &Clock) -> bool {
        let due = self.watched.deadline().is_some_and(|at| clock.offset(at) <= clock.at());
        if due {
            self.watched.timeout(clock.now());
        }
        due
    }

    /// Ends the sending side when the core wants it; drops the socket when the core is done, after
    /// one try to send its last words (there are none without TLS). A socket that is dropped with
    /// bytes unread breaks the connection.
    fn close(&mut self, now: Now, at: Duration) {
        if self.watched.connection().wants_shutdown() {
            self.down.end(at);
        }
        if self.watched.closed().is_some() {
            self.is_served = false;
            self.write(now, at, None);
            if self.up.readable() > 0 { self.down.reset(at) } else { self.down.end(at) }
        }
    }
}
