//! The public face of a connection: joins the exchanges in `machine.rs` with TLS beneath them.
//!
//! ```text
//!   handle_input --> [ TLS: opens records ] --> [ exchanges ] --> poll_query
//!   transmit     <-- [ TLS: seals records ] <-- [           ] <-- handle_answer
//! ```
//!
//! Without TLS the bytes pass through untouched. With it what the exchanges have to send is sealed
//! one batch at a time, the next one when the socket has taken the last; and only then do the
//! exchanges learn that it was sent, so that what they promise of a token holds for both.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::buffers::Buffers;
use crate::config::Config;
use crate::legible::{Legible, Read};
use crate::machine::Machine;
use crate::mandate::Mandate;
use crate::now::Now;
use crate::query::{Answer, Query, QueryId};
use crate::report::{CloseReason, Handshake, Report, TlsFailure};
use crate::security::Security;
use crate::tls::{Received, Tls};
use crate::transmit::Transmit;

/// One device's connection, as a pure state machine.
///
/// There are three kinds of methods:
///
/// - `handle_*`: something happened. Call them as it happens, in any order; none can fail.
/// - `poll_*`, [`transmit`](Self::transmit): something to do. Outputs are state, not a queue: an
///   output that is taken late is not lost. Ask for all of them after each `handle_*`.
/// - `wants_*`, [`is_idle`](Self::is_idle), [`closed`](Self::closed): questions.
///
/// ```
/// use std::{sync::Arc, time::Instant};
/// use otter_protocol::{Config, Connection, Now};
///
/// let now = Now { instant: Instant::now(), unix: 1_795_478_791 };
/// let mut connection: Connection = Connection::plain(Arc::new(Config::default()), now);
/// assert!(connection.is_idle());
/// connection.handle_input(now, b"GET / HTTP/1.1\r\nHost: otter\r\nConnection: close\r\n\r\n");
///
/// let answer = connection.transmit().expect("health needs no store").as_slice().to_vec();
/// assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
/// assert!(answer.ends_with(br#"{"healthcheck":true}"#));
/// connection.handle_sent(now, answer.len());
///
/// assert!(connection.wants_shutdown()); // the last answer must not be lost to a reset
/// connection.handle_eof(now);
/// assert!(connection.closed().is_some());
/// ```
pub struct Connection<I = Bytes> {
    machine: Machine<I>,
    beneath: Option<Box<Beneath<I>>>,
}

/// What a connection has beneath HTTP if it has anything.
struct Beneath<I> {
    tls: Tls,
    /// Reads the plaintext of an image.
    read: Read<I>,
    config: Arc<Config>,
    /// What the peer's certificate narrows it to.
    mandate: Option<Box<Mandate>>,
}

impl<I: AsRef<[u8]> + Clone> Connection<I> {
    /// A connection that was just accepted on a socket that is protected so.
    #[must_use]
    pub fn accept(config: Arc<Config>, security: &Security, now: Now) -> Self
    where
        I: Legible,
    {
        match security {
            Security::Plain => Self::plain(config, now),
            #[cfg(feature = "tls")]
            Security::Tls(tls) => Self::tls(config, Arc::clone(tls), now),
        }
    }

    /// A connection that was just accepted, without TLS.
    #[must_use]
    pub fn plain(config: Arc<Config>, now: Now) -> Self {
        Self { machine: Machine::new(config, now), beneath: None }
    }

