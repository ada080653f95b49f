//! The state machine of one connection.

use std::io::IoSlice;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::{Answer, Config, Query, QueryId, Report, Transmit};

/// The time, read by the driver once per turn of its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: deadlines.
    pub instant: Instant,
    /// Seconds since 1970: `timestamp` of replies, `last seen`.
    pub unix: u64,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed, or all it asked for was answered and it wanted to close.
    Peer,
    /// Silent for longer than [`Config::idle_timeout`].
    Idle,
    /// A request or the reading of an answer took too long.
    Slow,
    /// A request was refused in a way that ends the connection.
    Refused,
    /// A token was claimed by somebody else, or the store could not say.
    Unclaimed,
    /// [`Connection::handle_shutdown`].
    Shutdown,
}

/// One device's connection.
#[derive(Debug)]
pub struct Connection<I = Bytes> {
    config: Arc<Config>,
    marker: PhantomData<I>,
}

#[expect(missing_docs, unused_variables, clippy::missing_panics_doc, reason = "signatures first")]
impl<I: AsRef<[u8]> + Clone> Connection<I> {
    pub fn plain(config: Arc<Config>, now: Now) -> Self {
        Self { config, marker: PhantomData }
    }
    pub fn handle_input(&mut self, now: Now, bytes: &[u8]) {}
    pub fn handle_eof(&mut self, now: Now) {}
    pub fn handle_sent(&mut self, now: Now, n: usize) {}
    pub fn handle_answer(&mut self, now: Now, id: QueryId, answer: Answer<I>) {}
    pub fn handle_timeout(&mut self, now: Now) {}
    pub fn handle_shutdown(&mut self, now: Now) {}
    pub fn poll_query(&mut self) -> Option<(QueryId, Query)> {
        None
    }
    pub fn transmit(&self) -> Option<Transmit<'_, I>> {
        None
    }
    pub fn transmit_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        0
    }
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
    pub fn poll_report(&mut self) -> Option<Report> {
        None
    }
    pub fn wants_read(&self) -> bool {
        true
    }
    /// All answers have left and the connection is about to close: shut down the sending side
    /// (`shutdown(WR)`) once, and go on reading until [`Connection::closed`].
    pub fn wants_shutdown(&self) -> bool {
        false
    }
    pub fn closed(&self) -> Option<CloseReason> {
        None
    }
}
