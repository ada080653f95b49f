//! One peer: a socket and the connection of the core behind it.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use otter_protocol::{CloseReason, Connection, Now, QueryId, Transmit};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};

use crate::Options;
use crate::worker::Desk;

/// One peer. A server has as many of them as it has connections, most of them idle, so each byte
/// here counts a hundred thousand times: 16 bytes beside the core's connection.
pub(crate) struct Peer<I> {
    pub(crate) connection: Connection<I>,
    pub(crate) socket: TcpStream,
    /// Of the query that was asked last; every query of a worker has another one.
    /// 0: it was answered, or there was none.
    pub(crate) serial: u32,
    pub(crate) query: QueryId,
    /// When it was asked, in quarters of a millisecond.
    pub(crate) asked_at: u16,
    flags: u16,
}

/// What peers need of their worker.
pub(crate) struct Scope {
    /// This turn.
    pub(crate) now: Now,
    /// From the start to this turn, in quarters of a millisecond; starts over every 16 s.
    pub(crate) quarter_ms: u16,
    /// Bytes that the peer whose turn it is may still move.
    pub(crate) budget: usize,
    /// Where everything is read into: nothing is kept while a peer is idle.
    pub(crate) buffer: Vec<u8>,
    pub(crate) options: Options,
    pub(crate) desk: Arc<Desk>,
}

/// The socket may have something to read.
const READABLE: u16 = 1;
/// The socket may take something.
const WRITABLE: u16 = 2;
/// The peer has closed its side: read until the end, no further edge will come.
const ENDED: u16 = 4;
/// The socket is broken.
const FAILED: u16 = 8;
/// The sending side is shut down.
const SHUT: u16 = 16;
/// It waits for its turn to go on with its handshake.
const WAITING: u16 = 32;
/// The poll tells of it.
const WATCHED: u16 = 64;

impl<I: AsRef<[u8]> + Clone> Peer<I> {
    /// A socket that was just accepted: worth a try in both directions.
    pub(crate) fn new(connection: Connection<I>, socket: TcpStream) -> Self {
        let flags = READABLE | WRITABLE;
        Self { connection, socket, serial: 0, query: QueryId(0), asked_at: 0, flags }
    }

    /// The poll has seen something.
    pub(crate) fn note(&mut self, event: &Event) {
        self.flags |= (READABLE * u16::from(event.is_readable()))
            | (WRITABLE * u16::from(event.is_writable()))
            | ((READABLE | ENDED) * u16::from(event.is_read_closed()))
            | (FAILED * u16::from(event.is_error()));
    }

    /// The poll tells of it from now on.
    pub(crate) fn watched(&mut self) {
        self.flags |= WATCHED;
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.flags & WATCHED != 0
    }

    /// Has it been told everything, and will the poll not tell of its end?
    pub(crate) fn leaves_unwatched(&self) -> bool {
        self.flags & (WATCHED | SHUT) == SHUT
    }

    /// Has it sent a part of a request?
    pub(crate) fn is_midway(&self) -> bool {
        let connection = &self.connection;
        connection.wants_read() && !connection.is_idle() && self.flags & SHUT == 0
    }

    /// Its end may have come.
    pub(crate) fn look(&mut self, _: Now) {
        self.flags |= READABLE;
    }

    /// Must it wait, because what it sent costs much and others are to have their turn first? True
    /// once, until [`Peer::call`].
    pub(crate) fn queues(&mut self) -> Option<bool> {
        let waits = self.connection.is_handshaking() && self.flags & FAILED == 0;
        let is_new = self.flags & WAITING == 0;
        self.flags |= WAITING * u16::from(waits);
        waits.then_some(is_new)
    }

    /// Its turn has come.
    pub(crate) fn call(&mut self) {
        self.flags &= !WAITING;
    }

