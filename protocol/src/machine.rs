//! The state machine of one connection: the only code that changes a state or sets a deadline.
//!
//! ```text
//!                      complete request            Step::Ask
//!    +-----------+  ------------------------>  +----------+ ---------------+
//!    | Receiving |                             |  Asking  | <--------------+  handle_answer
//!    +-----------+  <------------------+       +----------+
//!      ^   | Step::Reply               |            | Step::Reply
//!      |   v                           |            v
//!      |  +------------------------------------------------+   before the tail   +----------+
//!      |  |                   Responding                    | -----------------> | Claiming |
//!      |  +------------------------------------------------+ <----------------- +----------+
//!      |      | all sent, keep-alive   | all sent, close        Claimed(true)        | else
//!      +------+                        v                                             v
//!                                +-----------+     eof or deadline                +--------+
//!                                | Lingering | ---------------------------------> | Closed |
//!                                +-----------+                                    +--------+
//! ```

use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::{Response, Step};
use crate::config::Config;
use crate::exchange::Exchange;
use crate::http::{HeadWriter, Method, Refused, Status};
use crate::now::Now;
use crate::query::{Answer, Query, QueryId};
use crate::report::{CloseReason, Endpoint, Outcome, Refusal, Report};
use crate::state::{State, Stream};
use crate::transmit::Transmit;

/// The exchanges of one connection, one after the other. [`crate::Connection`] documents the
/// methods that have the names of its own.
pub(crate) struct Machine<I> {
    config: Arc<Config>,
    state: State<I>,
    /// When the state ends by itself; without meaning once closed.
    deadline: Instant,
    /// The exchange that ended last, until its report is taken.
    ended: Option<Box<Exchange>>,
    queries: u32,
    pipelined: u8,
    eof: bool,
    shutdown: bool,
}

impl<I: AsRef<[u8]> + Clone> Machine<I> {
    /// Nothing has happened yet.
    pub(crate) fn new(config: Arc<Config>, now: Now) -> Self {
        let deadline = now.instant + config.idle_timeout;
        Self {
            config,
            state: State::Receiving(None),
            deadline,
            ended: None,
            queries: 0,
            pipelined: 0,
            eof: false,
            shutdown: false,
        }
    }

    pub(crate) fn handle_input(&mut self, now: Now, bytes: &[u8]) {
        match &mut self.state {
            // Neither the state nor the deadline changes: the case of most pieces of a body.
            State::Receiving(Some(exchange)) if exchange.needs_more_than(bytes.len()) => {
                exchange.input.extend_from_slice(bytes);
            }
            State::Receiving(exchange) => {
                let mut exchange = exchange.take().unwrap_or_else(|| self.config.spare.take());
                let bytes = exchange.skip_blank_lines(bytes);
                if bytes.is_empty() && exchange.input.is_empty() {
                    // Line ends buy no time: the deadline stays.
                    return self.config.spare.put(exchange);
                }
                self.receive(now, exchange, bytes);
            }
            State::Asking(exchange)
            | State::Responding(exchange, _)
            | State::Claiming(exchange, _) => {
                exchange.input.extend_from_slice(bytes);
                if exchange.input.len() > KEPT_BYTES_MAX {
                    self.close(now, CloseReason::Refused, Some(Outcome::Aborted));
                }
            }
            State::Lingering { bytes_left, reason } => {
                let reason = *reason;
                *bytes_left = bytes_left.saturating_sub(bytes.len().min(u32::MAX as usize) as u32);
                if *bytes_left == 0 {
                    self.close(now, reason, None);
                }
            }
            State::Closed(_) => {}
        }
    }

    pub(crate) fn handle_eof(&mut self, now: Now) {
        self.eof = true;
        match self.state {
            State::Receiving(_) => self.close(now, CloseReason::Peer, None),
            State::Lingering { reason, .. } => self.close(now, reason, None),
            State::Asking(_) | State::Responding(..) | State::Claiming(..) | State::Closed(_) => {}
        }
    }

    /// Ends everything at once; an exchange under way is cut short.
    pub(crate) fn cut(&mut self, now: Now, reason: CloseReason) {
        self.close(now, reason, Some(Outcome::Aborted));
    }

    /// What is beneath failed: nothing goes on, but what it says about it may still reach the peer.
    pub(crate) fn break_off(&mut self, now: Now) {
        self.cut(now, CloseReason::Tls);
        if !self.eof {
            self.linger(now, CloseReason::Tls);
        }
    }

    /// HTTP where something else should be beneath it.
    pub(crate) fn refuse_http(&mut self, now: Now) {
        let refused = Refused { status: Status::BAD_REQUEST, refusal: Refusal::NotTls };
        let exchange = self.config.spare.take();
        self.respond(now, exchange, Response::violation(refused));
    }

