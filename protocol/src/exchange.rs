//! One request and its answer: everything a connection holds only while it has something to do.
//!
//! Exchanges are boxed and recycled through the [`Config`], so that a steady check-in costs no
//! heap call and an idle connection no heap.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::api::{self, Context, Plan, Response, Scratch, Step};
use crate::config::Config;
use crate::http::body::{Chunked, Progress};
use crate::http::head::{self, Search};
use crate::http::{Framing, Head, Refused, Request};
use crate::now::Now;
use crate::query::{Answer, Query};
use crate::report::{Endpoint, Outcome, Report};
use crate::state::Stream;

/// A request, read as far as it has arrived, and the answer to it.
#[derive(Default)]
pub(crate) struct Exchange {
    /// Received and not used: a part of this request, or what follows it.
    pub(crate) input: Vec<u8>,
    search: Search,
    pub(crate) head: Option<Head>,
    chunked: Option<Chunked>,
    pub(crate) scratch: Scratch,
    /// Head of the answer and a body that is not an image.
    pub(crate) output: Vec<u8>,
    /// How much of `output` has left.
    pub(crate) sent: usize,
    /// What to do with the answer to the open query.
    plan: Option<Plan>,
    /// The open query, until the driver has taken it.
    pub(crate) query: Option<Query>,
    pub(crate) endpoint: Option<Endpoint>,
    /// When the request was complete.
    pub(crate) began: Option<Instant>,
    /// When the answer must have left.
    pub(crate) until: Option<Instant>,
    /// Bytes of the answer that have left, and how many had when the sending window began.
    pub(crate) bytes_sent: u64,
    pub(crate) window_began_at: u64,
    pub(crate) close: bool,
    /// What became of it; [`Report::bytes_sent`] and [`Report::took`] are filled in at the end.
    pub(crate) report: Option<Report>,
}

/// A complete request, as offsets in the buffer that starts with it.
pub(crate) struct Message {
    body: Range<usize>,
    end: usize,
}