    /// A connection that was just accepted, with TLS 1.2 or 1.3 as `tls` says (docs/wire.md 2.5).
    ///
    /// Nothing is computed before a whole ClientHello is there. A peer that asks for small records
    /// (max_fragment_length, RFC 6066 4) gets them; its request is not confirmed, except to the
    /// probe of ESP8266 devices. Of the time, rustls asks
    /// [`ServerConfig::time_provider`](rustls::ServerConfig::time_provider); a
    /// [`max_fragment_size`](rustls::ServerConfig::max_fragment_size) that rustls does not take
    /// fails each handshake.
    ///
    /// ```
    /// # use std::{sync::Arc, time::Instant};
    /// # use otter_protocol::{Config, Connection, Now};
    /// # let now = Now { instant: Instant::now(), unix: 1_795_478_791 };
    /// let made = rcgen::generate_simple_self_signed(["otter.example".to_owned()])?;
    /// let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    /// let ring = Arc::new(rustls::crypto::ring::default_provider());
    /// let tls = rustls::ServerConfig::builder_with_provider(ring)
    ///     .with_safe_default_protocol_versions()?
    ///     .with_no_client_auth()
    ///     .with_single_cert(vec![made.cert.into()], key)?;
    /// let mut connection: Connection =
    ///     Connection::tls(Arc::new(Config::default()), Arc::new(tls), now);
    /// assert!(connection.is_handshaking());
    ///
    /// // Who forgets TLS is told so.
    /// connection.handle_input(now, b"GET / HTTP/1.1\r\nHost: otter\r\n\r\n");
    /// let answer = connection.transmit().expect("an answer").as_slice().to_vec();
    /// assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    /// assert!(answer.ends_with(br#"{"success":false,"response":"https_required"}"#));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(config: Arc<Config>, tls: Arc<rustls::ServerConfig>, now: Now) -> Self
    where
        I: Legible,
    {
        let mut machine = Machine::new(Arc::clone(&config), now);
        machine.rest(now.instant + config.handshake_timeout);
        let beneath = Beneath { tls: Tls::new(tls), read: I::read, config, mandate: None };
        Self { machine, beneath: Some(Box::new(beneath)) }
    }

    /// The peer sent these bytes. All of them are taken: what cannot be used yet is kept, at
    /// most a head, a body and one call's bytes if [`wants_read`](Self::wants_read) is respected;
    /// of TLS also the part of one record, or 64 KiB of a handshake message in many records.
    #[inline]
    pub fn handle_input(&mut self, now: Now, bytes: &[u8]) {
        match &self.beneath {
            // After the last answer they are only counted.
            Some(_) if !self.machine.is_ending() => self.receive(now, bytes),
            Some(_) | None => self.machine.handle_input(now, bytes),
        }
    }

    /// Opens the records in the bytes, and hands on what is in them.
    fn receive(&mut self, now: Now, bytes: &[u8]) {
        let machine = &mut self.machine;
        let Some(beneath) = self.beneath.as_deref_mut() else { return };
        let Beneath { tls, config, mandate, .. } = beneath;
        let mut is_http = false;
        tls.receive(bytes, &config.buffers, |received| match received {
            Received::Opened(narrowed) => {
                *mandate = narrowed.map(Box::new);
                machine.rest(now.instant + config.idle_timeout);
            }
            Received::Plain(bytes) => machine.handle_input(now, bytes),
            Received::Eof => machine.handle_eof(now),
            Received::Failed => machine.break_off(now),
            Received::Probed => machine.cut(now, CloseReason::Peer),
            Received::Http => is_http = true,
        });
        if is_http {
            machine.refuse_http(now);
        }
        self.settle(now);
    }

    /// The peer will send nothing more; it may still read.
    pub fn handle_eof(&mut self, now: Now) {
        if let Some(Beneath { tls, .. }) = self.beneath.as_deref_mut()
            && tls.is_handshaking()
        {
            tls.give_up(TlsFailure::Abandoned);
        }
        self.machine.handle_eof(now);
        self.settle(now);
    }

    /// The connection broke (reset, or a write that failed): nothing can be sent any more.
    pub fn handle_reset(&mut self, now: Now) {
        if let Some(Beneath { tls, config, .. }) = self.beneath.as_deref_mut() {
            tls.give_up(TlsFailure::Abandoned);
            tls.silence(&config.buffers);
        }
        self.machine.cut(now, CloseReason::Peer);
    }

    /// The socket took `n` of the bytes that [`transmit`](Self::transmit) or
    /// [`transmit_vectored`](Self::transmit_vectored) showed.
    ///
    /// # Panics
    ///
    /// If `n` is more than was shown: a mistake of the driver's.
    #[inline]
    pub fn handle_sent(&mut self, now: Now, n: usize) {
        match self.beneath.as_deref_mut() {
            Some(Beneath { tls, config, .. }) if !tls.pending().is_empty() => {
                let plain = tls.advance(n, &config.buffers);
                self.machine.handle_sent(now, plain);
                self.settle(now);
            }
            Some(_) | None => self.machine.handle_sent(now, n),
        }
    }

