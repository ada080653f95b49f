//! The laws of docs/design.md 8 as far as they can be seen from outside, checked at every step of
//! every test.
//!
//! [`Watched`] is a connection that nobody can talk to past the checks; [`Ledger`] holds what is
//! true only over many connections. A broken law panics, and says which one.

mod authority;
mod tunnel;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use otter_protocol::{
    Answer, CloseReason, Config, Connection, Handshake, Now, Query, QueryId, Report, Token,
    Transmit,
};
use rustls::ServerConfig;

use self::authority::Authority;
use self::tunnel::Tunnel;
use crate::tls::Beneath;

/// Most bytes that a driver reads at once: law 5 allows that much beyond the limits.
pub const READ_BYTES_MAX: usize = 65_536;

/// Bytes of a token's image that stand behind the claim (docs/token.md).
pub const TAIL_BYTES: u64 = 4096;

/// A connection under watch: the same verbs, and every law checked after each of them.
///
/// ```
/// use otter_tests::{Clock, Watched};
/// let clock = Clock::start();
/// let mut peer = Watched::new(Default::default(), clock.now());
/// peer.input(clock.now(), b"GET / HTTP/1.1\r\nHost: otter\r\n\r\n");
/// assert!(peer.take(clock.now(), 4096).ends_with(b"{\"healthcheck\":true}"));
/// ```
#[derive(Debug)]
pub struct Watched {
    connection: Connection<Bytes>,
    config: Arc<Config>,
    authority: Authority,
    /// Is there TLS beneath?
    is_tls: bool,
    /// The other end of it, if that is here.
    tunnel: Option<Box<Tunnel>>,
    /// The query that was polled and not answered yet.
    open: Option<QueryId>,
    closed: Option<CloseReason>,
    reports: Vec<Report>,
    handshake: Option<Handshake>,
    bytes_taken: u64,
    /// What it had to send when it closed, and has still. Only with TLS.
    last_words_bytes: usize,
    was_handshaking: bool,
    is_reset: bool,
    /// Bytes that the connection asked for while it was busy with a request.
    bytes_ahead: usize,
    /// Bytes that it was given after its last answer.
    bytes_lingering: usize,
    tails: Vec<Token>,
}

impl Watched {
    /// A connection that begins now: a plain one; or one over TLS whose handshake is done, if this
    /// process is to try that ([`Beneath`]). Bytes are plaintext in both.
    #[must_use]
    pub fn new(config: Arc<Config>, now: Now) -> Self {
        match Beneath::of_this_process() {
            Some(beneath) => Self::through(beneath, config, now),
            None => Self::of(Connection::plain(Arc::clone(&config), now), config),
        }
    }

    /// A connection over TLS that begins now; bytes are ciphertext.
    #[must_use]
    pub fn tls(config: Arc<Config>, tls: Arc<ServerConfig>, now: Now) -> Self {
        let connection = Connection::tls(Arc::clone(&config), tls, now);
        let mut watched = Self { is_tls: true, ..Self::of(connection, config) };
        watched.check();
        watched
    }

    /// A connection over TLS whose handshake was just done; bytes are plaintext.
    #[must_use]
    pub fn through(beneath: &Beneath, config: Arc<Config>, now: Now) -> Self {
        let mut watched = Self::tls(config, Arc::clone(&beneath.server), now);
        let mut tunnel = Box::new(Tunnel::new(beneath));
        watched.input(now, &tunnel.seal(&[]));
        loop {
            let wire = watched.take(now, usize::MAX);
            if wire.is_empty() {
                break;
            }
            tunnel.open(&wire, &mut watched.authority);
            watched.input(now, &tunnel.seal(&[]));
        }
        let is_done = !tunnel.client.is_handshaking() && !watched.connection.is_handshaking();
        assert!(is_done, "no handshake: {:?}", tunnel.client.end());
        watched.bytes_taken = 0;
        watched.tunnel = Some(tunnel);
        watched
    }

    fn of(connection: Connection<Bytes>, config: Arc<Config>) -> Self {
        Self {
            connection,
            config,
            authority: Authority::default(),
            is_tls: false,
            tunnel: None,
            open: None,
            closed: None,
            reports: Vec::new(),
            handshake: None,
            bytes_taken: 0,
            last_words_bytes: 0,
            was_handshaking: false,
            is_reset: false,
            bytes_ahead: 0,
            bytes_lingering: 0,
            tails: Vec::new(),
        }
    }

    /// Bytes arrived. A driver that is not asked for bytes gives none, so they count only then.
    pub fn input(&mut self, now: Now, bytes: &[u8]) {
        match &mut self.tunnel {
            Some(tunnel) => {
                let wire = tunnel.seal(bytes);
                self.wire_input(now, &wire);
            }
            None => self.wire_input(now, bytes),
        }
    }