impl Exchange {
    /// Drops line ends before a request (RFC 9112 2.2; the device libraries send one after each
    /// body, docs/wire.md 1.0), also one whose halves arrive apart. Returns what is left of
    /// `bytes`.
    pub(crate) fn skip_blank_lines<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        if self.is_half_line_end() && bytes.first() == Some(&b'\n') {
            self.input.clear();
            bytes = &bytes[1..];
        }
        if self.input.is_empty() && self.head.is_none() {
            bytes = &bytes[head::skip_blank_lines(bytes)..];
        }
        bytes
    }

    /// Is a CR all there is? It may be half of a line end: no request has begun yet.
    pub(crate) fn is_half_line_end(&self) -> bool {
        self.head.is_none() && self.input == b"\r"
    }

    /// Will the request be incomplete with `fresh` more bytes? Certain only where it is true.
    pub(crate) fn needs_more_than(&self, fresh: usize) -> bool {
        match self.head {
            Some(Head { length, framing: Framing::Length(body), .. }) => {
                let kept = self.input.len() - length.min(self.input.len());
                ((kept + fresh) as u64) < body
            }
            Some(_) | None => false,
        }
    }

    /// Looks for the end of the request in what is kept and `fresh`, which are taken as one.
    /// Afterwards the request lies in `fresh` if nothing is kept, else in what is kept.
    pub(crate) fn measure(
        &mut self,
        fresh: &[u8],
        config: &Config,
    ) -> Result<Option<Message>, Refused> {
        if !self.input.is_empty() {
            self.input.extend_from_slice(fresh);
        }
        let bytes = if self.input.is_empty() { fresh } else { &self.input };
        if self.head.is_none() {
            self.head = self.search.parse(bytes, config)?;
        }
        let Some(head) = &self.head else { return Ok(self.keep(fresh)) };
        let start = head.length;
        let end = match head.framing {
            Framing::None => start,
            Framing::Length(length) => start + length as usize,
            Framing::Chunked => {
                // Decoded where it is kept.
                self.keep(fresh);
                let chunked = self.chunked.get_or_insert_with(Chunked::new);
                return Ok(match chunked.decode(&mut self.input, start, config)? {
                    Progress::More => {
                        // Of a read that was mostly framing little is left.
                        let (len, room) = (self.input.len(), self.input.capacity());
                        if room > 2 * len + GIVEN_BACK_BYTES {
                            self.input.shrink_to(len);
                        }
                        None
                    }
                    Progress::Done(end) => Some(Message { body: start..end, end }),
                });
            }
        };
        if bytes.len() < end {
            return Ok(self.keep(fresh));
        }
        Ok(Some(Message { body: start..end, end }))
    }

    /// Keeps `fresh`, unless it is kept already; there is no message yet.
    fn keep(&mut self, fresh: &[u8]) -> Option<Message> {
        if self.input.is_empty() {
            self.input.extend_from_slice(fresh);
        }
        None
    }

    /// Hands a complete request to its endpoint and keeps what follows it.
    pub(crate) fn begin<I>(
        &mut self,
        fresh: &[u8],
        message: &Message,
        config: &Config,
        now: Now,
    ) -> Step<I> {
        let bytes = if self.input.is_empty() { fresh } else { &self.input };
        let Some(head) = &self.head else { return Step::Reply(Response::unavailable()) };
        let request = Request { head, bytes, body: &bytes[message.body.clone()] };
        let endpoint = api::route(&request);
        let (scratch, query) = (&mut self.scratch, &mut self.query);
        let mut context = Context { config, now, endpoint, scratch, query };
        let step = api::begin(&request, &mut self.plan, &mut context);
        self.endpoint = Some(context.endpoint);
        self.began = Some(now.instant);
        if self.input.is_empty() {
            let rest = &fresh[message.end..];
            self.input.extend_from_slice(&rest[head::skip_blank_lines(rest)..]);
        } else {
            let blank = head::skip_blank_lines(&self.input[message.end..]);
            self.input.drain(..message.end + blank);
            give_back(&mut self.input);
        }
        step
    }

    /// The answer is written: what was kept for it is not needed any more. It may take its peer a
    /// quarter of an hour.
    pub(crate) fn answered(&mut self) {
        self.plan = None;
        for buffer in [&mut self.scratch.text, &mut self.scratch.body] {
            buffer.clear();
            give_back(buffer);
        }
    }

    /// Goes on with the store's answer.
    pub(crate) fn resume<I: Clone>(
        &mut self,
        answer: &Answer<I>,
        config: &Config,
        now: Now,
    ) -> Step<I> {
        self.query = None;
        let endpoint = self.endpoint.unwrap_or(Endpoint::Other);
        let (scratch, query) = (&mut self.scratch, &mut self.query);
        let mut context = Context { config, now, endpoint, scratch, query };
        match &mut self.plan {
            Some(plan) => api::resume(plan, answer, &mut context),
            None => Step::Reply(Response::unavailable()),
        }
    }

    /// Does the peer wait for `100 Continue`? Only if no byte of the body is there yet.
    pub(crate) fn expects_continue(&self) -> bool {
        self.head
            .as_ref()
            .is_some_and(|head| head.expects_continue && self.input.len() == head.length)
    }

    pub(crate) fn unsent(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// Moves on by `n` bytes: first through the output, then through the image.
    pub(crate) fn advance<I>(
        &mut self,
        now: Now,
        n: usize,
        stream: Option<&mut Stream<I>>,
        config: &Config,
    ) {
        let of_output = n.min(self.unsent().len());
        self.sent += of_output;
        self.bytes_sent += n as u64;
        let of_image = (n - of_output) as u64;
        let left = stream.as_ref().map_or(0, |stream| stream.sendable_end() - stream.at);
        assert!(of_image <= left, "{n} bytes sent, which is more than was shown");
        if let Some(stream) = stream {
            stream.at += of_image;
            // What left in the moment when the answer began did not wait for its socket.
            let is_paced = self.until != Some(now.instant + config.transfer_timeout);
            stream.note_sent(now, is_paced);
        }
    }

    /// Ends the exchange with its report, or with `outcome` where the answer did not all leave.
    pub(crate) fn end(&mut self, now: Now, cut_short: Option<Outcome>) {
        // It may have a part of the line.
        self.plan = None;
        let endpoint = self.endpoint.unwrap_or(Endpoint::Other);
        let report = self.report.get_or_insert(Report {
            endpoint,
            status: 0,
            outcome: Outcome::Aborted,
            device: None,
            bytes_sent: 0,
            took: Duration::ZERO,
        });
        report.outcome = cut_short.unwrap_or(report.outcome);
        report.bytes_sent = self.bytes_sent;
        let began = self.began.unwrap_or(now.instant);
        report.took = now.instant.saturating_duration_since(began);
    }

    /// As new, but for the memory that its buffers have.
    fn clear(&mut self) {
        self.search = Search::default();
        self.head = None;
        self.chunked = None;
        self.sent = 0;
        self.plan = None;
        self.query = None;
        self.endpoint = None;
        self.began = None;
        self.until = None;
        self.bytes_sent = 0;
        self.window_began_at = 0;
        self.close = false;
        self.report = None;
        for buffer in
            [&mut self.input, &mut self.output, &mut self.scratch.text, &mut self.scratch.body]
        {
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES_MAX);
        }
    }
}

/// Gives back what a large request needed, and leaves what most of them do.
fn give_back(buffer: &mut Vec<u8>) {
    if buffer.capacity() > GIVEN_BACK_BYTES {
        buffer.shrink_to(0);
    }
}

/// Exchanges that wait to be used again. A clone starts empty: give each thread a [`Config`] of
/// its own and its lock is never contended.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "connections hold boxes: only pointers move")]
pub(crate) struct Spare(Mutex<Vec<Box<Exchange>>>);

impl Spare {
    pub(crate) fn take(&self) -> Box<Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(crate) fn put(&self, mut exchange: Box<Exchange>) {
        exchange.clear();
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(exchange);
        }
    }
}

impl Clone for Spare {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spare")
    }
}

/// Enough for the requests of one turn of a loop; about 2 KiB each.
const SPARE_MAX: usize = 64;
/// What a request needed beyond this is given back: of framing at once, all else before its
/// answer leaves.
const GIVEN_BACK_BYTES: usize = 4096;
/// A check-in fits; what a large body needed is given back.
const KEPT_BYTES_MAX: usize = 1024;
