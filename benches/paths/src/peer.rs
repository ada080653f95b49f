//! A device's plain connection, and whatever answers its questions.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use otter_protocol::{Answer, Config, Connection, Now, Query};
use otter_store::{Store, Ticket};

/// A connection that is driven as a driver would drive it, and is made anew whenever it ends.
pub struct Peer<I, F> {
    config: Arc<Config>,
    now: Now,
    connection: Connection<I>,
    answer: F,
    /// Most bytes that the device takes at a time. Default: all that is shown.
    pub taken_bytes_max: usize,
}

impl<I: AsRef<[u8]> + Clone, F: FnMut(Query) -> Answer<I>> Peer<I, F> {
    /// A connection to a server whose store is this function.
    pub fn new(answer: F) -> Self {
        let (config, now) = (Arc::new(Config::default()), now());
        let connection = Connection::plain(Arc::clone(&config), now);
        Self { config, now, connection, answer, taken_bytes_max: usize::MAX }
    }

    /// The device says this; returns how many bytes it is told in turn.
    pub fn say(&mut self, bytes: &[u8]) -> usize {
        self.connection.handle_input(self.now, bytes);
        let told = settle(&mut self.connection, self.now, self.taken_bytes_max, &mut self.answer);
        if self.connection.wants_shutdown() {
            self.connection.handle_eof(self.now);
        }
        if self.connection.closed().is_some() {
            self.connection = Connection::plain(Arc::clone(&self.config), self.now);
        }
        told
    }

    /// Says this and returns what is told in turn, as it is.
    pub fn hear(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.connection.handle_input(self.now, bytes);
        let mut heard = Vec::new();
        loop {
            if let Some((id, query)) = self.connection.poll_query() {
                self.connection.handle_answer(self.now, id, (self.answer)(query));
            } else if let Some(next) = self.connection.transmit() {
                let n = next.as_slice().len();
                heard.extend_from_slice(next.as_slice());
                self.connection.handle_sent(self.now, n);
            } else {
                break;
            }
        }
        self.say(b"");
        heard
    }
}

/// Asks a store, which must answer at once.
///
/// # Panics
/// If it does not.
pub fn answers<S: Store>(mut store: S) -> impl FnMut(Query) -> Answer<S::Image> {
    let (mut queries, mut answers) = (Vec::new(), Vec::new());
    move |query| {
        queries.push((Ticket(0), query));
        store.submit(&mut queries);
        store.collect(&mut answers);
        let (_, answer) = answers.pop().expect("an answer in the same turn");
        answer
    }
}

/// Answers all questions and takes all bytes; returns how many those were.
pub(crate) fn settle<I: AsRef<[u8]> + Clone>(
    connection: &mut Connection<I>,
    now: Now,
    taken_bytes_max: usize,
    answer: &mut impl FnMut(Query) -> Answer<I>,
) -> usize {
    let mut told = 0;
    loop {
        if let Some((id, query)) = connection.poll_query() {
            connection.handle_answer(now, id, answer(query));
        } else if let Some(next) = connection.transmit() {
            let n = next.as_slice().len().min(taken_bytes_max);
            told += n;
            connection.handle_sent(now, n);
        } else {
            break;
        }
    }
    while connection.poll_report().is_some() {}
    told
}

/// Both clocks, once: what is repeated here must not grow old.
pub(crate) fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { instant: Instant::now(), unix }
}