    /// The bytes that arrive, as the driver has them.
    fn wire_input(&mut self, now: Now, bytes: &[u8]) {
        if self.connection.wants_shutdown() {
            self.bytes_lingering += bytes.len();
        } else if self.is_busy() && self.connection.wants_read() {
            self.bytes_ahead += bytes.len();
        }
        self.connection.handle_input(now, bytes);
        let linger_max = self.config.linger_bytes_max as usize + READ_BYTES_MAX;
        let may_linger = self.bytes_lingering <= linger_max;
        assert!(may_linger || self.connection.closed().is_some(), "law 5: lingers for ever");
        self.check();
    }

    /// The peer will send nothing more.
    pub fn eof(&mut self, now: Now) {
        if let Some(tunnel) = self.tunnel.as_mut().filter(|tunnel| tunnel.ends_by_alert)
            && !self.connection.wants_shutdown()
        {
            let wire = tunnel.seal_end();
            self.connection.handle_input(now, &wire);
        } else {
            self.connection.handle_eof(now);
        }
        self.check();
    }

    /// The connection broke: nothing can be sent any more, so it is closed.
    pub fn reset(&mut self, now: Now) {
        self.connection.handle_reset(now);
        self.is_reset = true;
        assert!(self.connection.closed().is_some(), "law 7: open after a reset");
        self.check();
    }

    /// The store answered. An answer to a query that is not open changes nothing.
    pub fn answer(&mut self, now: Now, id: QueryId, answer: Answer<Bytes>) {
        if self.open == Some(id) {
            self.open = None;
            self.authority.answered(&answer);
            self.connection.handle_answer(now, id, answer);
        } else {
            let before = self.seen();
            self.connection.handle_answer(now, id, answer);
            assert_eq!(before, self.seen(), "a stale answer changed something");
        }
        self.check();
    }

    /// Time passed. At or after the deadline something must change (law 4); before it, nothing.
    pub fn timeout(&mut self, now: Now) {
        let deadline = self.connection.poll_timeout();
        let before = deadline.is_some_and(|deadline| now.instant < deadline).then(|| self.seen());
        self.connection.handle_timeout(now);
        if let Some(before) = before {
            assert_eq!(before, self.seen(), "law 4: an early timeout changed something");
        } else {
            let next = self.connection.poll_timeout();
            let moved_on = next.is_none_or(|next| next > now.instant);
            assert!(moved_on, "law 4: nothing changed at the deadline");
            // A query that was open is given up with its deadline.
            self.open = self.open.filter(|_| next == deadline);
        }
        self.check();
    }

    /// The server is about to stop.
    pub fn shutdown(&mut self, now: Now) {
        let (was_idle, was_closed) = (self.connection.is_idle(), self.connection.closed());
        self.connection.handle_shutdown(now);
        let closed = self.connection.closed() != was_closed;
        assert_eq!(closed, was_idle, "an idle connection closes at once, and no other");
        self.check();
    }

    /// The next query, if there is one.
    pub fn query(&mut self) -> Option<(QueryId, Query)> {
        let (id, query) = self.connection.poll_query()?;
        assert_eq!(self.closed, None, "law 7: a closed connection asks");
        assert_eq!(self.open, None, "one query at a time");
        self.open = Some(id);
        let is_claim = matches!(query, Query::Claim { .. });
        let is_due = self.connection.transmit().is_some();
        assert!(!is_claim || !is_due, "law 9: claims while something before the tail is unsent");
        self.authority.asked(&query);
        self.check();
        Some((id, query))
    }

    /// Takes at most `bytes_max` of what is shown, as a socket would. Of plaintext over TLS as much
    /// as is opened, once something is.
    pub fn take(&mut self, now: Now, bytes_max: usize) -> Vec<u8> {
        if self.tunnel.is_some() {
            return self.take_opened(now, bytes_max);
        }
        let Some(transmit) = self.connection.transmit() else { return Vec::new() };
        let shown = transmit.as_slice();
        let taken = shown[..shown.len().min(bytes_max)].to_vec();
        if let Transmit::Image { offset, .. } = transmit {
            assert!(!self.is_tls, "an image that leaves as it is");
            self.tails.extend(self.authority.image_left(offset, taken.len() as u64));
        }
        if self.is_tls && !taken.is_empty() {
            self.tails.extend(self.authority.ciphertext_left());
        }
        self.sent(now, taken.len());
        taken
    }