    /// The store answered query `id`. Answers to queries that are no longer open are ignored.
    #[inline]
    pub fn handle_answer(&mut self, now: Now, id: QueryId, answer: Answer<I>) {
        // Answers are large: they are moved once where there is nothing to narrow.
        match self.beneath.as_ref().and_then(|beneath| beneath.mandate.as_ref()) {
            Some(mandate) => self.machine.handle_answer(now, id, mandate.narrow(answer)),
            None => self.machine.handle_answer(now, id, answer),
        }
        self.settle(now);
    }

    /// The deadline of [`poll_timeout`](Self::poll_timeout) has come; calls before it are ignored.
    pub fn handle_timeout(&mut self, now: Now) {
        match self.beneath.as_deref_mut() {
            Some(Beneath { tls, .. })
                if tls.is_handshaking() && self.machine.poll_timeout() <= Some(now.instant) =>
            {
                tls.give_up(TlsFailure::TimedOut);
                self.machine.cut(now, CloseReason::Tls);
            }
            Some(_) | None => self.machine.handle_timeout(now),
        }
        self.settle(now);
    }

    /// Finish what is under way, then close. An idle connection closes at once.
    pub fn handle_shutdown(&mut self, now: Now) {
        self.machine.handle_shutdown(now);
        self.settle(now);
    }

    /// A question for the store, once. At most one is open at a time; its answer goes to
    /// [`handle_answer`](Self::handle_answer).
    ///
    /// A connection whose client certificate names an owner or a device asks about these only
    /// (docs/tls.md); whoever else it speaks for is refused as if the key were wrong.
    #[inline]
    pub fn poll_query(&mut self) -> Option<(QueryId, Query)> {
        self.machine.poll_query()
    }

