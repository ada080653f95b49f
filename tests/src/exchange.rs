//! Bytes in at a time, and what exactly comes of them: answer bytes, queries, deadline, end.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use otter_protocol::{Answer, CloseReason, Config, Outcome, Query, QueryId};

use crate::{Clock, ModelStore, Reply, Watched};

/// One connection over a model store, driven by hand or to rest.
///
/// ```
/// use otter_tests::{Exchange, ModelStore};
/// let mut exchange = Exchange::new(ModelStore::new(1), Default::default());
/// let heard = exchange.request(b"GET / HTTP/1.1\r\nHost: otter\r\n\r\n");
/// assert_eq!(heard.reply().text(), "{\"healthcheck\":true}");
/// ```
#[derive(Debug)]
pub struct Exchange {
    /// The connection.
    pub peer: Watched,
    /// The store behind it.
    pub store: ModelStore,
    /// The one clock; moves only by [`Exchange::advance`] and [`Exchange::expire`].
    pub clock: Clock,
    /// Most bytes that the socket takes at once.
    pub take_bytes_max: usize,
    asked: Vec<Query>,
    sent: Vec<u8>,
    open: Option<(QueryId, Query)>,
    shut_down: bool,
}

/// What came of the bytes since the last time that somebody looked.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The bytes that the socket took.
    pub bytes: Vec<u8>,
    /// The queries, in order.
    pub queries: Vec<Query>,
    /// Did the connection end its sending side, or close?
    pub ended: bool,
    /// Was the request `HEAD`?
    to_head: bool,
}

impl Exchange {
    /// A connection that begins when the test does. The store's clock is set to the same time.
    #[must_use]
    pub fn new(mut store: ModelStore, config: Config) -> Self {
        let clock = Clock::start();
        store.set_clock(clock.since_1970());
        Self {
            peer: Watched::new(Arc::new(config), clock.now()),
            store,
            clock,
            take_bytes_max: usize::MAX,
            asked: Vec::new(),
            sent: Vec::new(),
            open: None,
            shut_down: false,
        }
    }

    /// Hands in bytes, drives to rest, and tells what came of them.
    pub fn request(&mut self, bytes: &[u8]) -> Heard {
        self.input(bytes);
        self.settle();
        let to_head = bytes.starts_with(b"HEAD ");
        Heard { to_head, ..self.heard() }
    }

    /// Hands in bytes and does nothing else.
    pub fn input(&mut self, bytes: &[u8]) {
        self.peer.input(self.clock.now(), bytes);
    }

    /// Does all there is to do without time passing: answers queries, takes bytes.
    pub fn settle(&mut self) {
        loop {
            if let Some(query) = self.ask() {
                let answer = self.store.answer(&query);
                self.answer(answer);
            } else if self.take(self.take_bytes_max) == 0 {
                break;
            }
        }
    }

    /// Takes the next query without answering it.
    pub fn ask(&mut self) -> Option<Query> {
        let (id, query) = self.peer.query()?;
        self.open = Some((id, query.clone()));
        self.asked.push(query.clone());
        Some(query)
    }

    /// Answers the query that was taken last.
    ///
    /// # Panics
    /// If none was taken.
    pub fn answer(&mut self, answer: Answer<bytes::Bytes>) {
        let (id, _) = self.open.take().expect("a query to answer");
        self.peer.answer(self.clock.now(), id, answer);
    }

    /// Answers the query that was taken last as the store does.
    ///
    /// # Panics
    /// If none was taken.
    pub fn answer_truly(&mut self) {
        let (id, query) = self.open.take().expect("a query to answer");
        let answer = self.store.answer(&query);
        self.peer.answer(self.clock.now(), id, answer);
    }

    /// Lets the socket take at most `bytes_max` bytes of one piece; how many it took.
    pub fn take(&mut self, bytes_max: usize) -> usize {
        let taken = self.peer.take(self.clock.now(), bytes_max);
        self.sent.extend_from_slice(&taken);
        taken.len()
    }

    /// The peer ends.
    pub fn eof(&mut self) {
        self.peer.eof(self.clock.now());
    }

    /// Lets time pass; a deadline that is reached is not acted on.
    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.store.set_clock(self.clock.since_1970());
    }

    /// Jumps to the deadline and acts on it; how long that was from now.
    ///
    /// # Panics
    /// If there is none.
    pub fn expire(&mut self) -> Duration {
        let wait = self.deadline().expect("a deadline");
        self.advance(wait);
        self.peer.timeout(self.clock.now());
        wait
    }

    /// How far away the deadline is; `None` once closed.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let deadline = self.clock.offset(self.peer.deadline()?);
        Some(deadline.saturating_sub(self.clock.at()))
    }

    /// The peer ends, the last deadlines pass: why the connection closed.
    ///
    /// # Panics
    /// If it never closes.
    pub fn close(&mut self) -> CloseReason {
        self.eof();
        for _ in 0..DEADLINES_MAX {
            self.settle();
            match self.peer.closed() {
                Some(reason) => return reason,
                None => self.expire(),
            };
        }
        panic!("law 4: still open after {DEADLINES_MAX} deadlines");
    }

    /// The outcome of the last request that is reported.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.peer.reports().last().map(|report| report.outcome)
    }

    /// What came of everything since this was asked last.
    pub fn heard(&mut self) -> Heard {
        let wants_shutdown = self.peer.connection().wants_shutdown();
        self.shut_down |= wants_shutdown || self.peer.closed().is_some();
        Heard {
            bytes: mem::take(&mut self.sent),
            queries: mem::take(&mut self.asked),
            ended: self.shut_down,
            to_head: false,
        }
    }
}

impl Heard {
    /// The only answer among the bytes.
    ///
    /// # Panics
    /// If there is none, more than one, or anything after it.
    #[must_use]
    pub fn reply(&self) -> Reply {
        let mut replies = self.replies();
        assert_eq!(
            replies.len(),
            1,
            "exactly one answer: {:?}",
            String::from_utf8_lossy(&self.bytes)
        );
        replies.remove(0)
    }

    /// All answers among the bytes.
    ///
    /// # Panics
    /// If there is anything after them.
    #[must_use]
    pub fn replies(&self) -> Vec<Reply> {
        let mut replies = Vec::new();
        let mut left = self.bytes.as_slice();
        while let Some((reply, length)) = Reply::parse(left, self.to_head) {
            replies.push(reply);
            left = &left[length..];
        }
        assert!(left.is_empty(), "half an answer: {:?}", String::from_utf8_lossy(left));
        replies
    }

    /// The bytes as text, for comparing them exactly.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The kinds of the queries.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        self.queries.iter().map(kind).collect()
    }

    /// The query at `index` if it is a `Record`.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn record(&self, index: usize) -> &otter_protocol::Record {
        match self.queries.get(index) {
            Some(Query::Record(record)) => record,
            other => panic!("no Record, but {other:?}"),
        }
    }

    /// The query at `index` if it is an `Identify`.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn identify(&self, index: usize) -> &otter_protocol::Identify {
        match self.queries.get(index) {
            Some(Query::Identify(identify)) => identify,
            other => panic!("no Identify, but {other:?}"),
        }
    }
}

/// The name of a query's kind.
#[must_use]
pub fn kind(query: &Query) -> &'static str {
    match query {
        Query::Identify(_) => "Identify",
        Query::Fetch { .. } => "Fetch",
        Query::Redeem { .. } => "Redeem",
        Query::Start { .. } => "Start",
        Query::Record(_) => "Record",
        Query::Push { .. } => "Push",
        Query::Claim { .. } => "Claim",
    }
}

const DEADLINES_MAX: usize = 100;
