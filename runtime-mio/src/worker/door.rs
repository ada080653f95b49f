//! The way in: accepting, and what happens where there is no room.

use std::fmt::Display;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use otter_protocol::Connection;
use otter_store::Store;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::Worker;
use crate::peer::Peer;

impl<S: Store> Worker<S> {
    /// Accepts until nobody is left, or so many.
    pub(super) fn accept(&mut self, most: usize) {
        for _ in 0..most {
            let is_time = self.accept_at.is_some_and(|at| at <= self.now());
            let Some(listener) = self.listener.as_ref().filter(|_| is_time) else { return };
            match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
                Ok(socket) => self.admit(socket.into()),
                Err(Errno::AGAIN) => self.accept_at = None,
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                Err(error) => self.pause(&error),
            }
        }
    }

    /// No descriptor, no memory: trying again at once would only burn the CPU that the peers need
    /// to finish and make room. No edge tells of those who wait already, so the pause has an end.
    pub(super) fn pause(&mut self, error: &dyn Display) {
        self.accept_at = Some(self.now() + PAUSE);
        self.scope.desk.tally.accept_pauses.add(1);
        tracing::warn!(%error, "cannot accept; raise the limit of open files or lower connections_max");
    }

    fn admit(&mut self, socket: TcpStream) {
        if self.peers.len() >= self.scope.options.connections_max && !self.make_room() {
            return self.refuse(&socket);
        }
        self.scope.desk.tally.accepted.add(1);
        let connection = Connection::plain(Arc::clone(&self.scope.options.config), self.scope.now);
        let slot = self.peers.insert(Peer::new(connection, socket)) as u32;
        self.untold.push(slot);
        // The request is often there already, and often its answer is all there is to do.
        self.drive(slot, |_, _| {});
    }

    /// Closes a connection that waits for its peer: going round, the next one that has not begun a
    /// request; those that have are told to close after it. An exact order of all, to close the one
    /// that is idle for longest, would cost every connection 8 bytes, and every request an update.
    fn make_room(&mut self) -> bool {
        let is_gone = (0..EVICTION_TRIES).any(|_| {
            // As many as there may be: no slot before the last one is free.
            self.hand = (self.hand + 1) % self.peers.len();
            let is_waiting = self.peers[self.hand].connection.wants_read();
            if is_waiting {
                self.drive(self.hand as u32, |peer, now| peer.connection.handle_shutdown(now));
            }
            !self.peers.contains(self.hand)
        });
        self.scope.desk.tally.evicted.add(is_gone.into());
        is_gone
    }

    /// Says 503 once, if the socket takes it, and forgets the peer.
    fn refuse(&mut self, socket: &TcpStream) {
        self.scope.desk.tally.refused.add(1);
        // What is not read would turn the end into a reset, which can destroy the answer.
        let _ = rustix::net::recv(socket, &mut *self.scope.buffer, RecvFlags::DONTWAIT);
        // A crowd that was refused together should not come back together.
        let base = u64::from(self.scope.options.config.retry_after_s);
        let retry_after_s = base + self.scope.desk.tally.refused.read() % base.max(1);
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\nRetry-After: {retry_after_s}\r\n\r\n{BODY}",
            BODY.len(),
        );
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::send(socket, answer.as_bytes(), flags);
    }
}

const EVICTION_TRIES: usize = 64;
/// Also how often the log may say so.
const PAUSE: Duration = Duration::from_millis(250);
/// Of a refusal: what the core says, too.
const BODY: &str = r#"{"success":false,"response":"unavailable"}"#;