    fn take_opened(&mut self, now: Now, bytes_max: usize) -> Vec<u8> {
        let Some(mut tunnel) = self.tunnel.take() else { return Vec::new() };
        while bytes_max > 0
            && tunnel.client.heard().is_empty()
            && let Some(transmit) = self.connection.transmit()
        {
            let shown = transmit.as_slice();
            let taken = shown[..shown.len().min(bytes_max)].to_vec();
            let (opened, tails) = tunnel.open(&taken, &mut self.authority);
            self.tails.extend(tails);
            self.connection.handle_sent(now, taken.len());
            self.bytes_taken += opened as u64;
            self.check();
        }
        let taken = tunnel.client.take_heard_at_most(bytes_max);
        self.tunnel = Some(tunnel);
        self.check();
        taken
    }

    /// The same as [`Watched::take`], with all that fits into one vectored write.
    pub fn take_vectored(&mut self, now: Now, bytes_max: usize) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 4];
        let count = self.connection.transmit_vectored(&mut slices);
        let mut shown: Vec<u8> = slices[..count].iter().flat_map(|s| s.iter().copied()).collect();
        assert_eq!(shown.is_empty(), self.connection.transmit().is_none(), "both show or neither");
        if self.tunnel.is_some() {
            let all = self.connection.transmit().map(|transmit| transmit.as_slice().to_vec());
            assert_eq!(all.unwrap_or_default(), shown, "there is nothing but bytes over TLS");
            return self.take(now, bytes_max);
        }
        shown.truncate(bytes_max);
        let mut left = shown.len();
        // Taken piece by piece of what `transmit` shows, the bytes must be the same.
        let mut pieces = Vec::new();
        while left > 0 {
            let piece = self.take(now, left);
            assert!(!piece.is_empty(), "a vectored write shows more than transmit");
            left -= piece.len();
            pieces.extend(piece);
        }
        assert_eq!(pieces, shown, "vectored and plain writes differ");
        shown
    }

    /// Reports what the socket took, for tests that call the driver's verb itself.
    pub fn sent(&mut self, now: Now, n: usize) {
        self.connection.handle_sent(now, n);
        self.bytes_taken += n as u64;
        self.check();
    }

    /// The connection, to look at.
    #[must_use]
    pub fn connection(&self) -> &Connection<Bytes> {
        &self.connection
    }

    /// The version of TLS, if the other end of it is here.
    #[must_use]
    pub fn tls_version(&self) -> Option<rustls::ProtocolVersion> {
        self.tunnel.as_ref()?.client.version()
    }

    /// The one deadline; `None` only once closed.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    /// Why it is closed, if it is.
    #[must_use]
    pub fn closed(&self) -> Option<CloseReason> {
        self.connection.closed()
    }

    /// Is an answer due, or on its way?
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.open.is_some() || self.connection.transmit().is_some()
    }

    /// All reports so far.
    #[must_use]
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// What became of the handshake, once that is known.
    #[must_use]
    pub fn handshake(&self) -> Option<Handshake> {
        self.handshake
    }

    /// The tokens whose tails began to leave since this was asked last.
    pub fn take_tails(&mut self) -> Vec<Token> {
        mem::take(&mut self.tails)
    }

    fn check(&mut self) {
        while let Some(report) = self.connection.poll_report() {
            self.reports.push(report);
        }
        if let Some(handshake) = self.connection.poll_handshake() {
            let before = self.handshake.replace(handshake);
            assert_eq!(before, None, "two verdicts on one handshake, now {handshake:?}");
        }
        let closed = self.connection.closed();
        let has_just_closed = closed.is_some() && self.closed.is_none();
        assert!(self.closed.is_none() || closed == self.closed, "law 7: closed twice or reopened");
        self.closed = closed;
        if !self.is_busy() {
            self.bytes_ahead = 0;
        }
        let kept_max = self.config.head_bytes_max + self.config.body_bytes_max + READ_BYTES_MAX;
        assert!(self.bytes_ahead <= kept_max, "law 5: {} bytes kept", self.bytes_ahead);
        match closed {
            Some(_) => self.check_silence(has_just_closed),
            None => {
                self.check_alive();
                let shown = self.connection.transmit().filter(|_| self.is_tls);
                self.last_words_bytes = shown.map_or(0, |shown| shown.as_slice().len());
                self.was_handshaking = self.connection.is_handshaking();
            }
        }
    }

    fn check_silence(&mut self, has_just_closed: bool) {
        self.check_last_words(has_just_closed);
        assert_eq!(self.connection.poll_timeout(), None, "law 7: a closed connection waits");
        assert!(self.connection.poll_query().is_none(), "law 7: a closed connection asks");
        let reported = self.reports.iter().map(|report| report.bytes_sent).sum::<u64>();
        match (self.is_tls, &self.tunnel) {
            // Of a batch that was cut short, the reports know a share.
            (true, Some(_)) => {
                let differ = reported.abs_diff(self.bytes_taken);
                assert!(differ <= BATCH_BYTES as u64, "law 3: {differ} bytes in no report");
            }
            (true, None) => assert!(reported <= self.bytes_taken, "law 3: more than was taken"),
            (false, _) => {
                assert_eq!(reported, self.bytes_taken, "law 3: every byte sent is in one report");
            }
        }
    }

    /// A closed connection sends nothing; over TLS what was sealed before, and that the end is
    /// meant: not where it could pass for the end of an answer.
    fn check_last_words(&mut self, has_just_closed: bool) {
        let shown = self.connection.transmit().map_or(0, |transmit| transmit.as_slice().len());
        let mut slices = [IoSlice::new(&[]); 2];
        let vectored = self.connection.transmit_vectored(&mut slices);
        assert_eq!(vectored > 0, shown > 0, "law 7: vectored too");
        let is_torn = matches!(
            self.closed,
            Some(CloseReason::Slow | CloseReason::Unclaimed | CloseReason::Torn)
        );
        if !self.is_tls || is_torn || self.is_reset {
            assert_eq!(shown, 0, "law 7: a closed connection sends");
        }
        let fresh_max = match (has_just_closed, self.was_handshaking) {
            (true, true) => FLIGHT_BYTES_MAX,
            (true, false) => ALERT_BYTES_MAX,
            (false, _) => 0,
        };
        assert!(shown <= self.last_words_bytes + fresh_max, "law 7: it finds new words");
        self.last_words_bytes = shown;
        if let Some(tunnel) = self.tunnel.as_ref().filter(|_| shown == 0 && !self.is_reset) {
            let is_meant = tunnel.is_meant_end();
            assert_eq!(is_meant, !is_torn, "an end by {:?}, meant: {is_meant}", self.closed);
        }
    }

    fn check_alive(&self) {
        assert!(self.connection.poll_timeout().is_some(), "law 4: no deadline");
        let Some(transmit) = self.connection.transmit() else { return };
        assert!(!self.connection.wants_shutdown(), "shut down while there is more to send");
        assert!(!transmit.as_slice().is_empty(), "an empty transmit would spin the driver");
        let again = self.connection.transmit().map(|transmit| transmit.as_slice().as_ptr_range());
        assert_eq!(again, Some(transmit.as_slice().as_ptr_range()), "looking changes nothing");
        if let Transmit::Image { image, offset, len } = transmit {
            self.authority.check_image(image, offset, len);
        }
    }

    /// All that a driver can see.
    fn seen(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let shown = self.connection.transmit().map(|transmit| transmit.as_slice().to_vec());
        let wants = (self.connection.wants_read(), self.connection.wants_shutdown());
        (shown, wants, self.connection.poll_timeout(), self.connection.closed())
    }
}