    /// An idle connection may be so until then.
    pub(crate) fn rest(&mut self, until: Instant) {
        self.deadline = until;
    }

    pub(crate) fn handle_sent(&mut self, now: Now, n: usize) {
        match &mut self.state {
            State::Receiving(Some(exchange)) | State::Asking(exchange) => {
                exchange.advance(now, n, None::<&mut Stream<I>>, &self.config);
            }
            State::Responding(exchange, stream) => {
                exchange.advance(now, n, stream.as_deref_mut(), &self.config);
                let head_left = !exchange.unsent().is_empty();
                match stream {
                    _ if head_left => {}
                    Some(stream) if stream.at < stream.sendable_end() => {}
                    Some(stream) if stream.at < stream.end => self.claim(now),
                    Some(_) | None => self.complete(now),
                }
            }
            State::Receiving(None)
            | State::Claiming(..)
            | State::Lingering { .. }
            | State::Closed(_) => assert_eq!(n, 0, "nothing was shown"),
        }
    }

    pub(crate) fn handle_answer(&mut self, now: Now, id: QueryId, answer: Answer<I>) {
        if id.0 != self.queries {
            return;
        }
        self.state = match std::mem::replace(&mut self.state, State::Receiving(None)) {
            State::Asking(mut exchange) => {
                let step = exchange.resume(&answer, &self.config, now);
                return self.follow(now, exchange, step);
            }
            State::Claiming(mut exchange, mut stream) => {
                let claimed = matches!(answer, Answer::Claimed(true));
                if claimed {
                    stream.hold = None;
                    self.open_window(now, &mut exchange);
                }
                self.state = State::Responding(exchange, Some(stream));
                if !claimed {
                    self.close(now, CloseReason::Unclaimed, Some(Outcome::Unclaimed));
                }
                return;
            }
            unmoved @ (State::Receiving(_)
            | State::Responding(..)
            | State::Lingering { .. }
            | State::Closed(_)) => unmoved,
        };
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        if now.instant < self.deadline {
            return;
        }
        match &mut self.state {
            State::Receiving(exchange) => {
                let begun = exchange.take_if(|exchange| !exchange.is_half_line_end());
                let Some(mut exchange) = begun else {
                    return self.close(now, CloseReason::Idle, None);
                };
                exchange.input.clear();
                let late = Refused { status: Status::REQUEST_TIMEOUT, refusal: Refusal::TooSlow };
                self.respond(now, exchange, Response::violation(late));
            }
            State::Asking(_) => {
                self.handle_answer(now, QueryId(self.queries), Answer::Unavailable);
            }
            State::Responding(exchange, _) => {
                let window = exchange.bytes_sent - exchange.window_began_at;
                let late = exchange.until.is_some_and(|until| now.instant >= until);
                if late || window < self.config.send_window_bytes_min {
                    self.close(now, CloseReason::Slow, Some(Outcome::Aborted));
                } else {
                    exchange.window_began_at = exchange.bytes_sent;
                    self.deadline = window_end(now, exchange.until, &self.config);
                }
            }
            State::Claiming(..) => {
                self.close(now, CloseReason::Unclaimed, Some(Outcome::Unclaimed));
            }
            State::Lingering { reason, .. } => {
                let reason = *reason;
                self.close(now, reason, None);
            }
            State::Closed(_) => {}
        }
    }

    pub(crate) fn handle_shutdown(&mut self, now: Now) {
        self.shutdown = true;
        if self.is_idle() {
            self.close(now, CloseReason::Shutdown, None);
        }
    }

    pub(crate) fn poll_query(&mut self) -> Option<(QueryId, Query)> {
        let exchange = self.asking()?;
        exchange.query.take().map(|query| (QueryId(self.queries), query))
    }

    /// The query that nobody has taken yet.
    pub(crate) fn open_query(&mut self) -> Option<(QueryId, &mut Query)> {
        let id = QueryId(self.queries);
        self.asking()?.query.as_mut().map(|query| (id, query))
    }

    fn asking(&mut self) -> Option<&mut Exchange> {
        match &mut self.state {
            State::Asking(exchange) | State::Claiming(exchange, _) => Some(exchange),
            State::Receiving(_)
            | State::Responding(..)
            | State::Lingering { .. }
            | State::Closed(_) => None,
        }
    }

    /// What is to be sent next: bytes, then of an image the bytes from one offset to another.
    pub(crate) fn outgoing(&self) -> (&[u8], Option<(&I, u64, u64)>) {
        let Some((exchange, stream)) = self.sending() else { return (&[], None) };
        let image = stream.filter(|stream| stream.at < stream.sendable_end());
        let image = image.map(|stream| (&stream.image, stream.at, stream.sendable_end()));
        (exchange.unsent(), image)
    }

