//! The way in: accepting, and what happens where there is no room.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use otter_protocol::{Connection, Now};
use otter_store::Store;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::{Throttle, Worker};
use crate::peer::Peer;

/// Where new connections come in.
pub(super) struct Door {
    /// `None` from the order to stop on.
    listener: Option<TcpListener>,
    /// Connections may be waiting.
    ready: bool,
    /// Some resource was lacking: not before.
    paused_until: Option<Instant>,
    pause: Duration,
    log: Throttle,
}

impl Door {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener: Some(listener),
            ready: true,
            paused_until: None,
            pause: Duration::ZERO,
            log: Throttle::default(),
        }
    }

    /// The poll says that somebody is there.
    pub(super) fn knock(&mut self) {
        self.ready = self.paused_until.is_none();
    }

    /// The system refuses who comes now.
    pub(super) fn close(&mut self) {
        self.listener = None;
    }

    /// How long nobody need look here; `None`: until somebody knocks.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        self.listener.as_ref()?;
        if self.ready {
            return Some(Duration::ZERO);
        }
        self.paused_until.map(|until| until.saturating_duration_since(now))
    }

    /// The next connection that waits.
    fn next(&mut self, now: Instant) -> Result<Option<OwnedFd>, Errno> {
        if self.paused_until.is_some_and(|until| until <= now) {
            // No edge tells of those who came before the pause.
            (self.paused_until, self.ready) = (None, true);
        }
        loop {
            let Some(listener) = self.listener.as_ref().filter(|_| self.ready) else {
                return Ok(None);
            };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::accept_with(listener, flags) {
                Ok(socket) => {
                    self.pause = Duration::ZERO;
                    return Ok(Some(socket));
                }
                Err(Errno::AGAIN) => self.ready = false,
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// No descriptor, no memory: trying again at once would only burn the CPU that the peers need
    /// to finish and make room.
    pub(super) fn pause(&mut self, now: Instant, error: &dyn std::fmt::Display) {
        self.ready = false;
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.paused_until = Some(now + self.pause);
        if self.log.allows(now) {
            tracing::warn!(
                %error,
                "cannot accept; raise the limit of open files or lower connections_max"
            );
        }
    }
}

impl<S: Store> Worker<S> {
    pub(super) fn accept(&mut self, now: Now, most: usize) {
        for _ in 0..most {
            match self.door.next(now.instant) {
                Ok(Some(socket)) => self.admit(socket, now),
                Ok(None) => return,
                Err(error) => {
                    self.tally().accept_pauses.add(1);
                    return self.door.pause(now.instant, &error);
                }
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd, now: Now) {
        if self.peers.len() >= self.shared.connections_max && !self.make_room(now) {
            return self.refuse(&socket);
        }
        self.tally().accepted.add(1);
        let connection = Connection::plain(Arc::clone(&self.config), now);
        let slot = self.peers.insert(Peer::new(connection, socket)) as u32;
        self.fresh.push(slot);
        // The request is often there already, and often its answer is all there is to do.
        self.drive(slot, now, |_| {});
    }

    /// Closes a connection that waits for its peer: of a few at a time, going round, the one whose
    /// deadline comes first, which among idle ones is the one that is idle for longest. A list of
    /// all in exact order would cost every connection 8 bytes, and every request an update.
    fn make_room(&mut self, now: Now) -> bool {
        for _ in 0..EVICTION_TRIES {
            let mut oldest: Option<(Instant, usize)> = None;
            for _ in 0..EVICTION_SAMPLE.min(self.peers.capacity()) {
                self.hand = (self.hand + 1) % self.peers.capacity();
                if let Some(peer) = self.peers.get(self.hand)
                    && peer.is_waiting()
                    && let Some(at) = peer.connection.poll_timeout()
                    && oldest.is_none_or(|(first, _)| at < first)
                {
                    oldest = Some((at, self.hand));
                }
            }
            let Some((_, slot)) = oldest else { continue };
            self.drive(slot as u32, now, |peer| peer.finish(now));
            // One that had begun a request is still there, to finish it.
            if !self.peers.contains(slot) {
                self.tally().evicted.add(1);
                return true;
            }
        }
        false
    }

    /// Says 503 once, if the socket takes it, and forgets the peer.
    fn refuse(&mut self, socket: &OwnedFd) {
        self.tally().refused.add(1);
        // What is not read would turn the end into a reset, which can destroy the answer.
        let _ = rustix::net::recv(socket, &mut *self.buffer, RecvFlags::DONTWAIT);
        // A crowd that was refused together should not come back together.
        let base = u64::from(self.config.retry_after_s);
        let retry_after_s = base + self.tally().refused.read() % base.max(1);
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\nRetry-After: {retry_after_s}\r\n\r\n\
             {REFUSAL}",
            REFUSAL.len(),
        );
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::send(socket, answer.as_bytes(), flags);
    }
}

const EVICTION_SAMPLE: usize = 16;
const EVICTION_TRIES: usize = 4;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// What the core says, too.
const REFUSAL: &str = r#"{"success":false,"response":"unavailable"}"#;