    /// Moves bytes until nothing moves any more. True: only the budget is used up.
    ///
    /// # Errors
    /// The socket failed or the image is gone: there is no use in going on.
    pub(crate) fn turn(&mut self, scope: &mut Scope) -> Result<bool, Errno> {
        if self.flags & FAILED != 0 {
            return Err(Errno::CONNRESET);
        }
        while self.write(scope)? || self.read(scope)? {
            if scope.budget == 0 {
                return Ok(true);
            }
        }
        if self.flags & SHUT == 0 && self.connection.wants_shutdown() {
            self.flags |= SHUT;
            // Of a peer that is gone already, the next read tells.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        Ok(false)
    }

    /// The deadline of the connection has come.
    pub(crate) fn expire(&mut self, now: Now) {
        self.connection.handle_timeout(now);
        if self.connection.closed() == Some(CloseReason::Slow) {
            self.abort();
        }
    }

    /// Makes the socket's end a reset: what still waits in the kernel for a peer that does not
    /// take it is freed at once, and cannot pass for the whole answer.
    pub(crate) fn abort(&self) {
        // Without it the end is a slower one.
        let _ = sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }

    /// Hands on what became of the request that ended last, and of the handshake.
    pub(crate) fn report(&mut self, scope: &Scope) {
        if let Some(handshake) = self.connection.poll_handshake() {
            scope.desk.tally.handshake(handshake);
        }
        while let Some(report) = self.connection.poll_report() {
            scope.desk.tally.request(&report);
            if let Some(on_report) = &scope.options.on_report {
                on_report(&report, self.socket.peer_addr().ok());
            }
        }
    }

    /// Writes the next bytes. False: there are none, or the socket is full.
    ///
    /// An image leaves straight from its mapping, by `send`, not by `sendfile`: one way for every
    /// kind of image, and no slower. CPU of the server's thread per GiB, 8 loopback connections,
    /// `SO_SNDBUF` 64 KiB, medians over 15 rounds of `examples/image_write.rs` (quartiles in
    /// brackets):
    ///
    /// | image | `sendfile` | `send` | ratio in the same round |
    /// |---|---|---|---|
    /// | 1 MiB | 0.198 s (0.195..0.201) | 0.171 s (0.162..0.180) | 0.89 (0.79..0.94) |
    /// | 64 KiB | 0.229 s (0.223..0.233) | 0.236 s (0.229..0.242) | 1.04 (0.99..1.06) |
    ///
    /// With 128 or 256 KiB the ratios are 1.00 and 0.80 (1 MiB). Asking once more after a short
    /// count, as here, costs 4 % of it for large images. What `sendfile` would save is memory: a
    /// peer that does not read pins 110 to 120 KiB of copies, against 45 to 90 KiB of references to
    /// pages.
    ///
    /// If the file is cut short under its mapping, `send` stops where it ends and says `EFAULT`
    /// next: nothing faults in user space, which never touches the bytes. A mapping reads as zeros
    /// from its file's new end to the end of the page; the store's look at the file before a claim
    /// finds that.
    fn write(&mut self, scope: &mut Scope) -> Result<bool, Errno> {
        let next = self.connection.transmit().filter(|_| self.flags & WRITABLE != 0);
        let Some(transmit) = next else { return Ok(false) };
        let bytes = transmit.as_slice();
        let bytes = &bytes[..bytes.len().min(scope.budget)];
        if bytes.is_empty() {
            // The image shrank: the same as if it were a mapping of a truncated file.
            return Err(Errno::FAULT);
        }
        let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, matches!(transmit, Transmit::Bytes { more: true, .. }));
        match rustix::net::send(&self.socket, bytes, flags) {
            Err(Errno::AGAIN) => self.flags &= !WRITABLE,
            sent => {
                let n = sent?;
                // What is left of memory waits for room. Of an image it may also be that the rest
                // is gone, of which no edge will tell: only another try does.
                if n < bytes.len() && matches!(transmit, Transmit::Bytes { .. }) {
                    self.flags &= !WRITABLE;
                }
                scope.budget -= n;
                scope.desk.tally.bytes_sent.add(n as u64);
                self.connection.handle_sent(scope.now, n);
                // The next pipelined request may end in this turn, too.
                self.report(scope);
            }
        }
        Ok(true)
    }

    /// Reads what is there. False: nothing is wanted, or nothing there.
    fn read(&mut self, scope: &mut Scope) -> Result<bool, Errno> {
        if self.flags & READABLE == 0 || !self.connection.wants_read() {
            return Ok(false);
        }
        match rustix::net::recv(&self.socket, &mut *scope.buffer, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => self.flags &= !READABLE,
            received => {
                let (_, n) = received?;
                // There was no more than that, so the next bytes come with an edge; but if the end
                // has come already, its edge was the last one.
                if n == 0 || n < scope.buffer.len() && self.flags & ENDED == 0 {
                    self.flags &= !READABLE;
                }
                scope.budget = scope.budget.saturating_sub(n);
                scope.desk.tally.bytes_received.add(n as u64);
                match n {
                    0 => self.connection.handle_eof(scope.now),
                    n => self.connection.handle_input(scope.now, &scope.buffer[..n]),
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_sixteen_bytes_larger_than_its_connection() {
        assert_eq!(size_of::<Peer<Vec<u8>>>(), size_of::<Connection<Vec<u8>>>() + 16);
        let in_the_table = size_of::<Option<Peer<Vec<u8>>>>();
        assert_eq!(in_the_table, size_of::<Peer<Vec<u8>>>(), "an empty slot needs no mark");
    }
}