    /// What to write next; the same until [`handle_sent`](Self::handle_sent).
    #[inline]
    pub fn transmit(&self) -> Option<Transmit<'_, I>> {
        let Some(bytes) = self.sealed() else { return self.machine.transmit() };
        let owed = self.beneath.as_ref().map_or(0, |beneath| beneath.tls.owed());
        let more = self.machine.outgoing_len() > owed;
        (!bytes.is_empty()).then_some(Transmit::Bytes { bytes, more })
    }

    /// What to write next as slices for one `writev`: head and image together. Returns how many
    /// of `slices` were filled.
    pub fn transmit_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match (self.sealed(), slices) {
            (Some([]), _) | (Some(_), []) => 0,
            (Some(bytes), [first, ..]) => {
                *first = IoSlice::new(bytes);
                1
            }
            (None, slices) => self.machine.transmit_vectored(slices),
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout). `None` only once closed.
    #[must_use]
    #[inline]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    /// What became of the request that ended last, once. Ask after each `handle_*`: the report
    /// waits only until another request ends.
    #[inline]
    pub fn poll_report(&mut self) -> Option<Report> {
        self.machine.poll_report()
    }

    /// What became of the TLS handshake, once. Always `None` without TLS.
    #[inline]
    pub fn poll_handshake(&mut self) -> Option<Handshake> {
        self.beneath.as_mut()?.tls.poll_handshake()
    }

    /// Is the peer to be read from? The only backpressure there is: while an answer is due, what
    /// the peer sends may wait in its socket.
    #[must_use]
    #[inline]
    pub fn wants_read(&self) -> bool {
        self.machine.wants_read()
    }

    /// Is what the peer sends next part of a TLS handshake? To take it in may cost as much as a
    /// hundred requests, so a driver lets those wait that have only just come: it reads from them
    /// after all others, and from few at a time.
    #[must_use]
    #[inline]
    pub fn is_handshaking(&self) -> bool {
        self.beneath.as_ref().is_some_and(|beneath| beneath.tls.is_handshaking())
    }

    /// All answers have left: shut down the sending side of the socket (`shutdown(WR)`), once,
    /// and go on reading until [`closed`](Self::closed), so that bytes of the peer's that are
    /// still on their way cannot reset the last answer away (docs/wire.md 2.2, rule 7).
    #[must_use]
    #[inline]
    pub fn wants_shutdown(&self) -> bool {
        self.machine.wants_shutdown() && self.sealed().is_none_or(<[u8]>::is_empty)
    }

    /// Has nothing of a request arrived (line ends are nothing), and is nothing owed? Only then
    /// [`handle_shutdown`](Self::handle_shutdown) closes it at once: to make room, say.
    #[must_use]
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.machine.is_idle()
    }

    /// Is it over, and why? Nothing is emitted any more but the last report; with TLS, what
    /// [`transmit`](Self::transmit) still shows is worth one try: it tells the peer that the end is
    /// meant.
    #[must_use]
    #[inline]
    pub fn closed(&self) -> Option<CloseReason> {
        self.machine.closed()
    }

    /// What TLS has to send. `None`: there is no TLS, or HTTP was spoken instead.
    fn sealed(&self) -> Option<&[u8]> {
        let tls = &self.beneath.as_ref()?.tls;
        let pending = tls.pending();
        let is_plain = pending.is_empty() && !tls.is_open() && self.machine.transmit().is_some();
        (!is_plain).then_some(pending)
    }

    /// Refuses what the peer's certificate does not cover, and seals what there is to send, once
    /// the socket has taken what was sealed before.
    #[inline]
    fn settle(&mut self, now: Now) {
        if self.beneath.is_some() {
            self.settle_beneath(now);
        }
    }

    fn settle_beneath(&mut self, now: Now) {
        let Some(beneath) = self.beneath.as_deref_mut() else { return };
        let Beneath { tls, read, config, mandate } = beneath;
        if let Some(mandate) = mandate
            && let Some((id, query)) = self.machine.open_query()
            && let Some(answer) = mandate.refuse(query)
        {
            self.machine.handle_answer(now, id, answer);
        }
        let buffers = &config.buffers;
        match self.machine.closed() {
            None if self.machine.is_ending() => {
                tls.disown();
                tls.finish(buffers);
            }
            None if tls.is_open() && tls.pending().is_empty() => {
                if let Err(reason) = seal(tls, &self.machine, *read, buffers) {
                    tls.silence(buffers);
                    self.machine.cut(now, reason);
                }
            }
            None => {}
            // What has left so far must not pass for the whole.
            Some(CloseReason::Slow | CloseReason::Unclaimed | CloseReason::Torn) => {
                tls.silence(buffers);
            }
            Some(_) => {
                tls.disown();
                tls.finish(buffers);
            }
        }
    }
}

/// Seals one batch of what is to be sent next. Fails with why it cannot be had.
fn seal<I: AsRef<[u8]> + Clone>(
    tls: &mut Tls,
    machine: &Machine<I>,
    read: Read<I>,
    buffers: &Buffers,
) -> Result<(), CloseReason> {
    let (bytes, image) = machine.outgoing();
    if !bytes.is_empty() {
        tls.seal(bytes, buffers).ok_or(CloseReason::Tls)?;
    }
    let Some((image, mut offset, end)) = image else { return Ok(()) };
    let mut memory = buffers.take();
    let mut sealed = Ok(());
    while sealed.is_ok() && offset < end && tls.pending().len() < BATCH_BYTES {
        let left = usize::try_from(end - offset).unwrap_or(RECORD_BYTES);
        let plain = read(image, offset, &mut memory[..left.min(RECORD_BYTES)]).unwrap_or_default();
        offset += plain.len() as u64;
        sealed = match plain {
            [] => Err(CloseReason::Torn),
            plain => tls.seal(plain, buffers).ok_or(CloseReason::Tls),
        };
    }
    buffers.put(memory);
    sealed
}

impl<I> std::fmt::Debug for Connection<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("state", &self.machine.state()).finish_non_exhaustive()
    }
}

/// The plaintext of a whole record.
const RECORD_BYTES: usize = 16 * 1024;
/// Once so many bytes of ciphertext wait, no further record is sealed.
const BATCH_BYTES: usize = 16 * 1024;