/// What TLS seals at once, and a little more.
const BATCH_BYTES: usize = 18 * 1024;
/// An alert that is encrypted, and before it the answer to new keys.
const ALERT_BYTES_MAX: usize = 64;
/// The end of a handshake, with tickets, and an alert: who has finished may end at once.
const FLIGHT_BYTES_MAX: usize = 2048;

/// What must hold over all connections and servers: at most one tail per token, ever.
#[derive(Debug, Default)]
pub struct Ledger {
    tails: BTreeMap<[u8; 32], u64>,
    /// By token: the servers that it was presented to.
    servers: BTreeMap<[u8; 32], BTreeSet<usize>>,
}

impl Ledger {
    /// Notes that `token` was presented to a server.
    pub fn presented(&mut self, token: Token, server: usize) {
        self.servers.entry(token.0).or_default().insert(server);
    }

    /// Notes that the tail of `token` began to leave on the connection `link`.
    ///
    /// # Panics
    /// If it did so before (law 9).
    pub fn tail_left(&mut self, token: Token, link: u64) {
        let before = self.tails.insert(token.0, link);
        assert_eq!(before, None, "law 9: {token:?} gave its tail twice, now on link {link}");
    }

    /// How many tokens gave their tail.
    #[must_use]
    pub fn tails(&self) -> usize {
        self.tails.len()
    }

    /// How many tokens gave their tail after they had been presented to several servers.
    #[must_use]
    pub fn tails_of_many_servers(&self) -> usize {
        let many = |token| self.servers.get(token).is_some_and(|servers| servers.len() > 1);
        self.tails.keys().filter(|token| many(*token)).count()
    }
}