    /// How many bytes that makes.
    pub(crate) fn outgoing_len(&self) -> u64 {
        let (bytes, image) = self.outgoing();
        bytes.len() as u64 + image.map_or(0, |(_, at, end)| end - at)
    }

    pub(crate) fn transmit(&self) -> Option<Transmit<'_, I>> {
        let (exchange, stream) = self.sending()?;
        let bytes = exchange.unsent();
        let image = stream.filter(|stream| stream.at < stream.sendable_end());
        if !bytes.is_empty() {
            return Some(Transmit::Bytes { bytes, more: image.is_some() || exchange.close });
        }
        image.map(|stream| Transmit::Image {
            image: &stream.image,
            offset: stream.at,
            len: stream.sendable_end() - stream.at,
        })
    }

    pub(crate) fn transmit_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let Some((exchange, stream)) = self.sending() else { return 0 };
        let image = stream.filter(|stream| stream.at < stream.sendable_end()).map(|stream| {
            let (offset, len) = (stream.at, stream.sendable_end() - stream.at);
            Transmit::Image { image: &stream.image, offset, len }.as_slice()
        });
        let parts = [exchange.unsent(), image.unwrap_or_default()];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts.zip(slices).map(|(part, slice)| *slice = IoSlice::new(part)).count()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (!matches!(self.state, State::Closed(_))).then_some(self.deadline)
    }

    pub(crate) fn poll_report(&mut self) -> Option<Report> {
        let exchange = self.ended.take()?;
        let report = exchange.report;
        self.config.spare.put(exchange);
        report
    }

    pub(crate) fn wants_read(&self) -> bool {
        matches!(self.state, State::Receiving(_) | State::Lingering { .. })
    }

    pub(crate) fn wants_shutdown(&self) -> bool {
        matches!(self.state, State::Lingering { .. })
    }

    /// Is all said, whatever the peer still sends?
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.state, State::Lingering { .. } | State::Closed(_))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.state.is_idle()
    }

    pub(crate) fn closed(&self) -> Option<CloseReason> {
        self.state.closed()
    }

    /// Reads on, in what is kept and `fresh`.
    fn receive(&mut self, now: Now, mut exchange: Box<Exchange>, fresh: &[u8]) {
        let is_new = exchange.input.is_empty();
        if is_new && fresh.first() == Some(&TLS_HANDSHAKE) {
            // TLS where none is spoken: no answer of ours would be understood.
            self.config.spare.put(exchange);
            return self.close(now, CloseReason::Refused, None);
        }
        let had_head = exchange.head.is_some();
        match exchange.measure(fresh, &self.config) {
            Ok(Some(message)) => {
                let step = exchange.begin(fresh, &message, &self.config, now);
                return self.follow(now, exchange, step);
            }
            Ok(None) => {}
            Err(refused) => {
                exchange.input.clear();
                return self.respond(now, exchange, Response::violation(refused));
            }
        }
        if exchange.head.is_some() && !had_head {
            self.deadline = now.instant + self.config.body_timeout;
            if exchange.expects_continue() {
                HeadWriter::begin(&mut exchange.output, Status::CONTINUE).finish();
            }
        } else if is_new && !exchange.is_half_line_end() {
            self.deadline = now.instant + self.config.head_timeout;
        }
        self.state = State::Receiving(Some(exchange));
    }

    /// Does what an endpoint wants next.
    #[inline]
    fn follow(&mut self, now: Now, exchange: Box<Exchange>, step: Step<I>) {
        match step {
            Step::Ask => {
                self.queries = self.queries.wrapping_add(1);
                self.deadline = now.instant + self.config.answer_timeout;
                self.state = State::Asking(exchange);
            }
            Step::Reply(response) => self.respond(now, exchange, response),
        }
    }

    /// Writes an answer and starts to send it.
    fn respond(&mut self, now: Now, mut exchange: Box<Exchange>, response: Response<I>) {
        let head = exchange.head.as_ref();
        let head_only = head.is_some_and(|head| head.method == Method::Head);
        let alive = head.is_some_and(|head| head.keep_alive);
        let last = self.shutdown
            || (self.eof && exchange.input.is_empty())
            || self.pipelined >= self.config.pipelined_requests_max;
        exchange.close = response.close || !alive || last;
        let http_1_1 = head.is_some_and(|head| head.http_1_1);
        let Exchange { output, scratch, close, .. } = &mut *exchange;
        response.write(output, &scratch.body, head_only, http_1_1, *close, &self.config);
        exchange.answered();
        exchange.report = Some(Report {
            endpoint: exchange.endpoint.unwrap_or(Endpoint::Other),
            status: response.status.code(),
            outcome: response.outcome,
            device: response.device,
            bytes_sent: 0,
            took: Duration::ZERO,
        });
        let part = response.content.into_part().filter(|_| !head_only);
        let stream = part.map(|part| Box::new(Stream::of(*part)));
        exchange.until = Some(now.instant + self.config.transfer_timeout);
        self.open_window(now, &mut exchange);
        self.state = State::Responding(exchange, stream);
    }

    fn open_window(&mut self, now: Now, exchange: &mut Exchange) {
        exchange.window_began_at = exchange.bytes_sent;
        self.deadline = window_end(now, exchange.until, &self.config);
    }

    /// All but the tail has been taken by the socket: ask for the rest.
    fn claim(&mut self, now: Now) {
        let state = std::mem::replace(&mut self.state, State::Receiving(None));
        let State::Responding(mut exchange, Some(stream)) = state else { return };
        exchange.query = stream.hold.map(|(token, _)| Query::Claim { token });
        self.queries = self.queries.wrapping_add(1);
        self.deadline = now.instant + self.config.answer_timeout;
        self.state = State::Claiming(exchange, stream);
    }

    /// The whole answer has been taken by the socket.
    fn complete(&mut self, now: Now) {
        let state = std::mem::replace(&mut self.state, State::Receiving(None));
        let State::Responding(mut exchange, _) = state else { return };
        exchange.end(now, None);
        let refused = matches!(exchange.report, Some(Report { status: 400.., .. }));
        let close = exchange.close || self.shutdown;
        // An empty buffer stays with its exchange, for the next request that comes in pieces.
        let is_ahead = !exchange.input.is_empty();
        let rest = if is_ahead { std::mem::take(&mut exchange.input) } else { Vec::new() };
        self.keep_ended(exchange);
        if close {
            let reason = match (self.shutdown, refused) {
                (true, _) => CloseReason::Shutdown,
                (false, true) => CloseReason::Refused,
                (false, false) => CloseReason::Peer,
            };
            return self.linger(now, reason);
        }
        self.deadline = now.instant + self.config.idle_timeout;
        let is_ahead = is_ahead && rest != b"\r";
        self.pipelined = if is_ahead { self.pipelined.saturating_add(1) } else { 0 };
        if !rest.is_empty() {
            self.handle_input(now, &rest);
        }
        if self.eof && matches!(self.state, State::Receiving(_)) {
            self.close(now, CloseReason::Peer, None);
        }
    }

    fn linger(&mut self, now: Now, reason: CloseReason) {
        if self.eof {
            return self.close(now, reason, None);
        }
        self.deadline = now.instant + self.config.linger_timeout;
        self.state = State::Lingering { bytes_left: self.config.linger_bytes_max, reason };
    }

    /// Ends everything; an exchange under way is reported with `cut_short`.
    fn close(&mut self, now: Now, reason: CloseReason, cut_short: Option<Outcome>) {
        if matches!(self.state, State::Closed(_)) {
            return;
        }
        match std::mem::replace(&mut self.state, State::Closed(reason)) {
            State::Asking(mut exchange)
            | State::Responding(mut exchange, _)
            | State::Claiming(mut exchange, _) => {
                exchange.end(now, cut_short);
                self.keep_ended(exchange);
            }
            State::Receiving(Some(exchange)) => self.config.spare.put(exchange),
            State::Receiving(None) | State::Lingering { .. } | State::Closed(_) => {}
        }
    }

    fn keep_ended(&mut self, exchange: Box<Exchange>) {
        if let Some(older) = self.ended.replace(exchange) {
            self.config.spare.put(older);
        }
    }

    /// What is being sent: an exchange's bytes, then an image.
    fn sending(&self) -> Option<(&Exchange, Option<&Stream<I>>)> {
        match &self.state {
            State::Receiving(Some(exchange)) | State::Asking(exchange) => Some((exchange, None)),
            State::Responding(exchange, stream) => Some((exchange, stream.as_deref())),
            State::Receiving(None)
            | State::Claiming(..)
            | State::Lingering { .. }
            | State::Closed(_) => None,
        }
    }
}

impl<I> Machine<I> {
    /// The name of its state, for people who debug a driver.
    pub(crate) fn state(&self) -> &'static str {
        self.state.name()
    }
}

fn window_end(now: Now, until: Option<Instant>, config: &Config) -> Instant {
    let end = now.instant + config.send_window;
    until.map_or(end, |until| until.min(end))
}

/// The first byte of a TLS connection (RFC 8446 5.1), and of no request.
const TLS_HANDSHAKE: u8 = 22;
/// Beyond this a driver that ignores `wants_read` is not followed any further.
const KEPT_BYTES_MAX: usize = 256 * 1024;
