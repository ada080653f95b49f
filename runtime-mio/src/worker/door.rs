//! The way in: accepting, and what happens where there is no room.

use std::fmt::Display;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use otter_protocol::{Connection, Now};
use otter_store::Store;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::Worker;
use crate::peer::Peer;

impl<S: Store> Worker<S> {
    /// Accepts until nobody is left, or so many.
    pub(super) fn accept(&mut self, now: Now, most: usize) {
        for _ in 0..most {
            let is_time = self.accept_at.is_some_and(|at| at <= now.instant);
            let Some(listener) = self.seat.listener.as_ref().filter(|_| is_time) else { return };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::accept_with(listener, flags) {
                Ok(socket) => self.admit(socket.into(), now),
                Err(Errno::AGAIN) => self.accept_at = None,
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                Err(error) => self.pause(now, &error),
            }
        }
    }

    /// No descriptor, no memory: trying again at once would only burn the CPU that the peers need
    /// to finish and make room. No edge tells of those who wait already, so the pause has an end.
    pub(super) fn pause(&mut self, now: Now, error: &dyn Display) {
        self.accept_at = Some(now.instant + PAUSE);
        self.tally().accept_pauses.add(1);
        tracing::warn!(%error, "cannot accept; raise the limit of open files or lower connections_max");
    }

    fn admit(&mut self, socket: TcpStream, now: Now) {
        if self.peers.len() >= self.options.connections_max && !self.make_room(now) {
            return self.refuse(&socket);
        }
        self.tally().accepted.add(1);
        let connection = Connection::plain(Arc::clone(&self.options.config), now);
        let slot = self.peers.insert(Peer::new(connection, socket)) as u32;
        self.untold.push(slot);
        // The request is often there already, and often its answer is all there is to do.
        self.drive(slot, now, |_| {});
    }

    /// Closes a connection that waits for its peer: of a few at a time, going round, the one whose
    /// deadline comes first, which among idle ones is the one that is idle for longest. A list of
    /// all in exact order would cost every connection 8 bytes, and every request an update.
    fn make_room(&mut self, now: Now) -> bool {
        for _ in 0..EVICTION_TRIES {
            let sample = (0..EVICTION_SAMPLE.min(self.peers.capacity())).filter_map(|_| {
                self.hand = (self.hand + 1) % self.peers.capacity();
                let peer = self.peers.get(self.hand).filter(|peer| peer.is_waiting())?;
                Some((peer.connection.poll_timeout()?, self.hand))
            });
            let Some((_, slot)) = sample.min() else { continue };
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
    fn refuse(&mut self, socket: &TcpStream) {
        self.tally().refused.add(1);
        // What is not read would turn the end into a reset, which can destroy the answer.
        let _ = rustix::net::recv(socket, &mut *self.buffer, RecvFlags::DONTWAIT);
        // A crowd that was refused together should not come back together.
        let base = u64::from(self.options.config.retry_after_s);
        let retry_after_s = base + self.tally().refused.read() % base.max(1);
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\nRetry-After: {retry_after_s}\r\n\r\n{BODY}",
            BODY.len(),
        );
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::send(socket, answer.as_bytes(), flags);
    }
}

const EVICTION_SAMPLE: usize = 16;
const EVICTION_TRIES: usize = 4;
/// Also how often the log may say so.
const PAUSE: Duration = Duration::from_millis(250);
/// Of a refusal: what the core says, too.
const BODY: &str = r#"{"success":false,"response":"unavailable"}"#;
